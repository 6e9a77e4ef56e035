"""`alignboard recipe`: the recipes that there are, and those of other tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from alignboard.cli.options import PATH, POSITIVE, completes, json_option
from alignboard.cli.shared import write_json

if TYPE_CHECKING:
    from alignboard.training.imports.read import ImportedRecipe


@click.group()
def recipe() -> None:
    """List, show and import training recipes."""


@recipe.command("list", epilog="Example: alignboard recipe list")
@json_option
def list_recipes(json_file: Path | None) -> None:
    """List the recipes of the workspace and the library, with method and model."""
    from alignboard.text import table
    from alignboard.training.recipe import load_recipe
    from alignboard.workspace import declaration, library, names

    known = sorted({name for root in (Path.cwd(), library()) for name in names("train", root)})
    found = [(name, load_recipe(declaration("train", name))) for name in known]
    write_json(json_file, {name: one.identity() for name, one in found})
    rows = [(name, one.method, one.model or "any") for name, one in found]
    print(table(("recipe", "method", "model"), rows, left=(0, 1, 2)))


@recipe.command(epilog="Example: alignboard recipe show mistral-7b/dpo-qlora")
@click.argument("name", shell_complete=completes("train"))
@json_option
def show(name: str, json_file: Path | None) -> None:
    """Print the recipe NAME with the sources of its numbers."""
    from alignboard.training.recipe import load_recipe
    from alignboard.workspace import declaration

    path = declaration("train", name)
    found = load_recipe(path)
    write_json(json_file, found.identity())
    print(path.read_text(encoding="utf-8").rstrip())


@recipe.command(
    "import", epilog="Example: alignboard recipe import config_qlora.yaml --to mine/dpo"
)
@click.argument("file", type=PATH)
@click.option(
    "--to", "to", metavar="NAME", help="Write the recipe to train/NAME.yaml (default: print it)."
)
@click.option(
    "--method", metavar="NAME", help="The method of a configuration that does not say it."
)
@click.option(
    "--devices",
    type=POSITIVE,
    default=1,
    show_default=True,
    help="On how many devices it ran; the global batch is of all of them.",
)
@json_option
def import_(
    file: Path, *, to: str | None, method: str | None, devices: int, json_file: Path | None
) -> None:
    """Translate FILE, a configuration of alignment-handbook, SimPO, TRL, axolotl or LLaMA-Factory, into a recipe.

    Every key is listed: kept, renamed, or dropped and why; and what will differ from the published run.
    """
    from alignboard.training.imports.read import import_recipe

    found = import_recipe(file, method, devices)
    write_json(json_file, found.to_json())
    _print_keys(found)
    print(f"\n{found.text() if to is None else _written(found, to)}".rstrip())


def _print_keys(found: ImportedRecipe) -> None:
    from alignboard.text import shown, table

    rows = [(one.key, one.what, one.note) for one in found.keys]
    print(shown(f"{found.source}: a configuration of {found.tool}"))
    print(table(("key", "what", "where to, or why"), rows, left=(0, 1, 2)))
    for one in found.differences:
        print(f"differs: {shown(one)}")


def _written(found: ImportedRecipe, name: str) -> Path:
    from alignboard.errors import InputError
    from alignboard.results.files import write_atomically

    path = Path("train") / f"{name}.yaml"
    if not path.resolve().is_relative_to(Path("train").resolve()):
        raise InputError(f"--to {name}: the recipe has to lie below train/.")
    if path.exists():
        raise InputError(f"--to {name}: {path} exists; give another name.")
    write_atomically(path, found.text().encode())
    return path
