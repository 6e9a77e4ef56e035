"""The board: rows of models by declared columns, whatever the source of the numbers.

A column is declared once and says what its numbers are conditional on; every writer (csv, md, json, terminal, html,
plots) iterates over the columns. Values are in the column's unit: percentages where it says ``%``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from alignboard.errors import InputError, nearest
from alignboard.text import json_value

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 2
Better: TypeAlias = Literal["high", "low", "none"]
Kind: TypeAlias = Literal[
    "win rate", "LC win rate", "benchmark", "rating", "place", "accuracy", "length", "diagnostic"
]


class Score(msgspec.Struct, frozen=True, omit_defaults=True):
    """The number in one cell, in its column's unit; None where it is unknown, with the reason."""

    value: float | None = None
    low: float | None = None
    """of the 95 % interval"""
    high: float | None = None
    standard_error: float | None = None
    n: int | None = None
    """verdicts, documents or prompts that the value is made of"""
    unparsed: int | None = None
    """verdicts that could not be parsed: left out of the value"""
    failed: int | None = None
    """calls that failed (refused, truncated, errors): left out of the value"""
    counts: dict[str, int] = {}
    """what the scored verdicts were: ``won``, ``drawn``, ``lost``"""
    reason: str | None = None
    """why there is no value, such as ``baseline``"""


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """What the numbers of one column are, and what they are conditional on."""

    key: str
    """unique on the board"""
    name: str
    kind: Kind
    unit: str = ""
    """``%``, ``characters``, ``Elo`` or nothing"""
    judge: str | None = None
    set: str | None = None
    """the instruction set, or the benchmark suite"""
    baseline: str | None = None
    source: str = ""
    """where the numbers come from: annotations, lm-eval, published, round robin, responses"""
    estimator: str = ""
    conditional_on: str = ""
    better: Better = "high"
    digits: int = 1
    """decimals in tables; csv and json have all"""
    detail: bool = False
    """in csv and json only, not in tables that are read"""

    def text(self, value: float | None) -> str:
        """``value`` with the column's decimals; empty where it is unknown."""
        return "" if value is None else f"{value:.{self.digits}f}"

    def interval(self, score: Score) -> str:
        """The interval of ``score``, else its standard error; empty where neither is known."""
        if score.low is not None and score.high is not None:
            return f"{self.text(score.low)} to {self.text(score.high)}"
        return "" if score.standard_error is None else f"± {self.text(score.standard_error)}"


class Row(msgspec.Struct, frozen=True):
    """One model and its scores by column key."""

    model: str
    scores: dict[str, Score] = {}
    family: str | None = None
    """the base model"""
    method: str | None = None
    flags: list[str] = []


class Sample(msgspec.Struct, frozen=True):
    """One prompt and every model's response to it."""

    instruction: str
    outputs: dict[str, str]
    """by model"""


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
    samples: list[Sample] = []
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        """Refuse two columns of one key, and two rows of one model."""
        for what, names in (
            ("columns", [column.key for column in self.columns]),
            ("rows", [row.model for row in self.rows]),
        ):
            twice = next((name for name in names if names.count(name) > 1), None)
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
            if not column.detail and any(column.key in row.scores for row in self.rows)
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
        """The rank of every row by the values of ``ranked_by``, equal values sharing the better one; None without one."""
        if self.ranked_by is None:
            return [None] * len(self.rows)
        sign = -1 if self.column(self.ranked_by).better == "low" else 1
        values = [self.score(row, self.ranked_by).value for row in self.rows]
        known = [sign * value for value in values if value is not None]
        return [
            None if value is None else 1 + sum(other > sign * value for other in known)
            for value in values
        ]

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
            samples=[
                Sample(s.instruction, {m: o for m, o in s.outputs.items() if m in models})
                for s in self.samples
            ],
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
        except msgspec.MsgspecError as error:
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
        from alignboard.boards.files import records

        return pd.DataFrame(records(self)).set_index("model")

    def _repr_html_(self) -> str:
        """The table for a notebook."""
        from alignboard.boards.page import table_html

        return table_html(self)


def read_board(path: Path) -> Board:
    """A board from its json file; raises `InputError` where it cannot be read."""
    try:
        return Board.from_json(path.read_bytes(), str(path))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error


def known(value: float | None, scale: float = 1) -> float | None:
    """``value`` times ``scale``; None for NaN and infinity, because unknown is not a number."""
    return None if value is None or not math.isfinite(value) else value * scale


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` without those that are None."""
    return {key: value for key, value in values.items() if value is not None}
