"""Paired differences of two models on the prompts that both have: estimates, clustered intervals, exact tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from alignboard.stats.intervals import Estimate, clustered_estimate, has_spread
from alignboard.stats.student import student_p_value

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PairedDifference:
    """A minus B, with the units that it rests on."""

    estimate: float
    standard_error: float
    """CR2 over clusters; NaN with fewer than two"""
    low: float
    high: float
    level: float
    p_value: float
    """two-sided: below 1 - ``level`` where the limits exclude 0; the larger of that of Student's t with ``n_effective``
    - 1 degrees of freedom and ``corner_p``; NaN where neither is known"""
    corner_p: float
    """that units which favour the other model by far are only too rare to be among these; NaN where it is not known"""
    far: tuple[bool, bool] | None
    """whether some unit favours B, and A, by more than half of the scale; None where single units are not known"""
    n: int
    """rows in common, or the union of instructions for length-controlled differences"""
    n_clusters: int
    n_effective: float
    """as many clusters of one size would leave the error as well known"""
    only_a: int
    """scored rows of A that B lacks"""
    only_b: int
    identical: bool
    """every common row has the same score: no difference was seen, which is no test of one; the limits are those that
    so many rows leave open"""
    influence: Array = field(repr=False)
    """(clusters,) contributions to the estimate's error; their sum is 0"""

    @property
    def t(self) -> float:
        """Estimate over standard error; NaN where the error is not known."""
        return self.estimate / self.standard_error if self.standard_error > 0 else math.nan

    def with_fewer_units(self, units: int) -> PairedDifference:
        """The same with an error that only ``units`` units make known: wider limits, a larger p-value."""
        known = Estimate(self.estimate, self.standard_error, self.n_clusters, units)
        reach = known.reach(self.level)
        return replace(
            self,
            low=max(-1.0, float(np.fmin(self.low, self.estimate - reach))),
            high=min(1.0, float(np.fmax(self.high, self.estimate + reach))),
            p_value=float(np.fmax(student_p_value(self.t, units - 1), self.corner_p)),
            n_effective=units,
        )


@dataclass(frozen=True)
class McNemar:
    """A sign test on the discordant pairs of two binary results."""

    only_a: int
    only_b: int
    exact: float
    mid_p: float


def paired_difference(
    score_a: Array,
    score_b: Array,
    clusters: NDArray | None = None,
    *,
    level: float = 0.95,
    estimated: bool = False,
) -> PairedDifference:
    """The mean of A - B over the rows that both have.

    Parameters
    ----------
    score_a, score_b
        (n,) scores in [0, 1] of the same prompts, NaN where a model has none. Such rows are left out and counted.
    clusters
        (n,) rows of one cluster are dependent: a conversation, a passage. None: every row its own.
    level
        Level of the interval.
    estimated
        Whether scores are unbiased estimates, such as order-balanced ones, of which single values may leave [0, 1].

    References: Miller, Adding Error Bars to Evals, arXiv 2411.00640, section 4 (paired differences, clustered).
    Where few prompts are discordant the t interval would be far too short; a limit then also allows for the largest
    difference that as many units without a contrary sign leave open.
    """
    for name, score in (("score_a", score_a), ("score_b", score_b)):
        if not estimated and np.any((score < 0) | (score > 1)):
            raise ValueError(f"{name} must lie in [0, 1]; NaN marks a missing score")
    has_a, has_b = ~np.isnan(score_a), ~np.isnan(score_b)
    both = has_a & has_b
    delta = score_a[both] - score_b[both]
    names = np.arange(len(delta)) if clusters is None else clusters[both]
    inverse = numbered(names)
    size = np.bincount(inverse)
    n = len(delta)
    mean = float(delta.mean()) if n else math.nan
    total = np.bincount(inverse, weights=delta)
    influence = np.asarray((total - mean * size) / n) if n else np.zeros(0)
    return _paired(
        clustered_estimate(mean, influence, size),
        influence,
        level,
        n=n,
        only=(int((has_a & ~has_b).sum()), int((has_b & ~has_a).sum())),
        identical=bool(n) and not delta.any(),
        units=total / size,
    )


