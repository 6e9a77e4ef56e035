"""Bradley-Terry with covariates: differences of length and style, the place shown, and how sharply a judge decides.

logit P(first wins) = a_judge (theta_first - theta_second) + x beta. A term of the place shown is a column of x that is
1 where the first of the pair was shown first, -1 where second, 0 for other judges.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alignboard.stats.intervals import clustered_covariance
from alignboard.stats.logistic import expit
from alignboard.stats.rating.battles import (
    Array,
    Battles,
    Index,
    NotRankableError,
    added_up,
    components,
    require_rankable,
    summed,
)
from alignboard.stats.rating.solvers import maximise

_ROWS_AT_ONCE = 100_000


@dataclass(frozen=True)
class CovariateFit:
    """Log-strengths at equal covariates, with what the covariates do."""

    log_strength: Array
    """(models,) with mean zero"""
    coefficient: Array
    """(features,) in log odds per unit"""
    discrimination: Array
    """(judges,) with geometric mean 1; empty where judges were not told apart"""
    covariance: Array
    """(models + features + judges, the same) cluster-robust; judges on the log scale"""
    n_effective: float
    """clusters; see `BradleyTerryFit`"""


@dataclass(frozen=True)
class _Model:
    battles: Battles
    n_models: int
    features: Array
    judge: Index | None
    n_judges: int

    @property
    def size(self) -> int:
        return self.n_models + self.features.shape[1] + self.n_judges

    def parts(self, x: Array) -> Iterator[tuple[slice, Array, Array, Array]]:
        """Rows, their linear predictor, the factor of the strengths, and the derivatives by what is not a strength."""
        k, q = self.n_models, self.features.shape[1]
        theta, beta, log_a = x[:k], x[k : k + q], x[k + q :]
        for start in range(0, len(self.battles.score), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            gap = theta[self.battles.first[rows]] - theta[self.battles.second[rows]]
            beside = self.features[rows]
            factor = np.ones(len(gap))
            if self.judge is not None:
                factor = np.exp(log_a)[self.judge[rows]]
                own = np.zeros((len(gap), self.n_judges))
                own[np.arange(len(gap)), self.judge[rows]] = factor * gap
                beside = np.hstack([beside, own])
            yield rows, factor * gap + self.features[rows] @ beta, factor, beside

    def weights(self, rows: slice) -> Array | float:
        return 1.0 if self.battles.weight is None else self.battles.weight[rows]

    def derivatives(self, x: Array) -> tuple[float, Array, Array]:
        k = self.n_models
        value, gradient, information = 0.0, np.zeros(self.size), self._gauges()
        for rows, eta, factor, beside in self.parts(x):
            first, second = self.battles.first[rows], self.battles.second[rows]
            p, weight = expit(eta), self.weights(rows)
            score = self.battles.score[rows]
            value -= float((weight * (np.logaddexp(0, eta) - score * eta)).sum())
            residual, w = weight * (score - p), weight * p * (1 - p)
            gradient[:k] += _signed(first, second, residual * factor, k)
            gradient[k:] += residual @ beside
            pair = summed(first * k + second, w * factor**2, k * k).reshape(k, k)
            pair += pair.T
            information[:k, :k] += np.diag(pair.sum(axis=1)) - pair
            for column, values in enumerate(beside.T, start=k):
                across = _signed(first, second, w * factor * values, k)
                information[:k, column] += across
                information[column, :k] += across
            information[k:, k:] += (beside.T * w) @ beside
        return value, gradient, information

    def cluster_scores(self, x: Array) -> tuple[Array, Array]:
        """(cluster codes, parameters) the gradient of each cluster; (cluster codes,) its comparisons."""
        codes, n_codes = self.battles.codes
        k = self.n_models
        scores = np.zeros((n_codes, self.size))
        for rows, eta, factor, beside in self.parts(x):
            p = expit(eta)
            residual = self.weights(rows) * (self.battles.score[rows] - p)
            own = codes[rows]
            for place, sign in ((self.battles.first, 1), (self.battles.second, -1)):
                sums = summed(own * k + place[rows], sign * residual * factor, n_codes * k)
                scores[:, :k] += sums.reshape(n_codes, k)
            for column, values in enumerate(beside.T, start=k):
                scores[:, column] += summed(own, residual * values, n_codes)
        return scores, summed(codes, self.battles.weight, n_codes)

    def _gauges(self) -> Array:
        """What fixes the mean of the strengths, and of the judges' logarithms."""
        fixed = np.zeros((self.size, self.size))
        fixed[: self.n_models, : self.n_models] = 1 / self.n_models
        if self.n_judges:
            fixed[-self.n_judges :, -self.n_judges :] = 1 / self.n_judges
        return fixed


def with_covariates(
    battles: Battles, n_models: int, features: Array, judge: Index | None = None
) -> CovariateFit:
    """Fit strengths and covariates together, intervals clustered as in `bradley_terry`.

    Parameters
    ----------
    battles
        The comparisons; scores between 0 and 1 enter as a quasi-likelihood.
    n_models
        Number of models.
    features
        (n, features) differences of the first response and the second, such as of standardised lengths.
    judge
        (n,) numbers of judges from 0: each decides with a sharpness of its own. None: all alike.

    Raises
    ------
    NotRankableError
        Where the comparisons do not determine strengths, or covariates, or how sharp a judge is.
    ValueError
        Where a covariate cannot be told from the strengths or from the others.

    References: Xu et al., arXiv 2601.21817 (discrimination of judges); Agresti, Categorical Data Analysis (2002),
    section 10.6 (order effects); Li et al., style control of LMArena (2024).
    """
    if not np.isfinite(features).all():
        raise ValueError("covariates must be finite numbers")
    wins = added_up(battles, n_models).wins
    require_rankable(wins, components(wins))
    n_judges = 0 if judge is None else int(judge.max(initial=-1)) + 1
    model = _Model(battles, n_models, features, judge, n_judges)
    start = np.zeros(model.size)
    information = model.derivatives(
        start if judge is None else start + 0.01 * np.arange(len(start))
    )[2]
    if np.linalg.matrix_rank(information) < model.size:
        raise ValueError(
            "a covariate cannot be told from the strengths or the other covariates; leave it out"
        )
    if (
        judge is not None
    ):  # with equal strengths nothing is known of sharpness: start from the plain fit
        start[:n_models] = with_covariates(battles, n_models, features).log_strength
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            x, information, _ = maximise(model.derivatives, start)
    except (ArithmeticError, np.linalg.LinAlgError) as error:
        raise NotRankableError(
            "The comparisons determine no finite effect of a covariate or sharpness of a judge, which fits them ever "
            "better as it grows. Leave it out (--method bt, without --style), or compare more.",
            [list(range(n_models))],
            [],
        ) from error
    scores, size = model.cluster_scores(x)
    influence = np.asarray(np.linalg.solve(information, scores.T).T, np.float64)
    covariance, n_effective = clustered_covariance(influence, size)
    q = features.shape[1]
    return CovariateFit(
        x[:n_models],
        x[n_models : n_models + q],
        np.exp(x[n_models + q :]),
        covariance,
        n_effective,
    )


def _signed(
    first: NDArray[np.integer], second: NDArray[np.integer], values: Array, n_models: int
) -> Array:
    """(models,) sums of ``values`` over the rows where a model is first, less those where it is second."""
    return summed(first, values, n_models) - summed(second, values, n_models)
