"""Strengths from pairwise comparisons: Bradley-Terry by Newton's method, with intervals that cluster by prompt.

P(i beats j) = 1 / (1 + exp(theta_j - theta_i)). Only differences of log-strengths have a meaning; they are reported
with mean zero. Whether they exist at all is checked before anything is fitted: where one model never loses (or two
groups never met), the estimate is infinite (or arbitrary), and libraries that return numbers all the same have returned
1e-6 for every model on a board (evalica 0.4) or an interval of no width (arena-rank).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from alignboard.stats.student import student_quantile

Array = NDArray[np.float64]
Index = NDArray[np.intp]
Mask = NDArray[np.bool_]

ELO_PER_LOG_STRENGTH = 400 / math.log(10)
"""Elo's scale: 400 points are odds of ten to one."""

_MAX_STEPS = 100
_TOLERANCE = 1e-10


class NotRankableError(ValueError):
    """Strengths that the comparisons do not determine.

    ``groups`` are the models that can be ranked among themselves, the strongest group first where they have met.
    """

    def __init__(self, message: str, groups: list[list[int]]) -> None:
        super().__init__(message)
        self.groups = groups


@dataclass(frozen=True)
class Battles:
    """Comparisons as columns, each (n,)."""

    first: Index
    second: Index
    score: Array
    """1 = the first won, 0 = the second, 0.5 = a draw, between = how sure the judge is"""
    cluster: NDArray
    """comparisons of one cluster are dependent: the prompt"""

    def __post_init__(self) -> None:
        if not len(self.first) == len(self.second) == len(self.score) == len(self.cluster):
            raise ValueError("first, second, score and cluster must have one length")
        if np.any(self.first == self.second):
            raise ValueError("a model was compared with itself")
        if len(self.score) and not (
            self.score.min() >= 0 and self.score.max() <= 1
        ):  # NaN is neither
            raise ValueError("scores must lie in [0, 1]; leave out what was not scored")


@dataclass(frozen=True)
class BradleyTerryFit:
    """Log-strengths with what they are conditional on."""

    log_strength: Array
    """(models,) with mean zero (within each component); NaN for a model without comparisons"""
    covariance: Array
    """(models, models) cluster-robust, singular: the mean is fixed"""
    n_battles: int
    n_clusters: int
    component: Index
    """(models,) models of different components have never met, not even through others"""
    prior_sd: float | None
    """standard deviation of the normal prior on log-strengths; None = none"""
    steps: int
    prior_covariance: Array | None = None
    """(models, models) inverse Hessian, with a prior: what the comparisons and the prior together leave open. The
    sandwich measures how residuals scatter, which is hardly at all for a model that never lost"""
    undefeated: Mask | None = None
    """(models,) with a prior: of a group that never lost to others, and whose strength has no upper limit"""
    winless: Mask | None = None
    """(models,) with a prior: of a group that never won against others, and whose strength has no lower limit"""

    @property
    def standard_error(self) -> Array:
        """(models,) of the log-strengths, the larger one of sandwich and prior; NaN with fewer than two clusters."""
        variance = np.diag(self.covariance)
        if self.prior_covariance is not None:
            variance = np.maximum(variance, np.diag(self.prior_covariance))
        return np.sqrt(variance)

    def interval(self, level: float = 0.95) -> tuple[Array, Array]:
        """Lower and upper limits of the log-strengths, by Student's t with clusters - 1 degrees of freedom.

        An undefeated model has no upper limit, a winless one no lower one.
        """
        reach = self._quantile(1 - (1 - level) / 2) * self.standard_error
        low, high = self.log_strength - reach, self.log_strength + reach
        if self.undefeated is not None and self.winless is not None:
            low, high = (
                np.where(self.winless, -np.inf, low),
                np.where(self.undefeated, np.inf, high),
            )
        return low, high

    def elo(self, centre: float = 1000.0) -> Array:
        """(models,) on Elo's scale; the mean is ``centre``."""
        return centre + ELO_PER_LOG_STRENGTH * self.log_strength

    def elo_interval(self, level: float = 0.95, centre: float = 1000.0) -> tuple[Array, Array]:
        """Lower and upper limits on Elo's scale."""
        low, high = self.interval(level)
        return centre + ELO_PER_LOG_STRENGTH * low, centre + ELO_PER_LOG_STRENGTH * high

    def win_probability(self, i: int, j: int) -> float:
        """P(i beats j), a draw counted as half; NaN where the two are in different components."""
        if self.component[i] != self.component[j]:
            return math.nan
        return float(_expit(self.log_strength[i] - self.log_strength[j]))

    def differences(self) -> tuple[Array, Array]:
        """``log_strength[i] - log_strength[j]`` and its standard error, both (models, models)."""
        spread = _of_differences(self.covariance)
        if self.prior_covariance is not None:
            spread = np.maximum(spread, _of_differences(self.prior_covariance))
        apart = self.component[:, None] != self.component[None, :]
        difference = self.log_strength[:, None] - self.log_strength[None, :]
        error = np.sqrt(np.maximum(spread, 0))
        return np.where(apart, np.nan, difference), np.where(apart, np.nan, error)

    def rank_interval(self, level: float = 0.95) -> tuple[Index, Index]:
        """Best and worst rank of each model: how many others are surely better, and how many surely worse.

        Sure means that the difference, not two overlapping intervals, excludes zero, at a level that holds for a
        model's whole row (Bonferroni over its comparisons).
        """
        difference, error = self.differences()
        models = len(self.log_strength)
        reach = self._quantile(1 - (1 - level) / (2 * max(1, models - 1))) * error
        better = np.sum(difference + reach < 0, axis=1)
        worse = np.sum(difference - reach > 0, axis=1)
        return 1 + better, models - worse

    def _quantile(self, probability: float) -> float:
        return (
            student_quantile(probability, self.n_clusters - 1) if self.n_clusters > 1 else math.nan
        )


