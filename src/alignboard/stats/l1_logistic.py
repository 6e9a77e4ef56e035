"""L1-regularised logistic regression with soft labels and few features, solved to the optimum.

The objective is liblinear's, with the sample weights and without an intercept::

    F(w) = |w|_1 + C * sum_i s_i * [log(1 + exp(z_i)) - y_i * z_i],   z = X w,   y_i in [0, 1]

A soft label y stands for upstream's pair of rows, label 1 with weight y and label 0 with weight 1 - y. Upstream's
solver (liblinear, through scikit-learn) stops at a loose tolerance; this one is a proximal Newton method that goes
on until the Karush-Kuhn-Tucker conditions hold. Several weightings of the same rows (the folds of a
cross-validation) are solved side by side.

References: Lee, Sun and Saunders, Proximal Newton-type methods, arXiv 1206.1623; Fan et al., LIBLINEAR (JMLR 9, 2008).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from alignboard.errors import ConvergenceError

Array = NDArray[np.float64]

# scikit-learn's LogisticRegressionCV default: ten values from 1e-4 to 1e4.
DEFAULT_CS: Array = np.logspace(-4, 4, 10)

_MAX_STEPS = 100
_ARMIJO = 1e-4
_MAX_HALVINGS = 40


@dataclass(frozen=True)
class L1Fit:
    """The optimum for one C."""

    weights: Array
    """(k,)"""
    C: float
    kkt_violation: float
    """largest distance of a coordinate's subgradient condition from holding, in units of the gradient of F/C
    divided by the total sample weight"""


def fit(
    x: Array,
    y: Array,
    sample_weight: Array,
    C: float,
    start: Array | None = None,
    tolerance: float = 1e-10,
) -> L1Fit:
    """The optimum for one ``C``, from ``start`` (k,) or zero.

    ``x`` is (n, k), ``y`` (n,) in [0, 1], ``sample_weight`` (n,).
    """
    problem = _Problem(x, y, sample_weight[None])
    point = problem.at(np.zeros((1, x.shape[1])) if start is None else start[None])
    point = problem.solve(point, C, tolerance)
    return L1Fit(point.weights[0], C, float(problem.violation(point, 1 / C)[0]))


def cross_validated_C(
    x: Array, y: Array, sample_weight: Array, folds: NDArray[np.intp], Cs: Array = DEFAULT_CS
) -> tuple[float, Array]:
    """The C of least mean held-out loss (the smallest of a tie, as scikit-learn's), and the (k,) mean of the folds'
    weights at it, from which the fit to all rows is a step or two away.

    ``folds`` (n,) gives every row's fold, from 0. The loss of a fold is upstream's: the mean over held-out rows of
    ``s_i`` times the cross-entropy (``metrics/glm_winrate.py``, `logloss`).
    """
    n_folds = int(folds.max()) + 1
    train = sample_weight * (folds != np.arange(n_folds)[:, None])
    problem = _Problem(x, y, train, quick=True)
    point = problem.at(np.zeros((n_folds, x.shape[1])))
    losses, weights = [], []
    held_out = (folds, np.arange(len(y)))
    share = sample_weight / np.bincount(folds)[folds] / n_folds
    for C in Cs:
        # Held-out losses of neighbouring Cs differ by 1e-8 at the least; this moves them by less than 1e-10.
        point = problem.solve(point, C, tolerance=1e-7)
        z = (point.weights @ problem.rows)[held_out]
        losses.append(share @ (_softplus(z) - y * z))
        weights.append(point.weights.mean(axis=0))
    best = int(np.argmin(losses))
    return float(Cs[best]), weights[best]


@dataclass(frozen=True)
class _Point:
    """f weight vectors and what is known there of the weighted log-loss."""

    weights: Array
    """(f, k)"""
    gradient: Array
    """(f, k)"""
    curvature: Array
    """(f, k(k+1)/2) the upper triangle of the Hessian"""


class _Problem:
    """One design matrix with f weightings of its rows, ``sample_weight`` (f, n)."""

    def __init__(self, x: Array, y: Array, sample_weight: Array, *, quick: bool = False) -> None:
        """``quick`` takes probabilities in single precision, whose exp is four times as fast.

        Rounding errors of 1e-7 in thousands of rows average out: a gradient is off by about 1e-9 of its weight.
        """
        self.quick = quick
        self.x = np.ascontiguousarray(x)
        self.rows = np.ascontiguousarray(x.T)
        self.y = y
        self.sample_weight = sample_weight
        self.total = sample_weight.sum(axis=1)
        k = x.shape[1]
        upper = np.triu_indices(k)
        self._own = np.arange(k)
        self._square = np.empty((k, k), dtype=np.intp)
        self._square[upper] = self._square.T[upper] = np.arange(len(upper[0]))
        self._diagonal = self._square.diagonal()
        # The k(k+1)/2 distinct products of columns: a Hessian is then one matrix product.
        self._products = np.ascontiguousarray(x[:, upper[0]] * x[:, upper[1]])
        self._linear = (sample_weight * y) @ self.x

    def at(self, weights: Array) -> _Point:
        """Gradient and Hessian at ``weights`` (f, k)."""
        z = weights @ self.rows
        p = _expit(z.astype(np.float32)).astype(np.float64) if self.quick else _expit(z)
        weighted = self.sample_weight * p
        gradient = weighted @ self.x - self._linear
        weighted *= 1 - p
        return _Point(weights, gradient, weighted @ self._products)

    def violation(self, point: _Point, penalty: float) -> Array:
        """(f,) how far the KKT conditions are from holding; see `L1Fit.kkt_violation`."""
        return _violation(point.weights, point.gradient, penalty).max(axis=1) / self.total

    def solve(self, point: _Point, C: float, tolerance: float) -> _Point:
        """The optimum of all f weightings, from ``point``."""
        penalty = 1 / C
        violation = self.violation(point, penalty)
        for _ in range(_MAX_STEPS):
            if (violation <= tolerance).all():
                return point
            step = self._direction(point, penalty)
            ahead = self.at(point.weights + step)
            after = self.violation(ahead, penalty)
            # Newton steps nearly always bring the conditions closer at once; the objective is only asked otherwise.
            if (after > np.maximum(0.9 * violation, tolerance)).any():
                ahead = self.at(self._line_search(point, step, penalty))
                after = self.violation(ahead, penalty)
            point, violation = ahead, after
        raise ConvergenceError(f"No optimum within {_MAX_STEPS} Newton steps at C = {C:g}.")

    def _direction(self, point: _Point, penalty: float) -> Array:
        """(f, k) the exact minimisers of the quadratic models plus the L1 penalty, minus the weights."""
        w, gradient = point.weights, point.gradient
        hessian = point.curvature[:, self._square]
        # Columns that depend on each other, are zero or saturated, would leave it singular.
        own = point.curvature[:, self._diagonal]
        hessian[:, self._own, self._own] = np.where(own > 0, own * (1 + 1e-12), 1.0)
        signs = np.sign(w)
        if signs.all():
            right = (-gradient - penalty * signs)[..., None]
            step = np.linalg.solve(hessian, right)[..., 0].astype(np.float64)
            if ((w + step) * signs > 0).all():
                return step
        return _best_patterns(w, gradient, hessian, penalty)

    def _line_search(self, point: _Point, step: Array, penalty: float) -> Array:
        """Armijo's rule on the penalised objective, each weighting with its own step length."""
        w = point.weights
        decrease = (point.gradient * step).sum(axis=1) + penalty * (
            np.abs(w + step).sum(axis=1) - np.abs(w).sum(axis=1)
        )
        before = self._objective(w, penalty)
        length = np.ones((len(w), 1))
        for _ in range(_MAX_HALVINGS):
            candidate = w + length * step
            # Close to the optimum both sides agree to rounding; the allowance keeps the full Newton step.
            bound = before + _ARMIJO * length[:, 0] * decrease + 1e-12 * np.abs(before)
            worse = self._objective(candidate, penalty) > bound
            if not worse.any():
                return candidate
            length[worse] /= 2
        raise ConvergenceError("No descent along a Newton direction; are all values finite?")

    def _objective(self, weights: Array, penalty: float) -> Array:
        z = weights @ self.rows
        loss = (self.sample_weight * (_softplus(z) - self.y * z)).sum(axis=1)
        return loss + penalty * np.abs(weights).sum(axis=1)


def _best_patterns(w: Array, gradient: Array, hessian: Array, penalty: float) -> Array:
    """(f, k) the steps d that minimise ``g.d + d.H.d/2 + penalty*|w + d|_1``: the best of all patterns of signs.

    Every pattern of +, - and 0 is one linear solve; those whose solution has other signs are ruled out. With the
    few features there are, that is as fast as coordinate descent, and it is exact for columns that depend on each
    other, between which coordinate descent creeps.
    """
    f, k = w.shape
    signs = _patterns(k)
    zero = signs == 0
    fixed = np.where(zero, -w[:, None], 0.0)
    either = zero[:, :, None] | zero[:, None, :]
    masked = np.where(either, np.eye(k), hessian[:, None])
    target = np.where(zero, fixed, -gradient[:, None] - penalty * signs - fixed @ hessian)
    step = np.linalg.solve(masked, target[..., None])[..., 0]
    value = ((gradient[:, None] + 0.5 * (step @ hessian)) * step).sum(axis=2)
    value += penalty * np.abs(w[:, None] + step).sum(axis=2)
    value[((w[:, None] + step) * signs < 0).any(axis=2)] = np.inf
    return step[np.arange(f), value.argmin(axis=1)]


@lru_cache(maxsize=8)
def _patterns(k: int) -> Array:
    return np.array(list(itertools.product((0.0, 1.0, -1.0), repeat=k)))


def _violation(weights: Array, gradient: Array, penalty: float) -> Array:
    """Distance of ``-gradient`` from the subdifferential of ``penalty * |w|``, coordinate by coordinate."""
    signs = np.sign(weights)
    distance = np.abs(gradient + penalty * signs)
    return distance if signs.all() else np.where(signs, distance, np.maximum(distance - penalty, 0))


def _softplus(z: Array) -> Array:
    return np.maximum(z, 0) + np.log(1 + np.exp(-np.abs(z)))


def _expit(z: NDArray) -> NDArray:
    # exp may overflow to infinity, which gives the right limit 0.
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-z))
