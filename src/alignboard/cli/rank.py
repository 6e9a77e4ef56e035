"""`alignboard rank`: ratings of models from comparisons in files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from alignboard.cli.options import READABLE_FILE, json_option
from alignboard.cli.shared import write_json
from alignboard.errors import InputError

if TYPE_CHECKING:
    from alignboard.reports.strengths import Method

EXIT_NOT_IDENTIFIED = 3
_METHOD = (
    "bt: Bradley-Terry, a draw is half a win. davidson, rao-kupper: draws as an outcome, intervals that take rows for "
    "independent. judge-aware: every judge with a sharpness of its own. elo, win-rate, eigenvector: no intervals."
)


@click.command(epilog="Example: alignboard rank battles.parquet --style --json -")
@click.argument("battles", nargs=-1, required=True, type=READABLE_FILE)
@click.option(
    "--method",
    type=click.Choice(
        ["bt", "davidson", "rao-kupper", "judge-aware", "elo", "win-rate", "eigenvector"]
    ),
    default="bt",
    show_default=True,
    help=_METHOD,
)
@click.option(
    "--cluster",
    multiple=True,
    metavar="FIELD",
    help="Rows with the same value are dependent; give it twice for prompts and annotators (default: the prompt). Goes "
    "with --method bt or judge-aware.",
)
@click.option(
    "--prior",
    metavar="none|normal:SD",
    default="none",
    show_default=True,
    help="Prior on log-strengths; with one, an undefeated model has a rating.",
)
@click.option(
    "--style",
    is_flag=True,
    help="Take out differences of length and style (fields NAME_a, NAME_b), and the place shown (field position).",
)
@json_option
def rank(
    battles: tuple[Path, ...],
    method: Method,
    cluster: tuple[str, ...],
    prior: str,
    *,
    style: bool,
    json_file: Path | None,
) -> None:
    """Rate and rank the models that BATTLES compare.

    BATTLES are csv, jsonl, json or parquet files of model_a, model_b, winner (model_a, model_b, tie, both_bad, or a
    share) and, where known, prompt_id, annotator, judge, weight, position, length_a, length_b; or verdicts of
    AlpacaEval, FastChat or Arena-Hard. Exit code 3 where the comparisons identify no rating.
    """
    from alignboard.reports import rank as ranking
    from alignboard.reports.rank_text import to_text

    report = ranking.rank(
        *battles, method=method, cluster=cluster, prior_sd=_prior(prior), style=style
    )
    write_json(json_file, report)
    print(to_text(report))
    if report.status == "not identified":
        print("alignboard: the comparisons identify no rating.", file=sys.stderr)
        sys.exit(EXIT_NOT_IDENTIFIED)


def _prior(text: str) -> float | None:
    if text == "none":
        return None
    kind, _, sd = text.partition(":")
    try:
        value = float(sd)
    except ValueError:
        value = 0.0
    if kind != "normal" or not 0 < value < float("inf"):
        raise InputError(f"--prior {text}: give none, or normal:SD with a number above 0.")
    return value
