"""`alignboard models`: which checkpoints are known, what an entry says, and what a model would read."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

EXIT_FOUND = 3


@click.group()
def models() -> None:
    """List, show and check the models that can be named; any id on the hub and any folder is one, too."""


@models.command(name="list")
@click.option("--markdown", is_flag=True, help="The table of docs/models.md.")
def list_command(*, markdown: bool) -> None:
    """The entries of the registry: built in, and in evaluate/models of this workspace."""
    from alignboard.models.describe import markdown_table, models_table
    from alignboard.models.registry import list_models

    show = markdown_table if markdown else models_table
    print(show(list_models()))


@models.command()
@click.argument("name")
def show(name: str) -> None:
    """What NAME means: an entry, an id on the hub, or a folder."""
    from alignboard.models.describe import model_text
    from alignboard.models.registry import load_model

    print(model_text(load_model(name)))


@models.command()
@click.argument("name")
@click.option("--instruction", metavar="TEXT", help="What is rendered, in place of a question.")
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the result as JSON too.",
)
def check(name: str, instruction: str | None, json_file: Path | None) -> None:
    """Render a prompt as NAME would read it, and say what is wrong with it.

    Needs the tokenizer and the configuration only. Exit code 3 where something is wrong.
    """
    from alignboard.models.check import check_model
    from alignboard.models.check_rules import PROBE
    from alignboard.models.describe import check_text
    from alignboard.models.registry import load_model
    from alignboard.results.files import write_atomically

    result = check_model(load_model(name), instruction or PROBE)
    if json_file is not None:
        content = json.dumps(result.to_json(), indent=1, ensure_ascii=False) + "\n"
        write_atomically(json_file, content.encode())
    print(check_text(result))
    if result.wrong:
        sys.exit(EXIT_FOUND)
