"""The calibration of AlpacaEval's length-controlled GLM: instruction difficulties and the gamed baseline's rows.

``df_gamed.csv`` holds the rows of the baseline asked to be verbose and to be concise, which keep the fit from
calling length what is quality; ``instruction_difficulty.csv`` holds one difficulty per instruction of the
reference set. Upstream: ``metrics/glm_winrate.py``.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from operator import methodcaller
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alignboard.errors import InputError

_GAMED = "df_gamed.csv"
_DIFFICULTY = "instruction_difficulty.csv"
_GAMED_COLUMNS = (
    "model",
    "preference",
    "index",
    "std_delta_len",
    "instruction_difficulty",
    "not_gamed_baseline",
)
# A difference of difficulties that cannot move a win rate: decimals lost when a file was written.
_SAME = 1e-6
_WHOLE_NUMBERS = re.compile(r"[0-9]{1,9}(?:,[0-9]{1,9})*").fullmatch


@dataclass(frozen=True)
class Calibration:
    """What the length-controlled GLM is given besides a model's own rows."""

    difficulty: NDArray[np.float64]
    """(N,) by reference index"""
    gamed_preference: NDArray[np.float64]
    """(G,) in [0, 1], 1 = the gamed output is preferred"""
    gamed_length: NDArray[np.float64]
    """(G,) standardised length difference (``std_delta_len``), before tanh"""
    gamed_difficulty: NDArray[np.float64]
    """(G,)"""
    gamed_index: NDArray[np.int64]
    """(G,) reference index"""


def read_calibration(folder: str | Path) -> Calibration:
    """The calibration files in ``folder``; raises `InputError` naming file, row and field.

    Without ``instruction_difficulty.csv`` the difficulties are those of ``df_gamed.csv``, where upstream's own fit
    takes them from.
    """
    folder = Path(folder)
    if not (folder / _GAMED).is_file():
        raise InputError(
            f"There is no {folder / _GAMED}; --assets takes a folder with {_GAMED} and {_DIFFICULTY}."
        )
    gamed = _Table(folder / _GAMED, _GAMED_COLUMNS)
    index = gamed.indices("index")
    gamed.require_unique("index", list(zip(gamed.texts("model"), index.tolist(), strict=True)))
    gamed.require_false("not_gamed_baseline")
    difficulty = gamed.numbers("instruction_difficulty")
    if (folder / _DIFFICULTY).is_file():
        by_index = _read_difficulty(folder / _DIFFICULTY)
    else:
        first = np.unique(index, return_index=True)[1]
        by_index = _by_index(gamed, index[first], difficulty[first])
    _require_agreement(gamed, index, difficulty, by_index)
    return Calibration(
        difficulty=by_index,
        gamed_preference=gamed.numbers("preference", low=0.0, high=1.0),
        gamed_length=gamed.numbers("std_delta_len"),
        gamed_difficulty=difficulty,
        gamed_index=index,
    )


