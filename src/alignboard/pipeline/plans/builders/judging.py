"""Jobs that compare responses: verdicts against the baseline, and the round robin."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from alignboard.errors import InputError
from alignboard.judges.load import load_judge
from alignboard.judges.opening import Access
from alignboard.judges.spec import JudgeSpec
from alignboard.models.sources import pinned
from alignboard.models.spec import ModelSpec
from alignboard.pipeline.judges import Judges
from alignboard.pipeline.plans.baselines import TrainedModel
from alignboard.pipeline.plans.builders.base import ALL_GROUP, Builder
from alignboard.pipeline.plans.builders.responses import set_hints
from alignboard.pipeline.plans.made import judge_trained_here
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
        parameters, hints = _asked(build, judge)
        shares = _shares_base(build, judge, model, baseline)
        hints = {**hints, "shares_base": True} if shares else hints
        job = build.add(
            f"judge {judge} {asked.name} {model.name}",
            "judge",
            _judge_group(build, judge, model, shares=shares),
            {
                **parameters,
                "model": model.name,
                "set": asked.name,
                "two_turns": asked.asked.n_turns > 1,
                **({"repeat": model.draw.verdict} if model.draw and model.draw.verdict else {}),
            },
            {
                "outputs": responses[model.name, asked.name],
                "baseline": responses[baseline, asked.name],
                "judge-model": judge_models.get(judge),
            },
            {**set_hints(asked), **hints},
        )
        board[f"verdicts {judge} {asked.name} {model.name}"] = job


def _judge_group(build: Builder, judge: str, model: TrainedModel, *, shares: bool) -> str:
    """A judge goes where its own base is in memory, and one that costs next to nothing where a tiny model is.

    A large model's group has no other verdicts, which may wait for another base: its weights go when it has responded,
    and two bases never share a device.
    """
    entry = build.resolved.entries[model.base]
    beside = entry.is_tiny and not build.is_slow(judge)
    return entry.group if shares or beside else f"judge {judge}"


def _shares_base(build: Builder, judge: str, model: TrainedModel, baseline: str) -> bool:
    """Whether a judge is a local language model on the base of the model that it judges, and of the baseline."""
    from alignboard.models.asked import base_of

    declared, (_, hints) = build.resolved.judges[judge].declared, _asked(build, judge)
    entries, found = build.resolved.entries, hints["judge_models"]
    entry = entries[model.base]
    if declared.prompted is None or list(found) != [declared.name]:
        return False
    against = [one.base for one in build.resolved.models if one.name == baseline]
    if any(entries[base].group != entry.group for base in against):
        return False
    if entry.spec is None or entry.served is not None:
        return False
    with contextlib.chdir(build.resolved.workspace):
        return base_of(entry.spec) == base_of(msgspec.convert(found[declared.name], ModelSpec))


def _asked(build: Builder, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A judge as the parameters and the hints of a job: what it declares, of a jury all of its jurors, and by content
    the files that their verdicts follow from.
    """
    if name in build.judges:
        return build.judges[name]
    chosen = build.resolved.judges[name]
    found, models = judged_by(chosen.declared, chosen.access.urls, build.resolved.workspace)
    hints = {"access": msgspec.to_builtins(chosen.access), "judge_models": models}
    build.judges[name] = {"judge": name, **found}, hints
    return build.judges[name]


def judged_by(
    declared: JudgeSpec, urls: Sequence[str], root: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters of a job that ``declared`` judges, and the entries of the models that it loads, by judge."""
    parameters = {"declared": msgspec.to_builtins(declared), "urls": list(urls)}
    if declared.jurors:
        jurors = [load_judge(juror, root) for juror in declared.jurors]
        parameters["jurors"] = msgspec.to_builtins(jurors)
    sources, models = parameters.setdefault("sources", {}), dict[str, Any]()
    with contextlib.chdir(root):  # declarations name files relative to it
        for one in Judges(Access(), root).members(declared):
            if judge_trained_here(one) is None:
                _add_sources(one, root, sources, models)
    return parameters, models


def _add_sources(
    judge: JudgeSpec, root: Path, sources: dict[str, Any], models: dict[str, Any]
) -> None:
    """What is not there has no identity; `require_plan` refuses it before any job is begun."""
    with contextlib.suppress(InputError):
        if found := judge.sources(root):
            sources[judge.name] = found
        entry = judge.model_entry(root)
        if entry is not None:
            models[judge.name] = msgspec.to_builtins(pinned(entry))


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
    judged_by, hints = _asked(build, judge)
    parameters = {
        **judged_by,
        "set": asked.name,
        "n_prompts": min(declared.n_prompts, len(asked.asked)),
        "models": models,
        "seed": build.plan.seed,
    }
    board["pairwise"] = build.add(
        f"pairwise {build.plan.name}", "pairwise", ALL_GROUP, parameters, needs, hints
    )
