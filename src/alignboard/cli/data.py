"""`alignboard data` and `fetch`: what is in a data set, and data of the hub for machines without a network."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alignboard.cli.options import FOLDER, completes, json_option
from alignboard.cli.shared import write_json

if TYPE_CHECKING:
    from datasets import Dataset

    from alignboard.data.preferences.read import DataReport
    from alignboard.training.recipe import Recipe


@click.group()
def data() -> None:
    """Look into preference and demonstration data."""


@data.command(epilog="Example: alignboard data check preferences.jsonl")
@click.argument("source")
@click.option(
    "--recipe",
    metavar="NAME",
    help="Read the data as this recipe would, and count tokens against its max_length.",
)
@click.option(
    "--model", metavar="NAME", help="Whose tokens to count (default: those of the recipe's model)."
)
@click.option(
    "--against",
    metavar="SET",
    multiple=True,
    help="Search the rows for the instructions of this set or file; may be given several times.",
)
@click.option("--schema", metavar="NAME", help="What the columns mean (default: found out).")
@click.option(
    "--columns",
    metavar="NAME=COLUMN,...",
    help="Columns of the source by their canonical names: prompt=question.",
)
@click.option("--config", metavar="NAME", help="The configuration of a hub data set.")
@click.option("--split", default="train", show_default=True, help="The split of a hub data set.")
@click.option("--revision", metavar="COMMIT", help="The commit of a hub data set.")
@json_option
def check(
    source: str,
    *,
    recipe: str | None,
    model: str | None,
    against: tuple[str, ...],
    schema: str | None,
    columns: str | None,
    config: str | None,
    split: str,
    revision: str | None,
    json_file: Path | None,
) -> None:
    """Read SOURCE, report what training would keep and drop, and show the first row.

    SOURCE is a json, jsonl, csv or parquet file, a folder of `datasets`, a hub id, or dataset_info.json#entry.
    Example: alignboard data check pairs.jsonl --recipe mistral-7b/dpo-qlora
    """
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    from alignboard.data.instruction_sets import load_set
    from alignboard.data.preferences.contamination import contamination
    from alignboard.data.preferences.read import read_rows
    from alignboard.data.preferences.sources import PreferenceSource
    from alignboard.errors import InputError
    from alignboard.text import shown

    pairs = [part.partition("=") for part in (columns or "").split(",") if part]
    if any(not theirs for _, _, theirs in pairs):
        raise InputError(f"--columns {columns}: NAME=COLUMN,... was expected.")
    names = {ours: theirs for ours, _, theirs in pairs}
    declared = None if recipe is None else _recipe(recipe)
    rows, report = read_rows(
        PreferenceSource(source, config, split, revision, schema=schema, columns=names),
        None if declared is None else declared.kind,
    )
    print_data(rows, report)
    found = [
        contamination(rows, (text for row in one.rows for text in row.turns), one.name)
        for one in map(load_set, against)
    ]
    for one in found:
        print(f"  {shown(str(one))}")
    looked = None if declared is None else _look(declared, model, rows)
    shared = {"contamination": [asdict(one) for one in found], "preview": looked}
    write_json(json_file, report.to_json() | shared)


def print_data(rows: Dataset, report: DataReport) -> None:
    """Print what was kept, what is conspicuous, and the first row."""
    from alignboard.text import shown

    print(
        f"{report.source}: {report.kept} of {report.rows} rows, read as {report.schema} ({report.kind})"
    )
    for warning in report.warnings:
        print(f"  {shown(warning)}")
    for name, value in rows[0].items():
        for message in value if isinstance(value, list) else [{"role": "", "content": str(value)}]:
            print(f"  {name:<10} {message['role']:<9} {shown(message['content'])[:200]}")


def _recipe(name: str) -> Recipe:
    from alignboard.training.recipe import load_recipe
    from alignboard.workspace import declaration

    return load_recipe(declaration("train", name))


def _look(recipe: Recipe, model: str | None, rows: Dataset) -> dict[str, Any] | None:
    """Print the rows' lengths and two of them as tokens; None where no model is named."""
    from alignboard.models.registry import load_model
    from alignboard.text import shown
    from alignboard.training.preview import open_for_training, preview

    model = model or recipe.model
    if model is None:
        print("  no model: tokens are not counted; give --model.")
        return None
    looked = preview(recipe, open_for_training(recipe, load_model(model)), rows)
    for line in looked.lines():
        print(f"  {shown(line)}")
    return looked.to_json()


@click.group()
def fetch() -> None:
    """Download what later commands read from a folder."""


@fetch.command(epilog="Example: alignboard fetch suite open-llm-v1 --to mirror")
@click.argument("name", shell_complete=completes("evaluate/suites"))
@click.option(
    "--to",
    "folder",
    type=FOLDER,
    required=True,
    metavar="DIR",
    help="The mirror: data sets by their ids, and mirror.json with the sha256 of every file.",
)
@json_option
def suite(name: str, folder: Path, json_file: Path | None) -> None:
    """Write the data sets of the benchmarks of suite NAME to DIR, at the revisions that the suite pins.

    `alignboard benchmark --data-root DIR` reads them without a network.
    """
    from alignboard.benchmarks.declared import declared_tasks
    from alignboard.benchmarks.mirror import called, fetch
    from alignboard.suites import load_evaluation

    declared = load_evaluation(name)
    tasks = [task for one in declared.benchmarks for task in declared_tasks(one, Path.cwd())]
    found = fetch(tasks, declared.revisions, folder)
    for (dataset, config), n_rows in found.items():
        pinned = declared.revisions.get(dataset, "no revision pinned")
        print(f"{called(dataset, config)}: {n_rows:,} rows ({pinned})")
    rows = {called(dataset, config): n_rows for (dataset, config), n_rows in found.items()}
    write_json(json_file, {"suite": name, "mirror": str(folder), "rows": rows})
