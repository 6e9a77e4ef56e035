"""What a plan declares: ``evaluate/plans/<name>.yaml``, validated and resolved.

A plan names base models, the recipes that train adapters on them, the suites that they are asked and the judges that
compare their answers. Every trained model is called ``<base>-<last part of the recipe's name>``: the recipe
``demo/dpo`` on the base ``tiny-phi`` makes ``tiny-phi-dpo``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from alignboard.benchmarks.run import DEMO_TASKS
from alignboard.benchmarks.task_files import digests
from alignboard.errors import InputError, nearest
from alignboard.judges.alpaca_eval.configs import Pool
from alignboard.judges.load import load_judge
from alignboard.judges.spec import JudgeSpec
from alignboard.suites import EvaluationSuite, convert, load_evaluation, read_yaml
from alignboard.workspace import declaration, model_name

if TYPE_CHECKING:
    from alignboard.train.recipe import Recipe

BASE_METHOD = "base"
"""what the method of an untrained model is called on a board"""
TINY_FAMILIES = ("phi", "mistral", "gemma", "llama")


class PlanModel(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A base model; exactly one of ``tiny`` and ``source``."""

    tiny: str | None = None
    """a family of tiny checkpoints, pretrained on the spot"""
    source: str | None = None
    """a model id on the hub, or a folder (relative to the workspace)"""
    recipes: list[str] | None = None
    """instead of the plan's"""


