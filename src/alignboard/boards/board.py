"""The board: rows of models by declared columns, whatever the source of the numbers.

Every writer (csv, md, json, terminal, html, plots) iterates over the columns.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from alignboard.boards.columns import Column, Kind, Row, Score
from alignboard.errors import InputError, nearest
from alignboard.results.files import UNREADABLE, read_file
from alignboard.text import json_value, shown

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 3
BASELINE_REASON = "baseline"
"""why the baseline has no score: it is not compared with itself"""
BEST = "Bold: the one model that is first by its column's ranks; where none is bold, several may be first."
_PARTS = {"low": "low", "high": "high", "SE": "standard_error", "effective n": "n_effective"}
_IN_THE_UNIT = ("low", "high", "SE")
_COUNTS = ("n", "unparsed", "failed")
_NOTE = "note"


class Board(msgspec.Struct, frozen=True, kw_only=True):
    """Rows by columns, with notes on what the numbers are conditional on.

    Parameters
    ----------
    name
        Name of the files.
    ranked_by
        Key of the column whose values give the ranks; None where the board has no ranking.
    beside
        Key of a column that the ranking's plot draws beside it.
    provenance
        Where the numbers come from, by name.
    """

    name: str
    title: str
    columns: list[Column]
    rows: list[Row]
    summary: str = ""
    notes: list[str] = []
    ranked_by: str | None = None
    beside: str | None = None
    provenance: dict[str, str] = {}
    families: dict[str, list[str]] = {}
    """named groups of models that a plot compares, each in its order"""
    judges: dict[str, str] = {}
    """by name: what the judge is, and the prompt that it was given, with slots for what it is shown"""
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        """Refuse two columns of one key, and two rows of one model."""
        for what, names in (
            ("columns", [column.key for column in self.columns]),
            ("rows", [row.model for row in self.rows]),
        ):
            twice = next((name for name, n in Counter(names).items() if n > 1), None)
            if twice is not None:
                raise InputError(f"The board {self.name!r} has two {what} {twice!r}.")

    def column(self, key: str) -> Column:
        """The column ``key``; raises `InputError` with the nearest key."""
        keys = [column.key for column in self.columns]
        if key not in keys:
            raise InputError(
                f"The board {self.name!r} has no column {key!r}{nearest(key, keys) or '.'}"
            )
        return self.columns[keys.index(key)]

    def of_kind(self, *kinds: Kind) -> list[Column]:
        """The columns of ``kinds`` that hold a value, in their order."""
        return [c for c in self.columns if c.kind in kinds and self.holds(c)]

    def holds(self, column: Column) -> bool:
        """Whether any row has a value in ``column``."""
        return any(self.score(row, column).value is not None for row in self.rows)

    def shown(self) -> list[Column]:
        """The columns of tables that are read: those without details that hold anything."""
        return [
            column
            for column in self.columns
            if not column.detail
            and any(
                score.value is not None or score.reason not in {None, BASELINE_REASON}
                for row in self.rows
                if (score := row.scores.get(column.key)) is not None
            )
        ]

    def score(self, row: Row, column: Column | str) -> Score:
        """The cell of ``row`` in ``column``; an empty score where there is none."""
        key = column if isinstance(column, str) else column.key
        return row.scores.get(key, Score())

    def group(self, column: Column) -> str:
        """What ``column`` shares with its neighbours: the judge, with set and baseline where these differ."""
        if column.judge is None:
            return column.source
        judged = [other for other in self.columns if other.judge is not None]
        parts = [column.judge]
        if column.set and len({other.set for other in judged}) > 1:
            parts.append(column.set)
        if column.baseline and len({other.baseline for other in judged if other.baseline}) > 1:
            parts.append(f"against {column.baseline}")
        return ", ".join(parts)

    def label(self, column: Column) -> str:
        """The column's full name: group and name."""
        return f"{self.group(column)}: {column.name}" if column.judge else column.name

    def ranks(self) -> list[int | None]:
        """The rank of every row by the values of ``ranked_by``; equal values share the better one."""
        if self.ranked_by is None:
            return [None] * len(self.rows)
        sign = -1 if self.column(self.ranked_by).better == "low" else 1
        values = [self.score(row, self.ranked_by).value for row in self.rows]
        known = sorted(-sign * value for value in values if value is not None)
        return [
            None if value is None else 1 + bisect_left(known, -sign * value) for value in values
        ]

    def best(self, column: Column) -> Row | None:
        """The row that is first in ``column`` with 95 %: no other one may be, by the ranks of paired tests.

        None where several may be first, where the board holds no ranks of the column's values, and where its rows
        were ranked in groups, each against a baseline of its own.
        """
        place = next((c for c in self.columns if c.kind == "place" and c.of == column.key), None)
        if place is None:
            return None
        worst = {row.model: self.score(row, place).high for row in self.rows}
        ranked = [last for last in worst.values() if last is not None]
        first = [row for row in self.rows if worst[row.model] == 1]
        together = bool(ranked) and max(ranked) == len(ranked)
        return first[0] if together and len(first) == 1 else None

    def only(self, models: Sequence[str]) -> Board:
        """The board of ``models`` alone; raises `InputError` for a model that it does not have."""
        there = [row.model for row in self.rows]
        for model in models:
            if model not in there:
                raise InputError(
                    f"The board {self.name!r} has no model {model!r}{nearest(model, there) or '.'}"
                )
        return msgspec.structs.replace(
            self,
            rows=[row for row in self.rows if row.model in models],
            families={
                name: kept
                for name, members in self.families.items()
                if (kept := [member for member in members if member in models])
            },
        )

    def to_json(self) -> str:
        """The board as json, with every digit; the same board gives the same text."""
        content = json_value(msgspec.to_builtins(self) | {"ranks": self.ranks()})
        return msgspec.json.format(msgspec.json.encode(content), indent=1).decode() + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, name: str = "The text") -> Board:
        """A board from what `to_json` wrote.

        Raises
        ------
        InputError
            Where ``text`` is something else; ``name`` says what was read.
        """
        try:
            found = msgspec.json.decode(text, type=Board)
        except UNREADABLE as error:
            raise InputError(f"{name} is not a board of alignboard: {error}.") from error
        if found.schema != SCHEMA:
            raise InputError(
                f"{name} is a board of schema {found.schema}, this version reads {SCHEMA}: make it again."
            )
        return found

    def to_frame(self) -> pd.DataFrame:
        """The board as a pandas data frame, indexed by model: the columns of the csv file."""
        try:
            import pandas as pd
        except ModuleNotFoundError as error:
            raise InputError("Board.to_frame needs pandas: pip install pandas") from error
        return pd.DataFrame(records(self)).set_index("model")

    def with_flags(self, flags: Mapping[str, Sequence[str]]) -> Board:
        """The board with further flags, by model."""
        rows = [
            msgspec.structs.replace(row, flags=[*row.flags, *flags.get(row.model, ())])
            for row in self.rows
        ]
        return msgspec.structs.replace(self, rows=rows)

    def __repr__(self) -> str:
        """What it is, in a line; its numbers are in `to_frame` and in its files."""
        return f"Board({self.name!r}: {len(self.rows)} models, {len(self.columns)} columns)"

    def _repr_html_(self) -> str:
        """The table for a notebook, with all that others wrote escaped."""
        return html_table(self)


