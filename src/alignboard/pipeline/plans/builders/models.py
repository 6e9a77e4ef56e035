"""Jobs that make models: checkpoints, pairs, adapters, and the models of judges that are trained here."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from alignboard.models.sources import pinned, weights_identity
from alignboard.models.spec import ModelSpec, PromptFormat
from alignboard.pipeline.plans.baselines import TrainedModel
from alignboard.pipeline.plans.builders.base import Builder
from alignboard.pipeline.plans.made import judge_trained_here
from alignboard.pipeline.plans.models import ModelEntry
from alignboard.pipeline.plans.trainings import Training, add_training

_JUDGE_GROUP = "judge model"


def checkpoint(build: Builder, base: str) -> str:
    """An entry's weights: a tiny checkpoint, or a note of where they are."""
    entry = build.resolved.entries[base]
    hints = {}
    if entry.spec is None:
        what = {
            "tiny": entry.declared.pretrain,
            "seed": build.plan.seed,
            "pretrain": build.plan.overrides.pretraining,
        }
    else:
        what = {"source": weights_identity(entry.spec, build.resolved.workspace)}
        where = ("revision", "gguf_file")
        spec = pinned(entry.spec)
        hints = {"path": spec.base} | {one: getattr(spec, one) for one in where}
    parameters = {"model": base, **what}
    return build.add(f"checkpoint {base}", "checkpoint", entry.group, parameters, hints=hints)


def train(build: Builder, model: TrainedModel, adapters: Mapping[str, str]) -> str:
    """A model that a recipe trains, with its pairs, rows and tokens."""
    training = Training(model, build.resolved.recipes[str(model.recipe)], build.resolved)
    base = checkpoint(build, model.base)
    return add_training(build.add, training, base, adapters[model.start] if model.start else None)


def chat_template(build: Builder, base: str) -> str | None:
    """The template that the recipes of a base model give it; None = its own."""
    own = (model.recipe for model in build.resolved.models if model.base == base and model.recipe)
    templates = (build.resolved.recipes[recipe].chat_template for recipe in own)
    return next((template for template in templates if template is not None), None)


def judge_models(build: Builder) -> dict[str, str]:
    """The job that makes a judge's model, by judge, for judges that are trained here."""
    settings = {"seed": build.plan.seed, "training": build.plan.overrides.judge_model_training}
    found = {}
    for name, judge in build.resolved.judges.items():
        made = judge_trained_here(judge.declared)
        if made is not None:
            needs = {"base": _judge_base(build, made.family)}
            found[name] = build.add("judge model", made.job, _JUDGE_GROUP, settings, needs)
    return found


def _judge_base(build: Builder, family: str) -> str:
    """The checkpoint that the judge's model starts from: one that the plan has anyway, where it has it."""
    for base, entry in build.plan.models.items():
        if entry.pretrain == family:
            return checkpoint(build, base)
    what = {
        "tiny": family,
        "seed": build.plan.seed,
        "pretrain": build.plan.overrides.pretraining,
    }
    return build.add("checkpoint of the judge", "checkpoint", _JUDGE_GROUP, {"model": None, **what})


def spec_of(build: Builder, model: TrainedModel, entry: ModelEntry) -> ModelSpec:
    """How a model is asked; a tiny checkpoint and an adapter trained here are found when they are there."""
    spec = ModelSpec(name=model.name, base="") if entry.spec is None else entry.spec
    template = chat_template(build, model.base)
    prompt = spec.prompt if template is None else PromptFormat(chat_template=template)
    return msgspec.structs.replace(spec, name=model.name, prompt=prompt)
