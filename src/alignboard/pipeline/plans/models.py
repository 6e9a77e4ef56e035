"""The models of a plan: which checkpoint, endpoint or file of responses an entry means, its method and its family."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from alignboard.errors import InputError
from alignboard.models.hub import is_repository
from alignboard.models.registry import load_model
from alignboard.models.spec import ModelSpec
from alignboard.pipeline.answerers import Served
from alignboard.pipeline.plans.schema import BASE_METHOD, UNDECLARED, Plan, PlanModel
from alignboard.results.files import read_json_object
from alignboard.workspace import CARD, find


@dataclass(frozen=True)
class ModelEntry:
    """An entry of a plan's models, read."""

    name: str
    declared: PlanModel
    spec: ModelSpec | None
    """how it is asked; None where there is no checkpoint yet (tiny) or none at all (outputs)"""
    method: str
    family: str
    group: str
    """the entry whose weights it shares: one load serves the whole group"""

    @property
    def served(self) -> Served | None:
        """Where it is served; None: here."""
        return served_of(self.declared) if self.declared.urls else None

    @property
    def is_tiny(self) -> bool:
        """Whether it is a tiny checkpoint, made on the spot."""
        return self.declared.pretrain is not None


def served_of(given: PlanModel) -> Served:
    """Where a model with an engine is served."""
    return Served(
        given.urls, given.api, given.served_as, given.api_key_env, given.limits, given.price
    )


def read_entries(path: Path, plan: Plan, root: Path) -> dict[str, ModelEntry]:
    """Every entry of ``plan.models``; raises `InputError` for a name that means nothing."""
    specs = {name: _spec(path, name, entry, root) for name, entry in plan.models.items()}
    found: dict[str, ModelEntry] = {}
    for name, declared in plan.models.items():
        spec = specs[name]
        method = declared.method or _method(plan, name, declared, specs)
        family = declared.family or _family(name, spec, specs)
        group = _sharing(name, declared, spec, found.values())
        found[name] = ModelEntry(name, declared, spec, method, family, group)
    return _families_of_bases(found)


def _families_of_bases(entries: Mapping[str, ModelEntry]) -> dict[str, ModelEntry]:
    """An adapter that stands beside its base's entry is of the family that this one declares."""
    return {
        name: replace(entry, family=entries[entry.family].family)
        if entry.declared.family is None and entry.family in entries
        else entry
        for name, entry in entries.items()
    }


def _spec(path: Path, name: str, entry: PlanModel, root: Path) -> ModelSpec | None:
    if entry.pretrain is not None or entry.outputs is not None:
        return None
    wanted = entry.source or name
    try:
        if entry.engine is not None and entry.api == "chat" and entry.source is None:
            return ModelSpec(name=name, base=entry.served_as or name)
        spec = load_model(local_or_named(wanted, root), root)
    except InputError as error:
        raise InputError(f"{path}: models.{name}: {error}") from error
    if entry.adapter is not None:
        if spec.adapter is not None:
            raise InputError(
                f"{path}: models.{name} has an adapter, and {wanted} has {spec.adapter} already."
            )
        spec = msgspec.structs.replace(spec, adapter=local_or_named(entry.adapter, root))
    if spec.adapter is not None and entry.engine is not None and entry.served_as is None:
        raise InputError(
            f"{path}: models.{name} has an adapter, and an endpoint calls it by a name of its own, or answers as the "
            "base; say served_as: that name."
        )
    if entry.revision is not None:
        spec = msgspec.structs.replace(spec, revision=entry.revision)
    if spec.trust_remote_code and entry.engine is None and not entry.trust_remote_code:
        raise InputError(
            f"{path}: models.{name} runs Python of its own repository ({spec.base}); read that, then agree by "
            "trust_remote_code: true."
        )
    return msgspec.structs.replace(spec, name=name)


def local_or_named(name: str, root: Path) -> str:
    """A folder or file of the workspace by its whole path; any other name as it is."""
    return str(root / name) if (root / name).exists() else name


def is_adapter(start: str, root: Path) -> bool:
    """Whether what a recipe starts from is an adapter that is there, or on the hub, and no recipe."""
    if find("train", start, root) is not None:
        return False
    return (root / start / "adapter_config.json").is_file() or is_repository(start)


def _method(
    plan: Plan,
    name: str,
    declared: PlanModel,
    specs: Mapping[str, ModelSpec | None],
) -> str:
    """What is known of how an entry was trained: never a guess."""
    spec = specs[name]
    if declared.pretrain is not None or plan.recipes_of(declared):
        return BASE_METHOD
    if spec is None:
        return UNDECLARED
    card = Path(spec.adapter or spec.base) / CARD
    if card.is_file():
        return str(read_json_object(card).get("method", UNDECLARED))
    others = (other for key, other in specs.items() if key != name and other is not None)
    is_base = spec.adapter is None and any(
        other.adapter is not None and other.base == spec.base for other in others
    )
    return BASE_METHOD if is_base else UNDECLARED


def _family(name: str, spec: ModelSpec | None, specs: Mapping[str, ModelSpec | None]) -> str:
    """Of an adapter its base: the entry of this plan, or what the base is called; of any other model itself."""
    if spec is None or spec.adapter is None:
        return name
    for key, other in specs.items():
        if other is not None and other.adapter is None and other.base == spec.base:
            return key
    return Path(spec.base).name


def _sharing(
    name: str, declared: PlanModel, spec: ModelSpec | None, before: Iterable[ModelEntry]
) -> str:
    """The first entry on the same weights, or behind one of the same addresses, whose limits it shares."""
    from alignboard.models.asked import base_of

    def shares(other: ModelEntry) -> bool:
        if declared.urls or other.declared.urls:
            return bool(set(other.declared.urls) & set(declared.urls))
        if spec is None or other.spec is None:
            return False
        return base_of(other.spec) == base_of(spec)

    return next((other.group for other in before if shares(other)), name)