def bradley_terry(
    battles: Battles, n_models: int, *, prior_sd: float | None = None
) -> BradleyTerryFit:
    """Maximum-likelihood log-strengths, a draw as half a win for either side.

    Raises `NotRankableError` where they do not exist: a group of models never lost to the others, or never met them
    (Ford's condition: the graph of who beat whom is strongly connected). With ``prior_sd`` every log-strength has a
    normal prior around the mean of its component, and the fit always exists; the result says so, its errors are those
    of prior and likelihood together or larger, and limits that the comparisons do not set are infinite.

    The covariance is the sandwich with scores added up within clusters and the factor G/(G-1). Where a judge's taste
    depends on the prompt, intervals that take rows for independent are far too narrow; test_rating simulates
    how often these hold the truth.

    References: Bradley and Terry 1952, Biometrika 39; Ford 1957, American Mathematical Monthly 64 (existence);
    Cameron and Miller 2015, Journal of Human Resources 50 (CR1). Differs from the first: draws and weighted verdicts
    enter as fractions of a win, which makes it a quasi-likelihood.
    """
    pair = battles.first * n_models + battles.second
    played = np.bincount(pair, minlength=n_models**2).reshape(n_models, n_models)
    won = np.bincount(pair, battles.score, n_models**2).reshape(n_models, n_models)
    wins = np.asarray(won + (played - won).T, dtype=np.float64)
    component = _labels(_reachable((wins + wins.T) > 0))
    if prior_sd is None:
        _require_rankable(wins, component)
    precision = 0.0 if prior_sd is None else prior_sd**-2
    theta, hessian, steps = _newton(wins, component, precision)
    covariance, n_clusters = _sandwich(battles, pair, theta, hessian)
    alone = np.bincount(component)[component] == 1
    theta[alone] = np.nan
    covariance[alone, :] = covariance[:, alone] = np.nan
    fit = BradleyTerryFit(
        theta, covariance, len(battles.score), n_clusters, component, prior_sd, steps
    )
    if prior_sd is None:
        return fit
    centred = np.eye(n_models) - _same(component)
    undefeated, winless = _one_sided(wins)
    return replace(
        fit,
        prior_covariance=centred @ np.linalg.inv(hessian) @ centred,
        undefeated=undefeated,
        winless=winless,
    )


def _same(component: Index) -> Array:
    """(models, models) whose product with strengths is the mean of each model's component."""
    same = component[:, None] == component[None, :]
    return same / same.sum(axis=1)


def _of_differences(covariance: Array) -> Array:
    """(models, models) variances of differences."""
    variance = np.diag(covariance)
    return variance[:, None] + variance[None, :] - 2 * covariance


def _one_sided(wins: Array) -> tuple[Mask, Mask]:
    """(models,) whether a model is in a group that never lost a point to others; and in one that never won one."""
    beat = _reachable(wins > 0)
    above = np.asarray((beat & ~beat.T).any(axis=1))
    below = np.asarray((beat.T & ~beat).any(axis=1))
    return above & ~below, below & ~above