def numbered(names: NDArray) -> NDArray[np.intp]:
    """(n,) ``names`` of clusters as numbers from 0 in their order; small numbers are counted, which is quicker.

    >>> numbered(np.array([7, 2, 7])).tolist(), numbered(np.array(["b", "a", "b"])).tolist()
    ([1, 0, 1], [1, 0, 1])
    """
    if (
        len(names)
        and names.dtype.kind in "iu"
        and names.min() >= 0
        and names.max() < 4 * len(names)
    ):
        there = np.bincount(names) > 0
        return (np.cumsum(there) - 1)[names]
    return np.unique(names, return_inverse=True)[1]


def influence_difference(
    estimate_a: float,
    estimate_b: float,
    influence_a: Array,
    influence_b: Array,
    clusters: NDArray | None = None,
    *,
    level: float = 0.95,
) -> PairedDifference:
    """The difference of two estimates whose errors are sums over shared instructions.

    ``influence_a`` and ``influence_b`` are (units,) over the union of the two models' instructions, NaN where a model
    lacks one, which then contributes nothing; ``clusters`` (units,) as in `paired_difference`. Used for
    length-controlled win rates, each at its own stated C, given the calibration rows and the difficulties.
    """
    has_a, has_b = ~np.isnan(influence_a), ~np.isnan(influence_b)
    psi = np.where(has_a, influence_a, 0.0) - np.where(has_b, influence_b, 0.0)
    n = len(psi)
    names = np.arange(n) if clusters is None else clusters
    inverse = numbered(names)
    psi = np.bincount(inverse, weights=psi).astype(np.float64)
    return _paired(
        clustered_estimate(estimate_a - estimate_b, psi, np.bincount(inverse)),
        psi,
        level,
        n=n,
        only=(int((has_a & ~has_b).sum()), int((has_b & ~has_a).sum())),
        identical=bool(n) and not psi.any() and estimate_a == estimate_b,
        units=None,
    )


def mean_of_strata(strata: Sequence[PairedDifference]) -> PairedDifference:
    """The unweighted mean of differences on disjoint sets of prompts, such as the tasks of a suite.

    The tasks are given, their prompts are the sample: variances add up, with Satterthwaite's degrees of freedom.

    References: Welch 1947, Biometrika 34.
    """
    k = len(strata)
    level = strata[0].level
    estimate = sum(one.estimate for one in strata) / k
    variances = [(one.standard_error / k) ** 2 for one in strata if not one.identical]
    freedoms = [one.n_effective - 1 for one in strata if not one.identical]
    total = sum(variances)
    spread = (
        total**2 / sum(v * v / f for v, f in zip(variances, freedoms, strict=True))
        if total > 0
        else math.nan
    )
    groups = sum(one.n_clusters for one in strata)
    known = Estimate(estimate, math.sqrt(total) if total > 0 else math.nan, groups, 1 + spread)
    return _paired(
        known,
        np.concatenate([one.influence / k for one in strata]),
        level,
        n=sum(one.n for one in strata),
        only=(sum(one.only_a for one in strata), sum(one.only_b for one in strata)),
        identical=all(one.identical for one in strata),
        units=None,
    )


def equivalence_p_value(found: PairedDifference, margin: float) -> float:
    """Two one-sided tests that the difference lies within -``margin`` and ``margin``; NaN where its error is unknown.

    Below alpha where the limits of level 1 - 2 alpha lie there: a side to which no unit went far asks for as many units
    as show that hardly any does.

    References: Schuirmann 1987, Journal of Pharmacokinetics and Biopharmaceutics 15.
    """
    if not found.standard_error > 0:
        return math.nan
    t = (margin - abs(found.estimate)) / found.standard_error
    tail = student_p_value(t, found.n_effective - 1) / 2
    p = tail if t >= 0 else 1 - tail
    for side, seen in zip((-1, 1), found.far or (), strict=False):
        if not seen and margin < 1:
            ratio = (1 - margin) / (1 - side * found.estimate)
            p = max(p, min(1.0, ratio ** max(1.0, found.n_effective)))
    return p


def mcnemar(only_a: int, only_b: int) -> McNemar:
    """Exact and mid-p tests of ``only_a`` against ``only_b`` discordant pairs.

    >>> round(mcnemar(15, 4).exact, 11)
    0.01921081543

    References: Fagerland, Lydersen and Laake 2013, BMC Medical Research Methodology 13 (mid-p).
    """
    n, smaller = only_a + only_b, min(only_a, only_b)
    if not n:
        return McNemar(only_a, only_b, 1.0, 1.0)
    tail = sum(math.comb(n, k) for k in range(smaller + 1))
    at = math.comb(n, smaller)
    whole = 2**n
    mid = 1.0 if only_a == only_b else (2 * tail - at) / whole
    return McNemar(only_a, only_b, min(1.0, 2 * tail / whole), min(1.0, mid))