class Pairwise(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The round robin: every pair of models on a subset of the prompts."""

    judge: str
    n_prompts: int


class Overrides(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Settings in place of the declared ones: to scale a plan down, or to vary one thing."""

    pretrain: dict[str, int | float] = {}
    """fields of `alignboard.models.tiny.PretrainConfig`"""
    recipes: dict[str, dict[str, Any]] = {}
    """by recipe name; merged into the recipe, mappings key by key"""
    judge_training: dict[str, int | float] = {}
    """fields of `alignboard.judges.demo.judge_training.JudgeTraining`"""


class Plan(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One run, from checkpoints to a board."""

    name: str
    models: dict[str, PlanModel]
    suites: list[str]
    title: str = ""
    seed: int = 0
    recipes: list[str] = []
    """trained on every base model, in this order"""
    judges: list[str] = []
    baseline: str = BASE_METHOD
    """each model's answers are compared with those of this method on the same base model"""
    n_prompts: int | None = None
    """instead of the suite's number of instructions"""
    pairwise: Pairwise | None = None
    overrides: Overrides = Overrides()


@dataclass(frozen=True)
class TrainedModel:
    """One row of the board to come."""

    name: str
    base: str
    method: str
    recipe: str | None
    start: str | None
    """the model whose adapter training starts from"""
    baseline: str | None
    """the model that it is compared with"""


@dataclass(frozen=True)
class ResolvedPlan:
    """A plan with everything that it names, read and checked."""

    plan: Plan
    path: Path
    workspace: Path
    recipes: Mapping[str, Recipe]
    judges: Mapping[str, JudgeSpec | Pool]
    asked: EvaluationSuite | None
    """the suite whose instructions are answered and judged"""
    benchmarks: tuple[EvaluationSuite, ...]
    task_files: Mapping[str, Mapping[str, str]]
    """by suite: sha256 of the files that its tasks are made of, where they are declared here with their data"""
    models: tuple[TrainedModel, ...]
    """base by base, the base model first"""

    @property
    def n_prompts(self) -> int:
        """How many instructions are answered; 0 where no suite has any."""
        if self.asked is None or self.asked.instructions is None:
            return 0
        return self.plan.n_prompts or self.asked.instructions.n


def load_plan(name: str | Path, workspace: Path | None = None) -> ResolvedPlan:
    """The plan called ``name`` (or its file); raises `InputError` that names the file and the key."""
    root = (workspace or Path.cwd()).resolve()
    path = declaration("evaluate/plans", str(name), root)
    return resolve(convert(path, read_yaml(path), Plan, "a plan"), path, root)


def resolve(plan: Plan, path: Path, root: Path) -> ResolvedPlan:
    """``plan`` with everything that it names; ``path`` is what errors call it."""
    _check(path, plan)
    names = sorted(
        {recipe for entry in plan.models.values() for recipe in _recipes_of(plan, entry)}
    )
    recipes = {recipe: _recipe(recipe, plan, root) for recipe in names}
    suites = [load_evaluation(suite, root) for suite in plan.suites]
    asked = [suite for suite in suites if suite.instructions is not None]
    if len(asked) > 1:
        raise InputError(
            f"{path}: suites {asked[0].name!r} and {asked[1].name!r} both have instructions, and a model has one "
            "file of outputs; make two plans."
        )
    if plan.judges and not asked:
        raise InputError(
            f"{path}: there are judges, but no suite has instructions whose answers they could judge."
        )
    models = tuple(
        model
        for base, entry in plan.models.items()
        for model in _models(path, plan, base, entry, recipes)
    )
    return ResolvedPlan(
        plan=plan,
        path=path,
        workspace=root,
        recipes=recipes,
        judges={judge: load_judge(judge, root) for judge in plan.judges},
        asked=asked[0] if asked else None,
        benchmarks=tuple(suite for suite in suites if suite.benchmarks),
        task_files={suite.name: _task_files(suite, root) for suite in suites},
        models=models,
    )


def _check(path: Path, plan: Plan) -> None:
    """What the types alone do not say."""
    _require_name(path, "name", plan.name)
    if not plan.models:
        raise InputError(f"{path}: models is empty; name at least one base model.")
    for name, entry in plan.models.items():
        _check_model(path, name, entry)
    for judge in plan.judges:
        _require_name(path, "judges", judge)
    if len(set(plan.judges)) < len(plan.judges):
        raise InputError(f"{path}: judges names one judge twice.")
    _require_positive(path, "n_prompts", plan.n_prompts)
    if plan.pairwise is not None:
        _require_positive(path, "pairwise.n_prompts", plan.pairwise.n_prompts)
        if plan.pairwise.judge not in plan.judges:
            hint = nearest(plan.pairwise.judge, plan.judges) or "."
            raise InputError(
                f"{path}: pairwise.judge is {plan.pairwise.judge!r}, which is not one of the plan's judges{hint}"
            )
    known = _all_recipes(plan)
    for name in sorted(plan.overrides.recipes.keys() - known):
        hint = nearest(name, known) or "."
        raise InputError(
            f"{path}: overrides.recipes has {name!r}, which the plan does not use{hint}"
        )


def _check_model(path: Path, name: str, entry: PlanModel) -> None:
    _require_name(path, "models", name)
    if (entry.tiny is None) == (entry.source is None):
        raise InputError(f"{path}: models.{name} needs exactly one of tiny and source.")
    if entry.tiny is not None and entry.tiny not in TINY_FAMILIES:
        hint = nearest(entry.tiny, TINY_FAMILIES) or f"; known: {', '.join(TINY_FAMILIES)}"
        raise InputError(
            f"{path}: models.{name}.tiny is {entry.tiny!r}, which is no tiny family{hint}"
        )


def _require_positive(path: Path, field: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise InputError(f"{path}: {field} is {value}; it has to be 1 at least.")


def _require_name(path: Path, field: str, name: str) -> None:
    try:
        model_name(name)
    except InputError as error:
        raise InputError(f"{path}: {field}: {error}") from error
    if name.startswith("."):
        raise InputError(f"{path}: {field}: the name {name!r} must not begin with a dot.")


def _recipes_of(plan: Plan, entry: PlanModel) -> list[str]:
    return plan.recipes if entry.recipes is None else entry.recipes


def _all_recipes(plan: Plan) -> set[str]:
    return {recipe for entry in plan.models.values() for recipe in _recipes_of(plan, entry)}


def _models(
    path: Path, plan: Plan, base: str, entry: PlanModel, recipes: Mapping[str, Recipe]
) -> list[TrainedModel]:
    """The base model and what its recipes make of it."""
    made: dict[str, str] = {}  # recipe -> model
    methods = [BASE_METHOD]
    for recipe in _recipes_of(plan, entry):
        method = recipe.rsplit("/", 1)[-1]
        if method in methods:
            raise InputError(
                f"{path}: two recipes of {base} would both make the model {base}-{method}."
            )
        start = recipes[recipe].start_from
        if start is not None and start not in made:
            raise InputError(
                f"{path}: the recipe {recipe} starts from {start}, which has to stand before it in the recipes of "
                f"{base}."
            )
        made[recipe] = f"{base}-{method}"
        methods.append(method)
    if plan.judges and plan.baseline not in methods:
        hint = nearest(plan.baseline, methods)
        raise InputError(
            f"{path}: baseline is {plan.baseline!r}, but {base} has {', '.join(methods)}{hint or '.'}"
        )
    name = {method: base if method == BASE_METHOD else f"{base}-{method}" for method in methods}
    baseline = name.get(plan.baseline)
    found = [TrainedModel(base, base, BASE_METHOD, None, None, baseline)]
    for recipe, model in made.items():
        start = recipes[recipe].start_from
        method = model.removeprefix(f"{base}-")
        found.append(
            TrainedModel(model, base, method, recipe, made[start] if start else None, baseline)
        )
    return found


def _task_files(suite: EvaluationSuite, root: Path) -> dict[str, str]:
    try:
        return digests((b.task for b in suite.benchmarks if b.task not in DEMO_TASKS), root)
    except InputError as error:
        raise InputError(f"evaluate/suites/{suite.name}.yaml: {error}") from error


def _recipe(name: str, plan: Plan, root: Path) -> Recipe:
    from alignboard.train.recipe import parse_recipe

    path = declaration("train", name, root)
    return parse_recipe(merged(read_yaml(path), plan.overrides.recipes.get(name, {})), str(path))


def merged(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``content`` with ``changes`` in place, mappings key by key.

    >>> merged({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}})
    {'a': {'b': 1, 'c': 3}}
    """
    result = dict(content)
    for key, value in changes.items():
        old = result.get(key)
        result[key] = (
            merged(old, value) if isinstance(value, dict) and isinstance(old, dict) else value
        )
    return result


def source_identity(source: str, root: Path) -> dict[str, Any]:
    """What tells one base model from another: the hub id, or a folder's configuration and the sizes of its weights."""
    folder = root / source
    if not folder.is_dir():
        return {"id": source}
    config = folder / "config.json"
    if not config.is_file():
        raise InputError(f"{folder} holds no config.json: it is no checkpoint.")
    weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    return {
        "folder": str(folder.resolve()),
        "config": hashlib.sha256(config.read_bytes()).hexdigest(),
        "weights": [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in weights],
    }
