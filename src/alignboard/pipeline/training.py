"""One recipe on one model: what is asked, the plan it makes, a look at it before any weights are read, the training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignboard.errors import InputError
from alignboard.fetch.packages import PREFIX
from alignboard.guarded_yaml import SAFE_LOADER, parse_yaml
from alignboard.models.registry import load_model
from alignboard.pipeline.executors.work import Event, silent
from alignboard.pipeline.plans.made import made_here, tiny_families
from alignboard.pipeline.plans.models import is_adapter, local_or_named
from alignboard.pipeline.plans.plan import resolve
from alignboard.pipeline.plans.resolved import ResolvedPlan
from alignboard.pipeline.plans.schema import (
    BASE_METHOD,
    Overrides,
    Plan,
    PlanModel,
    require_name,
)
from alignboard.pipeline.plans.sweeps import Sweep
from alignboard.pipeline.runner import RunResult, run_resolved
from alignboard.pipeline.store import WorkspacePaths
from alignboard.workspace import declaration, find

if TYPE_CHECKING:
    from datasets import Dataset

    from alignboard.data.preferences.read import DataReport


@dataclass(frozen=True)
class TrainingRequest:
    """A recipe, the model that it is trained on, and what is set in place of the recipe's fields."""

    recipe: str
    model: str | None = None
    """``tiny-<family>``, or what `load_model` takes: a name of the registry, a folder or .gguf file, an id on the hub,
    ``package:NAME``; None: the one that the recipe names"""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """merged into the recipe, mappings key by key"""
    name: str | None = None
    """the trained model's folder in results/; None: ``<base>-<last part of the recipe's name>``"""


@dataclass(frozen=True)
class SweepRequest:
    """Recipes, the settings and seeds that each is trained with, and what the board compares them on."""

    recipes: Sequence[str]
    over: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """a field's path, and its values"""
    seeds: int = 1
    model: str | None = None
    data: str | None = None
    report_on: str = "demo"
    """the suite of the board"""
    select_on: str | None = None
    """the suite that chooses settings; None: the same"""
    judge: str | None = None
    name: str = "sweep"


def parse_settings(given: Sequence[str]) -> dict[str, Any]:
    """Settings from ``loss.beta=0.2``: a field's path and a YAML value.

    >>> parse_settings(["loss.beta=0.2", "loss.alpha=1", "seed=3"])
    {'loss': {'beta': 0.2, 'alpha': 1}, 'seed': 3}
    """
    found: dict[str, Any] = {}
    for one in given:
        path, equals, text = one.partition("=")
        keys = path.split(".")
        if not equals or not all(keys):
            raise InputError(f"--set {one}: FIELD=VALUE was expected, such as loss.beta=0.2.")
        inner = found
        for key in keys[:-1]:
            inner = inner.setdefault(key, {})
            if not isinstance(inner, dict):
                raise InputError(f"--set {one}: {key} has a value already.")
        try:
            inner[keys[-1]] = parse_yaml(text, SAFE_LOADER)
        except InputError as error:
            raise InputError(f"--set {one}: the value is not readable YAML: {error}.") from error
    return found


def train_recipe(
    asked: TrainingRequest,
    workspace: Path | None = None,
    *,
    dry_run: bool = False,
    on_progress: Callable[[Event], None] = silent,
    redo: Sequence[str] = (),
) -> tuple[Path, RunResult]:
    """Train a recipe, and first whatever it starts from: (the adapter's folder, what was done)."""
    resolved = training_plan(asked, (workspace or Path.cwd()).resolve())
    result = run_resolved(resolved, dry_run=dry_run, on_progress=on_progress, redo=redo)
    return adapter_folder(resolved), result


def adapter_folder(resolved: ResolvedPlan) -> Path:
    """Where the adapter of a training lies."""
    return WorkspacePaths(resolved.workspace).results / resolved.models[-1].name / "adapter"


def parse_values(given: Sequence[str]) -> dict[str, list[Any]]:
    """Values of fields from ``loss.beta=0.01,0.1``.

    >>> parse_values(["loss.beta=0.01,0.1", "method=dpo,ipo"])
    {'loss.beta': [0.01, 0.1], 'method': ['dpo', 'ipo']}
    """
    found = {}
    for one in given:
        path, equals, text = one.partition("=")
        if not equals or not path or not text.strip():
            raise InputError(
                f"--over {one}: FIELD=VALUE,VALUE was expected, such as loss.beta=0.01,0.1."
            )
        try:
            found[path] = parse_yaml(f"[{text}]", SAFE_LOADER)
        except InputError as error:
            raise InputError(f"--over {one}: the values are not readable YAML: {error}.") from error
    return found


