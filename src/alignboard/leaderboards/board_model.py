"""What a board is: rows with the scores they are ranked by, and what those are conditional on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from alignboard.published.reproduce import BoardRow

Source: TypeAlias = Literal["published", "recomputed"]


@dataclass(frozen=True)
class Board:
    """One judge's scores of models against one baseline; percentages."""

    name: str
    """of its files"""
    title: str
    judge: str
    baseline: str
    source: Source
    conditions: str
    """what the intervals are conditional on"""
    rows: list[BoardRow]
    """by rank; rows without the score that the board is ranked by come last"""
    mode: str = "compat"
    """the length control that it is ranked by: ``compat``, ``aligned`` (`scores.LcScores`) or ``joint``"""
    families: dict[str, list[str]] = field(default_factory=dict)

    @property
    def has_lc(self) -> bool:
        """Whether it is ranked by a length-controlled win rate, and not by the win rate."""
        return any(ranking_lc(row, self.mode) is not None for row in self.rows)

    def score(self, row: BoardRow) -> float | None:
        """What ``row`` is ranked by; None = not ranked, for a raw rate has no place among length-controlled ones."""
        return ranking_lc(row, self.mode) if self.has_lc else row.win_rate

    def ranks(self) -> list[int | None]:
        """The place of every row, equal scores sharing the better one; None where there is no score."""
        scores = [score for row in self.rows if (score := self.score(row)) is not None]
        return [
            None if (own := self.score(row)) is None else 1 + sum(score > own for score in scores)
            for row in self.rows
        ]


def ranking_lc(row: BoardRow, mode: str) -> float | None:
    """The length-controlled win rate of ``mode``."""
    return getattr(row, f"lc_win_rate_{mode}")
