"""One file of a journal: opened, verified, read row by row; and what is wrong with it, in a sentence.

What this module promises
    A file is there whole or not at all, so that an empty one is a damaged one. Its structure is checked when it is
    opened, and every row has a checksum: a damaged row is reported and left out, and can be written again. No advice
    in an error loses rows.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import xxhash

from alignboard.errors import InputError
from alignboard.results.files import place_once

SCHEMA: Final = 2
_SMALL: Final = 64 * 2**20
"""bytes of a file of which indices are checked as well, which takes about as long as reading it"""
_UNWRITABLE: Final = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_IOERR,
    }
)
_PASSING: Final = frozenset(
    {
        sqlite3.SQLITE_READONLY_RECOVERY,
        sqlite3.SQLITE_READONLY_CANTINIT,
        sqlite3.SQLITE_READONLY_CANTLOCK,
        sqlite3.SQLITE_BUSY_RECOVERY,
    }
)
"""errors of reading a file whose log another process has to put in order"""
_PATIENCE: Final = 10.0
_PAUSE: Final = 0.05
"""seconds"""
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS rows (key BLOB PRIMARY KEY, kind TEXT NOT NULL, payload TEXT NOT NULL, sum TEXT)
    WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS rows_by_kind ON rows (kind);
CREATE TABLE IF NOT EXISTS computed (n INTEGER PRIMARY KEY AUTOINCREMENT, key BLOB NOT NULL, kind TEXT NOT NULL);
CREATE TRIGGER IF NOT EXISTS computed_stays BEFORE UPDATE ON computed BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS computed_kept BEFORE DELETE ON computed BEGIN SELECT RAISE(ABORT, 'append-only'); END;
"""
_log = logging.getLogger(__name__)


class Shard:
    """An open file of a journal."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path, self.connection = path, connection
        columns = [row[1] for row in connection.execute("PRAGMA table_info(rows)")]
        self._columns = (
            "key, kind, payload, sum" if "sum" in columns else "key, kind, payload, NULL"
        )
        self._warned: set[Any] = set()

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    def rows(self, rest: str = "", values: Sequence[Any] = ()) -> Iterator[tuple[bytes, str, str]]:
        """(key, kind, payload) of the rows that ``rest`` of a query chooses; damaged ones are reported and left out."""
        with named_errors(self.path):
            query = f"SELECT {self._columns} FROM rows {rest}"  # noqa: S608 (no value is part of it)
            for key, kind, payload, found in self.connection.execute(query, values):
                if _is_whole(key, kind, payload, found):
                    yield key, kind, payload
                elif key not in self._warned:
                    self._warned.add(key)
                    name = key.hex()[:16] if isinstance(key, bytes) else key
                    _log.warning(
                        "A row of %s (key %s) is damaged and left out; the next run computes it again.",
                        *(self.path, name),
                    )


def row_sum(key: bytes, kind: str, payload: str) -> str:
    """The checksum of a row."""
    return xxhash.xxh3_64_hexdigest(b"%b\0%b\0%b" % (key, kind.encode(), payload.encode()))


def _is_whole(key: Any, kind: Any, payload: Any, found: str | None) -> bool:
    if not (isinstance(key, bytes) and isinstance(kind, str) and isinstance(payload, str)):
        return False
    return found is None or found == row_sum(key, kind, payload)


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Say what SQLite finds wrong with a file, and what to do about it."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise _sentence(path, error) from error
    except UnicodeDecodeError as error:  # SQLite's own words, which quote what is damaged
        raise InputError(_damaged(path, "its schema is no text")) from error


def open_own(path: Path, *, verify: bool = True) -> Shard:
    """A file to write to; made where it is missing, migrated where it is older."""
    with named_errors(path):
        if not path.exists():
            _make(path)
        _require_content(path)
        connection = _connected(path)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            version = _version(connection, path)
            if verify:
                _verify(connection, path)
            if version < SCHEMA:
                _migrate(connection)
            return Shard(path, connection)
        except BaseException:
            connection.close()
            raise


def open_other(path: Path) -> Shard:
    """Another worker's file, to be read."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return _open_other(path)
        except InputError as error:
            # Whoever writes it was just killed, or is just opening or closing it.
            code = getattr(error.__cause__, "sqlite_errorcode", 0)
            if code not in _PASSING or time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE)


