"""The jobs of learning curves: responses, verdicts and drift of the adapters that were kept on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from alignboard.models.spec import ModelSpec
from alignboard.pipeline.graph import Graph
from alignboard.pipeline.plans.baselines import TrainedModel
from alignboard.pipeline.plans.models import ModelEntry, pinned
from alignboard.pipeline.plans.sets import PlanSet
from alignboard.pipeline.plans.trainings import AddJob

if TYPE_CHECKING:
    from alignboard.pipeline.plans.plan import ResolvedPlan

ALL_GROUP: Final = "all models"


class Builder(Protocol):
    """What of the builder of a plan's graph is needed here."""

    resolved: ResolvedPlan
    graph: Graph

    @property
    def add(self) -> AddJob:
        """Add a job."""
        ...

    def checkpoint(self, base: str) -> str:
        """Add the job of a base's weights."""
        ...

    def generate(
        self,
        model: TrainedModel,
        entry: ModelEntry,
        asked: PlanSet,
        needs: Mapping[str, str | None],
        checkpoint: int | None = None,
    ) -> str:
        """Add the job of a model's responses."""
        ...

    def judge(
        self,
        model: TrainedModel,
        asked: PlanSet,
        responses: Mapping[tuple[str, str], str],
        judge_models: Mapping[str, str],
        board: dict[str, str],
    ) -> None:
        """Add the jobs of its verdicts, and name them in ``board``."""
        ...

    def spec_of(self, model: TrainedModel, entry: ModelEntry) -> ModelSpec:
        """How a model is asked."""
        ...


def drifts(
    builder: Builder, trained: Mapping[str, str], responses: Mapping[tuple[str, str], str]
) -> dict[str, str]:
    """Add the drift of the runs of sweeps, on the first set; the jobs by their role on the board."""
    sets = builder.resolved.sets
    if not sets or sets[0].asked.n_turns > 1:
        return {}
    found = {}
    for model in builder.resolved.models:
        run = model.run
        swept = run is not None and run.key != run.recipe
        if swept and not builder.resolved.recipes[str(model.recipe)].is_full:
            outputs, entry = (
                responses[model.name, sets[0].name],
                builder.resolved.entries[model.base],
            )
            name = f"drift {model.name}"
            found[name] = _drift(builder, model, entry, outputs, trained[model.name])
    return found


def _drift(
    builder: Builder,
    model: TrainedModel,
    entry: ModelEntry,
    outputs: str,
    training: str,
    checkpoint: int | None = None,
) -> str:
    """How far a model is from what its training started from."""
    job = builder.graph.jobs[training]
    hints = {"spec": msgspec.to_builtins(pinned(builder.spec_of(model, entry)))}
    hints |= {role: job.hints[role] for role in ("start",) if role in job.hints}
    needs = {"adapter": training, "outputs": outputs}
    needs |= {role: job.needs[role] for role in ("base", "start") if role in job.needs}
    parameters = {"model": model.name, "checkpoint": checkpoint}
    return builder.add(f"drift {model.name}", "drift", entry.group, parameters, needs, hints)


def add_curves(
    builder: Builder,
    trained: Mapping[str, str],
    responses: dict[tuple[str, str], str],
    judge_models: Mapping[str, str],
    board: Mapping[str, str],
) -> None:
    """Responses, verdicts and drift of the checkpoints on the way, and the board of curves."""
    curve: dict[str, str] = {}
    models: list[dict[str, Any]] = []
    asked = next((one for one in builder.resolved.sets if one.asked.n_turns == 1), None)
    for model in builder.resolved.models:
        recipe = builder.resolved.recipes[model.recipe] if model.recipe else None
        if recipe is None or recipe.checkpoints is None or asked is None:
            continue
        entry, job = builder.resolved.entries[model.base], trained[model.name]
        needs = {"base": builder.checkpoint(model.base), "adapter": job}
        curve[f"training {model.name}"] = job
        for number in range(1, recipe.checkpoints + 1):
            last = number == recipe.checkpoints
            one = model if last else replace(model, name=f"{model.name}@{number}")
            kept = None if last else number
            if not last:
                made = builder.generate(one, entry, asked, needs, kept)
                responses[one.name, asked.name] = curve[f"outputs {one.name}"] = made
                builder.judge(one, asked, responses, judge_models, curve)
            else:
                curve[f"outputs {one.name}"] = responses[one.name, asked.name]
                ends = f" {asked.name} {one.name}"
                own = {role: name for role, name in board.items() if role.endswith(ends)}
                curve |= {r: n for r, n in own.items() if r.startswith("verdicts ")}
            made = _drift(builder, one, entry, curve[f"outputs {one.name}"], job, kept)
            curve[f"drift {one.name}"] = made
            baseline = builder.resolved.baseline(model, asked)
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
            "name": f"{builder.resolved.plan.name}-curves",
            "title": f"{builder.resolved.plan.title or builder.resolved.plan.name}: learning curves",
            "judges": list(builder.resolved.judges),
            "set": asked.name,
            "models": models,
        }
        builder.add(f"curves {builder.resolved.plan.name}", "curves", ALL_GROUP, parameters, curve)
