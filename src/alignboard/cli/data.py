"""`alignboard data`: what is in a data set, before anything trains on it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from alignboard.cli.shared import json_option, write_json

if TYPE_CHECKING:
    from alignboard.data.preferences.schemas import Kind


@click.group()
def data() -> None:
    """Look into preference and demonstration data."""


@data.command(epilog="Example: alignboard data check preferences.jsonl")
@click.argument("source")
@click.option("--recipe", metavar="NAME", help="Read the data as this recipe would.")
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
    recipe: str | None,
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
    from alignboard.data.preferences.read import read_rows
    from alignboard.data.preferences.sources import PreferenceSource
    from alignboard.errors import InputError
    from alignboard.text import shown

    pairs = [part.partition("=") for part in (columns or "").split(",") if part]
    if any(not theirs for _, _, theirs in pairs):
        raise InputError(f"--columns {columns}: NAME=COLUMN,... was expected.")
    names = {ours: theirs for ours, _, theirs in pairs}
    rows, report = read_rows(
        PreferenceSource(source, config, split, revision, None, schema, names), _kind(recipe)
    )
    if json_file is not None:
        write_json(json_file, report.to_json())
    print(
        f"{report.source}: {report.kept} of {report.rows} rows, read as {report.schema} ({report.kind})"
    )
    for warning in report.warnings:
        print(f"  {shown(warning)}")
    for name, value in rows[0].items():
        for message in value if isinstance(value, list) else [{"role": "", "content": str(value)}]:
            print(f"  {name:<10} {message['role']:<9} {shown(message['content'])[:200]}")


def _kind(recipe: str | None) -> Kind | None:
    if recipe is None:
        return None
    from alignboard.train.recipe import load_recipe
    from alignboard.workspace import declaration

    return "pair" if load_recipe(declaration("train", recipe)).is_preference else "demonstration"
