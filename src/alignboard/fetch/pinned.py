"""Files whose content is known by its digest, and the memory of having verified them.

`VerifiedFiles` keeps, beside the files, the size and the time of change that each had when it was verified, as
git's index does: a file that still has them is not read again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from alignboard.results.files import UNREADABLE, write_atomically

try:
    import fcntl
except ImportError:  # Windows: two runs at once are then not kept apart
    fcntl = None

_STAMPS = ".verified.json"
_BLOCK = 1 << 20

Algorithm: TypeAlias = Literal["git-blob", "sha256"]


@dataclass(frozen=True)
class PinnedFile:
    """A file whose content is known by its digest."""

    name: str
    """path under the folder of the download, with forward slashes"""
    url: str
    algorithm: Algorithm
    digest: str
    size: int | None
    option: str
    """the command line option that takes local files instead, for messages"""


class _Stamp(msgspec.Struct, array_like=True):
    digest: str
    size: int
    mtime_ns: int


class VerifiedFiles:
    """Which files under ``root`` are known to be their pinned content."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._stamps: dict[str, _Stamp] = {}
        self.changed = False
        """whether there is something to save"""
        with suppress(OSError, *UNREADABLE):
            content = (root / _STAMPS).read_bytes()
            self._stamps = msgspec.json.decode(content, type=dict[str, _Stamp])

    def missing(self, files: list[PinnedFile]) -> list[PinnedFile]:
        """Those of ``files`` that are not there or not their pinned content; changed ones are read again."""
        return [file for file in files if not self._holds(file)]

    def add(self, file: PinnedFile) -> None:
        """Remember that ``file`` has just been verified."""
        status = (self._root / file.name).stat()
        self._stamps[file.name] = _Stamp(file.digest, status.st_size, status.st_mtime_ns)
        self.changed = True

    def save(self) -> None:
        """Write what was added; a folder that cannot be written costs the next run its saving, no more."""
        if self.changed:
            with suppress(OSError):
                write_atomically(self._root / _STAMPS, msgspec.json.encode(self._stamps))

    def _holds(self, file: PinnedFile) -> bool:
        path = self._root / file.name
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        if self._stamps.get(file.name) == _Stamp(file.digest, status.st_size, status.st_mtime_ns):
            return True
        if file.size not in {None, status.st_size} or digest(path, file.algorithm) != file.digest:
            return False
        self.add(file)
        return True


def digest(path: Path, algorithm: Algorithm) -> str:
    """The digest of a file's content; ``git-blob`` is the id under which git keeps it."""
    with path.open("rb") as file:
        if algorithm == "sha256":
            hasher = hashlib.sha256()
        else:
            header = f"blob {os.fstat(file.fileno()).st_size}\0".encode()
            hasher = hashlib.sha1(header, usedforsecurity=False)
        while block := file.read(_BLOCK):
            hasher.update(block)
    return hasher.hexdigest()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs out of ``folder``, which is made where it is missing; waits for the one that is in it.

    The lock is on the folder itself, leaves no file behind and ends with the process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
