"""How well a bridge does on models whose official score is known: every anchor estimated from the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alignboard.stats.bridge.bridge import (
    MIN_ANCHORS,
    Estimates,
    fit_bridge,
    predict,
)
from alignboard.stats.bridge.fit import Array
from alignboard.stats.bridge.scores import Form, JudgeScores, require_anchors


@dataclass(frozen=True)
class Quality:
    """Estimates beside the naive baseline, the new judge's own number taken for the official one.

    Rates are fractions in [0, 1]; a rank correlation is NaN where one side does not vary.
    """

    n: int
    n_covered: int
    """of the prediction intervals that hold the official score"""
    coverage: float
    mean_width: float
    mean_absolute_error: float
    naive_mean_absolute_error: float
    spearman: float
    naive_spearman: float
    kendall: float
    """tau-b"""
    naive_kendall: float


@dataclass(frozen=True)
class Validation:
    """Every anchor estimated from the n - 1 others, the choice of the form included."""

    official: Array
    estimates: Estimates
    """`Estimates.outside` says which anchors lie outside of the range of the others"""
    forms: tuple[Form, ...]
    """(n,) what each fold chose"""

    def quality(self, own: Array, among: NDArray[np.bool_]) -> Quality:
        """Over the anchors ``among`` (n,), beside ``own`` (n,), the new judge's own numbers."""
        official, own = self.official[among], own[among]
        estimate, low, high = (
            part[among]
            for part in (self.estimates.estimate, self.estimates.low, self.estimates.high)
        )
        covered = (low <= official) & (official <= high)
        n = len(official)
        return Quality(
            n=n,
            n_covered=int(covered.sum()),
            coverage=_mean(covered),
            mean_width=_mean(high - low),
            mean_absolute_error=_mean(np.abs(estimate - official)),
            naive_mean_absolute_error=_mean(np.abs(own - official)),
            spearman=spearman(estimate, official),
            naive_spearman=spearman(own, official),
            kendall=kendall(estimate, official),
            naive_kendall=kendall(own, official),
        )


def leave_one_out(
    scores: JudgeScores | Sequence[JudgeScores],
    official: Array,
    official_error: Array,
    *,
    level: float = 0.95,
    min_anchors: int = MIN_ANCHORS,
) -> Validation:
    """Estimate every one of n anchors from the others.

    Arguments as for `fit_bridge`; ``min_anchors`` counts the left-out one. ``scores`` may be one `JudgeScores` of all n
    models per fold, for columns that were made from official figures: those of fold i without anything official of
    model i. Raises as `fit_bridge`.
    """
    n = len(official)
    folds = [scores] * n if isinstance(scores, JudgeScores) else list(scores)
    if len(folds) != n:
        raise ValueError("there must be one fold per official score")
    if n:
        require_anchors(folds[0], official, official_error, min_anchors)
    else:
        require_anchors(JudgeScores(official, official), official, official, min_anchors)
    found, forms = [], []
    for left_out, fold in enumerate(folds):
        others = np.arange(n) != left_out
        bridge = fit_bridge(
            fold.take(others), official[others], official_error[others], min_anchors=min_anchors - 1
        )
        found.append(predict(bridge, fold.take(~others), level=level))
        forms.append(bridge.form)
    together = Estimates(
        estimate=np.concatenate([one.estimate for one in found]),
        low=np.concatenate([one.low for one in found]),
        high=np.concatenate([one.high for one in found]),
        outside=tuple(one.outside[0] for one in found),
        level=level,
    )
    return Validation(official, together, tuple(forms))


def spearman(a: Array, b: Array) -> float:
    """Pearson's correlation of the ranks, tied values at their mean rank; NaN where one side does not vary.

    >>> spearman(np.array([1.0, 2, 3, 4]), np.array([10.0, 30, 20, 40]))
    0.8
    """
    if len(a) < 2:
        return math.nan
    x, y = _ranks(a), _ranks(b)
    x, y = x - x.mean(), y - y.mean()
    norm = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / norm if norm else math.nan


def kendall(a: Array, b: Array) -> float:
    """Kendall's tau-b; NaN where one side does not vary.

    References: Kendall 1945, The treatment of ties in ranking problems, Biometrika 33.

    >>> round(kendall(np.array([1.0, 2, 3, 4]), np.array([10.0, 30, 20, 40])), 3)
    0.667
    """
    upper = np.triu_indices(len(a), 1)
    x = np.sign(a[:, None] - a[None, :])[upper]
    y = np.sign(b[:, None] - b[None, :])[upper]
    norm = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / norm if norm else math.nan


def _ranks(values: Array) -> Array:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def _mean(values: NDArray) -> float:
    return float(values.mean()) if len(values) else math.nan
