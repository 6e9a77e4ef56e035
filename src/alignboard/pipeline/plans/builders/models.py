"""Jobs that make models: checkpoints, pairs, adapters, and the models of judges that are trained here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from alignboard.data.preferences.sources import local_files
from alignboard.fetch.packages import is_packaged, packaged_digest
from alignboard.models.spec import ModelSpec, PromptFormat
from alignboard.pipeline.plans.baselines import TrainedModel
from alignboard.pipeline.plans.builders.base import Builder
from alignboard.pipeline.plans.made import judge_trained_here
from alignboard.pipeline.plans.models import (
    ModelEntry,
    is_adapter,
    pinned,
    source_identity,
    weights_identity,
)
from alignboard.results.files import file_sha256

if TYPE_CHECKING:
    from alignboard.train.recipe import Recipe

_JUDGE_GROUP = "judge model"


def checkpoint(build: Builder, base: str) -> str:
    """An entry's weights: a tiny checkpoint, or a note of where they are."""
    entry = build.resolved.entries[base]
    hints = {}
    if entry.spec is None:
        what = {
            "tiny": entry.declared.tiny,
            "seed": build.plan.seed,
            "pretrain": build.plan.overrides.pretrain,
        }
    else:
        what = {"source": weights_identity(entry.spec, build.resolved.workspace)}
        where = ("revision", "gguf_file")
        spec = pinned(entry.spec)
        hints = {"path": spec.base} | {one: getattr(spec, one) for one in where}
    parameters = {"model": base, **what}
    return build.add(f"checkpoint {base}", "checkpoint", entry.group, parameters, hints=hints)


def train(build: Builder, model: TrainedModel, adapters: Mapping[str, str]) -> str:
    """A model that a recipe trains, and the pairs that it is trained on where responses make them."""
    recipe = build.resolved.recipes[str(model.recipe)]
    base = checkpoint(build, model.base)
    start = adapters[model.start] if model.start else None
    pairs = None
    if recipe.pairs is not None:
        # Recipes that ask for the same pairs share them.
        settings = {"pairs": msgspec.to_builtins(recipe.pairs), "seed": build.plan.seed}
        name = f"pairs {model.start or model.base}"
        known = build.graph.jobs.get(name)
        if known is not None and known.parameters != settings:
            name = f"pairs for {model.name}"
        pairs = build.add(name, "pairs", model.base, settings, {"base": base, "adapter": start})
    parameters = {
        "model": model.name,
        "recipe": recipe.identity(),
        "data": _data_file(build, recipe),
        "seed": build.plan.seed + recipe.seed,
    }
    hints: dict[str, Any] = {
        "per_device": recipe.batch.per_device,
        "save_every": recipe.save_every,
    }
    root = build.resolved.workspace
    if recipe.start_from is not None and is_adapter(recipe.start_from, root):
        parameters["start"] = source_identity(recipe.start_from, root)
        local = root / recipe.start_from
        hints["start"] = str(local) if local.exists() else recipe.start_from
    needs = {"base": base, "start": start, "pairs": pairs}
    return build.add(f"train {model.name}", "train", model.base, parameters, needs, hints)


def _data_file(build: Builder, recipe: Recipe) -> str | None:
    """sha256 over the files, local or of a package, that a recipe trains on; None where its rows are elsewhere."""
    held_out = recipe.held_out.data if recipe.held_out else None
    found = [_digest(build, one.name) for one in recipe.data_sets]
    found += [] if held_out is None else [_digest(build, held_out.name)]
    known = [one for one in found if one is not None]
    if len(known) < 2:
        return known[0] if known else None
    return hashlib.sha256("".join(known).encode()).hexdigest()


def _digest(build: Builder, name: str) -> str | None:
    if is_packaged(name):
        return packaged_digest(name, build.resolved.workspace)
    files = local_files(name, build.resolved.workspace)
    if not files:
        return None
    return hashlib.sha256("".join(map(file_sha256, files)).encode()).hexdigest()


def chat_template(build: Builder, base: str) -> str | None:
    """The template that the recipes of a base model give it; None = its own."""
    own = (model.recipe for model in build.resolved.models if model.base == base and model.recipe)
    templates = (build.resolved.recipes[recipe].chat_template for recipe in own)
    return next((template for template in templates if template is not None), None)


def judge_models(build: Builder) -> dict[str, str]:
    """The job that makes a judge's model, by judge, for judges that are trained here."""
    settings = {"seed": build.plan.seed, "training": build.plan.overrides.judge_training}
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
        if entry.tiny == family:
            return checkpoint(build, base)
    what = {
        "tiny": family,
        "seed": build.plan.seed,
        "pretrain": build.plan.overrides.pretrain,
    }
    return build.add("checkpoint of the judge", "checkpoint", _JUDGE_GROUP, {"model": None, **what})


def spec_of(build: Builder, model: TrainedModel, entry: ModelEntry) -> ModelSpec:
    """How a model is asked; a tiny checkpoint and an adapter trained here are found when they are there."""
    spec = ModelSpec(name=model.name, base="") if entry.spec is None else entry.spec
    template = chat_template(build, model.base)
    prompt = spec.prompt if template is None else PromptFormat(chat_template=template)
    return msgspec.structs.replace(spec, name=model.name, prompt=prompt)