def sweep_plan(asked: SweepRequest, workspace: Path) -> ResolvedPlan:
    """A plan that trains recipes with each setting and seed, and compares them with what they start from."""
    model, revision, chains = asked.model, None, dict[str, None]()
    own = {} if asked.data is None else {"data": {"name": asked.data}, "pairs": None}
    starts = set[str]()
    for recipe in asked.recipes:
        chain, model, found = _chain(recipe, model, {}, workspace)
        revision = revision or found
        chains |= dict.fromkeys(chain)
        starts.add(chain[-2].rsplit("/", 1)[-1] if len(chain) > 1 else BASE_METHOD)
    base, entry = _entry(str(model), revision)
    suites = [asked.report_on]
    if asked.select_on is not None and asked.select_on != asked.report_on:
        suites.append(asked.select_on)
    plan = Plan(
        name=asked.name,
        title=f"{', '.join(asked.recipes)} on {base}",
        models={base: entry},
        suites=suites,
        recipes=list(chains),
        judges=None if asked.judge is None else [asked.judge],
        baseline=starts.pop() if len(starts) == 1 else None,
        sweep=Sweep(
            recipes=list(asked.recipes),
            over={name: list(values) for name, values in asked.over.items()},
            seeds=asked.seeds,
            select_on=asked.select_on,
        ),
        overrides=Overrides(recipes=dict.fromkeys(asked.recipes, own) if own else {}),
    )
    resolved = resolve(plan, Path("--over"), workspace)
    if resolved.sets and not resolved.judges:
        raise InputError(f"The suite {asked.report_on} names no judge; say one with --judge.")
    return resolved


def _chain(
    recipe: str, model: str | None, settings: Mapping[str, Any], workspace: Path
) -> tuple[list[str], str, str | None]:
    """(a recipe after those that it starts from, the model, its revision where the recipe names it)."""
    from alignboard.training.recipe import load_recipe

    chain, revision = list[str](), None
    _require_model(model, workspace)
    following: str | None = recipe
    while following is not None:
        if following in chain:
            raise InputError(f"The recipes {', '.join(reversed(chain))} start from each other.")
        chain.insert(0, following)
        declared = load_recipe(declaration("train", following, workspace))
        if model is None and declared.model is not None:
            model, revision = declared.model, declared.revision
        following = declared.start_from
        if len(chain) == 1:  # the recipe that was asked for
            following = settings.get("start_from", following)
        if following is None or is_adapter(following, workspace):
            break
        if find("train", following, workspace) is None:
            raise InputError(
                f"start_from: {following} is no recipe of train/, and neither a folder with adapter_config.json nor an "
                "id on the hub (owner/name)."
            )
    if model is None:
        raise InputError(f"The recipe {recipe} names no model; say which one to train.")
    return chain, model, revision


def _entry(model: str, revision: str | None) -> tuple[str, PlanModel]:
    """(what a model is called in a plan, its entry)."""
    family = _tiny_family(model)
    base = model.rstrip("/").rsplit("/", 1)[-1].removeprefix(PREFIX)
    if family is not None:
        return base, PlanModel(pretrain=family)
    return base, PlanModel(source=model, revision=revision)


def training_plan(asked: TrainingRequest, workspace: Path) -> ResolvedPlan:
    """A plan that trains a recipe, and the recipes that it starts from, on one model, and asks nothing."""
    chain, model, revision = _chain(asked.recipe, asked.model, asked.settings, workspace)
    base, entry = _entry(model, revision)
    settings = {asked.recipe: dict(asked.settings)} if asked.settings else {}
    plan = Plan(
        name=f"train-{base}",
        models={base: entry},
        suites=[],
        recipes=chain,
        overrides=Overrides(recipes=settings),
    )
    resolved = resolve(plan, Path(f"the model {model}"), workspace)
    if asked.name is None:
        return resolved
    require_name(Path("--name"), "the trained model", asked.name)
    *others, trained = resolved.models
    if any(one.name == asked.name for one in others):
        raise InputError(f"--name {asked.name} is what the training starts from; give another.")
    return replace(resolved, models=(*others, replace(trained, name=asked.name)))


def training_rows(resolved: ResolvedPlan) -> tuple[Dataset, list[DataReport]] | None:
    """The rows that the plan's last recipe trains on, and their reports; None where jobs of the plan make them."""
    from alignboard.data.preferences.read import read_all

    recipe = resolved.recipes[str(resolved.models[-1].recipe)]
    if recipe.sole_data is not None and made_here(recipe.sole_data):
        return None
    sources = [one.source(resolved.workspace) for one in recipe.data_sets]
    return read_all(sources, recipe.kind, resolved.plan.seed)


def _require_model(model: str | None, workspace: Path) -> None:
    """Raise `InputError` for a model that is neither tiny nor one of `load_model`."""
    if model is None or _tiny_family(model) is not None:
        return
    try:
        load_model(local_or_named(model, workspace), workspace)
    except InputError as error:
        raise InputError(f"{str(error).rstrip('.')}; a tiny one is tiny-<family>.") from error


def _tiny_family(model: str) -> str | None:
    family = model.removeprefix("tiny-")
    return family if model != family and family in tiny_families() else None
