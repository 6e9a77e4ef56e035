"""The jobs of learning curves: responses, verdicts and drift of the adapters that were kept on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from alignboard.models.sources import pinned
from alignboard.pipeline.plans.baselines import TrainedModel
from alignboard.pipeline.plans.builders.base import ALL_GROUP, Builder
from alignboard.pipeline.plans.builders.judging import judge
from alignboard.pipeline.plans.builders.models import checkpoint, spec_of
from alignboard.pipeline.plans.builders.responses import generate
from alignboard.pipeline.plans.models import ModelEntry


def drifts(
    build: Builder, trained: Mapping[str, str], responses: Mapping[tuple[str, str], str]
) -> dict[str, str]:
    """Add the drift of the runs of sweeps, on the first set; the jobs by their role on the board."""
    sets = build.resolved.sets
    if not sets or sets[0].asked.n_turns > 1:
        return {}
    found = {}
    for model in build.resolved.models:
        run = model.run
        swept = run is not None and run.key != run.recipe
        if swept and not build.resolved.recipes[str(model.recipe)].is_full:
            outputs, entry = (
                responses[model.name, sets[0].name],
                build.resolved.entries[model.base],
            )
            name = f"drift {model.name}"
            found[name] = _drift(build, model, entry, outputs, trained[model.made])
    return found


def _drift(
    build: Builder,
    model: TrainedModel,
    entry: ModelEntry,
    outputs: str,
    training: str,
    kept: int | None = None,
) -> str:
    """How far a model is from what its training started from."""
    job = build.graph.jobs[training]
    hints = {"spec": msgspec.to_builtins(pinned(spec_of(build, model, entry)))}
    hints |= {role: job.hints[role] for role in ("start",) if role in job.hints}
    needs = {"adapter": training, "outputs": outputs}
    needs |= {role: job.needs[role] for role in ("base", "start") if role in job.needs}
    parameters = {"model": model.name, "checkpoint": kept}
    return build.add(f"drift {model.name}", "drift", entry.group, parameters, needs, hints)


def add_curves(
    build: Builder,
    trained: Mapping[str, str],
    responses: dict[tuple[str, str], str],
    judge_models: Mapping[str, str],
    board: Mapping[str, str],
) -> None:
    """Responses, verdicts and drift of the checkpoints on the way, and the board of curves."""
    curve: dict[str, str] = {}
    models: list[dict[str, Any]] = []
    asked = next((one for one in build.resolved.sets if one.asked.n_turns == 1), None)
    for model in build.resolved.models:
        recipe = build.resolved.recipes[model.recipe] if model.recipe else None
        if recipe is None or recipe.checkpoints is None or asked is None:
            continue
        entry, job = build.resolved.entries[model.base], trained[model.made]
        needs = {"base": checkpoint(build, model.base), "adapter": job}
        curve[f"training {model.name}"] = job
        for number in range(1, recipe.checkpoints + 1):
            last = number == recipe.checkpoints
            one = model if last else replace(model, name=f"{model.name}@{number}")
            kept = None if last else number
            if not last:
                made = generate(build, one, entry, asked, needs, kept)
                responses[one.name, asked.name] = curve[f"outputs {one.name}"] = made
                judge(build, one, asked, responses, judge_models, curve)
            else:
                curve[f"outputs {one.name}"] = responses[one.name, asked.name]
                ends = f" {asked.name} {one.name}"
                own = {role: name for role, name in board.items() if role.endswith(ends)}
                curve |= {r: n for r, n in own.items() if r.startswith("verdicts ")}
            made = _drift(build, one, entry, curve[f"outputs {one.name}"], job, kept)
            curve[f"drift {one.name}"] = made
            baseline = build.resolved.baseline(model, asked)
            models.append(
                {
                    "model": one.name,
                    "of": model.name,
                    "number": number,
                    "baseline": baseline,
                    "family": model.family,
                    "method": model.method,
                }
            )
    if models and asked is not None:
        for baseline in {str(one["baseline"]) for one in models}:
            if (baseline, asked.name) in responses:
                curve[f"outputs {baseline}"] = responses[baseline, asked.name]
        parameters = {
            "name": f"{build.resolved.plan.name}-curves",
            "title": f"{build.resolved.plan.title or build.resolved.plan.name}: learning curves",
            "judges": list(build.resolved.judges),
            "set": asked.name,
            "models": models,
        }
        build.add(f"curves {build.resolved.plan.name}", "curves", ALL_GROUP, parameters, curve)
