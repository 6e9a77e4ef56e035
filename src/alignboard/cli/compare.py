"""`alignboard compare`: paired differences of models on shared prompts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from alignboard.cli.shared import json_option, write_json
from alignboard.errors import InputError

if TYPE_CHECKING:
    from alignboard.published.calibration import Calibration
    from alignboard.records import Annotations, TextId
    from alignboard.reports.comparison import Correction

EXIT_NOTHING_SHARED = 3
_LENGTH_CONTROLLED = "alpaca-eval-2"


@click.command(
    epilog="Example: alignboard compare results/a/pairrm/annotations.json results/b/pairrm/annotations.json"
)
@click.argument("models", nargs=-1, required=True)
@click.option(
    "--from",
    "results",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="A results folder; MODELS are then names of models in it.",
)
@click.option("--judge", metavar="NAME", help="The annotator whose verdicts are compared.")
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
@json_option
def compare(
    models: tuple[str, ...],
    results: Path | None,
    judge: str | None,
    assets: Path | None,
    correction: Correction,
    *,
    all_pairs: bool,
    json_file: Path | None,
) -> None:
    """Compare the first of MODELS with the others on the prompts that both have.

    MODELS are annotations files of one judge, or names of models in --from DIR with --judge NAME. Exit code 3 where
    no pair has a prompt in common.
    """
    from alignboard.reports.comparison import compare_annotations, comparison_table

    if len(set(models)) < len(models):
        raise InputError("A model is named twice; name each of MODELS once.")
    tables, calibration = _read(models, results, judge, assets)
    rows = compare_annotations(
        tables, calibration=calibration, correction=correction, all_pairs=all_pairs
    )
    if json_file is not None:
        content = {"correction": correction, "pairs": [row.to_json() for row in rows]}
        write_json(json_file, content)
    print(comparison_table(rows, correction))
    if not any(row.found.n for row in rows if row.quantity == "win_rate"):
        print("alignboard: the models have no scored prompt in common.", file=sys.stderr)
        sys.exit(EXIT_NOTHING_SHARED)


def _read(
    models: tuple[str, ...], results: Path | None, judge: str | None, assets: Path | None
) -> tuple[dict[str, Annotations], tuple[TextId, Calibration] | None]:
    """The models' annotations, and with ``assets`` the reference set and the calibration."""
    from alignboard.published.calibration import read_calibration
    from alignboard.published.reproduce import reference_set
    from alignboard.results.folder import ResultsFolder
    from alignboard.results.formats import read_annotations
    from alignboard.suites import load_suite
    from alignboard.workspace import model_name

    if (results is None) != (judge is None):
        raise InputError("--from DIR and --judge NAME go together; without both, MODELS are files.")
    if results is not None and judge is not None:
        with ResultsFolder(results) as folder:
            tables = folder.tables([model_name(name) for name in models], judge)
            if assets is None:
                return tables, None
            reference = reference_set(folder, load_suite(_LENGTH_CONTROLLED), tables)
            return tables, (reference, read_calibration(assets))
    if assets is not None:
        raise InputError("--assets needs --from DIR, where the order of the instructions is known.")
    read = [read_annotations(Path(path)) for path in models]
    names = [table.generator for table in read]
    tables = dict(zip(names if len(set(names)) == len(names) else models, read, strict=True))
    return tables, None
