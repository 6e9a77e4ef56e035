"""The solver upstream used, stopped where it stops: for reproducing published weights, not for anything else.

AlpacaEval fits its GLM with scikit-learn's liblinear at tolerance 1e-4. That is far enough from the optimum to move a
published length-controlled win rate by up to 0.02 points (Mistral-like models with short answers most), so exact
reproduction has to stop at the same place. With k features everything liblinear's inner loop does can be done on
the gradient and the k x k Hessian, so a fit costs a few passes over the rows.

References: Yuan, Ho and Lin, An improved GLMNET for L1-regularized logistic regression, JMLR 13 (2012); liblinear
``linear.cpp`` (`solve_l1r_lr`) and scikit-learn ``newrand.h``, whose steps and random numbers this follows.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from alignboard.stats.logistic import expit

Array = NDArray[np.float64]

_TOLERANCE = 1e-4
_RANDOM_STATE = 123
_MAX_NEWTON = 100
_MAX_SWEEPS = 1000
_MAX_LINE_SEARCH = 20
_NU = 1e-12
_SIGMA = 0.01
_SMALLEST_STEP = 1e-12
_LARGEST_STEP = 10.0


def fit(x: Array, y: Array, sample_weight: Array, C: float) -> Array:
    """(k,) the weights at which liblinear stops.

    ``x`` is (n, k), ``y`` (n,) soft labels in [0, 1], ``sample_weight`` (n,). A soft label stands for upstream's two
    rows, of which liblinear drops those without weight (hard labels have one) before it counts them.
    """
    n_positive = int(np.count_nonzero(sample_weight * y))
    n_negative = int(np.count_nonzero(sample_weight * (1 - y)))
    n_rows = n_positive + n_negative
    eps = _TOLERANCE * max(min(n_positive, n_negative), 1) / n_rows
    cost = C * sample_weight
    negative = x.T @ (cost * (1 - y))
    rng = _BoundedRandom()
    k = x.shape[1]
    w = np.zeros(k)
    index = list(range(k))
    z = np.zeros(len(y))
    loss = _loss(y, cost, z)
    inner_eps = 1.0
    largest_before = math.inf
    norm_at_start = -1.0
    for newton in range(_MAX_NEWTON):
        p = expit(z)
        gradient = negative - x.T @ (cost * (1 - p))
        hessian = (x.T * (cost * p * (1 - p))) @ x
        n_active, largest, norm = _shrink(
            w.tolist(), gradient.tolist(), index, largest_before / n_rows
        )
        if newton == 0:
            norm_at_start = norm
        if norm <= eps * norm_at_start:
            break
        model = _Model(w, gradient, hessian)
        target, sweeps = _sweeps(model, index, n_active, inner_eps * norm_at_start, n_rows, rng)
        w, z, loss = _line_search((x, y, cost), w, z, loss, target, float(gradient @ (target - w)))
        if sweeps == 1:
            inner_eps *= 0.25
        largest_before = largest
    return w


def _violation(weight: float, gradient: float) -> float:
    """How far one coordinate is from ``-gradient`` being a subgradient of ``|weight|``."""
    if weight > 0:
        return abs(gradient + 1)
    if weight < 0:
        return abs(gradient - 1)
    return max(-(gradient + 1), gradient - 1, 0.0)


def _is_shrinkable(weight: float, gradient: float, margin: float) -> bool:
    return weight == 0 and gradient + 1 > margin and gradient - 1 < -margin


def _shrink(
    w: list[float], gradient: list[float], index: list[int], margin: float
) -> tuple[int, float, float]:
    """Move coordinates that stay zero behind the active ones; active count, largest and summed violation."""
    n_active, largest, norm, s = len(w), 0.0, 0.0, 0
    while s < n_active:
        j = index[s]
        violation = _violation(w[j], gradient[j])
        if violation == 0 and _is_shrinkable(w[j], gradient[j], margin):
            n_active -= 1
            index[s], index[n_active] = index[n_active], index[s]
            continue
        largest = max(largest, violation)
        norm += violation
        s += 1
    return n_active, largest, norm


class _Model(NamedTuple):
    """The quadratic model of the loss around ``w``."""

    w: Array
    gradient: Array
    hessian: Array


def _sweeps(
    model: _Model, index: list[int], n_active: int, enough: float, n_rows: int, rng: _BoundedRandom
) -> tuple[Array, int]:
    """Coordinate descent on the quadratic model, in random order, until the violation is small enough.

    Python lists, because k is 3 and numpy's cost per scalar would be all of it.
    """
    target, slope, rows = model.w.tolist(), model.gradient.tolist(), model.hessian.tolist()
    largest_before, n_left, sweeps = math.inf, n_active, 0
    while sweeps < _MAX_SWEEPS:
        for j in range(n_left):
            i = j + rng.below(n_left - j)
            index[i], index[j] = index[j], index[i]
        largest, norm, s = 0.0, 0.0, 0
        while s < n_left:
            j = index[s]
            violation = _violation(target[j], slope[j])
            if violation == 0 and _is_shrinkable(target[j], slope[j], largest_before / n_rows):
                n_left -= 1
                index[s], index[n_left] = index[n_left], index[s]
                continue
            largest = max(largest, violation)
            norm += violation
            step = _one_variable_step(target[j], slope[j], rows[j][j] + _NU)
            if abs(step) >= _SMALLEST_STEP:
                step = min(max(step, -_LARGEST_STEP), _LARGEST_STEP)
                target[j] += step
                slope = [value + step * row[j] for value, row in zip(slope, rows, strict=True)]
            s += 1
        sweeps += 1
        if norm <= enough:
            if n_left == n_active:
                break
            n_left, largest_before = n_active, math.inf
            continue
        largest_before = largest
    return np.array(target), sweeps


def _one_variable_step(weight: float, slope: float, curvature: float) -> float:
    if slope + 1 < curvature * weight:
        return -(slope + 1) / curvature
    if slope - 1 > curvature * weight:
        return -(slope - 1) / curvature
    return -weight


def _line_search(
    rows: tuple[Array, Array, Array], w: Array, z: Array, loss: float, target: Array, slope: float
) -> tuple[Array, Array, float]:
    """Halve the step until the objective falls enough; the new weights, their ``x @ w`` and their loss.

    ``slope`` is the derivative of the loss along the whole step.
    """
    x, y, cost = rows
    step = target - w
    z_step = x @ step
    norm = np.abs(w).sum()
    decrease = slope + np.abs(target).sum() - norm
    ahead = _loss(y, cost, z + z_step)
    for _ in range(_MAX_LINE_SEARCH):
        if np.abs(w + step).sum() - norm + ahead - loss <= _SIGMA * decrease:
            break
        step, z_step, decrease = step / 2, z_step / 2, decrease / 2
        ahead = _loss(y, cost, z + z_step)
    return w + step, z + z_step, ahead


def _loss(y: Array, cost: Array, z: Array) -> float:
    return float(cost @ (np.maximum(z, 0) + np.log(1 + np.exp(-np.abs(z))) - y * z))


class _BoundedRandom:
    """scikit-learn's random integers inside liblinear: mt19937 and Lemire's bounded method."""

    def __init__(self) -> None:
        self._draws = iter(_random_words())

    def below(self, bound: int) -> int:
        product = next(self._draws) * bound
        if product & 0xFFFFFFFF < bound:
            threshold = (2**32 - bound) % bound
            while product & 0xFFFFFFFF < threshold:
                product = next(self._draws) * bound
        return product >> 32


@lru_cache(maxsize=1)
def _random_words() -> list[int]:
    """The stream of 32-bit words that every fit with upstream's random state draws; the state never changes."""
    seed = np.random.RandomState(_RANDOM_STATE).randint(np.iinfo("i").max)
    words = np.random.RandomState(seed).randint(0, 2**32, size=100_000, dtype=np.uint32)
    return words.tolist()
