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
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from alignboard.errors import ConvergenceError
from alignboard.stats.logistic import expit

Array = NDArray[np.float64]

# scikit-learn's LogisticRegressionCV default: ten values from 1e-4 to 1e4.
DEFAULT_CS: Array = np.logspace(-4, 4, 10)

_MAX_STEPS = 100
_RIDGE = 1e-12
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
    problem = _Problem(x.T[None], y[None], sample_weight[None])
    point = problem.at(np.zeros((1, x.shape[1])) if start is None else start[None])
    point = problem.solve(point, C, tolerance)
    return L1Fit(point.weights[0], C, problem.violation(point, 1 / C))


def cross_validated_C(
    x: Array, y: Array, sample_weight: Array, folds: NDArray[np.intp], Cs: Array = DEFAULT_CS
) -> tuple[float, Array]:
    """The C of least mean held-out loss (the smallest of a tie, as scikit-learn's), and the (k,) mean of the folds'
    weights at it, from which the fit to all rows is a step or two away.

    ``folds`` (n,) gives every row's fold, from 0. The loss of a fold is upstream's: the mean over held-out rows of
    ``s_i`` times the cross-entropy (``metrics/glm_winrate.py``, `logloss`).
    """
    n_folds = int(folds.max()) + 1
    counts = np.bincount(folds)[:, None]
    outside, inside = _rows_of_folds(folds.tobytes(), folds.dtype)
    columns, fold = np.ascontiguousarray(x.T), np.arange(n_folds)[:, None]
    problem = _Problem(
        columns.take(outside, axis=1).swapaxes(0, 1),
        y.take(outside),
        sample_weight.take(outside) * (folds.take(outside) != fold),
        quick=True,
    )
    held_out = columns.take(inside, axis=1).swapaxes(0, 1)
    label = y.take(inside)
    share = sample_weight.take(inside) * (folds.take(inside) == fold) / (counts * n_folds)
    point = problem.at(np.zeros((n_folds, x.shape[1])))
    losses, weights = [], []
    for C in Cs:
        # Held-out losses of neighbouring Cs differ by 1e-8 at the least; this moves them by less than 1e-10.
        point, at_C = problem.approach(point, C, tolerance=1e-7)
        z = (at_C[:, None] @ held_out)[:, 0]
        losses.append(np.vdot(share, _softplus(z) - label * z))
        weights.append(at_C.mean(axis=0))
    best = int(np.argmin(losses))
    return float(Cs[best]), weights[best]


