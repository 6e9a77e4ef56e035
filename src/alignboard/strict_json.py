"""JSON and CSV that people bring: a key or column that is there twice is an error, where others take the last one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignboard.errors import InputError


class RepeatedKeyError(ValueError):
    """An object that has a key twice; the message is a part of a sentence."""

    def __init__(self, key: str, row: int | None = None) -> None:
        self.key = key
        where = "" if row is None else f"row {row}: "
        super().__init__(f"{where}the key {key[:60]!r} is there twice; remove one of the two")


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of its pairs, as the hook of a decoder; raises `RepeatedKeyError`."""
    made = dict(pairs)
    if len(made) < len(pairs):
        raise RepeatedKeyError(_most_common(pairs))
    return made


def _most_common(pairs: list[tuple[str, Any]]) -> str:
    return Counter(key for key, _ in pairs).most_common(1)[0][0]


class _Objects:
    """Makes objects, and remembers the first that has a key twice."""

    def __init__(self) -> None:
        self.twice: tuple[str, dict[str, Any]] | None = None

    def make(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs) and self.twice is None:
            self.twice = _most_common(pairs), made
        return made


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text; raises `RepeatedKeyError`, with the row where it is a list, or as `json.loads` does."""
    objects = _Objects()
    value = json.loads(text, object_pairs_hook=objects.make)
    if objects.twice is not None:
        key, held = objects.twice
        rows = value if isinstance(value, list) else []
        row = next((n for n, one in enumerate(rows, start=1) if _holds(one, held)), None)
        raise RepeatedKeyError(key, row)
    return value


def _holds(value: Any, wanted: dict[str, Any]) -> bool:
    if value is wanted:
        return True
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(_holds(one, wanted) for one in inner)


def require_once(path: Path, content: bytes, name: str, n_rows: int) -> None:
    """Raise `InputError` where ``name`` is a key twice in a row of a file that has ``n_rows``.

    Each row has it at least once; so where there are no more spellings than rows, none has it twice. A nested object
    may have the name, too: only then the file is read again, slowly. Each name would cost a pass over the bytes.
    """
    if content.count(f'"{name}"'.encode()) <= n_rows:
        return
    lines = content.splitlines() if path.suffix == ".jsonl" else [content]
    for number, line in enumerate(lines, start=1):
        try:
            parse_json(line) if line.strip() else None
        except RepeatedKeyError as error:
            place = f"{path}, row {number}" if len(lines) > 1 else str(path)
            raise InputError(f"{place}: {error}.") from error


def require_columns(path: Path, names: Sequence[str] | None) -> None:
    """Raise `InputError` for a header that has a column twice, of which a reader would take the last."""
    found = [name for name, n in Counter(names or ()).items() if n > 1 and name]
    if found:
        raise InputError(
            f"{path}: the header has the column {found[0][:60]!r} twice; rename or remove one of the two."
        )
