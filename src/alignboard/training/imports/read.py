"""`import_recipe`: a published configuration as a recipe, with what became of every key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignboard.errors import InputError
from alignboard.guarded_yaml import to_yaml
from alignboard.results.files import read_json_object
from alignboard.suites import read_yaml
from alignboard.training.imports import axolotl, llama_factory, trl
from alignboard.training.imports.translation import KeyNote, Translation
from alignboard.training.recipe import Recipe, parse_recipe


@dataclass(frozen=True)
class ImportedRecipe:
    """A recipe made of another tool's configuration."""

    source: str
    tool: str
    content: Mapping[str, Any]
    """as a recipe's file has it"""
    recipe: Recipe
    keys: tuple[KeyNote, ...]
    """every key of the configuration"""
    differences: tuple[str, ...]
    """what training the recipe does otherwise than the published run"""

    def text(self) -> str:
        """The recipe's file: what differs from the published run, then the fields."""
        head = [f"# {Path(self.source).name}, a configuration of {self.tool}."]
        if self.differences:
            head += [
                "# Differs from the published run:",
                *(f"#   {one}" for one in self.differences),
            ]
        body = to_yaml(dict(self.content))
        return "\n".join(head) + "\n" + body

    def to_json(self) -> dict[str, Any]:
        """Everything, for a file."""
        return {
            "source": self.source,
            "tool": self.tool,
            "recipe": dict(self.content),
            "keys": [{"key": one.key, "what": one.what, "note": one.note} for one in self.keys],
            "differences": list(self.differences),
        }


def import_recipe(file: str | Path, method: str | None = None, devices: int = 1) -> ImportedRecipe:
    """Translate the configuration in ``file``.

    Parameters
    ----------
    file
        yaml or json of alignment-handbook, SimPO, TRL's command line, axolotl or LLaMA-Factory.
    method
        of a configuration that does not say its own.
    devices
        on how many devices it ran; the global batch is of all of them.

    Raises
    ------
    InputError
        names the file and the key that has no translation.
    """
    path = Path(file)
    content = _content(path)
    tool, translate = _tool(path, content)
    one = Translation(str(path), dict(content))
    try:
        translate(one, method, devices)
        one.settle()
        ordered = {key: one.recipe[key] for key in Recipe.__struct_fields__ if key in one.recipe}
        plain = json.loads(json.dumps(ordered))
    except (TypeError, ValueError, LookupError, AttributeError, OverflowError) as error:
        # A list where a text belongs, a text where a number does: at whichever key was read last.
        key = one.notes[-1].key if one.notes else "its first key"
        raise InputError(
            f"{path}: {key}, or a key beside it, has a value that {tool} does not take there ({error})."
        ) from error
    recipe = parse_recipe(plain, str(path))
    return ImportedRecipe(
        str(path), tool, ordered, recipe, tuple(one.notes), tuple(one.differences)
    )


def _content(path: Path) -> dict[str, Any]:
    return read_json_object(path) if path.suffix == ".json" else read_yaml(path)


def _tool(path: Path, content: Mapping[str, Any]) -> tuple[str, Any]:
    """Which tool a configuration is of, by its keys."""
    if "base_model" in content:
        return "axolotl", axolotl.translate
    if "stage" in content or "finetuning_type" in content:
        return "LLaMA-Factory", llama_factory.translate
    if "model_name_or_path" in content:
        return "TRL (alignment-handbook, SimPO)", trl.translate
    raise InputError(
        f"{path} is no configuration that is known: alignment-handbook's, SimPO's, TRL's and LLaMA-Factory's have "
        f"model_name_or_path, axolotl's has base_model; this one has {', '.join(list(content)[:5]) or 'no key'}."
    )
