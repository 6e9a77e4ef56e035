"""The models of a plan, the board's rows to come, and whose responses theirs are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from alignboard.errors import InputError, nearest
from alignboard.pipeline.plans.models import ModelEntry, is_adapter
from alignboard.pipeline.plans.repeats import Draw, Repeats, draws_of
from alignboard.pipeline.plans.schema import BASE_METHOD, Plan, ReleasedOutputs
from alignboard.pipeline.plans.sets import PlanSet, named_baseline, released_baseline
from alignboard.pipeline.plans.sweeps import RecipeRun, runs_of

if TYPE_CHECKING:
    from alignboard.training.recipe import Recipe


@dataclass(frozen=True)
class TrainedModel:
    """One row of the board to come."""

    name: str
    base: str
    """the entry of the plan that it is, or was trained on"""
    method: str
    recipe: str | None
    start: str | None
    """the model whose adapter training starts from"""
    baseline: str | None
    """the model of the plan that it is compared with, on sets without a baseline of their own"""
    family: str
    """the models that it is shown beside"""
    run: RecipeRun | None = None
    """of a recipe: which setting and seed"""
    draw: Draw | None = None
    """where responses or verdicts are repeated: which"""

    @property
    def made(self) -> str:
        """The model without its repetitions, which share its weights."""
        return self.name if self.draw is None else self.name.removesuffix(self.draw.suffix)

    @property
    def answered(self) -> str:
        """The run that generates its responses; verdicts on one response share them."""
        verdict = 0 if self.draw is None else self.draw.verdict
        return f"{self.name.removesuffix(f'-verdict{verdict}')}-verdict0" if verdict else self.name

    @property
    def row(self) -> str:
        """The row of the board that it is in, with the other seeds of its setting and its repetitions."""
        seed = None if self.run is None else self.run.seed
        return self.made if seed is None else self.made.removesuffix(f"-seed{seed}")


def models_of(
    path: Path, plan: Plan, entry: ModelEntry, recipes: Mapping[str, Recipe], root: Path
) -> list[TrainedModel]:
    """The model of an entry and what its recipes make of it."""
    base = entry.name
    made: dict[str, str] = {}  # recipe -> model
    found = [TrainedModel(base, base, entry.method, None, None, None, entry.family)]
    runs = [
        run for recipe in plan.recipes_of(entry.declared) for run in runs_of(recipe, plan.sweeps)
    ]
    for run in runs:
        name = f"{base}-{run.suffix}"
        if run.method == entry.method or name in made.values():
            raise InputError(f"{path}: two recipes of {base} would both make the model {name}.")
        start = recipes[run.key].start_from
        if start is not None and is_adapter(start, root):
            start = None  # no model of the plan
        if start is not None and start not in made:
            raise InputError(
                f"{path}: the recipe {run.recipe} starts from {start}, which has to stand before it in the recipes of "
                f"{base}, and be no part of a sweep."
            )
        made[run.key] = name
        begins = made[start] if start else None
        found.append(TrainedModel(name, base, run.method, run.key, begins, None, entry.family, run))
    return found


def require_distinct(path: Path, models: Sequence[TrainedModel]) -> None:
    """Raise `InputError` where two entries would make models of one name."""
    seen: dict[str, TrainedModel] = {}
    for model in models:
        other = seen.setdefault(model.name, model)
        if other is not model:
            raise InputError(
                f"{path}: models.{other.base} and models.{model.base} would both make the model {model.name}."
            )


def with_baselines(
    path: Path, plan: Plan, models: Sequence[TrainedModel], sets: Sequence[PlanSet]
) -> list[TrainedModel]:
    """Each model with the one of the plan that it is compared with, where ``baseline`` means one."""
    given = plan.baseline
    if isinstance(given, ReleasedOutputs) or (
        given is None and all(one.suite.baseline for one in sets)
    ):
        return list(models)
    wanted = BASE_METHOD if given is None else given
    named = {model.name for model in models}
    if wanted in named:
        return [replace(model, baseline=wanted) for model in models]
    if all(model.method != wanted for model in models) and given is not None:
        return list(models)  # a baseline from outside, if it exists
    found = []
    for model in models:
        own = {other.method: other.name for other in models if other.family == model.family}
        if wanted not in own:
            hint = nearest(wanted, own)
            raise InputError(
                f"{path}: baseline is {wanted!r}, but {model.family} has {', '.join(own)}{hint or '.'}"
            )
        found.append(replace(model, baseline=own[wanted]))
    return found


def repeated(
    models: Sequence[TrainedModel], repeats: Repeats, entries: Mapping[str, ModelEntry]
) -> list[TrainedModel]:
    """The runs of every model but of baselines, whose responses the others are compared with.

    Responses that are there already are not repeated, verdicts on them are.
    """
    if not repeats.several:
        return list(models)
    baselines = {model.baseline for model in models}
    return [
        replace(model, name=f"{model.name}{draw.suffix}", draw=draw)
        for model in models
        for draw in (
            [Draw("")]
            if model.name in baselines
            else draws_of(repeats, given=entries[model.base].declared.outputs is not None)
        )
    ]


def with_reference(
    path: Path,
    plan: Plan,
    one: PlanSet,
    models: Sequence[TrainedModel],
    root: Path,
) -> PlanSet:
    """A set with the baseline that is none of the plan's models, where it has one."""
    names = {model.name for model in models}
    given = one.suite.baseline if plan.baseline is None else plan.baseline
    if given is None or given in names or (plan.baseline is not None and models[0].baseline):
        return one
    try:
        if isinstance(given, ReleasedOutputs):
            found = released_baseline(given.outputs, root, one.asked)
        else:
            found = named_baseline(given, root, one.asked)
    except InputError as error:
        methods = sorted({model.method for model in models})
        hint = nearest(str(given), [*methods, *sorted(names)])
        what = given.outputs if isinstance(given, ReleasedOutputs) else given
        raise InputError(
            f"{path}: baseline is {what!r}, which is no method ({', '.join(methods)}) and no model of the plan"
            f"{hint or ';'} {error}"
        ) from error
    if found.model in names:
        raise InputError(
            f"{path}: the baseline's responses in {found.path} are by {found.model}, which is a model of the plan; "
            f"say baseline: {found.model}."
        )
    return replace(one, reference=found)
