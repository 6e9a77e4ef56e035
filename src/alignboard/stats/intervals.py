"""Intervals for rates and means: clustered standard errors, limits of bounded means, Student's limits."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import overload

import numpy as np
from numpy.typing import NDArray

from alignboard.stats.binomial import binomial_tail, least_rate
from alignboard.stats.logistic import expit
from alignboard.stats.student import student_quantile

Array = NDArray[np.float64]

# Standard errors that are rounding errors, relative to the numbers that they are of.
_NO_SPREAD = 1e-12


@dataclass(frozen=True)
class Interval:
    """A confidence interval of a rate in [0, 1], or of a mean, and what it was made of."""

    estimate: float
    standard_error: float
    low: float
    high: float
    level: float
    n_clusters: int
    """independent units behind it: prompts, unless said otherwise"""
    n_effective: float = math.nan
    """as many clusters of one size would leave the error as well known: degrees of freedom + 1"""


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error, and with how many clusters that error is known."""

    value: float
    standard_error: float
    n_clusters: int
    n_effective: float
    """degrees of freedom + 1; less than ``n_clusters`` where clusters differ in size"""

    @classmethod
    def of_equal_clusters(cls, value: float, standard_error: float, n_clusters: int) -> Estimate:
        """An estimate whose clusters have one size."""
        return cls(value, standard_error, n_clusters, n_clusters)

    def known_by(self, influence: Array) -> Estimate:
        """The same where few of the ``influence`` (n,), whose squares make up the variance, may decide it.

        Their sum has the spread of a chi square with (sum psi^2)^2 / sum psi^4 degrees of freedom, never more than n.

        References: Satterthwaite 1946, Biometrics 2.
        """
        squares = influence**2
        if not squares.any():
            return self
        freedom = float(squares.sum()) ** 2 / float(squares @ squares)
        return replace(self, n_effective=1 + min(self.n_effective - 1, freedom))

    def interval(self, low: float, high: float, level: float) -> Interval:
        """The estimate with limits."""
        return Interval(
            self.value, self.standard_error, low, high, level, self.n_clusters, self.n_effective
        )

    def unknown(self, level: float) -> Interval:
        """The estimate with a standard error and limits that are not known."""
        return replace(self, standard_error=math.nan).interval(math.nan, math.nan, level)

    def reach(self, level: float) -> float:
        """Half of the width of Student's interval."""
        return student_quantile((1 + level) / 2, self.n_effective - 1) * self.standard_error


@overload
def has_spread(error: float, size: float = 1.0) -> bool: ...
@overload
def has_spread(error: Array, size: float = 1.0) -> NDArray[np.bool_]: ...
def has_spread(error: float | Array, size: float = 1.0) -> bool | NDArray[np.bool_]:
    """Whether standard errors of numbers of this ``size`` are more than rounding errors; those unknown are not."""
    return error > _NO_SPREAD * max(1.0, abs(size))


def known_errors(variance: Array) -> Array:
    """Standard errors; NaN for rounding errors of 0, where nothing shows how the clusters vary."""
    error = np.sqrt(np.maximum(variance, 0))
    return np.where(has_spread(error), error, np.nan)


def bounded_mean(values: Array, clusters: NDArray | None = None, level: float = 0.95) -> Interval:
    """The mean of ``values`` (n,) in [0, 1], NaN left out, with an interval clustered by ``clusters`` (n,).

    The limits are those of `rate_interval`, and never further out than the exact ones of a binomial rate: no units in
    [0, 1] vary more than those that are 0 or 1. With few of these the logit scale alone would reach further.

    >>> bounded_mean(np.array([0.0] * 20)).high.__round__(3)
    0.168
    """
    known = ~np.isnan(values)
    names = np.arange(len(values)) if clusters is None else clusters
    estimate, units = clustered_mean(values[known], names[known])
    found = rate_interval(estimate, level, units=units)
    if math.isnan(found.low) or not 0 < found.estimate < 1:
        return found
    equal = estimate.n_effective == estimate.n_clusters
    return _within_binomial(found) if equal and 0 <= units.min() <= units.max() <= 1 else found


def rate_interval(
    estimate: Estimate, level: float = 0.95, *, units: Array | None = None
) -> Interval:
    """An interval for a rate, by the delta method on the logit scale so that it stays inside (0, 1).

    Parameters
    ----------
    estimate
        The rate. Where it left (0, 1), as estimates with control variates may, the limits are Student's, cut there.
    level
        Level of the interval.
    units
        (clusters,) the mean score of each cluster. Where none lies above 1/2 the sample cannot tell how rare higher
        scores are, and the upper limit leaves room for a share of 1 - (alpha/2)^(1/n) of ones beside the units that
        were seen; mirrored below. Without it, a spread of nearly nothing (scores of .0005 in place of 0, or draws
        alone) would give limits of no width. None: only the estimates 0 and 1 are such corners.

    Unknown is not zero: with fewer than two clusters or without a standard error the limits are NaN, but for the
    exact one-sided binomial bound of the estimates 0 and 1.

    References: Brown, Cai and DasGupta 2001, Statistical Science 16 (the exact bound in the corners);
    test_intervals and benchmarks/interval_coverage.py simulate how often the limits hold the truth.
    """
    rate, n = estimate.value, estimate.n_clusters
    if not n or not math.isfinite(rate):
        return replace(estimate, value=math.nan).unknown(level)
    if rate in {0.0, 1.0} and not estimate.standard_error > 0:
        units = np.array([rate])
    elif n < 2 or not math.isfinite(estimate.standard_error):
        return estimate.unknown(level)
    low, high = _logit_limits(estimate, level)
    if units is not None:
        open_share = 1 - ((1 - level) / 2) ** (1 / max(1.0, estimate.n_effective))
        if not (units > 0.5).any():
            high = max(high, rate + (1 - rate) * open_share)
        if not (units < 0.5).any():
            low = min(low, rate * (1 - open_share))
    return estimate.interval(max(0.0, low), min(1.0, high), level)


