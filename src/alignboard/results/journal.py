"""The working store: rows that were computed, kept by key, through kills and restarts.

What this module promises
    `add` commits a batch of rows in one transaction (SQLite, WAL, ``synchronous=FULL``): after a crash at any moment
    a batch is there whole or not at all, and what was committed stays. The first row under a key stays; a different
    payload under the same key is ignored and reported, never a silent choice and never the end of a workspace.
    Payloads that differ only in what a call took or cost (`INCIDENTAL`) are the same. In the same transaction every
    row handed over is written to an append-only log, ignored ones included, so the log proves what was computed twice.

Shards
    Every worker writes the file of its name, ``journal-<worker>.sqlite``, and reads the union of all of them; workers
    of one name in two runs take turns. Shards may come from other machines: put the files into the folder. Where two
    differ, the first by file name counts.

    A damaged file is an error that says what to do, a damaged row is reported and computed again; see
    `alignboard.results.shard`.

Claims
    Before a call is made that costs something, its key is claimed (`alignboard.results.claims`), so that no two
    processes of a workspace make it.

What it never does
    Decide what a key is. Keys come from whoever computes a row, from everything that determines it.
"""

from __future__ import annotations

import heapq
import json
import logging
import re
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from alignboard.errors import InputError
from alignboard.results.claims import Claims
from alignboard.results.shard import Shard, named_errors, open_other, open_own, row_sum
from alignboard.text import storable

INCIDENTAL: Final = frozenset(
    [
        "seconds",
        "price",
        "n_prompt",
        "n_answer",
        "n_prompt_tokens",
        "n_tokens",
        "cpu_seconds",
        "import_seconds",
    ]
)
"""fields, at any depth of a payload, that say what a call took: time, cost, usage"""
_log = logging.getLogger(__name__)
_HALF_PAIR: Final = re.compile(r"\\u[dD][89a-fA-F]")
_KEYS_PER_QUERY: Final = 500
_INSERT: Final = "INSERT OR IGNORE INTO rows (key, kind, payload, sum) VALUES "
_LOG: Final = "INSERT INTO computed (key, kind) VALUES "
_ROWS_PER_INSERT: Final = 100


@dataclass(frozen=True)
class JournalRow:
    """One thing that was computed. ``payload`` is anything that JSON can say."""

    key: bytes
    kind: str
    payload: Any


@dataclass(frozen=True)
class JournalCheck:
    """What the shards of a folder hold together."""

    n_rows: dict[str, int]
    """different keys, by kind"""
    n_computed: dict[str, int]
    """rows ever handed over, by kind; more than `n_rows` where one was computed twice (or forgotten)"""
    computed_twice: dict[str, int]
    """keys that were handed over more than once, by kind; a kind without any is absent"""
    conflicts: list[str]
    """keys (hexadecimal) whose payload differs between shards, not only in time or cost"""


