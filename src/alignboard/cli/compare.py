"""`alignboard compare`: paired differences of models on shared prompts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from alignboard.cli.shared import json_option, write_json

if TYPE_CHECKING:
    from alignboard.reports.comparison import Correction

EXIT_NOTHING_SHARED = 3
_FILE = click.Path(path_type=Path, dir_okay=False)
_CLUSTER = (
    "A column of the annotations, or a field of the task's documents: rows with the same value (a conversation, a "
    "passage) are dependent (default for lm-eval: a passage or subject that documents share)."
)
_MARGIN = "Percentage points below which two models count as equivalent; adds two one-sided tests."
_ANY_PROMPT = (
    "Allow prompts of lm-eval that differ between models, such as each in its own chat template."
)


@click.command(
    epilog="Example: alignboard compare my-dpo my-simpo --from results --judge hardened-pair"
)
@click.argument("models", nargs=-1, required=True)
@click.option(
    "--from",
    "results",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="A results folder; MODELS are then names of models in it.",
)
@click.option("--judge", metavar="NAME", help="The judge whose verdicts are compared.")
@click.option(
    "--suite",
    metavar="NAME",
    help="The suite whose benchmarks are compared; a published suite stands for its judge.",
)
@click.option(
    "--set", "set_name", metavar="NAME", help="The instruction set, where there are several."
)
@click.option("--baseline", metavar="NAME", help="The baseline, where there are several.")
@click.option(
    "--assets",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of df_gamed.csv and instruction_difficulty.csv: adds length-controlled win rates.",
)
@click.option(
    "--correction",
    type=click.Choice(["holm", "maxt", "bh", "none"]),
    default="holm",
    show_default=True,
    help="Correction of the p-values for the number of pairs.",
)
@click.option(
    "--all-pairs", is_flag=True, help="Compare all pairs, not only the first model with the others."
)
@click.option("--cluster", metavar="FIELD", help=_CLUSTER)
@click.option("--margin", type=float, metavar="POINTS", help=_MARGIN)
@click.option("--any-prompt", is_flag=True, help=_ANY_PROMPT)
@click.option(
    "--csv", "csv_file", type=_FILE, metavar="FILE", help="Write the pairs as CSV to FILE."
)
@click.option(
    "--latex", "latex_file", type=_FILE, metavar="FILE", help="Write the pairs as LaTeX to FILE."
)
@json_option
def compare(
    models: tuple[str, ...],
    results: Path | None,
    judge: str | None,
    suite: str | None,
    set_name: str | None,
    baseline: str | None,
    assets: Path | None,
    correction: Correction,
    *,
    all_pairs: bool,
    cluster: str | None,
    margin: float | None,
    any_prompt: bool,
    csv_file: Path | None,
    latex_file: Path | None,
    json_file: Path | None,
) -> None:
    """Compare the first of MODELS with the others on the prompts that both have.

    MODELS are names of models in --from DIR with --judge NAME or --suite NAME; or annotations files of one judge; or
    samples files or output folders of lm-eval. Exit code 3 where no pair has a prompt in common.
    """
    from alignboard.reports import compare as compared
    from alignboard.reports.comparison_text import to_csv, to_latex, to_text
    from alignboard.results.files import write_atomically

    found = compared.compare(
        *models,
        results=results,
        judge=judge,
        suite=suite,
        set_name=set_name,
        baseline=baseline,
        assets=assets,
        cluster=cluster,
        correction=correction,
        margin=None if margin is None else margin / 100,
        all_pairs=all_pairs,
        any_prompt=any_prompt,
    )
    if json_file is not None:
        write_json(json_file, found.to_json())
    for path, text in ((csv_file, to_csv), (latex_file, to_latex)):
        if path is not None:
            write_atomically(path, text(found).encode())
    print(to_text(found))
    if not found.shared:
        print("alignboard: the models have no scored prompt in common.", file=sys.stderr)
        sys.exit(EXIT_NOTHING_SHARED)
