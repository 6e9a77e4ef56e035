"""The effect of the place in which a judge is shown a response: within pairs of verdicts, or between rows.

Where both orders were judged, the gap is the mean difference of a row's two verdicts. Where each row was judged once,
in an order drawn by a coin, the rows with the model shown first and those with it shown second differ by chance alone,
and the gap is the difference of the two groups' means.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from alignboard.stats.intervals import (
    Estimate,
    Interval,
    bounded_mean,
    clustered_mean,
    has_spread,
    rate_interval,
    student_interval,
)

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_LEVEL = 0.95
_SIGNED = (-1.0, 1.0)


@dataclass(frozen=True)
class PositionEffect:
    """What a judge's verdicts on a model, in [0, 1], owe to the place in which its responses are shown."""

    gap: Interval
    """score when shown first less score when shown second"""
    balanced: Interval
    """the mean of both"""


@dataclass(frozen=True)
class PlaceTest:
    """Whether the gap is beyond what drawing the order again would give."""

    z: float
    p_value: float
    first: float
    """mean where shown first"""
    second: float
    n_first: int
    n_second: int


def within_rows(
    when_first: Array, when_second: Array, clusters: NDArray, level: float = _LEVEL
) -> PositionEffect:
    """The effect from rows that were judged in both orders; NaN where a verdict was not scored. All are (n,)."""
    apart = when_first - when_second
    known = ~np.isnan(apart)
    gap, _ = clustered_mean(apart[known], clusters[known])
    balanced = bounded_mean((when_first + when_second) / 2, clusters, level)
    return PositionEffect(student_interval(gap, level, within=_SIGNED), balanced)


def between_rows(
    score: Array,
    shown_first: Mask,
    clusters: NDArray,
    model: NDArray[np.intp],
    level: float = _LEVEL,
) -> PositionEffect:
    """The effect from rows that were judged once; all arguments are (n,), scores without NaN.

    The gap is the difference within models (a regression with an effect of each ``model``, numbered from 0), so that
    models with missing rows do not shift it; each model must have been shown in both places. The limits of one model
    on prompts of their own are those of `place_limits`, all others cluster by ``clusters``.
    """
    first = shown_first.astype(np.float64)
    if not len(score):
        nothing = Estimate.of_equal_clusters(math.nan, math.nan, 0).unknown(level)
        return PositionEffect(nothing, nothing)
    apart = first - group_means(model, first)
    gap = float(apart @ score) / float(apart @ apart)
    residual = score - group_means(model, score) - gap * apart
    influence = apart * residual * len(score) / float(apart @ apart)
    estimate = replace(clustered_mean(influence, clusters)[0], value=gap)
    balanced = _balanced(score, shown_first, clusters, level)
    if min(first.sum(), (1 - first).sum()) < 2:
        return PositionEffect(estimate.unknown(level), balanced)
    alone = not model.any() and estimate.n_clusters == len(score)
    if not alone or not has_spread(float(np.ptp(score))):
        return PositionEffect(student_interval(estimate, level, within=_SIGNED), balanced)
    limits = place_limits(score[shown_first], score[~shown_first], level)
    return PositionEffect(estimate.interval(*limits, level), balanced)


def place_limits(
    first: Array, second: Array, level: float = _LEVEL, *, bounded: bool = True
) -> tuple[float, float]:
    """Limits of the difference of two groups' means, by Welch's t.

    Scores in [0, 1] (``bounded``) get a 0 and a 1 beside those of each group: five rows that agree say little of how
    rows differ, and limits without them held the gap of 10 rows in 92 % of simulated boards.

    References: Agresti and Caffo 2000, American Statistician 54 (for shares); Welch 1947, Biometrika 34.
    """
    groups = [np.append(one, (0.0, 1.0)) if bounded else one for one in (first, second)]
    parts = [(float(one.var(ddof=1)) / len(one), len(one) - 1) for one in groups]
    square = sum(part for part, _ in parts)
    freedom = square**2 / sum(part**2 / own for part, own in parts) if square else 1.0
    difference = float(groups[0].mean() - groups[1].mean())
    known = Estimate(difference, math.sqrt(square), len(first) + len(second), 1 + freedom)
    reach = known.reach(level)
    if not bounded:
        return difference - reach, difference + reach
    return max(-1.0, difference - reach), min(1.0, difference + reach)


def place_test(score: Array, shown_first: Mask) -> PlaceTest | None:
    """Whether the place moves scores (n,), NaN left out; None where each place has fewer than two, or all are equal.

    The variance is the one that drawing the order again would give if it changed nothing, s^2 (1/n_1 + 1/n_2) with s^2
    of all scores together, which stays finite where each group is constant.

    References: Imbens and Rubin, Causal Inference, 2015, chapters 5 and 6.

    >>> test = place_test(np.array([1.0, 1, 1, 0, 0, 0]), np.array([True, True, True, False, False, False]))
    >>> round(test.z, 2)
    2.24
    """
    parsed = ~np.isnan(score)
    first, second = score[parsed & shown_first], score[parsed & ~shown_first]
    if len(first) < 2 or len(second) < 2:
        return None
    error = math.sqrt(score[parsed].var(ddof=1) * (1 / len(first) + 1 / len(second)))
    if not has_spread(error):
        return None
    z = float(first.mean() - second.mean()) / error
    return PlaceTest(
        z,
        math.erfc(abs(z) / math.sqrt(2)),
        float(first.mean()),
        float(second.mean()),
        len(first),
        len(second),
    )


def group_means(code: NDArray[np.intp], values: Array) -> Array:
    """(n,) the mean of the values that have the row's code."""
    return (np.bincount(code, weights=values) / np.maximum(1, np.bincount(code)))[code]


def _balanced(score: Array, first: Mask, clusters: NDArray, level: float) -> Interval:
    """The mean of the means of two groups of rows, with its clustered standard error."""
    estimate, influence = 0.0, np.zeros(len(score))
    for group in (first, ~first):
        mean = float(score[group].mean())
        estimate += mean / 2
        influence[group] = (score[group] - mean) * len(score) / group.sum() / 2
    found = replace(clustered_mean(influence, clusters)[0], value=estimate)
    if min(first.sum(), (~first).sum()) < 2:
        return found.unknown(level)
    return rate_interval(found, level, units=clustered_mean(score, clusters)[1])
