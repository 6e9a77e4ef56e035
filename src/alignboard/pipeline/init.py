"""`init_workspace`: a folder with the four rooms, filled from the built-in library."""

from __future__ import annotations

import shutil
from pathlib import Path

from alignboard.errors import InputError
from alignboard.workspace import library

_DECLARED = ("train", "evaluate")
_PRODUCED = ("results", "leaderboards")


def init_workspace(folder: Path) -> list[Path]:
    """Make ``folder`` a workspace; returns the files that were copied. Raises `InputError` where it is not empty."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; a workspace is a folder.")
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty; a workspace is made in a new or an empty folder.")
    source = library()
    copied = []
    for room in _DECLARED:
        for path in sorted((source / room).rglob("*.yaml")):
            target = folder / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            copied.append(target)
    for room in _PRODUCED:
        (folder / room).mkdir(parents=True, exist_ok=True)
    return copied
