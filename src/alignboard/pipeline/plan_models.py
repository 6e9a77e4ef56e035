"""The models of a plan: which checkpoint, endpoint or file of responses an entry means, its method and its family."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from alignboard.errors import InputError
from alignboard.models.registry import load_model
from alignboard.models.spec import ModelSpec
from alignboard.pipeline.answerers import Served
from alignboard.pipeline.plan_schema import BASE_METHOD, UNDECLARED, Plan, PlanModel

CARD = "training.json"
"""what `alignboard train` leaves beside an adapter"""
_NO_IDENTITY = ("name", "base", "adapter", "notes", "licence", "gated", "aliases", "decoding")


@dataclass(frozen=True)
class Entry:
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
        given = self.declared
        if not given.urls:
            return None
        return Served(
            given.urls, given.api, given.served_as, given.api_key_env, given.limits, given.price
        )

    @property
    def is_tiny(self) -> bool:
        """Whether it is a tiny checkpoint, made on the spot."""
        return self.declared.tiny is not None


def read_entries(path: Path, plan: Plan, root: Path) -> dict[str, Entry]:
    """Every entry of ``plan.models``; raises `InputError` for a name that means nothing."""
    specs = {name: _spec(path, name, entry, root) for name, entry in plan.models.items()}
    found: dict[str, Entry] = {}
    for name, declared in plan.models.items():
        spec = specs[name]
        method = declared.method or _method(plan, name, declared, specs)
        family = declared.family or _family(name, spec, specs)
        group = _sharing(name, declared, spec, found.values())
        found[name] = Entry(name, declared, spec, method, family, group)
    return _families_of_bases(found)


def _families_of_bases(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """An adapter that stands beside its base's entry is of the family that this one declares."""
    return {
        name: replace(entry, family=entries[entry.family].family)
        if entry.declared.family is None and entry.family in entries
        else entry
        for name, entry in entries.items()
    }


def _spec(path: Path, name: str, entry: PlanModel, root: Path) -> ModelSpec | None:
    if entry.tiny is not None or entry.outputs is not None:
        return None
    wanted = entry.source or name
    try:
        if entry.engine is not None and entry.api == "chat" and entry.source is None:
            return ModelSpec(name=name, base=entry.served_as or name)
        spec = load_model(_local(wanted, root), root)
    except InputError as error:
        raise InputError(f"{path}: models.{name}: {error}") from error
    if entry.adapter is not None:
        if spec.adapter is not None:
            raise InputError(
                f"{path}: models.{name} has an adapter, and {wanted} has {spec.adapter} already."
            )
        spec = msgspec.structs.replace(spec, adapter=_local(entry.adapter, root))
    if entry.revision is not None:
        spec = msgspec.structs.replace(spec, revision=entry.revision)
    if spec.trust_remote_code and entry.engine is None and not entry.trust_remote_code:
        raise InputError(
            f"{path}: models.{name} runs Python of its own repository ({spec.base}); read that, then agree by "
            "trust_remote_code: true."
        )
    return msgspec.structs.replace(spec, name=name)


def _local(name: str, root: Path) -> str:
    """A folder or file of the workspace by its whole path; any other name as it is."""
    return str(root / name) if (root / name).exists() else name


def _method(
    plan: Plan,
    name: str,
    declared: PlanModel,
    specs: Mapping[str, ModelSpec | None],
) -> str:
    """What is known of how an entry was trained: never a guess."""
    spec = specs[name]
    if declared.tiny is not None or plan.recipes_of(declared):
        return BASE_METHOD
    if spec is None:
        return UNDECLARED
    card = Path(spec.adapter or spec.base) / CARD
    if card.is_file():
        return str(msgspec.json.decode(card.read_bytes()).get("method", UNDECLARED))
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
    name: str, declared: PlanModel, spec: ModelSpec | None, before: Iterable[Entry]
) -> str:
    """The first entry on the same weights."""
    from alignboard.models.asked import base_of

    if spec is not None and not declared.urls:
        for entry in before:
            same = entry.spec is not None and base_of(entry.spec) == base_of(spec)
            if same and not entry.declared.urls:
                return entry.group
    return name


# Identity.


def asked_as(spec: ModelSpec) -> dict[str, Any]:
    """What of an entry, besides its weights, decides how it is asked; as parameters of a job."""
    content = msgspec.to_builtins(spec)
    return {key: value for key, value in content.items() if key not in _NO_IDENTITY}


def weights_identity(spec: ModelSpec, root: Path) -> dict[str, Any]:
    """What tells the weights of ``spec`` from others."""
    found = {"base": source_identity(spec.base, root, spec.gguf_file)}
    if spec.revision is not None:
        found["revision"] = {"name": spec.revision}
    if spec.adapter is not None:
        found["adapter"] = source_identity(spec.adapter, root)
    return found


def source_identity(source: str, root: Path, gguf_file: str | None = None) -> dict[str, Any]:
    """The hub id of a checkpoint or an adapter, or a folder's configuration and the sizes of its weights."""
    folder = root / source
    if folder.is_file():
        folder, gguf_file = folder.parent, folder.name
    if not folder.is_dir():
        return {"id": source}
    patterns = ("*.safetensors", "*.bin") if gguf_file is None else (gguf_file,)
    weights = next((found for one in patterns if (found := sorted(folder.glob(one)))), [])
    configs = [folder / name for name in ("config.json", "adapter_config.json")]
    config = next((one for one in configs if one.is_file()), None)
    if config is None and gguf_file is None:
        raise InputError(f"{folder} holds no config.json: it is no checkpoint.")
    return {
        "folder": str(folder.resolve()),
        "config": None if config is None else hashlib.sha256(config.read_bytes()).hexdigest(),
        "weights": [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in weights],
    }
