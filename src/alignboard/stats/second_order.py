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

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

# Strata of the judge's preference for the answer it was shown first.
_EDGES = np.array([0.02, 0.1, 0.3, 0.7, 0.9, 0.98])
# Where few verdicts are known, orders are taken to differ as draws with the judge's own probability would.
_SHAPE = np.array([0.02, 0.07, 0.17, 0.26, 0.17, 0.07, 0.02])
_PRIOR_VERDICTS = 2.0
_FEWEST_ASKED = 10
_ULPS = 2**40


@dataclass(frozen=True)
class SecondOrderDesign:
    """How many second orders are asked, as shares of the instructions whose first order was scored."""

    share: float = 0.3
    """expected share asked in both waves together; ``1 + share`` calls per instruction instead of 2"""
    audit: float = 0.1
    """least probability of any instruction, and the first wave, from which the second learns where orders differ"""
    folds: int = 5
    """for cross-fitting: what is learnt for an instruction never comes from its own fold"""

    def __post_init__(self) -> None:
        if not 0 < self.audit <= self.share <= 1:
            raise ValueError(
                f"0 < audit <= share <= 1 is required, got audit {self.audit} and share {self.share}"
            )
        if self.folds < 2:
            raise ValueError(f"at least 2 folds are required, got {self.folds}")


@dataclass(frozen=True)
class FirstOrders:
    """What is known after the first order of every instruction; each (n,), one row per instruction."""

    preference: Array
    """for the model, in [0, 1]; NaN where the verdict was not scored"""
    model_first: Mask
    """whether the model's answer was shown first: a fair coin, drawn without regard to the answers"""
    uniform: Array
    """in [0, 1), from a hash of the instruction and a seed; it decides who is asked again, and the folds"""

    def __post_init__(self) -> None:
        if not len(self.preference) == len(self.model_first) == len(self.uniform):
            raise ValueError("preference, model_first and uniform must have one length")
        known = self.preference[self.scored]
        if not np.all((known >= 0) & (known <= 1)):
            raise ValueError("preferences must lie in [0, 1]; NaN where not scored")
        if not np.all((self.uniform >= 0) & (self.uniform < 1)):
            raise ValueError("uniform must lie in [0, 1)")

    @property
    def scored(self) -> Mask:
        """(n,) whether the first verdict was scored."""
        return ~np.isnan(self.preference)

    @property
    def side(self) -> Array:
        """(n,) +1 where the model was shown first, -1 where it was shown second."""
        return np.where(self.model_first, 1.0, -1.0)

    @property
    def for_shown_first(self) -> Array:
        """(n,) the judge's preference for the answer that it was shown first, whosever it is."""
        return np.where(self.model_first, self.preference, 1 - self.preference)

    def folds(self, count: int) -> NDArray[np.int64]:
        """(n,) fold numbers, from digits of ``uniform`` too small to tell who is asked."""
        return (self.uniform * _ULPS).astype(np.int64) % count


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


def first_wave(first: FirstOrders, design: SecondOrderDesign) -> Mask:
    """(n,) whom to ask again before anything is known: a share of ``design.audit``."""
    return first.scored & (first.uniform < design.audit)


def inclusion(first: FirstOrders, second: Array, design: SecondOrderDesign) -> Array:
    """(n,) the probability that an instruction is asked in its other order; ask where ``uniform`` is below it.

    ``second`` is (n,): the preference for the model in the other order, for the instructions of `first_wave`; NaN
    elsewhere and where not scored. Instructions of the first wave stay asked: no probability is below
    ``design.audit``. 0 where the first verdict was not scored.

    Probabilities are proportional to the standard deviation of the gap between the orders, given the judge's
    preference for what it saw first, as far as ``design.share`` allows (Neyman's allocation). That deviation is learnt
    per stratum from the first wave, for each fold from the others, so that no instruction's probability depends on
    whether it was asked or on what was answered.

    References: Neyman 1938, Journal of the American Statistical Association 33 (two-phase sampling); Saerndal, Swensson
    and Wretman, Model Assisted Survey Sampling (1992), chapter 9.
    """
    probability = np.zeros(len(first.preference))
    scored = first.scored
    learnt = first_wave(first, design) & ~np.isnan(second)
    fold = first.folds(design.folds)
    stratum = np.searchsorted(_EDGES, first.for_shown_first)
    gap = first.side * (first.preference - second)
    for k in range(design.folds):
        spread = _spread(gap, stratum, learnt & (fold != k))
        weight = spread[stratum[scored]]
        probability[scored & (fold == k)] = _scaled(weight, design)[fold[scored] == k]
    return probability


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


def _spread(gap: Array, stratum: NDArray[np.intp], learnt: Mask) -> Array:
    """(strata,) standard deviation of the gap, drawn towards a common shape where few verdicts are known."""
    strata = len(_EDGES) + 1
    count = np.bincount(stratum[learnt], minlength=strata)
    if not count.any():
        return np.ones(strata)
    total = np.bincount(stratum[learnt], weights=gap[learnt], minlength=strata)
    mean = np.divide(total, count, out=np.zeros(strata), where=count > 0)
    squares = (gap[learnt] - mean[stratum[learnt]]) ** 2
    within = np.bincount(stratum[learnt], weights=squares, minlength=strata)
    overall = float(np.mean(gap[learnt] ** 2))
    if overall == 0:
        return np.ones(strata)
    guess = _SHAPE * overall / float(_SHAPE[stratum[learnt]].mean())
    variance = (within + _PRIOR_VERDICTS * guess) / (np.maximum(count - 1, 0) + _PRIOR_VERDICTS)
    return np.sqrt(variance)


def _scaled(weight: Array, design: SecondOrderDesign) -> Array:
    """(n,) probabilities proportional to ``weight``, between ``audit`` and 1, whose mean is ``share``."""
    if not len(weight):
        return weight
    low, high = 0.0, 1 / float(weight.min())
    for _ in range(60):
        middle = (low + high) / 2
        below = np.clip(middle * weight, design.audit, 1).mean() < design.share
        low, high = (middle, high) if below else (low, middle)
    return np.clip(high * weight, design.audit, 1)


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
