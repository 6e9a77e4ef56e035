"""A columnar cache beside the result files: the second run reads no JSON.

An entry is keyed by the content of its file. A file whose size and times are those of the last run is taken to
have the same content, as git's index does; otherwise it is read, and an entry of the same content is used again.
Results computed from tables are kept by the digest of everything that determines them, the code included.

The folder ``.alignboard/`` can be deleted at any time. Where the results folder is read-only the cache is kept in
the user's cache folder instead.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from alignboard.records import Annotations, Outputs
from alignboard.results.formats import write_atomically

Table = TypeVar("Table", Annotations, Outputs)
Result = TypeVar("Result")

# Part of every entry's name: raise it when the columns or their meaning change.
SCHEMA = 2
_INDEX = "index.json"
# A file changed within this time of being read may change again without a new time stamp (git's "racy" files).
_RACY_NS = 100_000_000


class _Entry(msgspec.Struct):
    size: int
    mtime_ns: int
    ctime_ns: int
    read_ns: int
    columns: str
    """name of the .npy file"""
    scalars: dict[str, str]


class _Index(msgspec.Struct):
    schema: int = SCHEMA
    entries: dict[str, _Entry] = {}
    derived: dict[str, msgspec.Raw] = {}
    """results computed from tables, by the digest of all that determines them"""


class TableCache:
    """Reads tables through the cache of one results folder; `save` writes what was new."""

    def __init__(self, results: Path) -> None:
        self._results = results.resolve()
        self._folder = _folder(self._results)
        self._index = self._load()
        self._changed = False

    def read(self, path: Path, table: type[Table], parse: Callable[[Path], Table]) -> Table:
        """The table of ``path``: from the cache where it knows the content, else from ``parse``."""
        key = f"{table.__name__}:{path.relative_to(self._results)}"
        status = path.stat()
        known = self._index.entries.get(key)
        if known is not None and _same(known, status):
            cached = self._restore(path, table, known)
            if cached is not None:
                return cached
        before = time.time_ns()
        parsed = parse(path)
        self._store(key, parsed, status, before)
        return parsed

    def derived(self, key: str, result: Any, compute: Callable[[], Result]) -> Result:
        """What ``compute`` gives, of the type ``result``, computed once; ``key`` digests all that determines it."""
        known = self._index.derived.get(key)
        if known is not None:
            try:
                return msgspec.json.decode(known, type=result)
            except (msgspec.DecodeError, UnicodeDecodeError):
                pass
        fresh = compute()
        self._index.derived[key] = msgspec.Raw(msgspec.json.encode(fresh))
        self._changed = True
        return fresh

    def save(self) -> None:
        """Write the index, if anything was read anew; a folder that cannot be written is left alone."""
        if not self._changed:
            return
        try:
            self._prepare()
            write_atomically(self._folder / _INDEX, msgspec.json.encode(self._index))
        except (
            OSError,
            UnicodeEncodeError,
        ):  # a generator's name can hold half of a surrogate pair
            return
        self._changed = False

    def _load(self) -> _Index:
        try:
            index = msgspec.json.decode((self._folder / _INDEX).read_bytes(), type=_Index)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return _Index()
        return index if index.schema == SCHEMA else _Index()

    def _restore(self, path: Path, table: type[Table], entry: _Entry) -> Table | None:
        try:
            content = (self._folder / entry.columns).read_bytes()
            if entry.columns != _name(content, entry.scalars):
                return None  # damaged
            columns = np.load(io.BytesIO(content))
            values: dict[str, Any] = {
                name: np.ascontiguousarray(columns[name]) for name in columns.dtype.names or ()
            }
            return table(path=str(path), **entry.scalars, **values)
        except (OSError, ValueError, TypeError):
            return None

    def _store(
        self, key: str, table: Annotations | Outputs, status: os.stat_result, read_ns: int
    ) -> None:
        values = {field.name: getattr(table, field.name) for field in fields(table)}
        arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
        scalars = {name: v for name, v in values.items() if isinstance(v, str) and name != "path"}
        packed = np.empty(len(table), dtype=[(name, array.dtype) for name, array in arrays.items()])
        for name, array in arrays.items():
            packed[name] = array
        file = io.BytesIO()
        np.save(file, packed)
        content = file.getvalue()
        name = _name(content, scalars)
        try:
            self._prepare()
            _save(self._folder / name, content)
        except OSError:
            return
        self._index.entries[key] = _Entry(
            status.st_size, status.st_mtime_ns, status.st_ctime_ns, read_ns, name, scalars
        )
        self._changed = True

    def _prepare(self) -> None:
        if not self._folder.is_dir():
            self._folder.mkdir(parents=True)
            (self._folder / ".gitignore").write_text("*\n")


def _same(entry: _Entry, status: os.stat_result) -> bool:
    unchanged = (entry.size, entry.mtime_ns, entry.ctime_ns) == (
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )
    return unchanged and entry.read_ns - status.st_ctime_ns > _RACY_NS


def _folder(results: Path) -> Path:
    beside = results / ".alignboard"
    writable = beside if beside.is_dir() else results
    # Root may write anywhere; a folder whose permissions let nobody write is meant to stay as it is.
    if os.access(writable, os.W_OK) and writable.stat().st_mode & (
        stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
    ):
        return beside
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "alignboard" / hashlib.blake2b(str(results).encode(), digest_size=8).hexdigest()


def _name(content: bytes, scalars: dict[str, str]) -> str:
    """The name of a .npy file: the digest of what it and its entry hold, which is checked when it is read."""
    return hashlib.blake2b(content + repr(scalars).encode(), digest_size=16).hexdigest() + ".npy"


def _save(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)
