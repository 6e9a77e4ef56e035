"""Names of models: one folder of results for one model, given by the user or derived from where the model lies.

``results/<model>/model.json`` records which model a name stands for, so that another model of the same folder name
(``a/dpo``, ``b/dpo``) is refused in place of overwriting its outputs. Folders without that file are from before it was
written, or from elsewhere, and take the next model of their name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from alignboard.errors import InputError
from alignboard.models.spec import ModelSpec
from alignboard.pipeline.locks import held
from alignboard.pipeline.store import WorkspacePaths
from alignboard.results.files import UNREADABLE, write_json
from alignboard.workspace import model_name

RECORD = "model.json"


class ModelSource(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which model a name stands for."""

    base: str
    revision: str | None = None
    adapter: str | None = None
    gguf_file: str | None = None

    def __str__(self) -> str:
        return self.base if self.adapter is None else self.adapter


def named(specs: Sequence[ModelSpec], names: str | None = None) -> list[ModelSpec]:
    """The models under ``names`` (separated by commas), or else their own.

    Raises `InputError` where the numbers differ and where two models share a name.
    """
    found = list(specs)
    if names is not None:
        given = [name.strip() for name in names.split(",") if name.strip()]
        if len(given) != len(found):
            raise InputError(
                f"--name has {len(given)} of the {len(found)} models' names; give one per MODEL, separated by commas."
            )
        found = [
            msgspec.structs.replace(spec, name=model_name(name))
            for spec, name in zip(found, given, strict=True)
        ]
    by_name: dict[str, ModelSpec] = {}
    for spec in found:
        other = by_name.setdefault(spec.name, spec)
        if other is not spec:
            raise InputError(
                f"Two models are called {spec.name!r}, and would write to one folder of results: "
                f"{source_of(other)} and {source_of(spec)}; name them apart by --name A,B."
            )
    return found


def source_of(spec: ModelSpec, workspace: Path | None = None) -> ModelSource:
    """Which model ``spec`` is; a folder as the workspace sees it."""
    adapter = None if spec.adapter is None else _where(spec.adapter, workspace)
    return ModelSource(_where(spec.base, workspace), spec.revision, adapter, spec.gguf_file)


def claim(workspace: Path, specs: Sequence[ModelSpec]) -> None:
    """Record which model each name stands for; raises `InputError`, and records none, where one is taken."""
    sources = {spec.name: source_of(spec, workspace) for spec in specs}
    paths = {name: _record(workspace, name) for name in sources}
    products = [str(path.relative_to(workspace)) for path in paths.values()]
    with held(WorkspacePaths(workspace), *products):
        _claim(sources, paths)


def _claim(sources: Mapping[str, ModelSource], paths: Mapping[str, Path]) -> None:
    for name, source in sources.items():
        path = paths[name]
        if not path.is_file():
            continue
        try:
            there = msgspec.json.decode(path.read_bytes(), type=ModelSource)
        except UNREADABLE as error:
            raise InputError(f"{path} cannot be read: {error}; remove it.") from error
        if there != source:
            raise InputError(
                f"{path.parent} holds results of {there}, and {source} has the same name; give this model another one "
                "(--name, or its key in the plan), or remove that folder."
            )
    for name, source in sources.items():
        path = paths[name]
        if not path.is_file():
            write_json(path, source)


def _record(workspace: Path, name: str) -> Path:
    return workspace / "results" / model_name(name) / RECORD


def _where(base: str, workspace: Path | None) -> str:
    path = Path(base)
    if workspace is None or not path.exists():
        return base
    full = path.resolve()
    root = workspace.resolve()
    return str(full.relative_to(root) if full.is_relative_to(root) else full)
