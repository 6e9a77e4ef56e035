"""Files as such: which suffixes are tables of rows, and how a file is written so that nobody sees half of it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

SUFFIXES = (".json", ".jsonl", ".csv")


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Write and flush a file beside ``path``, then rename it; parents are made where they are missing.

    ``mode`` are the permissions, less the process's umask.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
