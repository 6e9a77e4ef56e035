"""The jobs of one training: pairs, rows, tokens, reference, and the training itself.

The first four have names and parameters of what decides their content, so that trainings that need the same share them,
in one run and across runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from alignboard.data.preferences.entries import entry_text
from alignboard.data.preferences.sources import local_files
from alignboard.fetch.packages import is_packaged, packaged_digest
from alignboard.models.sources import source_identity
from alignboard.pipeline.graph import digest
from alignboard.pipeline.plans.baselines import TrainedModel
from alignboard.pipeline.plans.made import made_here
from alignboard.pipeline.plans.models import is_adapter
from alignboard.results.files import file_sha256

if TYPE_CHECKING:
    from alignboard.pipeline.plans.resolved import ResolvedPlan
    from alignboard.training.recipe import Recipe

_DATA_GROUP = "training data"


class AddJob(Protocol):
    """Adds a job to a graph; returns its name."""

    def __call__(  # noqa: D102 - as `Graph.add`
        self,
        name: str,
        kind: str,
        group: str,
        parameters: Mapping[str, Any],
        needs: Mapping[str, str | None] | None = None,
        hints: Mapping[str, Any] | None = None,
    ) -> str: ...


@dataclass(frozen=True)
class Training:
    """A recipe on a base of a plan."""

    model: TrainedModel
    recipe: Recipe
    plan: ResolvedPlan

    @property
    def workspace(self) -> Path:
        """Where files are named from."""
        return self.plan.workspace

    @property
    def seed(self) -> int:
        """The plan's: of the rows, which seeds of a recipe share."""
        return self.plan.plan.seed


def add_training(add: AddJob, training: Training, base: str, start: str | None) -> str:
    """Add the jobs of a training; ``start`` is the job whose adapter it starts from. Returns the name of its job."""
    model, recipe = training.model, training.recipe
    outside, hints = _outside_start(training)
    declared = str(model.recipe) if model.run is None else model.run.recipe
    hints |= {"per_device": recipe.batch.per_device, "declared": declared}
    needs = {"base": base, "start": start}
    rows = _data(add, training, needs)
    tokens = reference = None
    if recipe.kind != "rated":
        how = {"whole": recipe.train_on == "all", "chat_template": recipe.chat_template, **outside}
        name = f"tokens {model.base} {_short(rows, needs, how)}"
        tokens = add(name, "tokens", model.base, how, {**needs, "data": rows}, hints)
    if tokens is not None and recipe.is_preference and recipe.loss_spec.uses_reference:
        seen = _reference_parameters(recipe) | outside
        name = f"reference {model.base} {_short(tokens, needs, seen)}"
        given = {**hints, "recipe": recipe.identity()}
        reference = add(name, "reference", model.base, seen, {**needs, "tokens": tokens}, given)
    parameters = {
        "model": model.name,
        "recipe": recipe.identity(),
        "seed": training.seed + recipe.seed,
        **outside,
    }
    hints |= {"save_every": recipe.save_every, "report_to": recipe.report_to}
    needs |= {"data": rows, "tokens": tokens, "reference": reference}
    return add(f"train {model.name}", "train", model.base, parameters, needs, hints)


def _outside_start(training: Training) -> tuple[dict[str, Any], dict[str, Any]]:
    """(what identifies an adapter that no job of the plan makes, where it is); empty where none is started from."""
    start, root = training.recipe.start_from, training.workspace
    if start is None or not is_adapter(start, root):
        return {}, {}
    local = root / start
    return {"start": source_identity(start, root)}, {
        "start": str(local) if local.exists() else start
    }


def _data(add: AddJob, training: Training, needs: Mapping[str, str | None]) -> str:
    recipe, model = training.recipe, training.model
    content = recipe.identity()
    held_out = content.get("held_out")
    parameters = {
        "kind": recipe.kind,
        "data": content["data"],
        "held_out": held_out and {k: v for k, v in held_out.items() if k != "every"},
        "files": _files(recipe, training.workspace),
        "seed": training.seed,
    }
    label = Path(recipe.sole_data or "mixture").name
    if recipe.pairs is not None:
        settings = {"pairs": content["pairs"], "seed": training.seed, **_asking(training)}
        of = {"base": needs["base"], "adapter": needs["start"]}
        name = f"pairs {model.start or model.base} {digest(settings)[:6]}"
        pairs = add(name, "pairs", model.base, settings, of)
        name = f"data {model.start or model.base} {digest(parameters | settings)[:6]}"
        return add(name, "data", model.base, parameters, {"pairs": pairs})
    fetched = not parameters["files"] and not made_here(str(recipe.sole_data))
    short = digest(parameters)[:6]
    if fetched:  # a base that is not there is noticed before rows are fetched
        name = f"data {model.base} {label} {short}"
        return add(name, "data", model.base, parameters, {"base": needs["base"]})
    return add(f"data {label} {short}", "data", _DATA_GROUP, parameters)


def _asking(training: Training) -> dict[str, Any]:
    """How the model is asked for the pairs, where that is not its tokenizer's own way."""
    spec = training.plan.entries[training.model.base].spec
    said = {
        "chat_template": training.recipe.chat_template,
        "stop": None if spec is None else spec.stop,
    }
    return {name: value for name, value in said.items() if value}


def _reference_parameters(recipe: Recipe) -> dict[str, Any]:
    """What decides the numbers of a reference, beside its base, its adapter and its tokens."""
    steps, quantization = recipe.duration.steps, recipe.quantization
    return {
        "max_length": recipe.max_length,
        "precision": recipe.precision,
        "quantization": quantization and msgspec.to_builtins(quantization),
        "trl": recipe.trl,
        "at_most": steps and steps * recipe.batch.global_,
    }


def _short(rows: str, needs: Mapping[str, str | None], parameters: Mapping[str, Any]) -> str:
    """What follows the base in the name of a job that trainings share."""
    return f"{rows.rpartition(' ')[2]}-{digest({**needs, **parameters})[:6]}"


def _files(recipe: Recipe, workspace: Path) -> list[str]:
    """The digest of each source that lies in local files or in a package, held-out rows last."""
    held_out = recipe.held_out.data if recipe.held_out else None
    names = [one.name for one in recipe.data_sets] + ([] if held_out is None else [held_out.name])
    found = [_digest(name, workspace) for name in names]
    return [one for one in found if one is not None]


def _digest(name: str, workspace: Path) -> str | None:
    if is_packaged(name):
        return packaged_digest(name, workspace)
    file, _, entry = name.partition("#")
    declared = [entry_text(workspace / file, entry)] if entry else []
    found = [*map(file_sha256, local_files(name, workspace)), *declared]
    return hashlib.sha256("".join(found).encode()).hexdigest() if found else None
