"""`alignboard models`: which checkpoints are known, what an entry says, and what a model would read."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from alignboard.cli.boundary import EXIT_FOUND
from alignboard.cli.options import json_option
from alignboard.cli.shared import write_json


@click.group()
def models() -> None:
    """List, show and check the models that can be named; any id on the hub and any folder is one, too."""


@models.command(name="list", epilog="Example: alignboard models list")
@click.option("--markdown", is_flag=True, help="The table of docs/models.md.")
@json_option
def list_command(*, markdown: bool, json_file: Path | None) -> None:
    """The entries of the registry: built in, and in evaluate/models of this workspace."""
    from alignboard.models.checks.describe import markdown_table, models_table
    from alignboard.models.registry import list_models

    show = markdown_table if markdown else models_table
    entries = list_models()
    write_json(json_file, entries)
    print(show(entries))


@models.command(epilog="Example: alignboard models show zephyr-7b-beta")
@click.argument("name")
@json_option
def show(name: str, json_file: Path | None) -> None:
    """What NAME means: an entry, an id on the hub, or a folder."""
    from alignboard.models.checks.describe import model_text
    from alignboard.models.registry import load_model

    entry = load_model(name)
    write_json(json_file, entry)
    print(model_text(entry))


@models.command(epilog="Example: alignboard models check zephyr-7b-beta")
@click.argument("name")
@click.option("--instruction", metavar="TEXT", help="What is rendered, in place of a question.")
@json_option
def check(name: str, instruction: str | None, json_file: Path | None) -> None:
    """Render a prompt as NAME would read it, and say what is wrong with it.

    Needs the tokenizer and the configuration only. Exit code 3 where something is wrong.
    """
    from alignboard.models.checks.describe import check_text
    from alignboard.models.checks.report import check_model
    from alignboard.models.checks.rules import PROBE
    from alignboard.models.registry import load_model

    result = check_model(load_model(name), instruction or PROBE)
    write_json(json_file, result.to_json())
    print(check_text(result))
    if result.wrong:
        sys.exit(EXIT_FOUND)
