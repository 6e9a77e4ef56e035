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
@json_option
def compare(
    models: tuple[str, ...],
    results: Path | None,
    judge: str | None,
    set_name: str | None,
    baseline: str | None,
    assets: Path | None,
    correction: Correction,
    *,
    all_pairs: bool,
    json_file: Path | None,
) -> None:
    """Compare the first of MODELS with the others on the prompts that both have.

    MODELS are names of models in --from DIR with --judge NAME, or annotations files of one judge. Exit code 3 where
    no pair has a prompt in common.
    """
    from alignboard.reports.comparison import compare_annotations, comparison_table

    if len(set(models)) < len(models):
        raise InputError("A model is named twice; name each of MODELS once.")
    if (results is None) != (judge is None):
        raise InputError("--from DIR and --judge NAME go together; without both, MODELS are files.")
    tables, calibration = (
        _read_files(models, assets)
        if results is None or judge is None
        else _read_folder(models, results, judge, set_name, baseline, assets)
    )
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


def _read_files(
    models: tuple[str, ...], assets: Path | None
) -> tuple[dict[str, Annotations], None]:
    """The annotations files that MODELS are."""
    from alignboard.results.formats import read_annotations

    if assets is not None:
        raise InputError("--assets needs --from DIR, where the order of the instructions is known.")
    read = [read_annotations(Path(path)) for path in models]
    names = [table.generator for table in read]
    return dict(zip(names if len(set(names)) == len(names) else models, read, strict=True)), None


def _read_folder(
    models: tuple[str, ...],
    results: Path,
    judge: str,
    set_name: str | None,
    baseline: str | None,
    assets: Path | None,
) -> tuple[dict[str, Annotations], tuple[TextId, Calibration] | None]:
    """The verdicts of MODELS in a results folder, and with ``assets`` the reference set and the calibration."""
    from alignboard.published.calibration import read_calibration
    from alignboard.published.reproduce import reference_set
    from alignboard.results.folder import ResultsFolder
    from alignboard.results.formats import read_annotations
    from alignboard.results.verdict_places import one_column
    from alignboard.suites import load_suite

    if assets is None:
        found = one_column(results, models, judge, set_name, baseline)
        return {name: read_annotations(path) for name, path in found.items()}, None
    with ResultsFolder(results) as folder:
        tables = folder.tables(list(models), judge)
        reference = reference_set(folder, load_suite(_LENGTH_CONTROLLED), tables)
        return tables, (reference, read_calibration(assets))
