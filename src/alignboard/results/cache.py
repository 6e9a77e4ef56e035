"""A columnar cache beside the result files: the second run reads no JSON.

An entry is keyed by the content of its file. A file whose size and times are those of the last run is taken to
have the same content, as git's index does; otherwise it is read, and an entry of the same content is used again.
Results computed from tables are kept by the digest of everything that determines them, the code included.

The index is signed with a secret in the user's cache folder, so that one which came with a folder of somebody else, or
was damaged, is not believed.

The folder ``.alignboard/`` can be deleted at any time. Where the results folder is read-only the cache is kept in
the user's cache folder instead.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import msgspec
import numpy as np

from alignboard.parallel import fork_map
from alignboard.records import Annotations, Generation, Outputs
from alignboard.results.files import UNREADABLE, write_atomically

Table = TypeVar("Table", Annotations, Outputs)
Result = TypeVar("Result")
Kind: TypeAlias = type[Annotations] | type[Outputs]

# Part of every entry's name: raise it when the columns or their meaning change.
SCHEMA = 6
_INDEX = "index.json"
_SECRET_LENGTH = 64
_SIGNATURE_LENGTH = 65
# A file changed within this time of being read may change again without a new time stamp (git's "racy" files).
_RACY_NS = 100_000_000
# Two processes more than pay for themselves from about 20 ms of parsing on.
_WORTH_A_FORK = 6
_AT_ONCE = 256
"""files between two signs of life"""


class _Entry(msgspec.Struct):
    size: int
    mtime_ns: int
    ctime_ns: int
    read_ns: int
    columns: str
    """name of the file that holds them as one structured array"""
    dtype: list[tuple[str, str]]
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

    def read(
        self, path: Path, table: type[Table], parse: Callable[[Path], Table] | None = None
    ) -> Table:
        """The table of ``path``: from the cache where it knows the content, else from ``parse`` or its own reader."""
        known = self._known(path, table)
        if known is not None:
            return known
        stamp = (path.stat(), time.time_ns())
        parsed = (parse or _reader(table))(path)
        self._enter(path, table, self._written(parsed, *stamp))
        return parsed

    def read_all(self, wanted: Sequence[tuple[Path, Kind]]) -> list[Annotations | Outputs]:
        """The tables of many files; what the cache does not know is read on all cores."""
        found: list[Annotations | Outputs | None] = [
            self._known(path, Annotations) if table is Annotations else self._known(path, Outputs)
            for path, table in wanted
        ]
        missing = [i for i, known in enumerate(found) if known is None]
        parsed = fork_map(self._parsed, [wanted[i] for i in missing], least=_WORTH_A_FORK)
        for i, (table, entry) in zip(missing, parsed, strict=True):
            found[i] = table
            self._enter(*wanted[i], entry)
        return [table for table in found if table is not None]

    def look(
        self, paths: Sequence[Path], look: Callable[[list[Generation]], Result]
    ) -> Iterator[tuple[Outputs, Result]]:
        """The outputs of each file, and what ``look`` finds in its rows; files are read on all cores, each once."""
        for first in range(0, len(paths), _AT_ONCE):
            some = paths[first : first + _AT_ONCE]
            read = fork_map(partial(self._looked, look=look), some, least=_WORTH_A_FORK)
            for path, (table, found, entry) in zip(some, read, strict=True):
                self._enter(path, Outputs, entry)
                yield table, found

    def _parsed(self, file: tuple[Path, Kind]) -> tuple[Annotations | Outputs, _Entry | None]:
        path, table = file
        stamp = (path.stat(), time.time_ns())
        parsed = _reader(Annotations)(path) if table is Annotations else _reader(Outputs)(path)
        return parsed, self._written(parsed, *stamp)

    def _looked(
        self, path: Path, look: Callable[[list[Generation]], Result]
    ) -> tuple[Outputs, Result, _Entry | None]:
        from alignboard.results import formats  # noqa: PLC0415 - as in `_reader`

        stamp = (path.stat(), time.time_ns())
        rows = formats.wide_rows(path, Generation)
        table = formats.outputs_of(path, rows)
        known = self._known(path, Outputs) is not None
        return table, look(rows), None if known else self._written(table, *stamp)

    def _known(self, path: Path, table: type[Table]) -> Table | None:
        entry = self._index.entries.get(self._key(path, table))
        return self._restore(path, table, entry) if entry and _same(entry, path.stat()) else None

    def _key(self, path: Path, table: Kind) -> str:
        # A model's folder may be a link to somewhere else.
        inside = path.is_relative_to(self._results)
        return f"{table.__name__}:{path.relative_to(self._results) if inside else path}"

    def derived(self, key: str, result: Any, compute: Callable[[], Result]) -> Result:
        """What ``compute`` gives, of the type ``result``, computed once; ``key`` digests all that determines it."""
        known = self._index.derived.get(key)
        if known is not None:
            try:
                return msgspec.json.decode(known, type=result)
            except UNREADABLE:
                pass
        fresh = compute()
        self.remember(key, fresh)
        return fresh

    def knows(self, key: str) -> bool:
        """Whether `derived` has a result for ``key``."""
        return key in self._index.derived

    def remember(self, key: str, result: object) -> None:
        """Keep a result that was computed elsewhere for `derived`."""
        self._index.derived[key] = msgspec.Raw(msgspec.json.encode(result))
        self._changed = True

    def save(self) -> None:
        """Write the index, if anything was read anew; a folder that cannot be written is left alone."""
        if not self._changed:
            return
        try:
            self._prepare()
            content = msgspec.json.encode(self._index)
            write_atomically(self._folder / _INDEX, _signature(content) + content)
        except (
            OSError,
            UnicodeEncodeError,
        ):  # a generator's name can hold half of a surrogate pair
            return
        self._changed = False

    def _load(self) -> _Index:
        try:
            signed = (self._folder / _INDEX).read_bytes()
            content = signed[_SIGNATURE_LENGTH:]
            if not hmac.compare_digest(signed[:_SIGNATURE_LENGTH], _signature(content)):
                return _Index()
            index = msgspec.json.decode(content, type=_Index)
        except (OSError, *UNREADABLE):
            return _Index()
        return index if index.schema == SCHEMA else _Index()

    def _restore(self, path: Path, table: type[Table], entry: _Entry) -> Table | None:
        try:
            content = (self._folder / entry.columns).read_bytes()
            if entry.columns != _name(content, entry.scalars):
                return None  # damaged
            columns = np.frombuffer(content, dtype=entry.dtype)
            values: dict[str, Any] = {
                name: np.ascontiguousarray(columns[name]) for name in columns.dtype.names or ()
            }
            return table(path=str(path), **entry.scalars, **values)
        except (OSError, ValueError, TypeError):
            return None

    def _enter(self, path: Path, table: Kind, entry: _Entry | None) -> None:
        if entry is not None:
            self._index.entries[self._key(path, table)] = entry
            self._changed = True

    def _written(
        self, table: Annotations | Outputs, status: os.stat_result, read_ns: int
    ) -> _Entry | None:
        """Write a table's columns, for the entry that is returned; None where they cannot be. In any process."""
        values = {field.name: getattr(table, field.name) for field in fields(table)}
        arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
        scalars = {name: v for name, v in values.items() if isinstance(v, str) and name != "path"}
        packed = np.empty(len(table), dtype=[(name, array.dtype) for name, array in arrays.items()])
        for name, array in arrays.items():
            packed[name] = array
        content = packed.tobytes()
        name = _name(content, scalars)
        try:
            self._prepare()
            _save(self._folder / name, content)
        except OSError:
            return None
        return _Entry(
            size=status.st_size,
            mtime_ns=status.st_mtime_ns,
            ctime_ns=status.st_ctime_ns,
            read_ns=read_ns,
            columns=name,
            dtype=[(column, array.dtype.str) for column, array in arrays.items()],
            scalars=scalars,
        )

    def _prepare(self) -> None:
        if not self._folder.is_dir():
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / ".gitignore").write_text("*\n")