def read_board(path: str | Path) -> Board:
    """A board from its json file; raises `InputError` where it cannot be read."""
    return Board.from_json(read_file(Path(path)), str(path))


@dataclass(frozen=True)
class Table:
    """The table that is read: a group and a name over every place, and the texts of every row."""

    groups: list[str]
    names: list[str]
    cells: list[list[str]]
    best: set[tuple[int, int]] = field(default_factory=set)
    """(row, place) of the values that are first in their column with 95 %; see `Board.best`"""
    reasons: set[str] = field(default_factory=set)
    """what stands in the place of values that there are not"""

    @property
    def heads(self) -> list[str]:
        """The name of every place, with its group before it."""
        return [f"{g}: {n}" if g else n for g, n in zip(self.groups, self.names, strict=True)]

    def add(self, group: str, name: str, texts: Sequence[str]) -> None:
        """One more place of every row."""
        self.groups.append(group)
        self.names.append(name)
        for line, text in zip(self.cells, texts, strict=True):
            line.append(text)


def html_table(board: Board) -> str:
    """The table for a notebook, with all that others wrote escaped."""
    found = table(board)
    lines = ["".join(f"<th>{escape(shown(head))}</th>" for head in found.heads)]
    for row, line in enumerate(found.cells):
        texts = [escape(shown(cell)) for cell in line]
        lines.append(
            "".join(
                f"<td><b>{text}</b></td>" if (row, place) in found.best else f"<td>{text}</td>"
                for place, text in enumerate(texts)
            )
        )
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def records(board: Board) -> list[dict[str, Any]]:
    """One flat record per row: what the csv file and the data frame hold, with every digit.

    A column gives its value, then low, high, SE, n, unparsed, failed, its counts and a note (or why there is no value)
    where any row has them.
    """
    parts = {column.key: _parts(board, column) for column in board.columns}
    with_ranks = board.ranked_by is not None
    found = []
    for row, rank in zip(board.rows, board.ranks(), strict=True):
        record: dict[str, Any] = {"rank": rank} if with_ranks else {}
        record |= {"model": row.model, "family": row.family, "method": row.method}
        for column in board.columns:
            score, label = board.score(row, column), board.label(column)
            record[f"{label} {column.unit}".rstrip()] = score.value
            for part in parts[column.key]:
                unit = column.unit if part in _IN_THE_UNIT else ""
                record[f"{label} {part} {unit}".rstrip()] = _part(score, part)
        record["flags"] = "; ".join(row.flags)
        found.append(record)
    return found


