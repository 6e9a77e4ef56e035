"""The schema of a plan: the fields of ``evaluate/plans/<name>.yaml``, and what the types alone do not say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from alignboard.engines.openai.format import Api
from alignboard.engines.openai.prices import Rate
from alignboard.engines.openai.served import Limits
from alignboard.errors import InputError, nearest
from alignboard.judges.spec import Order
from alignboard.pipeline.plans.made import tiny_families
from alignboard.pipeline.plans.repeats import Repeats, check_repeats
from alignboard.pipeline.plans.sweeps import Sweep, check_sweeps
from alignboard.workspace import model_name

BASE_METHOD = "base"
"""what the method of a model is called that recipes of the plan start from"""
UNDECLARED = "undeclared"
"""the method of a released checkpoint where neither the plan nor a training card says it"""


class EndpointSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Where a model or a judge is served, and how hard it may be asked."""

    engine: str | None = None
    """addresses of OpenAI-compatible endpoints up to ``/v1``, separated by commas; null: this process, or the judge's
    own address"""
    api_key_env: str | None = None
    """the environment variable that holds the key"""
    concurrency: int = 16
    """requests at a time, per address"""
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    price: Rate | None = None
    """US dollars per million tokens, in place of evaluate/prices.yaml"""

    @property
    def urls(self) -> tuple[str, ...]:
        """The addresses."""
        return tuple(url.strip() for url in (self.engine or "").split(",") if url.strip())

    @property
    def limits(self) -> Limits:
        """How hard each address may be asked."""
        return Limits(self.concurrency, self.requests_per_minute, self.tokens_per_minute)


