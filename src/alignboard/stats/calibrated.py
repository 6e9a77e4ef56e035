"""Win rates from few human labels and many judge labels: tuned prediction-powered inference."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alignboard.stats.intervals import Estimate, Interval, bounded_mean, rate_interval

Array = NDArray[np.float64]

_FOLDS = 5
_FEWEST_LABELS = 10


@dataclass(frozen=True)
class CalibratedMean:
    """What people would say, from their own labels and from a judge's on everything."""

    rate: Interval
    humans_alone: Interval
    """from the labelled rows without the judge"""
    weight: float
    """how much of the judge's labels enters; 0: the estimate is that of the humans alone"""
    n_labels: int

    @property
    def gain(self) -> float:
        """Share of the humans' standard error that the judge saves; about 0 where it does not help."""
        alone = self.humans_alone.standard_error
        return 1 - self.rate.standard_error / alone if alone > 0 else math.nan


def calibrated_mean(judge: Array, human: Array, level: float = 0.95) -> CalibratedMean:
    """The mean human score of all rows, of which people labelled a random part.

    Parameters
    ----------
    judge
        (n,) the judge's score of every row, in [0, 1].
    human
        (n,) the human score, NaN where there is none. The labelled rows are a simple random sample of all; rows that
        were chosen otherwise, such as those that the judge is unsure of, would bias the estimate.
    level
        Level of the interval.

    Each labelled row's judge score is weighted by what the other folds' labels say of it, so that the weight that
    minimises the variance costs no bias; an untuned weight of 1 is wider than the humans alone where the judge agrees
    with them as rarely as judges do.

    References: Angelopoulos, Duchi and Zrnic, PPI++, arXiv 2311.01453 (tuning); Zrnic and Candes, arXiv 2309.16598
    (cross-fitting).
    """
    labelled = ~np.isnan(human)
    h, own, rest = human[labelled], judge[labelled], judge[~labelled]
    alone = bounded_mean(h, level=level)
    n = len(h)
    if n < _FEWEST_LABELS or len(rest) < 2:
        return CalibratedMean(alone, alone, 0.0, n)
    weight = np.empty(n)
    fold = np.arange(n) % _FOLDS
    for k in range(_FOLDS):
        others = fold != k
        weight[fold == k] = _best_weight(h[others], own[others], rest)
    mean_weight = float(weight.mean())
    corrected = h - weight * own
    rate = float(corrected.mean()) + mean_weight * float(rest.mean())
    variance = corrected.var(ddof=1) / n + mean_weight**2 * rest.var(ddof=1) / len(rest)
    estimate = Estimate.of_equal_clusters(rate, math.sqrt(variance), n)
    return CalibratedMean(rate_interval(estimate, level, units=h), alone, mean_weight, n)


def _best_weight(human: Array, judge: Array, rest: Array) -> float:
    """The weight of least variance, between 0 (the judge says nothing) and 1."""
    spread = float(judge.var(ddof=1))
    if not spread > 0:
        return 0.0
    covariance = float(((human - human.mean()) * (judge - judge.mean())).sum()) / (len(human) - 1)
    return min(1.0, max(0.0, covariance / (spread * (1 + len(human) / len(rest)))))
