"""Ranks with what the data leave open: simultaneous rank sets and groups of neighbours that are not separated."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alignboard.stats.intervals import has_spread
from alignboard.stats.multiplicity import holm
from alignboard.stats.paired import corner_p_values
from alignboard.stats.student import student_p_values

Array = NDArray[np.float64]
Index = NDArray[np.intp]

# Differences of scores in [0, 1] that are rounding errors.
_NO_DIFFERENCE = 1e-12


def rank_sets(difference: Array, adjusted_p: Array, alpha: float = 0.05) -> tuple[Index, Index]:
    """Best and worst rank of each model, all of them true at once with 1 - alpha.

    Parameters
    ----------
    difference
        (models, models) score of the row's model minus the column's.
    adjusted_p
        (models, models) p-values corrected over all pairs (`multiplicity`); NaN = not tested, hence not separated.
    alpha
        Error rate of the family.

    Returns
    -------
    low, high
        (models,) ranks from 1: one more than the models that are separately better, and the number of models less
        those that are separately worse.
    """
    separated = (adjusted_p < alpha) & ~np.eye(len(difference), dtype=np.bool_)
    better = (separated & (difference < 0)).sum(axis=1)
    worse = (separated & (difference > 0)).sum(axis=1)
    return 1 + better, len(difference) - worse


def simultaneous_ranks(score: Array, p: Array, alpha: float = 0.05) -> tuple[Index, Index]:
    """`rank_sets` of ``score`` (models,) by Holm's correction of ``p`` (models, models) over all pairs."""
    upper = np.triu_indices(len(p), 1)
    adjusted = np.full_like(p, np.nan)
    adjusted[upper] = holm(p[upper])
    return rank_sets(score[:, None] - score, np.fmax(adjusted, adjusted.T), alpha)


def difference_tests(score: Array, covariance: Array, degrees: float) -> Array:
    """(models, models) two-sided p-values that two scores are equal, by Student's t; NaN without an error."""
    variance = np.diag(covariance)
    error = np.sqrt(np.maximum(variance[:, None] + variance - 2 * covariance, 0))
    upper = np.triu_indices(len(score), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(has_spread(error), (score[:, None] - score) / error, np.nan)[upper]
    p = np.full(covariance.shape, np.nan)
    p[upper] = student_p_values(t, np.full(t.shape, degrees))
    return np.fmax(p, p.T)


def paired_rank_sets(score: Array, alpha: float = 0.05) -> tuple[Index, Index]:
    """Rank sets of models from their scores on shared prompts, by paired t tests and Holm's correction.

    ``score`` is (prompts, models), NaN where a model has none. The tests are those of `paired.paired_difference` with
    every prompt its own cluster, for all pairs at once.
    """
    # Models with every score first: pairs of them take half of the passes.
    gaps = np.isnan(score).any(axis=0)
    order, whole = np.argsort(gaps, kind="stable"), int((~gaps).sum())
    score, models = score[:, order], score.shape[1]
    difference, counts = np.zeros((models, models)), np.zeros((models, models))
    t, corner = np.full((models, models), np.nan), np.full((models, models), np.nan)
    for i in range(models - 1):
        between = max(i + 1, whole if i < whole else 0)
        for others in (slice(i + 1, between), slice(between, models)):
            delta = score[:, [i]] - score[:, others]
            n, mean, squares, least, most = _moments(delta, whole=others.stop == between)
            with np.errstate(invalid="ignore", divide="ignore"):
                error = np.sqrt(squares / (n * (n - 1)))
                t[i, others] = np.where(has_spread(error), mean / error, np.nan)
                bound = corner_p_values(mean, np.where(mean < 0, -most, least), n)
                moved = np.fmax(most, -least) > _NO_DIFFERENCE
                corner[i, others] = np.where((n > 1) & moved, bound, np.nan)
            counts[i, others] = n
            difference[i, others] = np.nan_to_num(mean)
    upper = np.triu_indices(models, 1)
    adjusted = np.full_like(t, np.nan)
    p = np.fmax(student_p_values(t[upper], counts[upper] - 1), corner[upper])
    adjusted[upper] = holm(p)
    low, high = np.empty((2, models), dtype=np.intp)
    low[order], high[order] = rank_sets(
        difference - difference.T, np.fmax(adjusted, adjusted.T), alpha
    )
    return low, high


def _moments(delta: Array, *, whole: bool) -> tuple[Array, Array, Array, Array, Array]:
    """(models,) how many of ``delta`` (prompts, models) are known, their mean, sum of squares about it, least and most.

    ``whole`` says that all are known; ``delta`` is then overwritten.
    """
    if whole:
        n = np.full(delta.shape[1], float(len(delta)))
        mean, least, most = delta.sum(axis=0) / n, delta.min(axis=0), delta.max(axis=0)
        delta -= mean
        return n, mean, np.square(delta, out=delta).sum(axis=0), least, most
    known = ~np.isnan(delta)
    n = known.sum(axis=0).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(known, delta, 0).sum(axis=0) / n
        squares = np.where(known, (delta - mean) ** 2, 0).sum(axis=0)
    least, most = (end.reduce(delta, axis=0, initial=np.nan) for end in (np.fmin, np.fmax))
    return n, mean, squares, least, most


def tie_groups(score: Array, adjusted_p: Array, alpha: float = 0.05) -> list[list[int]]:
    """The largest runs of neighbours in the order of ``score`` within which no pair is separated.

    Groups may overlap: "not separated" is no equivalence. Models in one group are not shown to be equal.
    """
    order = np.argsort(-score, kind="stable")
    separated = adjusted_p[np.ix_(order, order)] < alpha
    groups: list[list[int]] = []
    reached = 0
    for start in range(len(order)):
        end = start + 1
        while end < len(order) and not separated[start:end, end].any():
            end += 1
        if end > reached:
            groups.append(order[start:end].tolist())
            reached = end
    return groups


def probability_of_best(
    score: Array, influence: Array, *, draws: int, rng: np.random.Generator
) -> Array:
    """(models,) how often each has the highest score on new prompts, by draws from their joint normal law.

    ``influence`` is (units, models), each unit's contribution to the error of ``score`` (models,). Models that share
    the first place in a draw share it there.
    """
    # As many normal draws as models have the law of a multiplier for every unit.
    values, vectors = np.linalg.eigh(influence.T @ influence)
    root = vectors * np.sqrt(np.maximum(values, 0))
    drawn = score[:, None] + root @ rng.standard_normal((draws, len(score))).T
    first = drawn >= drawn.max(axis=0) - _NO_DIFFERENCE
    return (first / first.sum(axis=0)).mean(axis=1)
