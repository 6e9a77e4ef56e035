"""Which checkpoint a name means: an entry of the registry, an id on the hub, or a folder.

A workspace's own ``evaluate/models/*.yaml`` win over the built-in ones. What has no entry is asked with its own chat
template and BOS as its tokenizer has it; its format is read off its configuration where that is here.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from alignboard.errors import InputError, nearest
from alignboard.fetch.packages import is_packaged, packaged_files
from alignboard.models.adapters import stated_base
from alignboard.models.formats import identify
from alignboard.models.gguf.parts import checkpoint_name
from alignboard.models.hub import holds_weights, is_repository, locate
from alignboard.models.spec import ModelSpec, read_spec
from alignboard.workspace import find, library, names

ROOM = "evaluate/models"
_TRAINERS = re.compile(r"checkpoint-\d+")


def load_model(name: str, workspace: Path | None = None) -> ModelSpec:
    """The checkpoint called ``name``; nothing is downloaded.

    In this order: a YAML file; an entry of this name; an entry with this alias or base, in any case of letters; a
    folder with a checkpoint or an adapter, or a .gguf file; an id on the hub. Raises `InputError` with the nearest
    names for anything else.
    """
    path = Path(name)
    if path.suffix in {".yaml", ".yml"} and path.is_file():
        return read_spec(path)
    own = find(ROOM, name, workspace) if not path.is_absolute() else None
    if own is not None:
        return read_spec(own)
    entries = list_models(workspace)
    for entry in entries:
        if name.lower() in {other.lower() for other in _names(entry)}:
            return entry
    if path.exists():
        return _local(path)
    if is_packaged(name):
        return _packaged(name, workspace)
    if is_repository(name):
        return ModelSpec(name=name.replace("/", "__"), base=name)
    known = [other for entry in entries for other in _names(entry)]
    trained = Path("results", name, "adapter")
    hint = f"; did you mean {trained}?" if trained.is_dir() else nearest(name, known) or ","
    raise InputError(
        f"There is no model {name!r}{hint} see `alignboard models list`; an id on the hub has "
        "the form owner/name, and a folder must exist."
    )


def list_models(workspace: Path | None = None) -> list[ModelSpec]:
    """Every entry by name, those of the workspace in place of built-in ones of the same name."""
    roots = (library(), workspace or Path.cwd())
    paths = {name: root / ROOM / f"{name}.yaml" for root in roots for name in names(ROOM, root)}
    return [read_spec(paths[name]) for name in sorted(paths)]


def _names(entry: ModelSpec) -> set[str]:
    """What means an entry; its base does only where the entry is the whole base and not an adapter on it."""
    return {entry.name, *entry.aliases, *([entry.base] if entry.adapter is None else [])}


def _packaged(name: str, workspace: Path | None) -> ModelSpec:
    """The checkpoint that a package of the index carries."""
    weights = [one for one in packaged_files(name, workspace) if one.endswith(".gguf")]
    if len(weights) != 1:
        raise InputError(
            f"{name} is no checkpoint: its declaration has {len(weights)} GGUF files; one was expected."
        )
    return ModelSpec(
        name=checkpoint_name(weights[0]), base=name, format="gguf", gguf_file=weights[0]
    )


def _local(path: Path) -> ModelSpec:
    """The checkpoint or adapter in a folder, or the GGUF file."""
    adapter = path / "adapter_config.json"
    if adapter.is_file():
        if (path / "config.json").is_file() and holds_weights(path):
            raise InputError(
                f"{path} holds a whole model and an adapter; write an entry evaluate/models/NAME.yaml, with base: "
                f"{path} for the whole model, or with base: and adapter: for the adapter."
            )
        base = stated_base(path)
        if base is None:
            raise InputError(
                f"{adapter}: base_model_name_or_path does not say on which model this adapter is; write an entry "
                f"evaluate/models/NAME.yaml with base: and adapter: {path}."
            )
        if not (is_repository(base) or is_packaged(base) or os.path.exists(base)):  # noqa: PTH110 - any text is a name
            raise InputError(
                f"{adapter} names the base {base!r}, which is not here; write an entry evaluate/models/NAME.yaml with "
                f"base: (where that model is) and adapter: {path}."
            )
        return ModelSpec(name=_folder_name(path), base=base, adapter=str(path))
    folder, gguf_file = locate(path)
    found = identify(folder, gguf_file)
    if gguf_file is not None:
        name = checkpoint_name(gguf_file)
        return ModelSpec(name=name, base=str(folder), format="gguf", gguf_file=gguf_file)
    return ModelSpec(name=_folder_name(path), base=str(path), format=found.format)


def _folder_name(path: Path) -> str:
    """What a folder's model is called: of ``results/<model>/checkpoint`` or ``.../adapter`` what is above it.

    A trainer's ``<run>/checkpoint-500`` is ``<run>-checkpoint-500``: every run has a folder of that name.
    """
    given = path.absolute()
    if given.name in {"checkpoint", "adapter"}:
        return given.parent.name
    return f"{given.parent.name}-{given.name}" if _TRAINERS.fullmatch(given.name) else given.name
