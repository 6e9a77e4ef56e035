"""The second order of a pairwise judge, asked only where it can matter: the sampling design and an unbiased estimate.

A judge has position bias, so one order is not enough and both orders cost twice. Here every instruction is judged once,
in an order drawn by a fair coin, and some are judged again in the other order. The target is what both orders would
give: the mean over instructions of ``(verdict when the model is shown first + verdict when it is shown second) / 2``.

Two draws are random and known: the coin, and which instructions are asked again. Differences that have mean zero under
these two draws, whatever the judge does, are taken off the plain mean of the first orders with cross-fitted weights
(control variates). The estimate is unbiased by the design; how good the working model is decides the width only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from alignboard.stats.intervals import (
    Interval,
    bounded_mean,
    clustered_estimate,
    clustered_mean,
    rate_interval,
    student_interval,
)
from alignboard.stats.second_order_design import Array, FirstOrders, Mask, SecondOrderDesign

_FEWEST_ASKED = 10


@dataclass(frozen=True)
class SecondOrderEstimate:
    """The order-balanced win rate, what it cost, and what the second orders say about the judge."""

    win_rate: Interval
    """fraction; its standard error counts prompts, coin and second draw"""
    position_gap: Interval
    """preference for the model when shown first minus when shown second, in [-1, 1]; NaN without second verdicts"""
    swap_consistency: Interval
    """share of instructions on which both orders name the same winner (or both none)"""
    scores: Array
    """(n,) whose mean is the estimate; NaN where the first was not scored. Single ones may leave [0, 1]; means and
    paired differences of them are what they are for"""
    n_first: int
    """first orders that were scored"""
    n_asked: int
    """second orders that were asked"""
    n_second: int
    """second orders that were scored"""
    n_calls: int
    saving: float
    """share of the calls of both orders that was not made"""


def estimate(
    first: FirstOrders,
    second: Array,
    probability: Array,
    design: SecondOrderDesign,
    level: float = 0.95,
    clusters: NDArray | None = None,
) -> SecondOrderEstimate:
    """The order-balanced win rate from first orders and the second orders that were asked.

    ``second`` is (n,): the preference for the model in the other order, NaN where not asked or not scored;
    ``probability`` is (n,), as `inclusion` gave it. Raises `ValueError` where a second verdict stands that was not
    drawn: counting it would bias the estimate. ``clusters`` is (n,): rows with the same entry, such as the turns of one
    conversation, are one unit of the standard errors.

    With ``x`` the first verdict, ``y`` the second, ``c`` = +1 or -1 the coin, ``I`` = asked and ``p`` its probability,
    three terms have mean zero by the design: ``c``; ``I/p (x - y) / 2``, because ``x - y`` changes its sign with the
    coin; and ``(I/p - 1) c m(q)`` with ``m`` a quadratic prediction of the gap from ``q``, the preference for the
    answer shown first. ``x`` less their cross-fitted regression is averaged. Pure difference estimation (``x + m`` plus
    the weighted residual) is the special case of fixed weights; at small shares it is wider than one order alone.

    A second verdict that was asked and not scored leaves its instruction out, and the probabilities of the others are
    those given that. The standard error is that of the mean over instructions: it holds the choice of prompts, the
    coin and the second draw. What cross-fitting leaves of bias is of order 1/n of the standard error.

    References: Cassel, Saerndal and Wretman 1976, Biometrika 63 (generalised difference estimator); Chernozhukov et
    al. 2018, Econometrics Journal 21 (cross-fitting).
    """
    asked = first.scored & (first.uniform < probability)
    if np.any(~np.isnan(second) & ~asked):
        row = int(np.flatnonzero(~np.isnan(second) & ~asked)[0])
        raise ValueError(f"row {row}: a second verdict stands where none was drawn")
    answered = asked & ~np.isnan(second)
    used = first.scored & (~asked | answered)
    taken = _Taken.of(first, second, probability, asked, answered, used)
    fold = first.folds(design.folds)[used]
    balanced, gap = _cross_fitted(taken, fold)
    units = None if clusters is None else clusters[used]
    scores = np.full(len(second), np.nan)
    scores[used] = balanced
    n_calls = len(second) + int(asked.sum())
    return SecondOrderEstimate(
        win_rate=bounded_mean(balanced, units, level),
        position_gap=_gap(gap, answered, level, units),
        swap_consistency=_consistency(taken, level, units),
        scores=scores,
        n_first=int(first.scored.sum()),
        n_asked=int(asked.sum()),
        n_second=int(answered.sum()),
        n_calls=n_calls,
        saving=1 - n_calls / (2 * len(second)) if len(second) else math.nan,
    )


def weighted_share(
    found: Mask, weight: Array, clusters: NDArray | None = None, level: float = 0.95
) -> Interval:
    """The share of a population for which ``found`` (n,) holds, from rows that stand for ``weight`` (n,) rows each.

    Rows that were drawn with known probabilities have their inverses as weights. The standard error is the linearised
    one of a ratio, clustered by ``clusters`` (n,).
    """
    if not len(weight):
        return bounded_mean(weight, None, level)
    names = np.arange(len(weight)) if clusters is None else clusters
    unit = np.unique(names, return_inverse=True)[1]
    share = 1 - float(weight @ ~found / weight.sum())
    influence = np.bincount(unit, weights=weight * (found - share)) / weight.sum()
    estimate = clustered_estimate(share, influence, np.bincount(unit))
    scored = np.bincount(unit, weights=weight * found) / np.bincount(unit, weights=weight)
    return rate_interval(estimate, level, units=scored)


@dataclass(frozen=True)
class _Taken:
    """The instructions that enter the estimate; each (m,)."""

    x: Array
    y: Array
    """0 where not asked, where its weight is 0"""
    side: Array
    shown_first: Array
    weight: Array
    """1/probability where asked, else 0"""
    certain: bool
    """whether every instruction was sure to be asked"""

    @classmethod
    def of(
        cls,
        first: FirstOrders,
        second: Array,
        probability: Array,
        asked: Mask,
        answered: Mask,
        used: Mask,
    ) -> _Taken:
        scored_share = answered.sum() / asked.sum() if asked.any() else 1.0
        chance = probability[used]
        chance = chance * scored_share / (1 - chance + chance * scored_share)
        was_asked = answered[used]
        return cls(
            x=first.preference[used],
            y=np.where(was_asked, second[used], 0.0),
            side=first.side[used],
            shown_first=first.for_shown_first[used],
            weight=np.divide(1.0, chance, out=np.zeros(len(chance)), where=was_asked),
            certain=bool(np.all(chance >= 1)),
        )

    @property
    def gap(self) -> Array:
        """(m,) first minus second position of the model, where asked."""
        return self.side * (self.x - self.y)


def _cross_fitted(taken: _Taken, fold: NDArray[np.int64]) -> tuple[Array, Array]:
    """(m,) whose mean is the order-balanced win rate, and (m,) whose mean is the position gap."""
    if taken.certain:
        return (taken.x + taken.y) / 2, taken.gap
    basis = np.column_stack(
        [
            np.ones(len(taken.x)),
            taken.shown_first - 0.5,
            4 * taken.shown_first * (1 - taken.shown_first),
        ]
    )
    expected = np.zeros(len(taken.x))
    for k in np.unique(fold):
        train = (fold != k) & (taken.weight > 0)
        if train.sum() >= _FEWEST_ASKED:
            expected[fold == k] = basis[fold == k] @ _least_squares(basis[train], taken.gap[train])
    controls = np.column_stack(
        [
            taken.side,
            taken.weight * (taken.x - taken.y) / 2,
            (taken.weight - 1) * taken.side * expected / 2,
        ]
    )
    balanced = taken.x.copy()
    for k in np.unique(fold):
        train = fold != k
        if (taken.weight[train] > 0).sum() >= _FEWEST_ASKED:
            design = np.column_stack([np.ones(train.sum()), controls[train]])
            slope = _least_squares(design, taken.x[train])[1:]
            balanced[~train] -= controls[~train] @ slope
    return balanced, expected + taken.weight * (taken.gap - expected)


def _least_squares(design: Array, values: Array) -> Array:
    return np.asarray(np.linalg.lstsq(design, values, rcond=None)[0], dtype=np.float64)


def _gap(values: Array, answered: Mask, level: float, clusters: NDArray | None = None) -> Interval:
    """Student's limits; unknown without second verdicts, and with limits unknown where the values show no spread.

    The error is known no better than from the rows that have a second order.
    """
    estimate, _ = clustered_mean(values, clusters)
    n_answered = int(answered.sum())
    if not n_answered:
        return replace(estimate, value=math.nan).unknown(level)
    known = min(estimate.n_effective, max(2, n_answered))
    return student_interval(replace(estimate, n_effective=known), level, within=(-1.0, 1.0))


def _consistency(taken: _Taken, level: float, clusters: NDArray | None) -> Interval:
    """The share of instructions on which both orders agree, from those that were asked."""
    asked = taken.weight > 0
    same = np.sign(taken.x[asked] - 0.5) == np.sign(taken.y[asked] - 0.5)
    units = None if clusters is None else clusters[asked]
    return weighted_share(same, taken.weight[asked], units, level)
