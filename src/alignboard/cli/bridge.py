"""`alignboard bridge`: official scores estimated from a new judge's."""

from __future__ import annotations

from pathlib import Path

import click

from alignboard.cli.options import FILE, json_option, results_option
from alignboard.cli.shared import write_json
from alignboard.errors import InputError
from alignboard.workspace import PUBLISHED


@click.command(epilog="Example: alignboard bridge alpaca_eval_gpt4 --model phi-2-dpo")
@click.argument("new")
@click.option(
    "--official",
    type=click.Choice(PUBLISHED),
    default=PUBLISHED[0],
    show_default=True,
    help="The suite whose own judge is the official one.",
)
@click.option(
    "--metric",
    type=click.Choice(["win_rate", "lc"]),
    default="win_rate",
    show_default=True,
    help="The official score that is estimated; lc = length-controlled.",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME",
    help="Only this model (may be given again); one with an official score is estimated from the others.",
)
@results_option("A results folder with annotations by NEW: <model>/<annotator>/annotations.json.")
@click.option(
    "--people",
    type=FILE,
    metavar="FILE",
    help="Estimate people's ratings in place of official scores: a csv with Model and a rating such as Arena Elo.",
)
@click.option(
    "--column",
    metavar="TITLE",
    help="The column of ratings in --people (default: the first with Elo in its title).",
)
@json_option
def bridge(
    new: str,
    official: str,
    metric: str,
    models: tuple[str, ...],
    results: Path | None,
    people: Path | None,
    column: str | None,
    json_file: Path | None,
) -> None:
    """Estimate official scores from those of the judge NEW, with 95 % prediction intervals.

    NEW is a published board (alpaca_eval_gpt4, claude, ...), a csv file with the columns name, win_rate and where known
    standard_error, length_controlled_winrate, avg_length, or with --from an annotator of that folder. At least eight
    models must have scores of both judges; every one of them is first estimated from the others. With --people the
    scores of NEW (--metric) are mapped to people's ratings, and nothing is estimated outside of the range of the models
    that people rated.
    """
    from contextlib import nullcontext

    from alignboard.published.bridge.boards import new_board
    from alignboard.published.bridge.people import human_report, human_text
    from alignboard.published.bridge.report import bridge_report
    from alignboard.published.bridge.text import bridge_text
    from alignboard.results.folder import ResultsFolder
    from alignboard.suites import load_suite

    suites = {name: load_suite(name) for name in PUBLISHED}
    if column is not None and people is None:
        raise InputError("--column is the title of a column of --people FILE; give both.")
    with nullcontext() if results is None else ResultsFolder(results) as folder:
        if people is not None:
            own = new_board(new, list(suites.values()), folder, suites[official].n_instructions)
            found = human_report(own, people, column, metric, models)
            write_json(json_file, found)
            print(human_text(found))
            return
        report = bridge_report(
            new,
            suites[official],
            list(suites.values()),
            folder=folder,
            metric="lc" if metric == "lc" else "win_rate",
            models=models,
        )
    write_json(json_file, report.to_json())
    print(bridge_text(report))