def sign_flip_p_value(
    delta: Array, *, rng: np.random.Generator, exact_below: int = 50, draws: int = 20_000
) -> float:
    """Two-sided test of a zero mean from the signs that ``delta`` (n,), one value a cluster, could have had.

    All 2^m sign patterns of the m values that are not zero where m < ``exact_below`` (45 values take half a second,
    49 three and 0.8 GB), else ``draws`` random ones with the observed one counted.

    References: van de Wiel 2001, Computational Statistics 16 (the split-up algorithm).
    """
    moved = delta[delta != 0]
    if not len(moved):
        return math.nan
    observed = abs(float(moved.sum())) * (1 - 1e-12)
    if len(moved) >= exact_below:
        signs = rng.choice([-1.0, 1.0], size=(draws, len(moved)))
        return (1 + int((np.abs(signs @ moved) >= observed).sum())) / (draws + 1)
    one, other = (_sorted_sums(half) for half in np.array_split(moved, 2))
    # Sums of all values are sums of a half's and the other's; signs are symmetric, so one tail is half of both.
    patterns = len(one) * len(other)
    short = int(np.searchsorted(one, observed - other[::-1]).sum())
    return min(1.0, 2 * (patterns - short) / patterns)


def _sorted_sums(values: Array) -> Array:
    """(2^m,) the sums of ``values`` (m,) with all signs, in order."""
    sums = np.zeros(1)
    for value in np.abs(values):
        sums = np.concatenate([sums - value, sums + value])
        sums.sort(kind="stable")  # which merges two runs in order
    return sums


def _paired(
    estimate: Estimate,
    influence: Array,
    level: float,
    *,
    n: int,
    only: tuple[int, int],
    identical: bool,
    units: Array | None,
) -> PairedDifference:
    error, freedom = estimate.standard_error, estimate.n_effective - 1
    if identical or not has_spread(error):
        estimate, error = replace(estimate, standard_error=math.nan), math.nan
    reach = estimate.reach(level)
    low, high = estimate.value - reach, estimate.value + reach
    p_value = student_p_value(estimate.value / error, freedom) if error > 0 else math.nan
    corner_p = math.nan
    if units is not None and len(units) > 1:
        if not identical:
            least = float((units * math.copysign(1, estimate.value)).min())
            corner_p = float(corner_p_values(estimate.value, least, estimate.n_effective))
        corner = _corner(units, estimate, level)
        low = max(-1.0, float(np.fmin(low, corner[0])))
        high = min(1.0, float(np.fmax(high, corner[1])))
    return PairedDifference(
        estimate.value,
        error,
        low,
        high,
        level,
        float(np.fmax(p_value, corner_p)),
        corner_p,
        None if units is None else (bool((units < -0.5).any()), bool((units > 0.5).any())),
        n,
        estimate.n_clusters,
        estimate.n_effective,
        *only,
        identical,
        influence,
    )


def corner_p_values(mean: Array | float, least: Array | float, n_effective: Array | float) -> Array:
    """p-values of mean differences, by the rule of `_corner`: the levels at which its limits reach 0.

    ``least`` is the unit that favours the other model most, negative where it does: beyond half of the scale it shows
    how rare such units are, and the rule asks for nothing. Where every unit is 1 this is the exact test of signs.
    """
    bound = 2 * (1 + np.abs(mean)) ** -np.maximum(1.0, n_effective)
    return np.where(least < -0.5, 0.0, np.minimum(1.0, bound))


def _corner(units: Array, estimate: Estimate, level: float) -> tuple[float, float]:
    """Limits that hold where nearly no unit (clusters,) moved beyond half of the scale in one direction.

    None of G units above 1/2 leaves open a share of 1 - (alpha/2)^(1/G) of full differences; mirrored below.
    """
    mean = estimate.value
    open_share = 1 - ((1 - level) / 2) ** (1 / max(1.0, estimate.n_effective))
    high = mean + (1 - mean) * open_share if not (units > 0.5).any() else mean
    low = mean - (1 + mean) * open_share if not (units < -0.5).any() else mean
    return low, high
