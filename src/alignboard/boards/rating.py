"""The round robin's ratings as a file between two jobs."""

from __future__ import annotations

import msgspec


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
