"""Strengths from pairwise comparisons: Bradley-Terry by Newton's method, with intervals that cluster by prompt.

P(i beats j) = 1 / (1 + exp(theta_j - theta_i)). Only differences of log-strengths have a meaning; they are reported
with mean zero. Whether they exist at all is checked before anything is fitted: where one model never loses (or two
groups never met), the estimate is infinite (or arbitrary), and libraries that return numbers all the same have returned
1e-6 for every model on a board (evalica 0.4) or an interval of no width (arena-rank).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from alignboard.stats.intervals import clustered_covariance, known_errors
from alignboard.stats.logistic import expit
from alignboard.stats.ranks import difference_tests, simultaneous_ranks
from alignboard.stats.rating.battles import (
    Array,
    Battles,
    Index,
    Sums,
    classes,
    components,
    pair_sums,
    reachable,
    require_rankable,
    summed,
)
from alignboard.stats.rating.kernel import kernels_for
from alignboard.stats.rating.likelihood import log_likelihood
from alignboard.stats.rating.separation import Separation, separation
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
    """(models, models) cluster-robust, singular: the mean is fixed, with separate groups that of each"""
    n_battles: int
    n_clusters: int
    n_effective: float
    """as many clusters of one size would leave the errors as well known"""
    component: Index
    """(models,) models of different components have never met, not even through others"""
    prior_sd: float | None
    """standard deviation of the normal prior on log-strengths; None = none"""
    steps: int
    influence: Array
    """(cluster codes, models) what each cluster contributes to the error of the log-strengths, to first order"""
    hessian: Array
    """(models, models) of the log-likelihood, with the means fixed"""
    separation: Separation | None = None
    """groups of which one never came level with another: what bounds their distance"""

    @property
    def standard_error(self) -> Array:
        """(models,) of the log-strengths, by the sandwich; NaN where the clusters, or a single one, show no spread."""
        return known_errors(np.diag(self.covariance))

    def interval(self, level: float = 0.95) -> tuple[Array, Array]:
        """Lower and upper limits of the log-strengths, by Student's t with `n_effective` - 1 degrees of freedom.

        Where groups are separate, limits are those of distances from the largest group, whose own limits are the
        sandwich's; the others have one limit by profile likelihood, and none where their record does not tell their
        order.
        """
        if self.separation is None:
            reach = self._quantile(1 - (1 - level) / 2) * self.standard_error
            return self.log_strength - reach, self.log_strength + reach
        low, high = (
            np.full_like(self.log_strength, -np.inf),
            np.full_like(self.log_strength, np.inf),
        )
        for i in np.flatnonzero(np.isfinite(self.log_strength)).tolist():
            others = self.separation.reference[i]
            below, above = self.separation.bounded(i)
            centre = self.log_strength[others].mean()
            if below and above:
                contrast = others / -others.sum()
                contrast[i] += 1
                error = known_errors(contrast @ np.nan_to_num(self.covariance) @ contrast)
                reach = self._quantile(1 - (1 - level) / 2) * float(error)
                low[i], high[i] = self.log_strength[i] - reach, self.log_strength[i] + reach
            elif below or above:
                share = float(self.separation.independent[i])
                limits = self.separation.limits(i, others, share, level, above=below)
                low[i], high[i] = centre + limits[0], centre + limits[1]
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
        """``log_strength[i] - log_strength[j]`` and its standard error, both (models, models); NaN where unknown."""
        variance = np.diag(self.covariance)
        spread = variance[:, None] + variance - 2 * self.covariance
        apart = self.component[:, None] != self.component
        difference = self.log_strength[:, None] - self.log_strength
        error = known_errors(spread)
        separate = apart if self.separation is None else apart | self.separation.separate
        return np.where(apart, np.nan, difference), np.where(separate, np.nan, error)

    def difference_interval(self, i: int, j: int, level: float = 0.95) -> tuple[float, float]:
        """Limits of ``log_strength[i] - log_strength[j]``; infinite where the comparisons set none."""
        if self.component[i] != self.component[j]:
            return -math.inf, math.inf
        if self.separation is not None and self.separation.separate[i, j]:
            return self.separation.difference_limits(i, j, level)
        difference, error = (float(one[i, j]) for one in self.differences())
        reach = self._quantile(1 - (1 - level) / 2) * error
        return difference - reach, difference + reach

    def p_values(self) -> Array:
        """(models, models) two-sided, that two models are equally strong; NaN where that cannot be tested."""
        apart = self.component[:, None] != self.component
        p = difference_tests(self.log_strength, self.covariance, self.n_effective - 1)
        p[apart] = np.nan
        if self.separation is not None:
            for i, j in np.argwhere(np.triu(self.separation.separate & ~apart, 1)).tolist():
                p[i, j] = p[j, i] = self.separation.p_value(i, j)
        return p

    def rank_interval(self, level: float = 0.95) -> tuple[Index, Index]:
        """Best and worst rank of each model, all of them true at once: Holm over the tests of all differences."""
        return simultaneous_ranks(self.log_strength, self.p_values(), 1 - level)

    def _quantile(self, probability: float) -> float:
        return (
            student_quantile(probability, self.n_effective - 1) if self.n_clusters > 1 else math.nan
        )


def bradley_terry(
    battles: Battles, n_models: int, *, prior_sd: float | None = None, solver: Solver = "newton"
) -> BradleyTerryFit:
    """Maximum-likelihood log-strengths, a draw as half a win for either side.

    Raises `NotRankableError` where they do not exist: a group of models never lost to the others, or never met them
    (Ford's condition: the graph of who beat whom is strongly connected). With ``prior_sd`` such groups are placed by a
    normal prior on their means within a component, and the result says so; the prior touches neither the order inside
    a group nor any limit, and is not used where ratings exist without it.

    The covariance is the sandwich with scores added up within clusters and the factor G/(G-1), or, for clusters of
    several sizes, each one's own factor and Satterthwaite's degrees of freedom (`clustered_covariance`). Where a taste
    depends on the prompt, intervals that take rows for independent are far too narrow; test_rating simulates how often
    these hold the truth.

    References: Bradley and Terry 1952, Biometrika 39; Ford 1957, American Mathematical Monthly 64 (existence);
    Cameron and Miller 2015, Journal of Human Resources 50 (CR1). Differs from the first: draws and weighted verdicts
    enter as fractions of a win, which makes it a quasi-likelihood.
    """
    sums = pair_sums(battles, n_models)
    wins, component = sums.wins, components(sums.wins)
    prior = None
    if prior_sd is None:
        require_rankable(wins, component)
    else:
        prior = _prior_between_groups(wins, component, prior_sd)
    theta, hessian, steps = _solved(wins, component, prior, solver)
    apart = separation(battles, wins, component)
    p, information = _inside_groups(theta, hessian, apart)
    influence, size = influence_on_strengths(battles, sums, p, information)
    covariance, n_effective = clustered_covariance(influence, size)
    alone = np.bincount(component)[component] == 1
    theta[alone] = np.nan
    covariance[alone, :] = covariance[:, alone] = np.nan
    return BradleyTerryFit(
        theta,
        covariance,
        len(battles.score),
        int(np.count_nonzero(size)),
        n_effective,
        component,
        None if prior is None else prior_sd,
        steps,
        influence,
        hessian,
        apart,
    )


def _prior_between_groups(wins: Array, component: Index, prior_sd: float) -> Array | None:
    """(models, models) precision of the means of groups of which one never lost; None without such groups."""
    beat = reachable(wins > 0)
    group = classes(beat & beat.T)
    if group.max(initial=0) == component.max(initial=0):
        return None
    _, first = np.unique(group, return_index=True)
    off = (_same(group) - _same(component))[first]
    return off.T @ off / prior_sd**2


def _same(component: Index) -> Array:
    """(models, models) whose product with strengths is the mean of each model's component."""
    same = component[:, None] == component[None, :]
    return same / same.sum(axis=1)


def log_strengths(wins: Array) -> Array:
    """(models,) the log-strengths alone, from points of the row's model against the column's (models, models).

    Raises `NotRankableError` as `bradley_terry` does.
    """
    component = components(wins)
    require_rankable(wins, component)
    return _solved(wins, component, None, "newton")[0]


def _solved(
    wins: Array, component: Index, prior: Array | None, solver: Solver
) -> tuple[Array, Array, int]:
    """Log-strengths, the Hessian with the means fixed, and the number of steps; raises where they do not settle.

    ``prior`` (models, models) is the precision of a normal prior.
    """
    fixed = _same(component)  # fixes the mean of each component without changing the optimum

    def derivatives(theta: Array) -> tuple[float, Array, Array]:
        value, gradient, information = log_likelihood(theta, wins)
        if prior is None:
            return value, gradient, information + fixed
        pull = prior @ theta
        return value - float(theta @ pull) / 2, gradient - pull, information + prior + fixed

    if solver == "newton":
        return maximise(derivatives, np.zeros(len(wins)))
    if prior is not None:
        raise ValueError(f"the solver {solver} knows no prior; use newton")
    theta, steps = {"newman": newman, "mm": minorise}[solver](wins, fixed)
    return theta, derivatives(theta)[2], steps


def _inside_groups(theta: Array, hessian: Array, apart: Separation | None) -> tuple[Array, Array]:
    """(models x models) probabilities that the row's model wins, and the information of the sandwich.

    What groups did to each other says nothing of how the strengths inside them scatter.
    """
    p = expit(theta[:, None] - theta)
    if apart is None:
        return p.ravel(), hessian
    inside = np.where(apart.separate, 0, apart.wins)
    information = log_likelihood(theta, inside)[2] + _same(apart.group)
    return np.where(apart.separate, apart.reach, p).ravel(), information


def influence_on_strengths(
    battles: Battles, sums: Sums, p: Array, hessian: Array
) -> tuple[Array, Array]:
    """(cluster codes, models) what each cluster contributes to the error of the log-strengths; (cluster codes,) its
    comparisons.

    ``p`` (models x models) is the probability that the row's model beats the column's.
    """
    n_models = len(hessian)
    if sums.won is not None and sums.played is not None:
        first, second = np.divmod(np.arange(n_models**2), n_models)
        sides = np.eye(n_models)[first] - np.eye(n_models)[second]
        score = (sums.won - sums.played * p) @ sides
        size = sums.played.sum(axis=1)
    else:
        score, size = _by_rows(battles, p, n_models, *battles.codes)
    return np.asarray(np.linalg.solve(hessian, score.T).T, np.float64), size


def _by_rows(
    battles: Battles, p: Array, n_models: int, codes: NDArray[np.integer], n_codes: int
) -> tuple[Array, Array]:
    """(codes, models) sums of residuals, where sums by cluster and pair are not kept; (codes,) the comparisons."""
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
    return sums.reshape(n_codes, n_models), summed(codes, battles.weight, n_codes)


def two_way_covariance(
    battles: Battles, fit: BradleyTerryFit, second: NDArray
) -> tuple[Array, float]:
    """(models, models) covariance where rows of one prompt, or of one ``second`` (n,) such as annotator, are dependent.

    The sum of both sandwiches less that of their intersections, with negative eigenvalues set to 0; and the smaller
    effective number of clusters. References: Cameron, Gelbach and Miller 2011, Journal of Business and Economic
    Statistics 29. Differs from it: clusters of several sizes have each its own factor (`clustered_covariance`).
    """
    n_models = len(fit.log_strength)
    p, information = _inside_groups(np.nan_to_num(fit.log_strength), fit.hessian, fit.separation)
    one, two = battles.codes[0], np.unique(second, return_inverse=True)[1]
    both = np.unique(one * (int(two.max(initial=0)) + 1) + two, return_inverse=True)[1]
    total, fewest = np.zeros((n_models, n_models)), float(len(battles.score))
    for codes, sign in ((one, 1), (two, 1), (both, -1)):
        score, size = _by_rows(battles, p, n_models, codes, int(codes.max()) + 1)
        influence = np.asarray(np.linalg.solve(information, score.T).T, np.float64)
        covariance, known = clustered_covariance(influence, size)
        if np.isnan(covariance).all():
            return covariance, known
        total += sign * covariance
        fewest = min(fewest, known)
    values, vectors = np.linalg.eigh(total)
    return (vectors * np.maximum(values, 0)) @ vectors.T, fewest
