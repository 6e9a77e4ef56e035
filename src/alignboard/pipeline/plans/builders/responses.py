"""Jobs that have responses: those that models generate, and released ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from alignboard.models.sources import asked_as, pinned
from alignboard.pipeline.answering import decoding_of
from alignboard.pipeline.plans.baselines import TrainedModel
from alignboard.pipeline.plans.builders.base import Builder
from alignboard.pipeline.plans.builders.benchmarks import benchmark
from alignboard.pipeline.plans.builders.models import checkpoint, spec_of
from alignboard.pipeline.plans.models import ModelEntry
from alignboard.pipeline.plans.sets import PlanSet
from alignboard.results.files import file_sha256

_RELEASED_GROUP = "released responses"


def respond(
    build: Builder, model: TrainedModel, trained: Mapping[str, str], board: dict[str, str]
) -> dict[tuple[str, str], str]:
    """Responses and benchmarks of one model; returns the jobs of its responses."""
    found = {}
    entry = build.resolved.entries[model.base]
    weights = entry.is_tiny or (entry.spec is not None and entry.served is None)
    needs = (
        {"base": checkpoint(build, model.base), "adapter": trained.get(model.made)}
        if weights
        else {}
    )
    for asked in build.resolved.sets:
        path = build.resolved.outputs.get((model.base, asked.name))
        if model.answered != model.name:
            job = board[f"outputs {asked.name} {model.answered}"]
        elif path is not None:
            job = released(build, model.name, asked, path)
        else:
            job = generate(build, model, entry, asked, needs)
        found[model.name, asked.name] = board[f"outputs {asked.name} {model.name}"] = job
    once = model.draw is None or (model.draw.response, model.draw.verdict) == (0, 0)
    for suite in build.resolved.benchmarks if (weights or entry.served) and once else ():
        benchmark(build, model, entry, suite, needs, board)
    return found


def generate(
    build: Builder,
    model: TrainedModel,
    entry: ModelEntry,
    asked: PlanSet,
    needs: Mapping[str, str | None],
    kept: int | None = None,
) -> str:
    """The responses of a model, or of the adapter with the number ``kept`` that its training kept on the way."""
    spec = spec_of(build, model, entry)
    served = entry.served
    parameters = {
        **({} if kept is None else {"checkpoint": kept}),
        "model": model.name,
        "set": {"name": asked.name, "digest": asked.asked.digest},
        "decoding": msgspec.to_builtins(asked.declared),
        "asked_as": asked_as(spec),
    }
    for field in ("set", "limit"):  # their digest stands for them
        parameters["decoding"].pop(field)
    if model.draw is not None:
        seed = decoding_of(spec, seed=asked.declared.seed).seed
        parameters["decoding"]["seed"] = seed + model.draw.response
    hints = {**set_hints(asked), "spec": msgspec.to_builtins(pinned(spec))}
    if served is not None:
        parameters["served"] = served.identity(spec)
        hints["entry"] = msgspec.to_builtins(entry.declared)
    name = f"generate {asked.name} {model.name}"
    return build.add(name, "generate", entry.group, parameters, needs, hints)


def released(build: Builder, model: str, asked: PlanSet, path: Path) -> str:
    """Responses that are there already, under the name that they have in this plan."""
    parameters = {
        "model": model,
        "set": {"name": asked.name, "digest": asked.asked.digest},
        "sha256": file_sha256(path),
    }
    hints = {**set_hints(asked), "path": str(path)}
    name = f"outputs {asked.name} {model}"
    return build.add(name, "outputs", _RELEASED_GROUP, parameters, hints=hints)


def set_hints(asked: PlanSet) -> dict[str, Any]:
    """Where a worker finds the set; one that has no source travels with its jobs."""
    if asked.source is None:
        return {"rows": msgspec.to_builtins(asked.asked.rows)}
    return {"set": asked.source, "instructions": msgspec.to_builtins(asked.declared)}
