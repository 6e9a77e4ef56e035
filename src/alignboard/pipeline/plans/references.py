"""What a plan refers to: files of tasks, and recipes with the plan's own settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignboard.benchmarks.records import suite_files
from alignboard.errors import InputError
from alignboard.pipeline.plans.consent import Consent
from alignboard.pipeline.plans.made import generated_tasks
from alignboard.pipeline.plans.schema import Plan
from alignboard.pipeline.plans.sweeps import RecipeRun
from alignboard.suites import EvaluationSuite, read_yaml
from alignboard.workspace import declaration

if TYPE_CHECKING:
    from alignboard.train.recipe import Recipe


def task_files(suite: EvaluationSuite, root: Path, consent: Consent) -> dict[str, str]:
    """sha256 of the files that a suite's benchmarks are made of, as far as they are known here."""
    try:
        return suite_files(suite, root, trusted=consent.tasks, generated=generated_tasks())
    except InputError as error:
        raise InputError(f"evaluate/suites/{suite.name}.yaml: {error}") from error


def planned_recipe(run: RecipeRun, plan: Plan, root: Path) -> Recipe:
    """A recipe with what the plan, and the run of a sweep, set in place of its fields."""
    from alignboard.train.recipe import parse_recipe

    path = declaration("train", run.recipe, root)
    content, changes = read_yaml(path), plan.overrides.recipes.get(run.recipe, {})
    if "name" in changes.get("data", {}):  # the rest of the section is about the data that it named
        content.pop("data", None)
    content = merged(merged(content, changes), run.changes)
    if run.seed is not None:
        content["seed"] = content.get("seed", 0) + run.seed
    return parse_recipe(content, str(path))


def merged(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``content`` with ``changes`` in place, mappings key by key.

    >>> merged({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}})
    {'a': {'b': 1, 'c': 3}}
    """
    result = dict(content)
    for key, value in changes.items():
        old = result.get(key)
        result[key] = (
            merged(old, value) if isinstance(value, dict) and isinstance(old, dict) else value
        )
    return result
