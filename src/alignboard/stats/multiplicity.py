"""Corrections for many tests at once: Holm, Benjamini-Hochberg, step-down max-t by a multiplier bootstrap."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_DRAWS_AT_ONCE = 1_000
# Eigenvalues that are rounding errors.
_NO_DIMENSION = 1e-12


def holm(p_values: Array) -> Array:
    """p-values corrected for their number (Holm): no true difference is claimed, with 1 - alpha, in the whole family.

    NaN marks a test that could not be made: it stays NaN and does not count.

    >>> holm(np.array([0.01, 0.04, 0.03])).round(3).tolist()
    [0.03, 0.06, 0.06]

    References: Holm 1979, Scandinavian Journal of Statistics 6.
    """

    def adjust(p: Array) -> Array:
        return np.minimum(1, np.maximum.accumulate(p * np.arange(len(p), 0, -1)))

    return _in_order(p_values, adjust)


def benjamini_hochberg(p_values: Array) -> Array:
    """p-values corrected so that the expected share of false claims among all claims is held; NaN stays NaN.

    >>> benjamini_hochberg(np.array([0.01, 0.04, 0.03])).round(3).tolist()
    [0.03, 0.04, 0.04]

    References: Benjamini and Hochberg 1995, JRSS B 57.
    """

    def adjust(p: Array) -> Array:
        scaled = p * (len(p) / np.arange(1, len(p) + 1))
        return np.minimum(1, np.minimum.accumulate(scaled[::-1])[::-1])

    return _in_order(p_values, adjust)


def step_down_max_t(influence: Array, t: Array, *, draws: int, rng: np.random.Generator) -> Array:
    """p-values corrected by the joint distribution of the test statistics, step-down.

    Parameters
    ----------
    influence
        (units, tests): each unit's contribution to each estimate. Units are independent: prompts or clusters.
    t
        (tests,) the observed statistics: estimate over standard error. NaN marks a test that could not be made.
    draws
        Bootstrap draws; every draw gives each unit one normal multiplier, or as many as have the same joint law.
    rng
        Source of the multipliers.

    References: Romano and Wolf 2005, JASA 100 (step-down); Chernozhukov, Chetverikov and Kato 2013, Annals of
    Statistics 41 (multipliers).
    """
    spread = np.sqrt((influence**2).sum(axis=0))
    usable = np.isfinite(t) & (spread > 0)
    order = np.flatnonzero(usable)[np.argsort(-np.abs(t[usable]), kind="stable")]
    adjusted = np.full(len(t), np.nan)
    if not len(order):
        return adjusted
    # From the last step to the first: of the tests that a step still holds, the largest counts.
    scaled = np.ascontiguousarray(_root(influence[:, order] / spread[order])[:, ::-1].T)
    reached, bar = np.zeros(len(order)), np.abs(t[order])[::-1]
    for start in range(0, draws, _DRAWS_AT_ONCE):
        multipliers = rng.standard_normal((min(_DRAWS_AT_ONCE, draws - start), scaled.shape[1]))
        # Rows of `scaled` have length 1: no draw goes beyond the longest row of multipliers.
        longest = math.sqrt((multipliers**2).sum(axis=1).max())
        near = int(np.count_nonzero(bar <= longest))
        drawn = scaled[:near] @ multipliers.T
        largest = np.abs(drawn, out=drawn)
        for step in range(1, near):  # `maximum.accumulate` takes five times as long
            np.maximum(largest[step], largest[step - 1], out=largest[step])
        reached[:near] += np.count_nonzero(largest >= bar[:near, None], axis=1)
    adjusted[order] = np.maximum.accumulate((reached[::-1] + 1) / (draws + 1))
    return adjusted


def _root(scaled: Array) -> Array:
    """(rank, tests) whose sums with normal multipliers have the law of those of ``scaled`` (units, tests).

    Differences of few models have few dimensions, however many units and pairs there are.
    """
    units, tests = scaled.shape
    if tests >= units:
        return scaled
    values, vectors = np.linalg.eigh(scaled.T @ scaled)
    kept = values > _NO_DIMENSION * values[-1]
    return np.sqrt(values[kept])[:, None] * vectors[:, kept].T


def _in_order(p_values: Array, adjust: Callable[[Array], Array]) -> Array:
    """``adjust`` applied to the known p-values in ascending order, put back in their places."""
    adjusted = np.full(len(p_values), np.nan)
    known = np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    adjusted[order] = adjust(p_values[order])
    return adjusted
