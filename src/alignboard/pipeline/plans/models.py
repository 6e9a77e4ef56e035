"""The models of a plan: which checkpoint, endpoint or file of responses an entry means, its method and its family."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from alignboard.errors import InputError
from alignboard.fetch.packages import is_packaged, packaged_digest
from alignboard.models.hub import is_repository, resolve_commit
from alignboard.models.identity import (
    adapter_fingerprint,
    fingerprint,
    fingerprint_with_tokenizer,
    prompt_fingerprint,
)
from alignboard.models.registry import load_model
from alignboard.models.spec import ModelSpec
from alignboard.pipeline.answerers import Served
from alignboard.pipeline.plans.schema import BASE_METHOD, UNDECLARED, Plan, PlanModel
from alignboard.workspace import CARD, find

"""what `alignboard train` leaves beside an adapter"""
_NO_IDENTITY = (
    *("name", "base", "revision", "adapter", "tokenizer", "notes", "licence", "gated", "aliases"),
    "decoding",
)


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


# Identity.


def asked_as(spec: ModelSpec) -> dict[str, Any]:
    """What of an entry, besides its weights, decides how it is asked; as parameters of a job."""
    content = msgspec.to_builtins(spec)
    return {key: value for key, value in content.items() if key not in _NO_IDENTITY}


def pinned(spec: ModelSpec) -> ModelSpec:
    """``spec`` at the commit of the hub that it means now, so that what is loaded is what its key names."""
    if spec.revision is None and not is_repository(spec.base):
        return spec
    if Path(spec.base).exists():
        return spec
    commit = resolve_commit(spec.base, spec.revision)
    return spec if commit is None else msgspec.structs.replace(spec, revision=commit)


def weights_identity(spec: ModelSpec, root: Path) -> dict[str, Any]:
    """What tells the checkpoint of ``spec`` from others: weights, tokenizer, template and code, by content."""
    found = {
        "base": source_identity(
            spec.base,
            root,
            spec.gguf_file,
            spec.revision,
            remote_code=spec.trust_remote_code,
        )
    }
    if spec.adapter is not None:
        found["adapter"] = source_identity(spec.adapter, root)
    if spec.tokenizer is not None:
        found["tokenizer"] = tokenizer_identity(spec.tokenizer, root)
    return found


def tokenizer_identity(source: str, root: Path) -> dict[str, Any]:
    """What tells a tokenizer of its own folder or repository from others."""
    folder = root / source
    if not folder.is_dir():
        return {"id": source, "commit": resolve_commit(source)}
    return {"tokenizer": fingerprint_with_tokenizer("", folder)}


def source_identity(
    source: str,
    root: Path,
    gguf_file: str | None = None,
    revision: str | None = None,
    *,
    remote_code: bool = False,
) -> dict[str, Any]:
    """What tells a checkpoint or an adapter from others, wherever it lies: the digest of its files, or a commit.

    Of a repository of the hub the commit that ``revision`` means now, None where that cannot be found out. Raises
    `InputError` for a folder that holds neither a checkpoint nor an adapter.
    """
    if is_packaged(source):
        return {"package": packaged_digest(source, root), "file": gguf_file}
    folder = root / source
    if folder.is_file():
        folder, gguf_file = folder.parent, folder.name
    if not folder.is_dir():
        return {"id": source, "commit": resolve_commit(source, revision), "file": gguf_file}
    prompt = prompt_fingerprint(folder)
    if (folder / "adapter_config.json").is_file():
        digest = fingerprint_with_tokenizer(adapter_fingerprint(folder), folder)
        return {"adapter": digest, "prompt": prompt}
    if gguf_file is None and not (folder / "config.json").is_file():
        raise InputError(f"{folder} holds no config.json: it is no checkpoint.")
    digest = fingerprint(folder, gguf_file=gguf_file, remote_code=remote_code)
    return {"weights": digest, "prompt": None if gguf_file else prompt}
