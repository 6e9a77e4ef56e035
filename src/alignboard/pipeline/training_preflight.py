"""Checks of trainings before the first job: rows, settings of TRL, layers that an adapter names, room on the disk.

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

_SIZE: Final = 4
"""bytes of a trained number; a whole model in bfloat16 has half"""
LARGEST: Final = 20_000_000
"""bytes of the files that are read here; larger ones have more rows than a step; no job trains before they are read"""


def require_trainings(resolved: ResolvedPlan, jobs: Iterable[Job]) -> None:
    """Raise `InputError` for the first thing that the trainings of ``jobs`` would meet on their way."""
    todo = [job for job in jobs if job.kind == "train"]
    counted: dict[str, int | None] = {}
    passing, staying = 0, 0
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
            on_the_way, for_good = _disk_use(recipe, resolved, job)
            passing, staying = max(passing, on_the_way), staying + for_good
    if passing:
        from alignboard.training.resume import require_free

        what = f"the checkpoints and results of {len(todo)} trainings take about"
        require_free(resolved.workspace, passing + staying, what)


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


def _disk_use(recipe: Recipe, resolved: ResolvedPlan, job: Job) -> tuple[int, int]:
    """Bytes that a training writes, on its way and for good; 0 where the base is made here.

    Raises `PreflightError` for layers that the base does not have.
    """
    base = next(one.base for one in resolved.models if one.made == job.parameters["model"])
    spec = resolved.entries[base].spec
    if spec is None:
        return 0, 0
    from alignboard.models.checks.opened import open_small
    from alignboard.training.preview import trained_numbers
    from alignboard.training.resume import disk_use

    numbers = trained_numbers(recipe, open_small(spec).checkpoint.config)
    return disk_use((numbers or 0) * _SIZE, recipe.checkpoints)
