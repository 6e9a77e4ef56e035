"""How many prompts a comparison needs: the power of the paired t test, and its inverses."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from alignboard.stats.student import student_quantile

_NODES = 200
_FEWEST, _MOST = 2, 10**9


def power(difference: float, sd: float, n: int, alpha: float = 0.05) -> float:
    """The probability that a two-sided paired t test at ``alpha`` separates models that differ by ``difference``.

    Parameters
    ----------
    difference
        The true mean difference, a fraction.
    sd
        Standard deviation of the differences of single prompts, or of clusters.
    n
        Number of prompts, or of clusters.
    alpha
        Level of the test; over k pairs ``0.05 / k`` is what Holm's first step asks.

    >>> round(power(0.02, 0.1884542253861944, 805), 6)
    0.852569

    References: Johnson, Kotz and Balakrishnan, Continuous Univariate Distributions 2 (1995), chapter 31 (noncentral t).
    """
    if n < _FEWEST:
        return math.nan
    critical = student_quantile(1 - alpha / 2, n - 1)
    shift = difference / sd * math.sqrt(n)
    return _beyond(critical, shift, n - 1)


def prompts_needed(difference: float, sd: float, target: float = 0.8, alpha: float = 0.05) -> int:
    """The fewest prompts with which `power` reaches ``target``.

    >>> [prompts_needed(d, 0.1884542253861944) for d in (0.01, 0.02, 0.05)]
    [2790, 699, 114]

    Raises `ValueError` where no number up to a billion suffices.
    """
    # Student's law asks for about half a squared quantile more than the normal one (Guenther 1981).
    quantile = _normal_quantile(1 - alpha / 2)
    ratio = sd / difference * (quantile + _normal_quantile(target))
    high = max(_FEWEST, math.ceil(min(ratio**2 + quantile**2 / 2, _MOST)))
    low, step = high - 1, 1
    while power(difference, sd, high, alpha) < target:
        low, high, step = high, high + step, 2 * step
        if high > _MOST:
            raise ValueError(f"no number of prompts up to {_MOST} separates {difference:g}")
    while low >= _FEWEST and power(difference, sd, low, alpha) >= target:
        low, high, step = max(_FEWEST - 1, low - step), low, 2 * step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (
            (low, middle) if power(difference, sd, middle, alpha) >= target else (middle, high)
        )
    return high


def resolution(difference: float, sd: float, n: int, target: float = 0.8) -> float:
    """Prompts at hand over those that separate models which differ by ``difference``; below 1 they are not resolved.

    NaN where the two do not differ, or no number up to a billion suffices.

    >>> round(resolution(0.02, 0.1884542253861944, 805), 3)
    1.152

    References: Kotawala, arXiv 2605.30315 (prompts over prompts needed, neighbour by neighbour).
    """
    if not difference or not sd > 0:
        return math.nan
    try:
        return n / prompts_needed(abs(difference), sd, target)
    except ValueError:
        return math.nan


def detectable_difference(sd: float, n: int, target: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest difference that ``n`` prompts separate with probability ``target``; NaN below 2 prompts."""
    if n < _FEWEST or not sd > 0:
        return math.nan
    low, high = 0.0, sd
    while power(high, sd, n, alpha) < target:
        low, high = high, 2 * high
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle, sd, n, alpha) >= target else (middle, high)
    return high


def _beyond(critical: float, shift: float, freedom: int) -> float:
    """P(|T| > critical) of the noncentral t: the normal tails, averaged over the estimated standard deviation.

    The standard deviation over the true one is chi / sqrt(freedom), nearly all of it within 12 of its own deviations.
    """
    spread = 12 / math.sqrt(2 * freedom)
    low, high = max(0.0, 1 - spread), 1 + spread
    nodes, weights = _gauss_legendre()
    s = low + (high - low) * (nodes + 1) / 2
    half = freedom / 2
    log_density = (
        math.log(2)
        + half * math.log(half)
        - math.lgamma(half)
        + (freedom - 1) * np.log(s)
        - half * s**2
    )
    edges, shift = (critical / math.sqrt(2) * s).tolist(), shift / math.sqrt(2)
    tails = np.array([math.erfc(one - shift) + math.erfc(one + shift) for one in edges])
    return float((weights * np.exp(log_density) * tails).sum() * (high - low) / 4)


def _normal_quantile(probability: float) -> float:
    return NormalDist().inv_cdf(probability)


@lru_cache(maxsize=1)
def _gauss_legendre() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes and weights on [-1, 1], by Newton's method; loading `numpy.polynomial` would take ten times as long."""
    nodes = -np.cos(np.pi * (np.arange(1, _NODES + 1) - 0.25) / (_NODES + 0.5))
    slope = np.ones(_NODES)
    for _ in range(4):
        before, value = np.ones(_NODES), nodes
        for k in range(2, _NODES + 1):
            before, value = value, ((2 * k - 1) * nodes * value - (k - 1) * before) / k
        slope = _NODES * (nodes * value - before) / (nodes**2 - 1)
        nodes = nodes - value / slope
    return nodes, 2 / ((1 - nodes**2) * slope**2)
