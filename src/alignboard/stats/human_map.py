"""From a judge's scores to people's ratings: a line in the log-odds, with prediction intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alignboard.errors import InputError
from alignboard.stats.student import student_quantile

Array = NDArray[np.float64]

MIN_ANCHORS = 8


@dataclass(frozen=True)
class HumanMap:
    """A fitted line: rating = intercept + slope times the log-odds of the judge's score."""

    intercept: float
    slope: float
    spread: float
    """standard deviation of anchors around the line"""
    centre: float
    squares: float
    """of the anchors' log-odds around ``centre``"""
    n_anchors: int
    lowest: float
    """smallest and largest score of the anchors: outside of them nothing is estimated"""
    highest: float

    def predict(self, score: float, level: float = 0.95) -> tuple[float, float, float]:
        """Estimate, lower and upper limit of the rating of a new model with ``score``, a fraction; NaN out of range.

        A prediction interval for the printed rating, under normal deviations from the line.
        """
        if not self.lowest <= score <= self.highest:
            return math.nan, math.nan, math.nan
        x = math.log(score / (1 - score))
        estimate = self.intercept + self.slope * x
        scale = 1 + 1 / self.n_anchors + (x - self.centre) ** 2 / self.squares
        reach = (
            student_quantile((1 + level) / 2, self.n_anchors - 2) * self.spread * math.sqrt(scale)
        )
        return estimate, estimate - reach, estimate + reach


def fit_human_map(score: Array, rating: Array) -> HumanMap:
    """Least squares over anchors: ``score`` (n,) fractions in (0, 1), ``rating`` (n,) such as Arena Elo.

    Raises `InputError` for fewer than eight anchors, or anchors of one score.
    """
    n = len(score)
    if n < MIN_ANCHORS:
        raise InputError(
            f"{n} models have both a score and people's rating, {MIN_ANCHORS} are needed; add models to either file."
        )
    x = np.log(score / (1 - score))
    squares = float(((x - x.mean()) ** 2).sum())
    if not squares > 0:
        raise InputError(
            "All models that people rated have the same score: there is no line through them."
        )
    slope = float(((x - x.mean()) * rating).sum()) / squares
    intercept = float(rating.mean()) - slope * float(x.mean())
    rest = rating - intercept - slope * x
    spread = math.sqrt(float((rest**2).sum()) / (n - 2))
    limits = float(score.min()), float(score.max())
    return HumanMap(intercept, slope, spread, float(x.mean()), squares, n, *limits)


def left_out(score: Array, rating: Array) -> list[tuple[float, float, float]]:
    """Each anchor estimated from the others: estimate and limits; NaN where it lies outside of their range."""
    others = ~np.eye(len(score), dtype=np.bool_)
    return [
        fit_human_map(score[rest], rating[rest]).predict(float(one))
        for one, rest in zip(score, others, strict=True)
    ]