def _parts(board: Board, column: Column) -> list[str]:
    """Which figures besides the value any row has."""
    scores = [board.score(row, column) for row in board.rows]
    counts = dict.fromkeys(name for score in scores for name in score.counts)
    every = [*_PARTS, *_COUNTS, *counts, _NOTE]
    return [part for part in every if any(_part(score, part) is not None for score in scores)]


def _part(score: Score, part: str) -> float | str | None:
    if part == _NOTE:
        return score.note or score.reason
    if part in _PARTS:
        return getattr(score, _PARTS[part])
    return getattr(score, part) if part in _COUNTS else score.counts.get(part)


def table(
    board: Board, *, intervals: bool = True, columns: Sequence[Column] | None = None
) -> Table:
    """The table of ``board``; intervals stand beside their values."""
    made = Table([], [], [[] for _ in board.rows])
    if board.ranked_by is not None:
        made.add("", "rank", ["" if rank is None else str(rank) for rank in board.ranks()])
    made.add("", "model", [row.model for row in board.rows])
    if any(row.method for row in board.rows):
        made.add("", "method", [row.method or "" for row in board.rows])
    for column in board.shown() if columns is None else columns:
        _add_column(made, board, column, intervals=intervals)
    if any(row.flags for row in board.rows):
        made.add("", "flags", ["; ".join(row.flags) for row in board.rows])
    return made


def _why(score: Score) -> str:
    """Why there is no value, up to the details after a colon, which csv, json and html have."""
    return (score.reason or "").partition(":")[0]


def _add_column(made: Table, board: Board, column: Column, *, intervals: bool) -> None:
    """The values of ``column``, then its intervals and the counts of what it leaves out."""
    scores = [board.score(row, column) for row in board.rows]
    group = board.group(column) if column.judge else ""
    unit = "%" if column.unit == "%" else ""
    whys = ["" if s.value is not None else _why(s) for s in scores]
    made.reasons.update(whys)
    texts = [column.text(s.value) or why for s, why in zip(scores, whys, strict=True)]
    if (first := board.best(column)) is not None:
        made.best.add((board.rows.index(first), len(made.names)))
    made.add(group, f"{column.name} {unit}".rstrip(), texts)
    spans = [column.interval(score) for score in scores]
    if intervals and any(spans):
        ends = any(score.low is not None for score in scores)
        head = "95 %" if ends and column.kind != "place" else "to" if ends else "SE"
        made.add(group, head, spans)
    for name in ("unparsed", "failed"):
        counts = [getattr(score, name) for score in scores]
        if any(counts):
            made.add(group, name, ["" if n is None else str(n) for n in counts])
