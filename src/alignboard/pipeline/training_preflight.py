"""Checks of trainings before the first job: rows, settings of TRL, layers that an adapter names.

A training would meet them itself, but only after what it starts from was trained.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final

from alignboard.data.preferences.sources import local_files
from alignboard.pipeline.graph import Job
from alignboard.pipeline.jobs.training_data import naming_recipe, recipe_of
from alignboard.pipeline.plans.made import made_here
from alignboard.pipeline.plans.resolved import ResolvedPlan
from alignboard.training.recipe import Recipe
from alignboard.training.sections import LoraSpec

LARGEST: Final = 20_000_000
"""bytes of the files that are read here; larger ones have more rows than a step, and are read by the first jobs"""


def require_trainings(resolved: ResolvedPlan, jobs: Iterable[Job]) -> None:
    """Raise `InputError` for the first thing that the trainings of ``jobs`` would meet on their way."""
    todo = [job for job in jobs if job.kind == "train"]
    names = {job.name for job in todo}
    counted: dict[str, int | None] = {}
    for job in todo:
        recipe, data = recipe_of(job), job.needs["data"]
        with naming_recipe(job):
            if data not in counted:
                counted[data] = _rows_to_train_on(recipe, resolved)
            found = counted[data]
            if found is not None:
                recipe.require_rows(found)
            if recipe.trl:
                from alignboard.training.arguments import require_settings

                require_settings(recipe)
            if job.needs.get("start") in names:
                _require_layers(recipe, resolved, job)


def _rows_to_train_on(recipe: Recipe, resolved: ResolvedPlan) -> int | None:
    """How many rows small local files give a recipe; None for others, and for rows that jobs make."""
    if recipe.sole_data is not None and made_here(recipe.sole_data):
        return None
    files = [local_files(one.name, resolved.workspace) for one in recipe.data_sets]
    if not all(files) or sum(file.stat().st_size for own in files for file in own) > LARGEST:
        return None
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    from alignboard.data.preferences.read import read_all, split

    seed, held_out = resolved.plan.seed, recipe.held_out
    sources = [one.source(resolved.workspace) for one in recipe.data_sets]
    rows, _ = read_all(sources, recipe.kind, seed)
    if held_out is not None and held_out.data is None:
        rows, _ = split(rows, held_out.count(len(rows)), seed)
    return len(rows)


def _require_layers(recipe: Recipe, resolved: ResolvedPlan, job: Job) -> None:
    """The base has the layers that the adapter names; bases that are made here, and GGUF files, are not looked at."""
    base = next(one.base for one in resolved.models if one.made == job.parameters["model"])
    entry = resolved.entries[base]
    if entry.spec is None or not isinstance(recipe.lora, LoraSpec):
        return
    from alignboard.models.checks.opened import open_small
    from alignboard.training.preview import require_layers

    opened = open_small(entry.spec)
    if opened.checkpoint.gguf_file is None:
        require_layers(recipe.lora, opened.checkpoint.path)
