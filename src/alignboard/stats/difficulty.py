"""Instruction difficulties from the verdicts themselves, for any instruction set and any judge.

AlpacaEval's 805 difficulties come from a joint regression over its early models and are of no use for other
prompts or judges. The same regression on the models at hand gives difficulties for theirs::

    logit P(m preferred on i) = bias_m + w_len_m * t_mi + difficulty_i,   difficulty_i ~ N(0, tau^2)

with t the length feature of `length_control`. The normal prior keeps instructions that every model wins or loses
finite; tau^2 is estimated by the usual fixed point of empirical Bayes. The difficulties then enter each model's own
length-controlled fit, where their scale does not matter.

References: Dubois et al., arXiv 2404.04475, section 3.1 (joint fit with psi_m - psi_b = 1, then one fit per model).
Differs from the paper: the prior, without which many difficulties would be infinite.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from alignboard.stats.logistic import expit

Array = NDArray[np.float64]
Index = NDArray[np.intp]

_MAX_STEPS = 200
_TOLERANCE = 1e-8
# Newton's next step is of the order of this one's square.
_LAST_STEP = 1e-6
# Standard deviations of 0.01 (no difference that could be told) to 10 on the logit scale.
_LOG_VARIANCE_LIMITS = (math.log(1e-4), math.log(100))
_BRACKET_STEP = math.log(8)


@dataclass(frozen=True)
class DifficultyFit:
    """Difficulties of the N instructions and what they were estimated with."""

    difficulty: Array
    """(N,) on the logit scale; higher = easier to win against the baseline"""
    bias: Array
    """(M,)"""
    length_weight: Array
    """(M,)"""
    prior_variance: float
    dispersion: float
    """variance of a score about its mean, in units of p (1 - p): 1 for binary verdicts, less for soft ones"""
    n_rows: int


def fit_difficulty(
    model: Index, instruction: Index, score: Array, length_feature: Array
) -> DifficultyFit:
    """Joint fit over rows of several models; every argument is (r,).

    ``model`` and ``instruction`` count from 0; ``score`` is in [0, 1] (NaN rows are left out);
    ``length_feature`` is tanh of the standardised length difference. Raises `ValueError` with fewer than two models:
    one model's verdicts cannot tell a hard instruction from a bad answer.
    """
    kept = ~np.isnan(score)
    n_models, n_instructions = int(model.max()) + 1, int(instruction.max()) + 1
    if len(np.unique(model[kept])) < 2:
        raise ValueError("Difficulties need the verdicts on at least two models.")
    rows = _laid_out(
        model[kept],
        instruction[kept],
        score[kept],
        length_feature[kept],
        (n_models, n_instructions),
    )
    start = _Settled(np.zeros(2 * n_models), np.zeros(n_instructions), 0.0, 1.0)
    fit, ratio = _empirical_bayes(rows, start)
    beta = fit.beta
    return DifficultyFit(
        fit.gamma,
        beta[:n_models],
        beta[n_models:],
        ratio * fit.dispersion,
        fit.dispersion,
        int(kept.sum()),
    )


def difficulties_of_others(
    model: Index, instruction: Index, score: Array, length_feature: Array, n_instructions: int
) -> Array:
    """(M, N) difficulties for every model, each from the verdicts on the other models; arguments as `fit_difficulty`.

    A difficulty that holds a model's own verdict takes a part of it away: with two models, intervals that took such
    difficulties as known held the truth in 72 % of boards. The prior variance is that of the fit to all models.
    """
    n_models = int(model.max()) + 1
    rows = _laid_out(model, instruction, score, length_feature, (n_models, n_instructions))
    start = _Settled(np.zeros(2 * n_models), np.zeros(n_instructions), 0.0, 1.0)
    fit, ratio = _empirical_bayes(rows, start)
    found = _without_own(rows, fit, ratio)
    if n_models > _MOST_LEFT_OUT:
        return found
    for own, near in enumerate(found):
        found[own] = _settle(rows.without(own), fit.beta, near, ratio).gamma
    return found


def _without_own(rows: _Rows, fit: _Settled, ratio: float) -> Array:
    """(M, N) as `difficulties_of_others`, by one Newton step from the fit to all models with the others' weights held.

    At the optimum the gradient of a difficulty is zero, so without a model's rows it is minus theirs: the step is their
    residual over the curvature that is left. It differs from a fit by less than half a percent of their spread.
    """
    p = _probability(rows, fit.beta, fit.gamma)
    residual = (rows.there * (rows.score - p)).sum(axis=0)
    weight = (rows.there * p * (1 - p)).sum(axis=0)
    return fit.gamma - residual / (weight.sum(axis=0) + 1 / ratio - weight)


@dataclass(frozen=True)
class _Rows:
    """Rows at their places, each array (L, M, N): sums over a table are quicker than sums by key.

    The first layer holds the first row of a model on an instruction, the next one the second, where there is one.
    """

    there: Array
    """1 where there is a row, else 0"""
    score: Array
    length: Array

    def without(self, model: int) -> _Rows:
        """The rows of the other models."""
        there = self.there.copy()
        there[:, model] = 0
        return replace(self, there=there)


def _laid_out(
    model: Index, instruction: Index, score: Array, length: Array, shape: tuple[int, int]
) -> _Rows:
    cell = model * shape[1] + instruction
    order = np.argsort(cell, kind="stable")
    _, first, count = np.unique(cell[order], return_index=True, return_counts=True)
    layer = np.empty(len(cell), np.intp)
    layer[order] = np.arange(len(cell)) - np.repeat(first, count)
    whole = (int(count.max(initial=1)), *shape)
    tables = [np.zeros(whole) for _ in range(3)]
    for table, values in zip(tables, (1.0, score, length), strict=True):
        table[layer, model, instruction] = values
    return _Rows(*tables)


# A weak prior on each model's own two weights, for models that win or lose everything (standard deviation 10).
_WEIGHT_PRECISION = 0.01
_MOST_LEFT_OUT = 40
"""models up to which each is left out by a fit of its own; for more a step from the common fit is as good"""


@dataclass(frozen=True)
class _Settled:
    """The optimum for one ratio of the prior variance to the dispersion."""

    beta: Array
    gamma: Array
    excess: float
    """log of how much more variance the difficulties speak for than the prior has"""
    dispersion: float


def _empirical_bayes(rows: _Rows, start: _Settled) -> tuple[_Settled, float]:
    """The optimum at the ratio of prior variance to dispersion at which `_settle` finds no excess, and that ratio.

    The usual fixed-point iteration creeps where there are few models; the root of the same equation on the log scale
    is found by bracketing and false position (Illinois). Data that speak for less or more get the nearest limit.
    """
    here = 0.0
    fit = _settle(rows, start.beta, start.gamma, 1.0)
    end = _LOG_VARIANCE_LIMITS[int(fit.excess > 0)]
    last, before = here, fit.excess
    while fit.excess * before > 0 and here != end:
        last, before = here, fit.excess
        here += math.copysign(min(_BRACKET_STEP, abs(end - here)), end - here)
        fit = _settle(rows, fit.beta, fit.gamma, math.exp(here))
    if fit.excess * before > 0:
        return fit, math.exp(here)
    while abs(here - last) > _TOLERANCE and abs(fit.excess) > _TOLERANCE:
        new = (last * fit.excess - here * before) / (fit.excess - before)
        found = _settle(rows, fit.beta, fit.gamma, math.exp(new))
        if found.excess * fit.excess < 0:
            last, before = here, fit.excess
        else:
            before /= 2
        here, fit = new, found
    return fit, math.exp(here)


def _settle(rows: _Rows, beta: Array, gamma: Array, ratio: float) -> _Settled:
    """The optimum for one ratio of prior variance to dispersion."""
    for _ in range(_MAX_STEPS):
        step_beta, step_gamma, posterior = _newton_step(rows, beta, gamma, ratio)
        # A step of more than 2 on the logit scale is outside of what the quadratic model knows about.
        largest = max(np.abs(step_beta).max(), np.abs(step_gamma).max())
        scale = min(1.0, 2 / largest) if largest else 1.0
        beta, gamma = beta + scale * step_beta, gamma + scale * step_gamma
        if scale * largest < _LAST_STEP:
            # gamma'gamma / dispersion + sum(posterior) = N * ratio, the fixed point of empirical Bayes for the ratio.
            spent = float((1 - posterior / ratio).sum())
            dispersion = _dispersion(rows, beta, gamma, len(beta) + spent)
            squares = max(float(gamma @ gamma) / dispersion, 1e-300)
            return _Settled(beta, gamma, math.log(squares / (ratio * spent)), dispersion)
    raise ArithmeticError(f"The difficulties did not settle within {_MAX_STEPS} steps.")


def _dispersion(rows: _Rows, beta: Array, gamma: Array, n_parameters: float) -> float:
    """How far scores scatter, in units of a binary verdict's variance; 1 where all are binary.

    References: McCullagh and Nelder, Generalized Linear Models (1989), section 9.2 (quasi-likelihood).
    """
    if np.isin(rows.score, (0.0, 1.0)).all():
        return 1.0
    p = _probability(rows, beta, gamma)
    n = float(rows.there.sum())
    spread = float((rows.there * (rows.score - p) ** 2).sum())
    spread /= float((rows.there * p * (1 - p)).sum())
    free = max(1.0, n - n_parameters)
    return min(1.0, max(spread * n / free, 1e-6))


def _probability(rows: _Rows, beta: Array, gamma: Array) -> Array:
    """(L, M, N)"""
    n_models = len(beta) // 2
    z = beta[n_models:, None] * rows.length + beta[:n_models, None]
    z += gamma
    return expit(np.clip(z, -35, 35, out=z))


def _newton_step(
    rows: _Rows, beta: Array, gamma: Array, variance: float
) -> tuple[Array, Array, Array]:
    """One Newton step for (beta, gamma) and the posterior variance of each difficulty.

    The Hessian is [[A, B], [B', D]] with D diagonal and A of one 2 x 2 block for each model, so the step takes one
    solve of the smaller side's size: 2M weights or N difficulties (Schur complement).
    """
    n_models, n_instructions = len(beta) // 2, len(gamma)
    t = rows.length
    p = _probability(rows, beta, gamma)
    residual = (rows.score - p) * rows.there
    weight = p * (1 - p) * rows.there
    weight_t = weight * t
    gradient_beta = np.concatenate(
        [residual.sum(axis=(0, 2)), np.einsum("lmn,lmn->m", residual, t)]
    )
    gradient_beta -= _WEIGHT_PRECISION * beta
    gradient_gamma = residual.sum(axis=(0, 1)) - gamma / variance
    cross = np.concatenate([weight.sum(axis=0), weight_t.sum(axis=0)])
    d = weight.sum(axis=(0, 1)) + 1 / variance
    own = cross.sum(axis=1).reshape(2, n_models)
    own = (*own, np.einsum("lmn,lmn->m", weight_t, t))
    a = np.array([[own[0], own[1]], [own[1], own[2]]]).transpose(2, 0, 1)
    a = a + _WEIGHT_PRECISION * np.eye(2)
    if 2 * n_models < n_instructions:
        half = cross / np.sqrt(d)
        schur = _whole(a) - half @ half.T  # a product with its own transpose takes half the time
        step_beta = np.linalg.solve(schur, gradient_beta - cross @ (gradient_gamma / d))
        step_gamma = (gradient_gamma - cross.T @ step_beta) / d
    else:
        solved = _by_model(a, cross)
        schur = np.diag(d) - cross.T @ solved
        step_gamma = np.linalg.solve(schur, gradient_gamma - solved.T @ gradient_beta)
        step_beta = _by_model(a, gradient_beta - cross @ step_gamma)
    return np.asarray(step_beta, np.float64), np.asarray(step_gamma, np.float64), 1 / d


def _whole(a: Array) -> Array:
    """The (2M, 2M) matrix of the models' (M, 2, 2) blocks: first all first weights, then all second ones."""
    n_models = len(a)
    found = np.zeros((2 * n_models, 2 * n_models))
    own = np.arange(n_models)
    for row in range(2):
        for column in range(2):
            found[row * n_models + own, column * n_models + own] = a[:, row, column]
    return found


def _by_model(a: Array, values: Array) -> Array:
    """A^-1 ``values``, A being the matrix of the models' blocks ``a``; ``values`` has 2M rows."""
    n_models = len(a)
    pairs = values.reshape(2, n_models, -1).transpose(1, 0, 2)  # (M, 2, columns)
    found = np.linalg.solve(a, pairs).transpose(1, 0, 2).reshape(values.shape)
    return np.asarray(found, np.float64)
