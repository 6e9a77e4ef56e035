"""Which texts an instruction set declares: all that a published board needs of it, read without what loads a set."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np

from alignboard.errors import InputError
from alignboard.records import TextId
from alignboard.suites import read_yaml
from alignboard.workspace import find

ROOM = "evaluate/sets"


def known_texts(name: str, workspace: Path | None = None) -> TextId | None:
    """(n,) the identities of the instructions of the set called ``name``, in its order; None where it declares none."""
    path = find(ROOM, name, workspace)
    if path is None:
        return None
    texts = read_yaml(path).get("texts")
    if texts is None:
        return None
    try:
        return np.frombuffer(
            base64.b64decode("".join(str(texts).split()), validate=True), dtype="<u8"
        ).astype(np.uint64)
    except ValueError as error:
        raise InputError(f"{path}: texts is no base64 of digests of 8 bytes: {error}.") from error
