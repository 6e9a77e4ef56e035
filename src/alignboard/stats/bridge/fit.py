"""A weighted linear map with known sampling errors on both sides and a variance of its own, and the choice of its form.

For n units with features x (n, k), centred, the covariance S (n, k, k) of their errors, and y (n,) with errors d::

    y_i = a + b' u_i + own_i + d_i,    x_i = u_i + e_i,    own_i ~ N(0, tau^2),    e_i ~ N(0, S_i)

Given x_i, u_i has the mean and the covariance V_i of a normal posterior (regression calibration), so that y_i has the
variance ``tau^2 + d_i^2 + b' V_i b``: a and b are fitted with these weights, and tau^2 is the value at which the
weighted squared residuals come out as expected.

References: Carroll, Ruppert, Stefanski and Crainiceanu 2006, Measurement Error in Nonlinear Models, ch. 4 (regression
calibration); Paule and Mandel 1982, J. Res. NBS 87 (tau^2); Allen 1974, Technometrics 16 (leave-one-out residuals);
Breiman, Friedman, Olshen and Stone 1984, Classification and Regression Trees, 3.4.3 (one standard error). Differs from
the first: every unit has errors of its own, and weights that follow them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alignboard.errors import ConvergenceError

Array = NDArray[np.float64]

_MAX_STEPS = 200
_TOLERANCE = 1e-9
# Of scaled features, whose variances are 1: what is left beside sampling error, in the direction with the least of it.
_LEAST_SPREAD = 1e-6
# Of the information about a coefficient: what is left without a unit or two, for the map to exist without them.
_LEAST_LEFT = 1e-9


@dataclass(frozen=True)
class MapFit:
    """A fitted map with the residuals by which maps are compared."""

    coefficients: Array
    """(1 + k,) the intercept, then the slopes"""
    covariance: Array
    """(1 + k, 1 + k) of these; zero for slopes that were given"""
    spread: Array
    """(k, k) covariance of the features without their errors"""
    tau: float
    residual: Array
    """(n,) of each unit from the map fitted to the others, the weights as they are"""
    residual_without: Array
    """(n, n) in row j the same where j, too, is left out; NaN on the diagonal"""

    def predict(self, x: Array, S: Array) -> tuple[Array, Array]:
        """(m,) means for units with features ``x`` (m, k) and ``S`` (m, k, k), and variances without that of d."""
        u, V = _calibrated(x, S, self.spread)
        design = np.column_stack([np.ones(len(u)), u])
        slopes = self.coefficients[1:]
        variance = np.einsum("ni,ij,nj->n", design, self.covariance, design)
        variance += self.tau**2 + V @ slopes @ slopes
        return design @ self.coefficients, variance


def fit_map(x: Array, S: Array, y: Array, y_error: Array, given: Array) -> MapFit | None:
    """The map from ``x`` to ``y``; ``given`` is (k,) the slopes that are not fitted, NaN for those that are.

    None where the features do not differ by more than their errors in some direction, where they leave no degree of
    freedom, or where one or two units alone tell a slope, so that there is no map without them. Raises
    `ConvergenceError` where the iteration does not settle.
    """
    n, k = x.shape
    spread = np.atleast_2d(np.cov(x, rowvar=False)) - S.mean(axis=0)
    # One degree of freedom is left where a unit, and another one, is left out.
    if n < 4 + int(np.isnan(given).sum()) or np.linalg.eigvalsh(spread)[0] < _LEAST_SPREAD:
        return None
    u, V = _calibrated(x, S, spread)
    fitted = np.isnan(given)
    slopes = np.where(fitted, 0.0, given)
    free_design = np.column_stack([np.ones(n), u[:, fitted]])
    rest = y - u[:, ~fitted] @ slopes[~fitted]
    # Residuals of an exact map are rounding errors: without a floor their weights would be infinite.
    floor, tau2 = 1e-14 * (1 + float(np.var(y))), 0.0
    for _ in range(_MAX_STEPS):
        known = floor + y_error**2 + V @ slopes @ slopes
        tau2 = _excess_variance(free_design, rest, known, tau2)
        free, free_covariance, weight = _least_squares(free_design, rest, known + tau2)
        last, slopes = slopes, slopes.copy()
        slopes[fitted] = free[1:]
        if np.abs(slopes - last).max() < _TOLERANCE * (1 + np.abs(slopes).max()):
            break
    else:
        raise ConvergenceError(
            f"The map between the judges did not settle within {_MAX_STEPS} steps."
        )
    kept = np.flatnonzero(np.concatenate([[True], fitted]))
    covariance = np.zeros((k + 1, k + 1))
    covariance[np.ix_(kept, kept)] = free_covariance
    left_out = _left_out(
        rest - free_design @ free, free_design @ free_covariance @ free_design.T, weight
    )
    if left_out is None:
        return None
    coefficients = np.concatenate([free[:1], slopes])
    return MapFit(coefficients, covariance, spread, math.sqrt(tau2), *left_out)


def simplest(squares: Array) -> NDArray[np.intp]:
    """(...) the first of the maps whose squared leave-one-out residuals are within one standard error of the best.

    ``squares`` is (maps, ..., n), the simplest map first, NaN where a unit takes no part.
    """
    best = np.nanmean(squares, axis=-1).argmin(axis=0)
    worse = squares - np.take_along_axis(squares, best[None, ..., None], axis=0)
    n = np.isfinite(worse).sum(axis=-1)
    error = np.nanstd(worse, axis=-1, ddof=1) / np.sqrt(n)
    return np.argmax(np.nanmean(worse, axis=-1) <= error, axis=0)


def price_of_choice(fits: list[MapFit], chosen: int, among: NDArray[np.bool_]) -> float:
    """By how much the squared leave-one-out residuals grow where every fold chooses its map anew; at least 1.

    Over the units ``among`` (n,); 1 where there are none.
    """
    residual = np.stack([fit.residual for fit in fits])
    anew = simplest(np.stack([fit.residual_without**2 for fit in fits]))
    squares = residual[anew, np.arange(len(anew))][among] ** 2
    kept = residual[chosen, among] ** 2
    if not kept.sum() > 0:
        return 1.0
    return max(1.0, float(squares.sum() / kept.sum()))


def _calibrated(x: Array, S: Array, spread: Array) -> tuple[Array, Array]:
    """(n, k) the posterior means of the features without error, and (n, k, k) their covariances."""
    # shrink[n] = spread (spread + S[n])^-1, both symmetric.
    shrink = np.linalg.solve(spread + S, np.broadcast_to(spread, S.shape)).transpose(0, 2, 1)
    return np.einsum("nij,nj->ni", shrink, x), spread - shrink @ spread


def _excess_variance(design: Array, y: Array, known: Array, start: float) -> float:
    """The tau^2 at which the weighted squared residuals add up to their degrees of freedom; 0 where they never do.

    Newton's steps on the reciprocal of the sum, which is nearly linear in tau^2, from ``start`` inside of a bracket.
    """
    free = len(y) - design.shape[1]
    # With this much variance the sum is at most 1.
    low, high = 0.0, float(((y - y.mean()) ** 2).sum()) + 1e-300
    here = start if start < high else 0.0
    for _ in range(_MAX_STEPS):
        beta, _, weight = _least_squares(design, y, known + here)
        squares = (y - design @ beta) ** 2
        total = float(squares @ weight)
        if total > free:
            low = here
        elif here == 0:
            return 0.0
        else:
            high = here
        if abs(total / free - 1) < _TOLERANCE or high - low < _TOLERANCE * high:
            return here
        step = here + total * (total - free) / (free * float(squares @ weight**2))
        middle = 0.0 if low == 0 and step <= 0 else (low + high) / 2
        here = step if low < step < high else middle
    raise ConvergenceError(f"The models' own variance did not settle within {_MAX_STEPS} steps.")


def _least_squares(design: Array, y: Array, variance: Array) -> tuple[Array, Array, Array]:
    """Weighted coefficients, their covariance and the weights."""
    weight = 1 / variance
    covariance = np.asarray(np.linalg.inv((design.T * weight) @ design), dtype=np.float64)
    return covariance @ (design.T @ (weight * y)), covariance, weight


def _left_out(residual: Array, influence: Array, weight: Array) -> tuple[Array, Array] | None:
    """(n,) leave-one-out and (n, n) leave-two-out residuals in closed form; ``influence`` is (n, n) X cov X'.

    None where a coefficient is not known without one unit, or two.
    """
    root = np.sqrt(weight)
    H = root[:, None] * influence * root[None, :]
    e, own = root * residual, 1 - np.diag(H)
    determinant = own[:, None] * own[None, :] - H**2
    np.fill_diagonal(determinant, np.nan)
    if min(own.min(), np.nanmin(determinant)) < _LEAST_LEFT:
        return None
    pairs = (e[None, :] * own[:, None] + H * e[:, None]) / determinant
    return residual / own, pairs / root[None, :]
