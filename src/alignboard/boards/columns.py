"""Columns, scores and rows: what a board is made of.

A column is declared once and says what its numbers are conditional on. Values are in the column's unit:
percentages where it says ``%``.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import msgspec

Better: TypeAlias = Literal["high", "low", "none"]
Kind: TypeAlias = Literal[
    "win rate", "LC win rate", "benchmark", "rating", "place", "accuracy", "length", "diagnostic", "estimate"
]  # fmt: skip

ESTIMATED = "≈"
"""stands before the numbers of columns of the kind ``estimate``"""

RANKED = "Ranked by"
"""how the note begins that names the column of the ranks"""


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
    n_effective: float | None = None
    """where clusters of several sizes leave the error less well known: as many clusters of one size would"""
    reason: str | None = None
    """why there is no value, such as ``baseline``"""
    note: str | None = None
    """what the value rests on, such as how many labels"""

    def __post_init__(self) -> None:
        """Whole numbers become floats, as they are read again from json: the same board gives the same files."""
        for name in ("value", "low", "high", "standard_error", "n_effective"):
            number = getattr(self, name)
            if number is not None and type(number) is not float:
                msgspec.structs.force_setattr(self, name, float(number))


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
    of: str | None = None
    """of a place: the key of the column whose values it ranks"""

    def text(self, value: float | None) -> str:
        """``value`` with the column's decimals, and its sign where it is an estimate; empty where it is unknown."""
        sign = f"{ESTIMATED} " if self.kind == "estimate" else ""
        return "" if value is None else f"{sign}{self._number(value)}"

    def _number(self, value: float) -> str:
        return f"{value:.{self.digits}f}"

    def interval(self, score: Score) -> str:
        """The interval of ``score``, else its standard error; empty where neither is known.

        A limit that stands alone is one-sided: an undefeated model's rating is "at least" something. The effective
        number of clusters follows where it is less than that of the rows, then a note.
        """
        few = None if score.n_effective is None else f"n_eff {score.n_effective:.0f}"
        return ", ".join(filter(None, (self._limits(score), few, score.note)))

    def _limits(self, score: Score) -> str:
        if score.low is not None and score.high is not None:
            return f"{self._number(score.low)} to {self._number(score.high)}"
        if score.low is not None:
            return f"at least {self._number(score.low)}"
        if score.high is not None:
            return f"at most {self._number(score.high)}"
        return "" if score.standard_error is None else f"± {self._number(score.standard_error)}"


class Row(msgspec.Struct, frozen=True):
    """One model and its scores by column key."""

    model: str
    scores: dict[str, Score] = {}
    family: str | None = None
    """the base model"""
    method: str | None = None
    flags: list[str] = []


def known(value: float | None, scale: float = 1) -> float | None:
    """``value`` times ``scale``; None for NaN and infinity, because unknown is not a number."""
    return None if value is None or not math.isfinite(value) else value * scale


class Rating(msgspec.Struct, frozen=True):
    """A place in the round robin, on the Elo scale; None where it is not determined."""

    value: float | None
    low: float | None
    high: float | None
    rank_best: int
    """1 + the models that are surely better"""
    rank_worst: int
    n_battles: int


class RatingTable(msgspec.Struct, frozen=True):
    """The round robin's result."""

    ratings: dict[str, Rating]
    """by model"""
    n_prompts: int
    n_without_verdict: int
    """comparisons that were not scored, and left out"""
    note: str | None
    """what had to be assumed for there to be finite ratings"""