@lru_cache(maxsize=8)
def _rows_of_folds(
    folds: bytes, dtype: np.dtype[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The rows outside each fold and those inside, both padded to a rectangle with rows of the other kind.

    Most models of a board have the same number of rows, and so the same folds.
    """
    fold = np.frombuffer(folds, dtype)
    counts = np.bincount(fold)
    order = np.argsort(fold == np.arange(len(counts))[:, None], axis=1, kind="stable")
    return order[:, : len(fold) - counts.min()], order[:, len(fold) - counts.max() :]


class _Point(NamedTuple):
    """f weight vectors and what is known there of the weighted log-loss."""

    weights: Array
    """(f, k)"""
    gradient: Array
    """(f, k)"""
    curvature: Array
    """(f, k(k+1)/2) the upper triangle of the Hessian"""


class _Problem:
    """f problems with n rows each, solved side by side; x is (f, k, n), y and sample_weight (f, n).

    The arrays are small: what costs is the number of calls to numpy, not what they compute.
    """

    def __init__(self, x: Array, y: Array, sample_weight: Array, *, quick: bool = False) -> None:
        """``quick`` takes probabilities in single precision, whose exp is four times as fast.

        Rounding errors of 1e-7 in thousands of rows average out: a gradient is off by about 1e-9 of its weight.
        """
        self.precision = np.float32 if quick else np.float64
        self.y = y
        self.sample_weight = sample_weight
        self.total = float(sample_weight.sum(axis=1).min())
        k = x.shape[1]
        pairs = list(itertools.combinations_with_replacement(range(k), 2))
        self._square = np.array(
            [[pairs.index((min(i, j), max(i, j))) for j in range(k)] for i in range(k)]
        )
        # Columns that depend on each other, are zero or saturated, would leave a Hessian singular.
        self._ridge = np.array([_RIDGE * self.total * (i == j) for i, j in pairs])
        self.rows = x
        self._weighted = x * sample_weight[:, None]
        self._linear = self._weighted @ y[..., None]
        # The k(k+1)/2 distinct products of columns: a Hessian is then one matrix product.
        self._products = np.empty((len(x), len(pairs), x.shape[2]), self.precision)
        for pair, (i, j) in enumerate(pairs):
            np.multiply(
                self._weighted[:, i], x[:, j], out=self._products[:, pair], casting="same_kind"
            )
        # |f'''| <= 1 / (6 sqrt 3) of the logistic loss f bounds what a quadratic model of it leaves out.
        self._cubic = (
            self._products.sum(axis=2, dtype=np.float64)[:, self._square]
            * np.abs(x).max()
            / (12 * np.sqrt(3))
        )

    def at(self, weights: Array) -> _Point:
        """Gradient and Hessian at ``weights`` (f, k)."""
        p = expit(self._z(weights).astype(self.precision, copy=False))
        gradient = self._weighted @ p.astype(np.float64, copy=False)[..., None]
        gradient -= self._linear
        p -= p * p
        curvature = (self._products @ p[..., None]).astype(np.float64)
        return _Point(weights, gradient[..., 0], curvature[..., 0] + self._ridge)

    def _z(self, weights: Array) -> Array:
        """(f, n)"""
        return (weights[:, None] @ self.rows)[:, 0]

    def violation(self, point: _Point, penalty: float) -> float:
        """How far the KKT conditions are from holding in the worst place; see `L1Fit.kkt_violation`."""
        return float(_violation(point.weights, point.gradient, penalty).max()) / self.total

    def solve(self, point: _Point, C: float, tolerance: float) -> _Point:
        """The optimum of all f problems, from ``point``: one step further than ``tolerance``, where that is closer.

        Newton's last step squares the distance for the price of one evaluation. Without it, rates that agree to 1e-10
        gave p-values of differences that agree to 2e-9 only.
        """
        penalty = 1 / C
        violation = self.violation(point, penalty)
        for _ in range(_MAX_STEPS):
            if violation <= tolerance:
                ahead = self.at(point.weights + self._direction(point, penalty))
                return ahead if self.violation(ahead, penalty) < violation else point
            step = self._direction(point, penalty)
            point, violation = self._advance(point, step, violation, penalty, tolerance)
        raise ConvergenceError(f"No optimum within {_MAX_STEPS} Newton steps at C = {C:g}.")

    def approach(self, point: _Point, C: float, tolerance: float) -> tuple[_Point, Array]:
        """A point near the optimum of all f problems, and the optimum (f, k) of the quadratic models there.

        The gradient at that optimum is not computed: `_left_out` bounds it. Neighbouring Cs share a point.
        """
        penalty = 1 / C
        violation = self.violation(point, penalty)
        for _ in range(_MAX_STEPS):
            if violation <= tolerance:
                return point, point.weights
            step = self._direction(point, penalty)
            if self._left_out(step) <= tolerance:
                return point, point.weights + step
            point, violation = self._advance(point, step, violation, penalty, tolerance)
        raise ConvergenceError(f"No optimum within {_MAX_STEPS} Newton steps at C = {C:g}.")

    def _left_out(self, step: Array) -> float:
        """At most this far the KKT conditions are from holding after ``step`` (f, k) to the models' optimum.

        Taylor's theorem: the gradient's remainder is at most ``max|f'''|/2 * sum_i s_i |x_ij| (x_i . step)^2``.
        """
        return float((step[:, None] @ self._cubic @ step[..., None]).max()) / self.total

    def _advance(
        self, point: _Point, step: Array, violation: float, penalty: float, tolerance: float
    ) -> tuple[_Point, float]:
        """The point a Newton ``step`` ahead, or as much of the step as lowers the objective, and its violation."""
        ahead = self.at(point.weights + step)
        after = self.violation(ahead, penalty)
        # Newton steps nearly always bring the conditions closer at once; the objective is only asked otherwise.
        if after > max(0.9 * violation, tolerance):
            ahead = self.at(self._line_search(point, step, penalty))
            after = self.violation(ahead, penalty)
        return ahead, after

    def _direction(self, point: _Point, penalty: float) -> Array:
        """(f, k) the exact minimisers of the quadratic models plus the L1 penalty, minus the weights."""
        w, gradient = point.weights, point.gradient
        hessian = point.curvature[:, self._square]
        signs = np.sign(w)
        right = -gradient - penalty * signs
        # Most steps keep every weight's sign, and the zeros: one solve instead of all patterns of signs.
        if signs.all():
            step = _solve(hessian, right)
            kept = ((w + step) * signs).min() > 0
        else:
            zero = signs == 0
            step = _solve(
                np.where(_either(zero), np.eye(w.shape[1]), hessian), np.where(zero, 0.0, right)
            )
            slope = np.abs(gradient + (hessian @ step[..., None])[..., 0])
            kept = np.where(zero, slope < penalty, (w + step) * signs > 0).all()
        return step if kept else _best_patterns(w, gradient, hessian, penalty)

    def _line_search(self, point: _Point, step: Array, penalty: float) -> Array:
        """Armijo's rule on the penalised objective, each problem with its own step length."""
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
        z = self._z(weights)
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
    masked = np.where(_either(zero), np.eye(k), hessian[:, None])
    target = np.where(zero, fixed, -gradient[:, None] - penalty * signs - fixed @ hessian)
    step = _solve(masked, target)
    value = ((gradient[:, None] + 0.5 * (step @ hessian)) * step).sum(axis=2)
    value += penalty * np.abs(w[:, None] + step).sum(axis=2)
    value[((w[:, None] + step) * signs < 0).any(axis=2)] = np.inf
    return step[np.arange(f), value.argmin(axis=1)]


def _solve(matrix: Array, right: Array) -> Array:
    """(..., k) the solutions of a stack of systems, matrix (..., k, k) and right side (..., k)."""
    return np.linalg.solve(matrix, right[..., None])[..., 0].astype(np.float64, copy=False)


def _either(held: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(..., k, k) the entries in whose row or column something is held (..., k)."""
    return held[..., None, :] | held[..., None]


@lru_cache(maxsize=8)
def _patterns(k: int) -> Array:
    return np.array(list(itertools.product((0.0, 1.0, -1.0), repeat=k)))


def _violation(weights: Array, gradient: Array, penalty: float) -> Array:
    """Distance of ``-gradient`` from the subdifferential of ``penalty * |w|``, coordinate by coordinate."""
    signs = np.sign(weights)
    distance = np.abs(gradient + penalty * signs)
    return distance if signs.all() else np.where(signs, distance, np.maximum(distance - penalty, 0))


def _softplus(z: Array) -> Array:
    """log(1 + exp(z)), of every finite z: with a weak penalty and verdicts that are nearly separated z passes 709."""
    return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))
