"""The job that makes a plan's board."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from alignboard.pipeline.plans.baselines import TrainedModel
from alignboard.pipeline.plans.builders.base import ALL_GROUP, Builder
from alignboard.suites import EvaluationSuite, Suite


def board(build: Builder, needs: Mapping[str, str]) -> str:
    """The plan's board, of the jobs that it ``needs``."""
    sets = build.resolved.sets
    hints = {"answer_key": sets[0].asked.answer_key if sets else None}
    name = f"board {build.plan.name}"
    return build.add(name, "board", ALL_GROUP, _parameters(build), needs, hints)


def _parameters(build: Builder) -> dict[str, Any]:
    resolved = build.resolved
    pairwise = resolved.pairwise_set
    published = [suite.name for suite in resolved.suites if isinstance(suite, Suite)]
    wanted = {"published": {"suites": published, "models": build.plan.published}}
    return {
        **(wanted if build.plan.published is not None else {}),
        "name": build.plan.name,
        "title": build.plan.title or build.plan.name,
        "seed": build.plan.seed,
        "judges": list(resolved.judges),
        "sets": [
            {
                "name": asked.name,
                "title": asked.asked.title,
                "suite": asked.suite.name,
                "n": len(asked.asked),
                "answer_key": asked.asked.answer_key is not None,
                "reference": None if asked.reference is None else asked.reference.model,
            }
            for asked in resolved.sets
        ],
        "baseline": resolved.baseline_method,
        "suites": [_shown(suite) for suite in resolved.benchmarks],
        "rating_judge": resolved.pairwise_judge,
        "rating_set": None if pairwise is None else pairwise.name,
        "models": [
            {
                "model": m.name,
                "family": m.family,
                "method": m.method,
                "baseline": m.baseline,
                "trained_in_bits": _bits(build, m),
                **_row(build, m),
            }
            for m in resolved.models
        ],
        **({"notes": build.plan.notes} if build.plan.notes else {}),
    }


def _row(build: Builder, model: TrainedModel) -> dict[str, Any]:
    """The row of a repeated run, which of it this is, and among what a run of a sweep is chosen."""
    run, draw = model.run, model.draw
    found: dict[str, Any] = {}
    if draw is not None:
        seed = 0 if run is None else run.seed or 0
        found = {"row": model.row, "draw": [seed, draw.response, draw.verdict]}
    if run is None or run.key == run.recipe:
        return found
    chosen = [s.select_on for s in build.plan.sweeps if run.recipe in s.recipes]
    return {**found, "row": model.row, "chosen_among": run.selected_by, "select_on": chosen[0]}


def _bits(build: Builder, model: TrainedModel) -> int | None:
    """How many bits a weight of the base had while an adapter was trained on it; None = as it is stored."""
    quantization = build.resolved.recipes[model.recipe].quantization if model.recipe else None
    return quantization.bits if quantization else None


def _shown(suite: EvaluationSuite) -> dict[str, Any]:
    """What a board shows of a suite; where its data lie is part of the jobs that read them."""
    content = msgspec.to_builtins(suite)
    for field in ("data_root", "revisions"):
        content.pop(field)
    for field in ("source", "lacks"):
        if content[field] is None:
            content.pop(field)
    return content | {"benchmarks": [task.shown() for task in suite.benchmarks]}
