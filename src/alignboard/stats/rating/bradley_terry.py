"""Strengths from pairwise comparisons: Bradley-Terry by Newton's method, with intervals that cluster by prompt.

P(i beats j) = 1 / (1 + exp(theta_j - theta_i)). Only differences of log-strengths have a meaning; they are reported
with mean zero. Whether they exist at all is checked before anything is fitted: where one model never loses (or two
groups never met), the estimate is infinite (or arbitrary), and libraries that return numbers all the same have returned
1e-6 for every model on a board (evalica 0.4) or an interval of no width (arena-rank).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from alignboard.stats.rating.battles import (
    Array,
    Battles,
    Index,
    Mask,
    Sums,
    components,
    one_sided,
    pair_sums,
    require_rankable,
    summed,
)
from alignboard.stats.rating.kernel import kernels_for
from alignboard.stats.rating.solvers import maximise, minorise, newman
from alignboard.stats.student import student_quantile

ELO_PER_LOG_STRENGTH = 400 / math.log(10)
"""Elo's scale: 400 points are odds of ten to one."""

Solver = Literal["newton", "newman", "mm"]


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
    influence: Array
    """(cluster codes, models) what each cluster contributes to the error of the log-strengths, to first order"""
    hessian: Array
    """(models, models) of the log-likelihood, with the means fixed"""
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
        return float(expit(self.log_strength[i] - self.log_strength[j]))

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
    battles: Battles, n_models: int, *, prior_sd: float | None = None, solver: Solver = "newton"
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
    sums = pair_sums(battles, n_models)
    wins, component = sums.wins, components(sums.wins)
    if prior_sd is None:
        require_rankable(wins, component)
    precision = 0.0 if prior_sd is None else prior_sd**-2
    theta, hessian, steps = _solved(wins, component, precision, solver)
    influence, n_clusters = influence_on_strengths(battles, sums, theta, hessian)
    covariance = np.full((n_models, n_models), np.nan)
    if n_clusters > 1:
        covariance = n_clusters / (n_clusters - 1) * (influence.T @ influence)
    alone = np.bincount(component)[component] == 1
    theta[alone] = np.nan
    covariance[alone, :] = covariance[:, alone] = np.nan
    fit = BradleyTerryFit(
        theta,
        covariance,
        len(battles.score),
        n_clusters,
        component,
        prior_sd,
        steps,
        influence,
        hessian,
    )
    if prior_sd is None:
        return fit
    centred = np.eye(n_models) - _same(component)
    undefeated, winless = one_sided(wins)
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


def log_strengths(wins: Array) -> Array:
    """(models,) the log-strengths alone, from points of the row's model against the column's (models, models).

    Raises `NotRankableError` as `bradley_terry` does.
    """
    component = components(wins)
    require_rankable(wins, component)
    return _solved(wins, component, 0.0, "newton")[0]


def _solved(
    wins: Array, component: Index, precision: float, solver: Solver
) -> tuple[Array, Array, int]:
    """Log-strengths, the Hessian with the means fixed, and the number of steps; raises where they do not settle."""
    games = wins + wins.T
    fixed = _same(component)  # fixes the mean of each component without changing the optimum

    def derivatives(theta: Array) -> tuple[float, Array, Array]:
        gap = theta[:, None] - theta
        p = expit(gap)
        weight = games * p * (1 - p)
        value = float(-(wins * np.logaddexp(0, -gap)).sum() - precision / 2 * theta @ theta)
        gradient = (wins - games * p).sum(axis=1) - precision * theta
        hessian = np.diag(weight.sum(axis=1)) - weight + precision * np.eye(len(wins)) + fixed
        return value, gradient, hessian

    if solver == "newton":
        return maximise(derivatives, np.zeros(len(wins)))
    if precision:
        raise ValueError(f"the solver {solver} knows no prior; use newton")
    theta, steps = {"newman": newman, "mm": minorise}[solver](wins, fixed)
    return theta, derivatives(theta)[2], steps


def influence_on_strengths(
    battles: Battles, sums: Sums, theta: Array, hessian: Array
) -> tuple[Array, int]:
    """(cluster codes, models) what each cluster contributes to the error of the log-strengths; how many clusters."""
    n_models = len(theta)
    p = expit(theta[:, None] - theta).ravel()
    if sums.won is not None and sums.played is not None:
        first, second = np.divmod(np.arange(n_models**2), n_models)
        sides = np.eye(n_models)[first] - np.eye(n_models)[second]
        score = (sums.won - sums.played * p) @ sides
        n_clusters = int(sums.played.any(axis=1).sum())
    else:
        score, n_clusters = _by_rows(battles, p, n_models, *battles.codes)
    return np.asarray(np.linalg.solve(hessian, score.T).T, np.float64), n_clusters


def _by_rows(
    battles: Battles, p: Array, n_models: int, codes: NDArray[np.integer], n_codes: int
) -> tuple[Array, int]:
    """(codes, models) sums of residuals, where sums by cluster and pair are not kept; how many codes have a row."""
    kernels = kernels_for(len(battles.score))
    if kernels is not None and battles.weight is None:
        columns = (codes, battles.first, battles.second, battles.score)
        return kernels.by_cluster(*columns, p, n_models, n_codes)
    residual = battles.score - p[battles.first * n_models + battles.second]
    if battles.weight is not None:
        residual *= battles.weight
    cells, start = n_codes * n_models, codes.astype(np.intp) * n_models
    sums = summed(start + battles.first, residual, cells)
    sums -= summed(start + battles.second, residual, cells)
    return sums.reshape(n_codes, n_models), int(np.count_nonzero(np.bincount(codes)))


def two_way_covariance(
    battles: Battles, fit: BradleyTerryFit, second: NDArray
) -> tuple[Array, int]:
    """(models, models) covariance where rows of one prompt, or of one ``second`` (n,) such as annotator, are dependent.

    The sum of both sandwiches less that of their intersections, with negative eigenvalues set to 0; and the smaller
    number of clusters. References: Cameron, Gelbach and Miller 2011, Journal of Business and Economic Statistics 29.
    """
    n_models = len(fit.log_strength)
    p = expit(fit.log_strength[:, None] - fit.log_strength).ravel()
    one, two = battles.codes[0], np.unique(second, return_inverse=True)[1]
    both = np.unique(one * (int(two.max(initial=0)) + 1) + two, return_inverse=True)[1]
    total, fewest = np.zeros((n_models, n_models)), len(battles.score)
    for codes, sign in ((one, 1), (two, 1), (both, -1)):
        score, groups = _by_rows(battles, p, n_models, codes, int(codes.max()) + 1)
        if groups < 2:
            return np.full((n_models, n_models), np.nan), groups
        half = np.linalg.solve(fit.hessian, score.T)
        total += sign * groups / (groups - 1) * (half @ half.T)
        fewest = min(fewest, groups)
    values, vectors = np.linalg.eigh(total)
    return (vectors * np.maximum(values, 0)) @ vectors.T, fewest


def expit(x: Array) -> Array:
    """The logistic function, without overflow."""
    return 1 / (1 + np.exp(-np.clip(x, -700, 700)))