class PlanModel(EndpointSettings, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A model; at most one of ``pretrain``, ``source`` and ``outputs``. With none of them its name is its source."""

    pretrain: str | None = None
    """a family of tiny checkpoints, pretrained on the spot"""
    source: str | None = None
    """a name of `alignboard models list`, an id on the hub, a checkpoint, an adapter or a .gguf file; folders and
    files are relative to the workspace"""
    outputs: str | None = None
    """released responses in place of a model: a model_outputs.json, or a folder that holds one"""
    revision: str | None = None
    """of an id on the hub: a branch, a tag or a commit"""
    adapter: str | None = None
    """a PEFT adapter on ``source``: a folder, or an id on the hub"""
    api: Api = "completions"
    """of an endpoint: token ids rendered here, or chat rendered by the server"""
    served_as: str | None = None
    """what the endpoint calls the model, where that is not ``source``"""
    trust_remote_code: bool = False
    """agree to run the repository's own Python where an entry asks"""
    method: str | None = None
    """how it was trained, such as dpo; null: as its training card says"""
    family: str | None = None
    """the models that it is shown beside; null: its base's of this plan, or itself"""
    recipes: list[str] | None = None
    """instead of the plan's; models without weights here have none"""


class PlanJudge(EndpointSettings, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A judge that is asked otherwise than it declares."""

    judge: str
    order: Order | None = None
    hardened: bool = False
    batch_api: bool = False
    """ask through the batch interface"""


class ReleasedOutputs(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Responses that are there, as the baseline."""

    outputs: str
    """a model_outputs.json, or a folder that holds one"""


class Pairwise(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The round robin: every pair of models on a subset of the prompts."""

    judge: str
    n_prompts: int
    set: str | None = None
    """of several sets, the one whose responses are compared; null: the first suite's"""


class Overrides(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Settings in place of the declared ones: to scale a plan down, or to vary one thing."""

    pretraining: dict[str, int | float] = {}
    """settings of tiny checkpoints (the demo's: the fields of `PretrainConfig`)"""
    recipes: dict[str, dict[str, Any]] = {}
    """by recipe name; merged into the recipe, mappings key by key"""
    judge_model_training: dict[str, int | float] = {}
    """settings of a judge's model that is trained here (the demo's: the fields of `JudgeTraining`)"""


class Plan(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One run, from checkpoints to a board."""

    name: str
    models: dict[str, PlanModel]
    suites: list[str]
    title: str = ""
    seed: int = 0
    recipes: list[str] = []
    """trained on every base model, in this order"""
    judges: list[str | PlanJudge] | None = None
    """null: the suites' own, where they name one"""
    baseline: str | ReleasedOutputs | None = None
    """a method (each model is compared with the model of that method in its family), a model of the plan or of the
    workspace, the baseline of a published suite, or ``{outputs: FILE}``; null: the suite's own, else the method base"""
    n_prompts: int | None = None
    """instead of the suites' limits"""
    pairwise: Pairwise | None = None
    published: Literal["all"] | list[str] | None = None
    """models of the published boards of the plan's suites that the board shows for reference; null: none"""
    sweep: Sweep | list[Sweep] = []
    """recipes that are trained with several settings and seeds; the board has one row per setting"""
    repeats: Repeats = Repeats()
    """how often every model responds and is judged; the board has one row per model"""
    overrides: Overrides = Overrides()
    notes: list[str] = []
    """sentences that the board shows below its own: what the plan cannot show"""

    @property
    def asked_judges(self) -> list[PlanJudge]:
        """The plan's own judges."""
        return [PlanJudge(judge=one) if isinstance(one, str) else one for one in self.judges or ()]

    def recipes_of(self, entry: PlanModel) -> list[str]:
        """The recipes that are trained on ``entry``."""
        if entry.recipes is not None:
            return entry.recipes
        return [] if entry.outputs or entry.engine or entry.adapter else self.recipes

    @property
    def sweeps(self) -> list[Sweep]:
        """The sweeps."""
        return self.sweep if isinstance(self.sweep, list) else [self.sweep]

    @property
    def all_recipes(self) -> set[str]:
        """Every recipe that the plan uses."""
        return {recipe for entry in self.models.values() for recipe in self.recipes_of(entry)}


def check(path: Path, plan: Plan) -> None:
    """Raise `InputError` for what the types alone allow; reads no other file."""
    require_name(path, "name", plan.name)
    if not plan.models:
        raise InputError(f"{path}: models is empty; name at least one model.")
    for name, entry in plan.models.items():
        _check_model(path, name, entry)
        if (entry.outputs or entry.engine or entry.adapter) and entry.recipes:
            raise InputError(
                f"{path}: models.{name} has recipes, but no base weights here to train them on."
            )
    for judge in plan.asked_judges:
        require_name(path, "judges", judge.judge)
        _require_positive(path, f"judges.{judge.judge}.concurrency", judge.concurrency)
    _require_positive(path, "n_prompts", plan.n_prompts)
    if plan.pairwise is not None:
        _require_positive(path, "pairwise.n_prompts", plan.pairwise.n_prompts)
    known = plan.all_recipes
    check_sweeps(path, plan.sweeps, known)
    if plan.sweeps and plan.pairwise is not None:
        raise InputError(f"{path}: pairwise compares single runs; leave it or sweep out.")
    check_repeats(path, plan.repeats, pairwise=plan.pairwise is not None)
    for name in sorted(plan.overrides.recipes.keys() - known):
        hint = nearest(name, known) or "."
        raise InputError(
            f"{path}: overrides.recipes has {name!r}, which the plan does not use{hint}"
        )


def _check_model(path: Path, name: str, entry: PlanModel) -> None:
    require_name(path, "models", name)
    if sum(one is not None for one in (entry.pretrain, entry.source, entry.outputs)) > 1:
        raise InputError(
            f"{path}: models.{name} needs exactly one of pretrain, source and outputs, or none where its name is its "
            "source."
        )
    families = tiny_families()
    if entry.pretrain is not None and entry.pretrain not in families:
        hint = nearest(entry.pretrain, families) or f"; known: {', '.join(families)}"
        raise InputError(
            f"{path}: models.{name}.pretrain is {entry.pretrain!r}, which is no tiny family{hint}"
        )
    _require_positive(path, f"models.{name}.concurrency", entry.concurrency)
    ignored = _ignored(entry)
    if ignored is not None:
        field, of = ignored
        raise InputError(f"{path}: models.{name}.{field} has no meaning for a model with {of}.")


def _ignored(entry: PlanModel) -> tuple[str, str] | None:
    """The first field that nothing would read, and what the model has."""
    served: Sequence[str] = ("api_key_env", "requests_per_minute", "tokens_per_minute", "price")
    served = (*served, "served_as")
    weights: Sequence[str] = ("revision", "adapter", "trust_remote_code")
    if entry.outputs is not None:
        unread, of = ("engine", *served, *weights), "outputs"
    elif entry.pretrain is not None:
        unread, of = ("engine", *served, *weights), "pretrain"
    elif entry.engine is None:
        unread, of = served, "no engine"
    else:
        unread, of = ("trust_remote_code",), "an engine"
    return next(((field, of) for field in unread if getattr(entry, field)), None)


def _require_positive(path: Path, field: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise InputError(f"{path}: {field} is {value}; it has to be 1 at least.")


def require_name(path: Path, field: str, name: str) -> None:
    """Raise `InputError` for a name that cannot be a folder's."""
    try:
        model_name(name)
    except InputError as error:
        raise InputError(f"{path}: {field}: {error}") from error
    if name.startswith("."):
        raise InputError(f"{path}: {field}: the name {name!r} must not begin with a dot.")