def _reader(table: type[Table]) -> Callable[[Path], Table]:
    """How a file of this kind is read; imported only where the cache does not know it."""
    from alignboard.results import formats  # noqa: PLC0415

    readers: dict[Kind, Callable[[Path], Any]] = {
        Annotations: formats.read_annotations,
        Outputs: formats.read_outputs,
    }
    return readers[table]


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
    name = str(results).encode("utf-8", "surrogateescape")
    return _user_folder() / hashlib.blake2b(name, digest_size=8).hexdigest()


def _user_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "alignboard"


def _signature(content: bytes) -> bytes:
    """What only this user can write in front of an index."""
    path = _user_folder() / "index-secret"
    try:
        secret = path.read_bytes()
    except FileNotFoundError:
        write_atomically(path, secrets.token_hex(32).encode(), mode=0o600)
        secret = path.read_bytes()
    if len(secret) < _SECRET_LENGTH:
        raise OSError(f"{path} holds no secret")  # a full disk leaves it empty
    digest = hashlib.blake2b(content, key=secret[:_SECRET_LENGTH], digest_size=32)
    return digest.hexdigest().encode() + b"\n"


def _name(content: bytes, scalars: dict[str, str]) -> str:
    """The name of a columns file: the digest of what it and its entry hold, which is checked when it is read."""
    return hashlib.blake2b(content + repr(scalars).encode(), digest_size=16).hexdigest() + ".rows"


def _save(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)