class _Table:
    """A csv file as columns of text, read strictly; row 1 is the first row under the header."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._path = path
        header, values = _read_csv(path)
        # pandas leaves the name of an index column empty.
        if header[0] == "" and "index" not in header:
            header[0] = "index"
        for column in columns:
            if column not in header:
                raise InputError(
                    f"{path}: no column {column!r}; expected the columns {', '.join(columns)}."
                )
        self._columns = dict(zip(header, values, strict=True))

    def error(self, field: str, what: str, row: int | None = None) -> InputError:
        """An error about ``field``, in ``row`` (from 0)."""
        place = "" if row is None else f", row {row + 1}"
        return InputError(f"{self._path}{place}, field {field!r}: {what}.")

    def texts(self, field: str) -> Sequence[str]:
        """The column as it is written."""
        return self._columns[field]

    def numbers(
        self, field: str, low: float = -math.inf, high: float = math.inf
    ) -> NDArray[np.float64]:
        """The column as finite numbers from ``low`` to ``high``."""
        texts = self._columns[field]
        try:
            numbers = np.array(list(map(float, texts)))
        except ValueError:
            numbers = np.array([_number(text) for text in texts])
        wrong = np.flatnonzero(~(np.isfinite(numbers) & (low <= numbers) & (numbers <= high)))
        if len(wrong):
            limits = f" from {low:g} to {high:g}" if math.isfinite(high) else ""
            found = repr(texts[wrong[0]])
            raise self.error(field, f"{found}; expected a finite number{limits}", int(wrong[0]))
        return numbers

    def indices(self, field: str) -> NDArray[np.int64]:
        """The column as reference indices."""
        texts = self._columns[field]
        joined = ",".join(texts)
        if not _WHOLE_NUMBERS(joined) or joined.count(",") != len(texts) - 1:
            whole = [text.isascii() and text.isdigit() and len(text) <= 9 for text in texts]
            row = whole.index(False)
            raise self.error(field, f"{texts[row]!r}; expected a whole number from 0", row)
        return np.array(list(map(int, texts)), dtype=np.int64)

    def require_unique(self, field: str, keys: Sequence[Hashable]) -> None:
        """Refuse a second row with the same key."""
        if len(set(keys)) == len(keys):
            return
        first: dict[Hashable, int] = {}
        for row, key in enumerate(keys):
            earlier = first.setdefault(key, row)
            if earlier != row:
                text = self._columns[field][row]
                raise self.error(field, f"{text} is already in row {earlier + 1}", row)

    def require_false(self, field: str) -> None:
        """Refuse a row that is not of the gamed baseline: it would be weighted as one."""
        texts = self._columns[field]
        wrong = set(texts) - {"False", "false", "0", "0.0"}
        if wrong:
            row = next(row for row, text in enumerate(texts) if text in wrong)
            raise self.error(
                field, f"{texts[row]!r}; expected False, as every row is of the gamed baseline", row
            )


def _read_csv(path: Path) -> tuple[list[str], list[Sequence[str]]]:
    """The header and the columns of a csv file with at least one row."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8."
        ) from error
    header, cells = _split(path, text)
    width = len(header)
    repeated = next((name for i, name in enumerate(header) if name in header[:i]), None)
    if repeated is not None:
        raise InputError(f"{path}: the header has two columns {repeated!r}.")
    if not cells:
        raise InputError(f"{path} has a header but no rows; expected one row per instruction.")
    return header, [cells[column::width] for column in range(width)]


def _split(path: Path, text: str) -> tuple[list[str], list[str]]:
    """The header, and the cells of all rows one after the other."""
    top, _, body = text.rstrip("\n").partition("\n")
    if not top:
        raise InputError(f"{path} is empty; expected a header and rows.")
    counts = set(map(methodcaller("count", ","), body.split("\n")))
    if '"' not in text and counts == {top.count(",")}:
        # Without quotes the whole file is one split: several times as fast as the csv module.
        return top.split(","), body.replace("\n", ",").split(",")
    header, *rows = _split_quoted(path, text)
    return header, [cell for row in rows for cell in row]


def _split_quoted(path: Path, text: str) -> list[list[str]]:
    try:
        rows = [row for row in csv.reader(io.StringIO(text), strict=True) if row]
    except csv.Error as error:
        raise InputError(f"{path}: not a valid csv file ({error}).") from error
    for number, row in enumerate(rows[1:], start=1):
        if len(row) != len(rows[0]):
            columns = len(rows[0])
            raise InputError(
                f"{path}, row {number}: {len(row)} values, but the header has {columns} columns."
            )
    return rows


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _read_difficulty(path: Path) -> NDArray[np.float64]:
    table = _Table(path, ("index", "instruction_difficulty"))
    index = table.indices("index")
    table.require_unique("index", index.tolist())
    return _by_index(table, index, table.numbers("instruction_difficulty"))


def _by_index(
    table: _Table, index: NDArray[np.int64], difficulty: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Difficulties in the order of their indices, which must be 0 to N - 1."""
    order = np.argsort(index)
    gaps = np.flatnonzero(index[order] != np.arange(len(index)))
    if len(gaps):
        what = f"{gaps[0]} is missing although {index[order][gaps[0]]} is there"
        raise table.error("index", f"{what}; expected every index from 0")
    return difficulty[order]


def _require_agreement(
    gamed: _Table,
    index: NDArray[np.int64],
    difficulty: NDArray[np.float64],
    by_index: NDArray[np.float64],
) -> None:
    beyond = np.flatnonzero(index >= len(by_index))
    if len(beyond):
        row = int(beyond[0])
        last = len(by_index) - 1
        raise gamed.error(
            "index", f"{index[row]}; expected at most {last}, the last difficulty", row
        )
    differ = np.flatnonzero(np.abs(difficulty - by_index[index]) > _SAME)
    if len(differ):
        row = int(differ[0])
        elsewhere = f"the difficulty of index {index[row]} is {by_index[index[row]]} elsewhere"
        raise gamed.error("instruction_difficulty", f"{difficulty[row]}, but {elsewhere}", row)
