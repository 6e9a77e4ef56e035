"""Intervals of the trust report: all at one level, all clustered by instruction."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from alignboard.stats.intervals import Interval, clustered_mean, rate_interval, student_interval

Array = NDArray[np.float64]

LEVEL = 0.95
# Standard errors that are rounding errors.
_NO_SPREAD = 1e-12


def known_mean(values: Array, clusters: NDArray) -> tuple[float, float, int]:
    """As `clustered_mean`, NaN left out."""
    known = ~np.isnan(values)
    return clustered_mean(values[known], clusters[known])


def mean_interval(values: Array, clusters: NDArray) -> Interval:
    """Of fractions, NaN left out; where single ones leave [0, 1] and the mean does too, Student's limits cut there.

    Where all clusters say the same, and that is neither 0 nor 1, the limits are unknown.
    """
    mean, error, n = known_mean(values, clusters)
    if mean in {0, 1} or not math.isfinite(mean):
        return rate_interval(mean, error, n, LEVEL)
    if not 0 < mean < 1 or not error > _NO_SPREAD:
        wide = signed_interval(mean, error, n)
        if math.isnan(wide.low):
            return wide
        return Interval(mean, error, max(0.0, wide.low), wide.high, LEVEL, n)
    return rate_interval(mean, error, n, LEVEL)


def signed_interval(estimate: float, error: float, n: int) -> Interval:
    """Of a difference in [-1, 1]: Student's limits; unknown where the clusters show no spread."""
    return student_interval(estimate, error, n, LEVEL, within=(-1.0, 1.0))
