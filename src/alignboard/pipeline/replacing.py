"""Result files that take the place of earlier ones: never with fewer scored rows unless that was asked for.

A file may hold what was paid for elsewhere: released verdicts, or those of a journal that is no longer there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec

from alignboard.errors import InputError
from alignboard.results.files import UNREADABLE, write_atomically


class _Row(msgspec.Struct, gc=False):
    preference: float | str | None = None
    rating: float | None = None


def n_rows(content: bytes) -> int:
    """How many rows a file of outputs holds; a file of answers of several turns is one row a line."""
    try:
        return len(msgspec.json.decode(content, type=list[_Row]))
    except UNREADABLE:
        return len([line for line in content.splitlines() if line.strip()])


def n_preferences(content: bytes) -> int:
    """How many rows of annotations hold a preference."""
    return sum(row.preference is not None for row in _rows(content))


def n_ratings(content: bytes) -> int:
    """How many rows of ratings hold a rating."""
    return sum(row.rating is not None for row in _rows(content))


def _rows(content: bytes) -> list[_Row]:
    """An empty file, as a full disk leaves it, holds none."""
    return msgspec.json.decode(content, type=list[_Row]) if content else []


_COUNTED: Final = {
    "annotations.json": n_preferences,
    "ratings.json": n_ratings,
    "model_outputs.json": n_rows,
    "model_answer.jsonl": n_rows,
}


def require_no_less(path: Path, new: Path, *, replace: bool = False) -> None:
    """Raise `InputError` where a job's file ``new`` has fewer scored rows than ``path``, whose place it would take.

    ``replace`` as in `require_no_loss`.
    """
    counted = _COUNTED.get(path.name)
    if counted is None or not path.is_file():
        return
    if replace:
        require_no_loss(path, counted(new.read_bytes()), counted, replace=True)
        return
    try:
        there, n = counted(path.read_bytes()), counted(new.read_bytes())
    except UNREADABLE as error:
        raise InputError(f"{path} cannot be read ({error}); move it away and run again.") from error
    if there > n:
        raise InputError(
            f"{path} holds {there} scored rows and the plan's would hold {n}, so it was left as it is; move it away "
            "and run again."
        )


def require_no_loss(
    path: Path,
    n: int,
    counted: Callable[[bytes], int],
    reasons: Iterable[str] = (),
    *,
    replace: bool = False,
) -> None:
    """Check that ``path`` may be replaced by a file with ``n`` scored rows.

    ``reasons`` say why the other rows are not scored; the most common is part of the error. With ``replace`` the old
    file is then kept beside the new one, as ``<name>.1``, ``<name>.2`` and so on.

    Raises
    ------
    InputError
        The file there has more scored rows, or cannot be read, and ``replace`` is not set.
    """
    try:
        old = path.read_bytes()
    except FileNotFoundError:
        return
    try:
        there = counted(old)
    except UNREADABLE:
        there = None
    if there is not None and there <= n:
        return
    if not replace:
        holds = "cannot be read" if there is None else f"holds {there} scored rows"
        common = Counter(filter(None, reasons)).most_common(1)
        why = f" (why rows are missing: {common[0][0]})" if common else ""
        raise InputError(
            f"{path} {holds} and the new file would hold {n}{why}, so it was left as it is; add --replace to "
            "write the new one and keep the old beside it."
        )
    number = 1
    while (kept := path.with_name(f"{path.name}.{number}")).exists():
        number += 1
    write_atomically(kept, old)