def student_interval(
    estimate: Estimate,
    level: float = 0.95,
    *,
    within: tuple[float, float] = (-math.inf, math.inf),
) -> Interval:
    """Student's interval for a mean or a difference, cut at the ends of its scale.

    Unknown is not zero: without a standard error, or where the sample shows no spread, the limits are NaN.
    """
    error = estimate.standard_error
    if estimate.n_clusters < 2 or not has_spread(error, estimate.value) or math.isinf(error):
        return estimate.unknown(level)
    reach = estimate.reach(level)
    low, high = (
        min(max(end, within[0]), within[1])
        for end in (estimate.value - reach, estimate.value + reach)
    )
    return estimate.interval(low, high, level)


def clustered_mean(values: Array, clusters: NDArray | None = None) -> tuple[Estimate, Array]:
    """The mean with its clustered standard error; and the mean of each cluster (clusters,).

    ``values`` is (n,); rows with the same entry of ``clusters`` (n,) are dependent, such as several answers to one
    prompt (None: every row its own). The error is CR2 with Satterthwaite's degrees of freedom: it stays honest where
    one cluster holds a large share of the rows, and with clusters of one size it is CR1 with G - 1 degrees, for single
    rows the ordinary standard error of the mean.

    References: Bell and McCaffrey 2002, Survey Methodology 28 (CR2); Pustejovsky and Tipton 2018, Journal of Business
    and Economic Statistics 36 (degrees of freedom); Miller, Adding Error Bars to Evals, arXiv 2411.00640, eq. 4.
    """
    n = len(values)
    if n == 0:
        return Estimate(math.nan, math.nan, 0, 0), np.zeros(0)
    mean = float(values.mean())
    inverse = np.arange(n) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    size = np.bincount(inverse)
    units = np.bincount(inverse, weights=values) / size
    estimate = clustered_estimate(mean, np.bincount(inverse, weights=values - mean) / n, size)
    return estimate, units


def clustered_estimate(value: float, influence: Array, size: NDArray[np.integer]) -> Estimate:
    """An estimate whose error is the sum of its clusters' ``influence`` (G,); ``size`` (G,) is the rows of each."""
    groups = len(influence)
    if groups < 2:
        return Estimate(value, math.nan, groups, groups)
    if size.min() == size.max():
        error = math.sqrt(groups / (groups - 1) * float(influence @ influence))
        return Estimate.of_equal_clusters(value, error, groups)
    share = size / size.sum()
    error = math.sqrt(float((influence**2 / (1 - share)).sum()))
    return Estimate(value, error, groups, 1 + _satterthwaite(share))


def clustered_covariance(influence: Array, size: Array) -> tuple[Array, float]:
    """The covariance of estimates whose errors are sums over clusters, and the effective number of these.

    ``influence`` is (clusters, estimates), ``size`` (clusters,) the rows of each, of which 0 are none. Clusters of one
    size give CR1, others CR2, as of a mean, with the degrees of freedom of one.
    """
    there = size > 0
    groups = int(there.sum())
    if groups < 2:
        return np.full((influence.shape[1],) * 2, np.nan), groups
    influence, size = influence[there], size[there]
    if size.min() == size.max():
        return groups / (groups - 1) * (influence.T @ influence), groups
    share = size / size.sum()
    scaled = influence / np.sqrt(1 - share)[:, None]
    return scaled.T @ scaled, 1 + _satterthwaite(share)


def _satterthwaite(share: Array) -> float:
    """Degrees of freedom of the CR2 variance of a mean, rows of one variance, from the clusters' shares of the rows.

    The variance is a quadratic form in the residuals with the Gram matrix diag(d) - y y'.
    """
    d, y = share / (1 - share), share / np.sqrt(1 - share)
    squares = float((d**2 - 2 * d * y**2).sum()) + float(y @ y) ** 2
    return 1 / squares


def _within_binomial(found: Interval) -> Interval:
    """Limits cut at those of as many binary units; which are only computed where they cut, for they take long."""
    n, tail = found.n_clusters, (1 - found.level) / 2
    wins = n * found.estimate
    low, high = found.low, found.high
    if binomial_tail(wins, n, low) < tail:
        low = least_rate(wins, n, tail)
    if binomial_tail(n - wins, n, 1 - high) < tail:
        high = 1 - least_rate(n - wins, n, tail)
    return replace(found, low=low, high=high)


def _logit_limits(estimate: Estimate, level: float) -> tuple[float, float]:
    rate = estimate.value
    if rate in {0.0, 1.0} and not estimate.standard_error > 0:
        return rate, rate
    if not 0 < rate < 1:
        reach = estimate.reach(level)
        return rate - reach, rate + reach
    centre = math.log(rate / (1 - rate))
    reach = estimate.reach(level) / (rate * (1 - rate))
    return expit(centre - reach), expit(centre + reach)