class Journal:
    """The union of a folder's shards, and this worker's own shard to write to."""

    def __init__(self, folder: Path, worker: str | None = None, *, verify: bool = True) -> None:
        """``worker`` names the shard to write; None reads only. Commits of several processes to one shard take turns.

        ``verify`` is False where the shard was verified by this process already.
        """
        if worker is not None and not worker.replace("-", "").replace("_", "").isalnum():
            raise InputError(
                f"The journal's worker {worker!r} is no name for a file: letters, digits, - and _ only."
            )
        self.folder = folder
        self._own_path = None if worker is None else folder / f"journal-{worker}.sqlite"
        self._shards: dict[Path, Shard] = {}
        self._worker, self._verify = worker, verify
        self._claims = Claims(folder / "claims")
        self._warned: set[bytes] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every shard and release every claim; the journal can still be used and opens them again."""
        for shard in self._shards.values():
            shard.close()
        self._shards.clear()
        self._claims.close()

    def opened_again(self) -> Journal:
        """The same journal with connections of its own, for another thread."""
        return Journal(self.folder, self._worker, verify=False)

    def claim(self, keys: Sequence[str]) -> set[str]:
        """Claim those of ``keys`` (hexadecimal) that no living process holds; returns them."""
        return self._claims.claim(keys)

    def release(self, keys: Collection[str]) -> None:
        """Give claims back."""
        self._claims.release(keys)

    def settle(self) -> None:
        """Fold every shard's write-ahead log into its file, so that files can be copied; one that another
        process writes keeps its log until that has ended.
        """
        self.close()
        for path in sorted(self.folder.glob("journal-*.sqlite")):
            open_own(path).close()

    def add(self, rows: Sequence[JournalRow]) -> int:
        """Commit ``rows`` together; returns how many were new. A row whose key is there already is ignored."""
        if not rows:
            return 0
        coded = [(row.key, row.kind, _encode(row.payload)) for row in rows]
        own = self._own()
        with named_errors(own.path), _transaction(own.connection) as connection:
            before = connection.total_changes
            _insert(connection, _INSERT, [(*row, row_sum(*row)) for row in coded])
            n_new = connection.total_changes - before
            if n_new < len(rows):
                self._compare(own, coded)
            _insert(connection, _LOG, [row[:2] for row in coded])
        return n_new

    def forget(self, keys: Sequence[bytes]) -> None:
        """Remove rows from this worker's shard, for what is no longer there; the log keeps that they were computed."""
        own = self._own()
        with named_errors(own.path), _transaction(own.connection) as connection:
            connection.executemany("DELETE FROM rows WHERE key = ?", [(key,) for key in keys])

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Any]:
        """The payloads of those ``keys`` that are there; where shards differ, that of the first."""
        found: dict[bytes, str] = {}
        for start in range(0, len(keys), _KEYS_PER_QUERY):
            some = keys[start : start + _KEYS_PER_QUERY]
            marks = ",".join("?" * len(some))
            for shard in self._all():
                for key, _, payload in shard.rows(f"WHERE key IN ({marks})", some):
                    self._compare_two(key, found.setdefault(key, payload), payload)
        return {key: _decode(payload) for key, payload in found.items()}

    def rows(self, kind: str) -> Iterator[JournalRow]:
        """Every row of a kind, each key once, in the order of keys."""
        shards = [shard.rows("WHERE kind = ? ORDER BY key", (kind,)) for shard in self._all()]
        last: tuple[bytes, str] | None = None
        for key, _, payload in heapq.merge(*shards, key=lambda row: row[0]):
            if last is not None and key == last[0]:
                self._compare_two(key, last[1], payload)
                continue
            last = (key, payload)
            yield JournalRow(key, kind, _decode(payload))

    def check(self) -> JournalCheck:
        """Count what is there, what was computed, and what was computed twice."""
        payloads: dict[bytes, tuple[str, str]] = {}
        conflicts: set[str] = set()
        computed: Counter[tuple[bytes, str]] = Counter()
        for shard in self._all():
            for key, kind, payload in shard.rows():
                first = payloads.setdefault(key, (kind, payload))
                if first[0] != kind or not _same(first[1], payload):
                    conflicts.add(key.hex())
            with named_errors(shard.path):
                log = shard.connection.execute("SELECT key, kind FROM computed")
                computed.update(log.fetchall())
        n_computed: Counter[str] = Counter()
        for (_, kind), times in computed.items():
            n_computed[kind] += times
        return JournalCheck(
            n_rows=dict(Counter(kind for kind, _ in payloads.values())),
            n_computed=dict(n_computed),
            computed_twice=dict(
                Counter(kind for (_, kind), times in computed.items() if times > 1)
            ),
            conflicts=sorted(conflicts),
        )

    def _compare(self, own: Shard, coded: Sequence[tuple[bytes, str, str]]) -> None:
        """Report other payloads under the same keys; a row that is damaged makes room for the new one."""
        for row in coded:
            key, _, payload = row
            there = next(own.rows("WHERE key = ?", (key,)), None)
            if there is None:
                own.connection.execute("DELETE FROM rows WHERE key = ?", (key,))
                _insert(own.connection, _INSERT, [(*row, row_sum(*row))])
            else:
                self._compare_two(key, there[2], payload)

    def _compare_two(self, key: bytes, first: str, second: str) -> None:
        """Report, once, that a key has two different rows: whatever made the key left something out."""
        if not _same(first, second) and key not in self._warned:
            self._warned.add(key)
            _log.warning(
                "The journal %s has two different rows under the key %s; the first counts: %.80s and %.80s.",
                *(self.folder, key.hex()[:16], first, second),
            )

    def _own(self) -> Shard:
        if self._own_path is None:
            raise InputError(f"The journal {self.folder} was opened to be read only.")
        if self._own_path not in self._shards:
            self._own_path.parent.mkdir(parents=True, exist_ok=True)
            self._shards[self._own_path] = open_own(self._own_path, verify=self._verify)
        return self._shards[self._own_path]

    def _all(self) -> list[Shard]:
        for path in sorted(self.folder.glob("journal-*.sqlite")):
            if path not in self._shards:
                self._shards[path] = self._own() if path == self._own_path else open_other(path)
        return [self._shards[path] for path in sorted(self._shards)]


class _transaction:  # noqa: N801 (reads as a statement)
    """``BEGIN IMMEDIATE`` to ``COMMIT``, or ``ROLLBACK`` when anything is raised."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> sqlite3.Connection:
        self._connection.execute("BEGIN IMMEDIATE")
        return self._connection

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._connection.execute("COMMIT")
        elif self._connection.in_transaction:  # a full disk ends it by itself
            self._connection.execute("ROLLBACK")


def _insert(
    connection: sqlite3.Connection, statement: str, rows: Sequence[tuple[Any, ...]]
) -> None:
    """Insert ``rows``, many a statement: each gives Python's lock away, and other threads keep it for a while."""
    for start in range(0, len(rows), _ROWS_PER_INSERT):
        some = rows[start : start + _ROWS_PER_INSERT]
        marks = ",".join([f"({','.join('?' * len(some[0]))})"] * len(some))
        connection.execute(statement + marks, [value for row in some for value in row])


_encode: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def _decode(payload: str) -> Any:
    # Rows of older versions may hold half a surrogate pair, which no file can.
    found = json.loads(payload)
    return storable(found) if _HALF_PAIR.search(payload) else found


def _same(first: str, second: str) -> bool:
    return first == second or _lasting(json.loads(first)) == _lasting(json.loads(second))


def _lasting(payload: Any) -> Any:
    """``payload`` without what is `INCIDENTAL`."""
    if isinstance(payload, dict):
        return {key: _lasting(value) for key, value in payload.items() if key not in INCIDENTAL}
    return [_lasting(one) for one in payload] if isinstance(payload, list) else payload
