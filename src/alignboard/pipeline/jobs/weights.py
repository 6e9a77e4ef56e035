"""Where the weights are that earlier jobs made or found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from alignboard.models.hub import Which

CHECKPOINT: Final = "checkpoint"
ADAPTER: Final = "adapter"
CHECKPOINTS: Final = "checkpoints"
"""adapters that were kept on the way, by number"""
SOURCE: Final = "source.json"
"""a note of where a checkpoint is that no job made"""


def model_path(inputs: Mapping[str, Path], role: str = "adapter") -> str:
    """Where the base model of a job is: a folder, or an id on the hub; what came out where every weight was trained."""
    if role in inputs and (inputs[role] / CHECKPOINT).is_dir():
        return str(inputs[role] / CHECKPOINT)
    folder = inputs["base"]
    note = folder / SOURCE
    if note.is_file():
        return json.loads(note.read_text(encoding="utf-8"))["path"]
    return str(folder / CHECKPOINT)


def which_files(inputs: Mapping[str, Path], role: str = "adapter") -> Which:
    """What `model_path` leaves open."""
    note = inputs["base"] / SOURCE
    if not note.is_file() or (role in inputs and (inputs[role] / CHECKPOINT).is_dir()):
        return {}
    return msgspec.json.decode(note.read_bytes(), type=Which)


def base_spec(inputs: Mapping[str, Path], role: str = "adapter") -> dict[str, Any]:
    """The fields of a `ModelSpec` that say where the base of a job is."""
    which: Mapping[str, Any] = which_files(inputs, role)
    form = {"format": "gguf"} if "gguf_file" in which else {}
    return {"base": model_path(inputs, role), **which, **form}


def adapter_path(
    inputs: Mapping[str, Path], role: str = "adapter", checkpoint: int | None = None
) -> Path | None:
    """Where the adapter of a job is, if it has one; ``checkpoint`` is the number of one that was kept on the way."""
    inner = ADAPTER if checkpoint is None else f"{CHECKPOINTS}/{checkpoint}"
    found = inputs[role] / inner if role in inputs else None
    return found if found is not None and found.is_dir() else None