def _open_other(path: Path) -> Shard:
    _require_content(path)
    # A folder that nobody may write has no WAL to come either: the file is all there is.
    fixed = not os.access(path.parent, os.W_OK) and not path.with_name(f"{path.name}-wal").exists()
    uri = f"file:{quote(os.fsencode(path.resolve()))}?mode=ro{'&immutable=1' if fixed else ''}"
    with named_errors(path):
        connection = _connected(uri, uri=True)
        try:
            _version(connection, path)
            _verify(connection, path)
            return Shard(path, connection)
        except BaseException:
            connection.close()
            raise


def _connected(where: Path | str, *, uri: bool = False) -> sqlite3.Connection:
    connection = sqlite3.connect(where, uri=uri, timeout=30.0, isolation_level=None)
    connection.text_factory = lambda text: text.decode("utf-8", "replace")
    return connection


def _make(path: Path) -> None:
    """Make a file under another name first: one that is empty was emptied. Of two processes the first makes it.

    It has its write-ahead log from the start: the switch to one is a transaction with a rollback journal, which a kill
    would leave beside the file, and which no reader can roll back.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    for own in ("", "-journal", "-wal", "-shm"):
        temporary.with_name(f"{temporary.name}{own}").unlink(missing_ok=True)
    connection = _connected(temporary)
    try:
        connection.executescript(
            f"PRAGMA journal_mode = WAL; BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {SCHEMA}; COMMIT;"
        )
    finally:
        connection.close()  # which folds the log into the file
    place_once(temporary, path)


def _migrate(connection: sqlite3.Connection) -> None:
    """Version 1 had no checksums."""
    connection.create_function("row_sum", 3, row_sum, deterministic=True)
    columns = [row[1] for row in connection.execute("PRAGMA table_info(rows)")]
    add = "ALTER TABLE rows ADD COLUMN sum TEXT;" if columns and "sum" not in columns else ""
    connection.executescript(
        f"BEGIN IMMEDIATE; {'' if columns else _TABLES} {add}"  # noqa: S608 (no value is part of it)
        "UPDATE rows SET sum = row_sum(key, kind, payload) WHERE sum IS NULL;"
        f"PRAGMA user_version = {SCHEMA}; COMMIT;"
    )


def _version(connection: sqlite3.Connection, path: Path) -> int:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA:
        raise InputError(
            f"{path} was written by a newer alignboard (schema {version}, this one knows {SCHEMA})."
        )
    return version


def _verify(connection: sqlite3.Connection, path: Path) -> None:
    check = "integrity_check" if path.stat().st_size <= _SMALL else "quick_check"
    found = connection.execute(f"PRAGMA {check}(1)").fetchone()[0]
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema")}
    if found == "ok" and not {"rows", "computed"} <= tables:
        found = "its tables are missing"
    if found != "ok":
        raise InputError(_damaged(path, " ".join(str(found).split())))


def _require_content(path: Path) -> None:
    if path.stat().st_size == 0:
        raise InputError(
            f"{path} is empty, so the rows that it held are lost; put a copy in its place, or remove it and they are "
            "computed again."
        )


def _sentence(path: Path, error: sqlite3.DatabaseError) -> InputError:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in _UNWRITABLE:
        return InputError(
            f"{path} cannot be used ({error}): make room, or make it and its folder writable, and start again; what "
            "was committed is kept."
        )
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return InputError(f"{path} is in use by another process ({error}); wait for it to end.")
    return InputError(_damaged(path, str(error)))


def _damaged(path: Path, why: str) -> str:
    return (
        f"{path} is damaged ({why}). Put a copy in its place, or recover what can be read: `sqlite3 {path.name} "
        ".recover | sqlite3 recovered.sqlite`, and put that in its place; without it its rows are computed, and paid, "
        "again."
    )
