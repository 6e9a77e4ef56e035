"""Claims on keys: who is making which call, so that no two processes of a workspace pay for the same one.

What this module promises
    A key has at most one living owner. An owner holds a kernel lock on a file of its own, and its claims last as long
    as the lock: those of a process that was killed are void at once, and no clock is read.
What it never does
    Keep a claim while waiting for another: whoever asks does its own share, releases it, and waits only then. So two
    processes never wait for each other.
Not promised
    Claims between machines: each has its own folder, and shards that meet later are compared by the journal.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol, TypeVar

from alignboard.errors import InputError

_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS claims (key TEXT PRIMARY KEY, owner TEXT NOT NULL) WITHOUT ROWID"
)
_KEYS_PER_QUERY: Final = 500
_PAUSE: Final = 0.1
"""seconds between two looks at whether another process has finished a call"""

Request = TypeVar("Request")


class Claimed(Protocol):
    """Whatever keys can be claimed from."""

    def claim(self, keys: Sequence[str]) -> set[str]:
        """Claim those of ``keys`` that no living process holds; returns them."""
        ...

    def release(self, keys: Collection[str]) -> None:
        """Give claims back."""
        ...


def ask_once(
    claims: Claimed,
    missing: Mapping[str, Request],
    known: Callable[[Sequence[str]], Collection[str]],
    ask: Callable[[list[Request]], object],
) -> None:
    """Ask for what is missing and not being asked for elsewhere; wait for the rest until it is known or free.

    Parameters
    ----------
    missing
        The calls by key.
    known
        Returns those of some keys that have a result by now.
    ask
        Makes calls; has committed every result when it returns or raises.
    """
    left = dict(missing)
    while left:
        own = claims.claim(list(left))
        try:
            # Whoever held the claim before may have finished since the last look.
            done = known([key for key in left if key in own])
            chosen = [one for key, one in left.items() if key in own and key not in done]
            if chosen:
                ask(chosen)
        finally:
            claims.release(own)
        left = {key: one for key, one in left.items() if key not in own}
        if left:
            time.sleep(_PAUSE)
            done = known(list(left))
            left = {key: one for key, one in left.items() if key not in done}


class Claims:
    """The claims of one owner in ``folder``, beside those of others."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._owner = uuid.uuid4().hex
        self._lock: int | None = None
        self._connection: sqlite3.Connection | None = None

    def claim(self, keys: Sequence[str]) -> set[str]:
        """Claim those of ``keys`` that no living owner holds; returns them."""
        connection = self._opened()
        with _Exclusive(connection):
            self._hold()
            owners = _owners(connection, keys)
            others = set(owners.values()) - {self._owner}
            dead = {owner for owner in others if not self._is_alive(owner)}
            taken = {key for key, owner in owners.items() if owner in others - dead}
            own = set(keys) - taken
            rows = [(key, self._owner) for key in own]
            connection.executemany("INSERT OR REPLACE INTO claims VALUES (?, ?)", rows)
            for owner in dead:
                connection.execute("DELETE FROM claims WHERE owner = ?", (owner,))
                self._file(owner).unlink(missing_ok=True)
        return own

    def release(self, keys: Iterable[str]) -> None:
        """Give claims back."""
        if self._connection is not None:
            rows = [(key, self._owner) for key in keys]
            with _Exclusive(self._connection):
                self._connection.executemany("DELETE FROM claims WHERE key = ? AND owner = ?", rows)

    def close(self) -> None:
        """Give everything back."""
        if self._connection is not None:
            with _Exclusive(self._connection):
                self._connection.execute("DELETE FROM claims WHERE owner = ?", (self._owner,))
                self._file(self._owner).unlink(missing_ok=True)
            self._connection.close()
            self._connection = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            path = self._folder / "claims.sqlite"
            self._folder.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(path, timeout=30.0, isolation_level=None)
            try:
                # Nothing in it has to outlive the machine.
                connection.execute("PRAGMA synchronous = OFF")
                connection.execute(_TABLE)
            except sqlite3.DatabaseError as error:
                connection.close()
                raise InputError(
                    f"{path} cannot be used ({error}); it holds no results: remove the folder {self._folder} while "
                    "no run is at work."
                ) from error
            self._connection = connection
        return self._connection

    def _hold(self) -> None:
        """Lock this owner's file; under the exclusive transaction, so that nobody sees it unlocked."""
        if self._lock is None:
            self._lock = os.open(self._file(self._owner), os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def _is_alive(self, owner: str) -> bool:
        try:
            handle = os.open(self._file(owner), os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False

    def _file(self, owner: str) -> Path:
        return self._folder / f"{owner}.lock"


class _Exclusive:
    """``BEGIN EXCLUSIVE`` to ``COMMIT``, or ``ROLLBACK`` when anything is raised."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN EXCLUSIVE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._connection.execute("COMMIT" if kind is None else "ROLLBACK")


def _owners(connection: sqlite3.Connection, keys: Sequence[str]) -> dict[str, str]:
    """Who holds which of ``keys``."""
    found: dict[str, str] = {}
    for start in range(0, len(keys), _KEYS_PER_QUERY):
        some = keys[start : start + _KEYS_PER_QUERY]
        marks = ",".join("?" * len(some))
        query = f"SELECT key, owner FROM claims WHERE key IN ({marks})"  # noqa: S608 (only question marks)
        found.update(connection.execute(query, some).fetchall())
    return found