def _newton(wins: Array, component: Index, precision: float) -> tuple[Array, Array, int]:
    """Log-strengths, the Hessian with the means fixed, and the number of steps; raises where they do not settle."""
    games = wins + wins.T
    fixed = _same(component)  # fixes the mean of each component without changing the optimum
    theta = np.zeros(len(wins))
    value = _log_likelihood(wins, theta, precision)
    for step in range(1, _MAX_STEPS + 1):
        p = _expit(theta[:, None] - theta[None, :])
        gradient = (wins - games * p).sum(axis=1) - precision * theta
        weight = games * p * (1 - p)
        hessian = np.diag(weight.sum(axis=1)) - weight + precision * np.eye(len(wins)) + fixed
        move = np.linalg.solve(hessian, gradient)
        if np.max(np.abs(move), initial=0.0) < _TOLERANCE:
            return theta, hessian, step
        theta, value = _climb(wins, theta, move, value, precision)
        theta = theta - fixed @ theta
    raise ArithmeticError(f"The log-strengths did not settle within {_MAX_STEPS} steps.")


def _climb(
    wins: Array, theta: Array, move: Array, value: float, precision: float
) -> tuple[Array, float]:
    """A step along ``move`` that does not lower the log-likelihood; halved where it would."""
    for halvings in range(30):
        candidate = theta + move / 2**halvings
        reached = _log_likelihood(wins, candidate, precision)
        if reached >= value - 1e-12 * abs(value):
            return candidate, reached
    raise ArithmeticError("No step along Newton's direction raises the likelihood.")


def _log_likelihood(wins: Array, theta: Array, precision: float) -> float:
    difference = theta[:, None] - theta[None, :]
    return float(-(wins * np.logaddexp(0, -difference)).sum() - precision / 2 * theta @ theta)


def _sandwich(battles: Battles, pair: Index, theta: Array, hessian: Array) -> tuple[Array, int]:
    """CR1 covariance of the log-strengths and the number of clusters; NaN with fewer than two."""
    cluster, n_clusters, n_codes = _coded(battles.cluster)
    n_models = len(theta)
    if n_clusters < 2:
        return np.full((n_models, n_models), np.nan), n_clusters
    residual = battles.score - _expit(theta[:, None] - theta).ravel()[pair]
    cells = n_codes * n_models
    start = cluster * n_models
    sums = np.bincount(start + battles.first, residual, cells)
    sums -= np.bincount(start + battles.second, residual, cells)
    sums = sums.reshape(n_codes, n_models)
    half = np.linalg.solve(hessian, sums.T)  # (models, clusters)
    return n_clusters / (n_clusters - 1) * (half @ half.T), n_clusters


def _coded(cluster: NDArray) -> tuple[Index, int, int]:
    """(n,) the clusters as numbers below the last of the result; how many there are; how many numbers.

    Numbers that are already dense stay: sorting a million of them takes longer than everything else.
    """
    dense = cluster.dtype.kind in "iu" and len(cluster) and cluster.min() >= 0
    if dense and cluster.max() <= len(cluster):
        counts = np.bincount(cluster)
        return cluster.astype(np.intp, copy=False), int(np.count_nonzero(counts)), len(counts)
    names, codes = np.unique(cluster, return_inverse=True)
    return codes.astype(np.intp, copy=False), len(names), len(names)


def _require_rankable(wins: Array, component: Index) -> None:
    parts = [np.flatnonzero(component == c).tolist() for c in range(component.max(initial=-1) + 1)]
    if len(parts) > 1:
        raise NotRankableError(
            f"The models fall into {len(parts)} groups that were never compared with each other; rank each group by "
            "itself, or compare across.",
            parts,
        )
    beat = _reachable(wins > 0)
    groups = _labels(beat & beat.T)
    if groups.max(initial=0) == 0:
        return
    found = [np.flatnonzero(groups == g).tolist() for g in range(groups.max() + 1)]
    found.sort(key=lambda group: -int(beat[group[0]].sum()))
    raise NotRankableError(
        f"The models fall into {len(found)} groups of which one never lost a point to another: their distance is "
        "infinite. Compare more, or state a prior (prior_sd).",
        found,
    )


def _reachable(edges: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(k, k) whether j can be reached from i, itself included: squares the relation until it stays."""
    reach = edges | np.eye(len(edges), dtype=bool)
    while True:
        further = (reach.astype(np.float32) @ reach.astype(np.float32)) > 0
        if np.array_equal(further, reach):
            return reach
        reach = further


def _labels(related: NDArray[np.bool_]) -> Index:
    """(k,) numbers of the classes of an equivalence relation, by first member."""
    first = related.argmax(axis=1)
    return np.unique(first, return_inverse=True)[1].astype(np.intp)


def _expit(x: Array) -> Array:
    return 1 / (1 + np.exp(-np.clip(x, -700, 700)))
