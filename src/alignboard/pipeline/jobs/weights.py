"""Where the weights are that earlier jobs made or found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

CHECKPOINT: Final = "checkpoint"
ADAPTER: Final = "adapter"
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


def adapter_path(inputs: Mapping[str, Path], role: str = "adapter") -> Path | None:
    """Where the adapter of a job is, if it has one."""
    found = inputs[role] / ADAPTER if role in inputs else None
    return found if found is not None and found.is_dir() else None
