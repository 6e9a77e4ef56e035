"""Jobs that compare responses: verdicts against the baseline, and the round robin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from alignboard.judges.load import load_judge
from alignboard.pipeline.plans.baselines import TrainedModel
from alignboard.pipeline.plans.builders.base import ALL_GROUP, Builder
from alignboard.pipeline.plans.builders.responses import set_hints
from alignboard.pipeline.plans.sets import PlanSet


def judge(
    build: Builder,
    model: TrainedModel,
    asked: PlanSet,
    responses: Mapping[tuple[str, str], str],
    judge_models: Mapping[str, str],
    board: dict[str, str],
) -> None:
    """Every judge's verdicts on one model's responses to a set; none on the baseline's own."""
    baseline = build.resolved.baseline(model, asked)
    if baseline is None or baseline == model.name:
        return
    for judge in build.resolved.judges:
        job = build.add(
            f"judge {judge} {asked.name} {model.name}",
            "judge",
            _judge_group(build, judge, model),
            {
                **_declared(build, judge),
                "model": model.name,
                "set": asked.name,
                "two_turns": asked.asked.n_turns > 1,
            },
            {
                "outputs": responses[model.name, asked.name],
                "baseline": responses[baseline, asked.name],
                "judge-model": judge_models.get(judge),
            },
            {**set_hints(asked), "access": _access(build, judge)},
        )
        board[f"verdicts {judge} {asked.name} {model.name}"] = job


def _judge_group(build: Builder, judge: str, model: TrainedModel) -> str:
    """A judge that costs next to nothing goes where a tiny model is in memory anyway.

    A large model's group has no verdicts, which may wait for another base: its weights go when it has responded,
    and two bases never share a device.
    """
    entry = build.resolved.entries[model.base]
    beside = entry.is_tiny and not build.is_slow(judge)
    return entry.group if beside else f"judge {judge}"


def _declared(build: Builder, judge: str) -> dict[str, Any]:
    """A judge as the parameters of a job; of a jury with what its jurors declare."""
    chosen = build.resolved.judges[judge]
    content = {
        "judge": judge,
        "declared": msgspec.to_builtins(chosen.declared),
        "urls": list(chosen.access.urls),
    }
    if chosen.declared.jurors:
        root = build.resolved.workspace
        jurors = [load_judge(juror, root) for juror in chosen.declared.jurors]
        content["jurors"] = msgspec.to_builtins(jurors)
    return content


def _access(build: Builder, judge: str) -> dict[str, Any]:
    return msgspec.to_builtins(build.resolved.judges[judge].access)


def pairwise(
    build: Builder,
    responses: Mapping[tuple[str, str], str],
    judge_models: Mapping[str, str],
    board: dict[str, str],
) -> None:
    """The round robin between all models, where the plan has one."""
    declared, asked = build.plan.pairwise, build.resolved.pairwise_set
    judge = build.resolved.pairwise_judge
    models = [model.name for model in build.resolved.models]
    if declared is None or judge is None or asked is None or len(models) < 2:
        return
    needs: dict[str, str | None] = {
        f"outputs {model}": responses[model, asked.name] for model in models
    }
    needs["judge-model"] = judge_models.get(judge)
    parameters = {
        **_declared(build, judge),
        "set": asked.name,
        "n_prompts": min(declared.n_prompts, len(asked.asked)),
        "models": models,
        "seed": build.plan.seed,
    }
    hints = {"access": _access(build, judge)}
    board["pairwise"] = build.add(
        f"pairwise {build.plan.name}", "pairwise", ALL_GROUP, parameters, needs, hints
    )
