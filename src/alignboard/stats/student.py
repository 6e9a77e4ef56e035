"""Student's t: tail probabilities and quantiles, to 1e-9 of their size up to a million degrees of freedom.

With the incomplete beta function, of which these are a case.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_MAX_TERMS = 10_000
_TINY = 1e-300
_MANY = 100_000
_HUGE = 1e150
"""of a ``t`` whose square overflows"""


def student_p_value(t: float, degrees_of_freedom: float) -> float:
    """Two-sided tail probability P(|T| >= |t|); NaN where ``t`` is or there are no degrees of freedom.

    >>> round(student_p_value(2.0, 10), 6)
    0.073388
    """
    if math.isnan(t) or not degrees_of_freedom > 0:
        return math.nan
    if abs(t) > _HUGE:
        return 0.0
    v = degrees_of_freedom
    x, complement = v / (v + t * t), t * t / (v + t * t)
    return incomplete_beta(v / 2, 0.5, x, complement)


def student_p_values(t: Array, degrees_of_freedom: Array) -> Array:
    """`student_p_value` of every element, of all pairs of a thousand models in a second.

    >>> student_p_values(np.array([2.0, np.inf]), np.array([10.0, 10.0])).round(6).tolist()
    [0.073388, 0.0]
    """
    found = np.full(t.shape, np.nan)
    known = ~np.isnan(t) & (degrees_of_freedom > 0)
    nothing = np.abs(t) > _HUGE
    found[known & nothing] = 0.0
    known &= ~nothing
    for v in set(degrees_of_freedom[known].tolist()):  # `numpy.unique` would load `numpy.ma`
        own = known & (degrees_of_freedom == v)
        found[own] = _tails(t[own], v)
    return found


@lru_cache(maxsize=4096)
def student_quantile(probability: float, degrees_of_freedom: float) -> float:
    """The t with P(T <= t) = ``probability``; NaN where there are no degrees of freedom.

    Newton's method on the logarithm of `student_p_value`, kept inside a bracket; results are remembered. From 100,000
    degrees of freedom on the expansion alone, which is closer than the tail's own rounding lets Newton come.

    >>> round(student_quantile(0.99987, 3), 2)
    20.33
    """
    if not 0 < probability < 1 or not degrees_of_freedom > 0:
        return math.nan
    if probability == 0.5:
        return 0.0
    v, tail = degrees_of_freedom, 2 * min(probability, 1 - probability)
    low, high = 0.0, math.inf
    t = _expanded(abs(NormalDist().inv_cdf(probability)), v)
    if v >= _MANY:
        return math.copysign(t, probability - 0.5)
    for _ in range(_MAX_TERMS):
        p = student_p_value(t, v)
        low, high = (t, high) if p > tail else (low, t)
        step = math.log(p / tail) * p / (2 * _density(t, v)) if p > 0 else -math.inf
        new = t + step
        if not low <= new <= high:
            new = 2 * t if math.isinf(high) else (low + high) / 2
        if abs(new - t) <= 1e-13 * t:
            return math.copysign(new, probability - 0.5)
        t = new
    raise ArithmeticError("Student's quantile did not settle.")


def _expanded(z: float, v: float) -> float:
    """The quantile by its expansion around the normal law's ``z``; that itself where the terms do not shrink.

    References: Abramowitz and Stegun (1964), 26.7.5.
    """
    first = z * (z**2 + 1) / (4 * v)
    if first > 0.1 * z:
        return z
    second = z * (5 * z**4 + 16 * z**2 + 3) / (96 * v**2)
    third = z * (3 * z**6 + 19 * z**4 + 17 * z**2 - 15) / (384 * v**3)
    return z + first + second + third


def _density(t: float, v: float) -> float:
    front = math.lgamma((v + 1) / 2) - math.lgamma(v / 2) - math.log(v * math.pi) / 2
    return math.exp(front - (v + 1) / 2 * math.log1p(t * t / v))


def incomplete_beta(a: float, b: float, x: float, complement: float) -> float:
    """I_x(a, b), regularised; ``complement`` is 1 - x without its rounding error."""
    if x <= 0:
        return 0.0
    if complement <= 0:
        return 1.0
    front = math.exp(
        math.lgamma(a + b)
        - math.lgamma(a)
        - math.lgamma(b)
        + a * (math.log(x) if x < 0.5 else math.log1p(-complement))
        + b * (math.log(complement) if complement < 0.5 else math.log1p(-x))
    )
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(a, b, x) / a
    return 1 - front * _fraction(b, a, complement) / b


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of the incomplete beta function, by Lentz's method.

    References: Numerical Recipes (2007), section 6.4; Abramowitz and Stegun (1964), 26.5.8.
    """
    c, d = 1.0, 1 / _off_zero(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _MAX_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _off_zero(1 + term * d)
            c = _off_zero(1 + term / c)
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            return value
    raise ArithmeticError("The incomplete beta function did not converge.")


def _tails(t: Array, v: float) -> Array:
    """`incomplete_beta` as `student_p_value` calls it, of many finite ``t`` with ``v`` degrees of freedom."""
    a, b = v / 2, 0.5
    x, complement = v / (v + t * t), t * t / (v + t * t)
    with np.errstate(divide="ignore"):
        powers = a * np.where(x < 0.5, np.log(x), np.log1p(-complement))
        powers += b * np.where(complement < 0.5, np.log(complement), np.log1p(-x))
    front = np.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + powers)
    far = x < (a + 1) / (a + b + 2)
    found = np.empty_like(t)
    found[far] = front[far] * _fractions(a, b, x[far]) / a
    found[~far] = 1 - front[~far] * _fractions(b, a, complement[~far]) / b
    return found


def _fractions(a: float, b: float, x: Array) -> Array:
    """`_fraction` of many ``x``; what has settled is not computed further."""
    found, at = np.empty_like(x), np.arange(len(x))
    c, d = np.ones_like(x), 1 / (1 - (a + b) * x / (a + 1))
    value = d.copy()
    for m in range(1, _MAX_TERMS):
        even = m * (b - m) / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even * x, odd * x):
            d = 1 / _off_zeros(1 + term * d)
            c = _off_zeros(1 + term / c)
            value *= c * d
        going = np.abs(c * d - 1) >= 1e-15
        found[at[~going]] = value[~going]
        at = at[going]
        x, c, d, value = (one[going] for one in (x, c, d, value))
        if not len(at):
            return found
    raise ArithmeticError("The incomplete beta function did not converge.")


def _off_zeros(x: Array) -> Array:
    return np.where(np.abs(x) > _TINY, x, _TINY)


def _off_zero(x: float) -> float:
    return x if abs(x) > _TINY else _TINY
