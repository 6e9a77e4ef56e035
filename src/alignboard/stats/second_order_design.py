"""Which pairs are judged in the second order, too, and with which probability."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
# Strata of the judge's preference for the answer it was shown first.
_EDGES = np.array([0.02, 0.1, 0.3, 0.7, 0.9, 0.98])
# Where few verdicts are known, orders are taken to differ as draws with the judge's own probability would.
_SHAPE = np.array([0.02, 0.07, 0.17, 0.26, 0.17, 0.07, 0.02])
_PRIOR_VERDICTS = 2.0
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
