"""The runs of a recipe in a plan: one, or one for each setting and seed of a sweep."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from alignboard.errors import InputError, nearest

METHOD: Final = "method"


class Sweep(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Recipes of a plan that are trained several times: with each setting, and with each seed."""

    recipes: list[str]
    over: dict[str, list[Any]] = {}
    """a field's path in the recipe, such as ``loss.beta``, and its values; of several fields all combinations. A field
    with one value is set, and is no part of a name; a ``method`` stands in the name in place of the recipe"""
    seeds: int = 1
    """how many seeds, from the recipe's own upwards"""
    select_on: str | None = None
    """the suite by which the best setting of a recipe is chosen; null: the plan's first, which then chooses and reports
    at once"""


@dataclass(frozen=True)
class RecipeRun:
    """A recipe with the changes of one setting and one seed."""

    recipe: str
    """as the plan names it"""
    key: str
    """unique in the plan"""
    method: str
    """what it makes, as its row is called: the last part of the recipe's name, and the setting"""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """merged into the recipe, mappings key by key"""
    seed: int | None = None
    """counted from 0; None where the recipe is trained once"""
    selected_by: str | None = None
    """the recipe, or the method of the sweep, among whose settings it is chosen; None where there is one setting"""

    @property
    def suffix(self) -> str:
        """What follows the base in the name of the trained model."""
        return self.method if self.seed is None else f"{self.method}-seed{self.seed}"


def check_sweeps(path: Path, sweeps: Sequence[Sweep], recipes: set[str]) -> None:
    """Raise `InputError` for a sweep that names no recipe of the plan, or has no values."""
    for sweep in sweeps:
        for name in sweep.recipes:
            if name not in recipes:
                hint = nearest(name, recipes) or "."
                raise InputError(
                    f"{path}: sweep.recipes has {name!r}, which the plan does not train{hint}"
                )
        if not sweep.recipes or sweep.seeds < 1 or not all(sweep.over.values()):
            raise InputError(
                f"{path}: sweep needs a recipe, 1 seed at least, and a value at least for each field of over."
            )


def check_selection(path: Path, sweeps: Sequence[Sweep], suites: Sequence[str]) -> None:
    """Raise `InputError` for a sweep that is selected on what the plan does not ask."""
    for sweep in sweeps:
        if sweep.select_on is not None and sweep.select_on not in suites:
            hint = nearest(sweep.select_on, suites) or "."
            raise InputError(
                f"{path}: sweep.select_on is {sweep.select_on!r}, which is no suite with instructions of the plan{hint}"
            )


def runs_of(recipe: str, sweeps: Sequence[Sweep]) -> list[RecipeRun]:
    """The runs of a recipe: settings in the order of `Sweep.over`, seeds of one setting together.

    >>> sweep = Sweep(recipes=["demo/dpo"], over={"loss.beta": [0.1, 0.5]}, seeds=2)
    >>> [run.suffix for run in runs_of("demo/dpo", [sweep])]
    ['dpo-beta0.1-seed0', 'dpo-beta0.1-seed1', 'dpo-beta0.5-seed0', 'dpo-beta0.5-seed1']
    >>> [run.suffix for run in runs_of("demo/sft", [sweep])]
    ['sft']
    >>> sweep = Sweep(recipes=["demo/dpo"], over={"method": ["ipo", "hinge"], "loss.beta": [0.2]})
    >>> [run.suffix for run in runs_of("demo/dpo", [sweep])]
    ['ipo', 'hinge']
    """
    own = [sweep for sweep in sweeps if recipe in sweep.recipes]
    last = recipe.rsplit("/", 1)[-1]
    if not own:
        return [RecipeRun(recipe, recipe, last)]
    found: dict[str, RecipeRun] = {}
    for sweep in own:
        named = [name for name, own in sweep.over.items() if name != METHOD and len(own) > 1]
        for values in itertools.product(*sweep.over.values()):
            setting = dict(zip(sweep.over, values, strict=True))
            first = str(setting.get(METHOD, last))
            method = "-".join([first, *(_said(name, setting[name]) for name in named)])
            for seed in range(sweep.seeds):
                run = RecipeRun(
                    recipe=recipe,
                    key=f"{recipe} {method} {seed}",
                    method=method,
                    changes=_nested(setting),
                    seed=seed if sweep.seeds > 1 else None,
                    selected_by=(first if METHOD in setting else recipe) if named else None,
                )
                found.setdefault(run.suffix, run)
    return list(found.values())


def _said(name: str, value: Any) -> str:
    """A setting in a name: ``beta0.1``, ``cosine``."""
    text = re.sub(r"[^A-Za-z0-9_.+-]+", "", str(value))
    return text if isinstance(value, str) else f"{name.rpartition('.')[2]}{text}"


def _nested(setting: Mapping[str, Any]) -> dict[str, Any]:
    """``{"loss.beta": 1}`` as ``{"loss": {"beta": 1}}``."""
    found: dict[str, Any] = {}
    for path, value in setting.items():
        *outer, last = path.split(".")
        inner = found
        for one in outer:
            inner = inner.setdefault(one, {})
        inner[last] = value
    return found
