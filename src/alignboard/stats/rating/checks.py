"""Whether ratings describe the comparisons: pair rates against predicted ones, cycles, and how few prompts decide."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from alignboard.stats.intervals import has_spread
from alignboard.stats.logistic import expit
from alignboard.stats.multiplicity import holm
from alignboard.stats.rating.battles import (
    Array,
    Battles,
    Index,
    NotRankableError,
    Sums,
    added_up,
    reachable,
    summed,
)
from alignboard.stats.rating.bradley_terry import BradleyTerryFit, log_strengths
from alignboard.stats.student import student_p_value


@dataclass(frozen=True)
class PairFit:
    """One pair's observed share of points against the share that the strengths predict."""

    first: int
    second: int
    n: float
    observed: float
    predicted: float
    adjusted_p: float
    """that the two are equal: Student's t clustered by prompt, corrected by Holm; NaN where it cannot be tested"""


@dataclass(frozen=True)
class Fragility:
    """How few clusters decide the order of two neighbours."""

    better: int
    worse: int
    n_removed: int | None
    """the fewest clusters found whose removal changes the order, confirmed by a refit; None: no half of them does"""
    removed: Index
    """their codes"""


def pair_fits(battles: Battles, fit: BradleyTerryFit, sums: Sums) -> list[PairFit]:
    """Every pair that met, the worst described first; ``sums`` are those of `added_up`.

    The strengths are estimated from the same comparisons, which makes the tests cautious.
    """
    theta = fit.log_strength
    pairs, n, score, error = _by_pair(battles, theta, sums)
    predicted = expit(theta[pairs[0]] - theta[pairs[1]])
    t = (score - n * predicted) / error
    p = holm(np.array([student_p_value(float(one), fit.n_effective - 1) for one in t]))
    found = [
        PairFit(int(i), int(j), float(m), float(s / m), float(expected), float(q))
        for i, j, m, s, expected, q in zip(*pairs, n, score, predicted, p, strict=True)
    ]
    return sorted(found, key=lambda one: -abs(one.observed - one.predicted) * math.sqrt(one.n))


def certain_cycles(
    battles: Battles, fit: BradleyTerryFit, sums: Sums, alpha: float = 0.05
) -> list[list[int]]:
    """Groups of models that beat each other in a circle, every edge of it certain at once with 1 - ``alpha``."""
    k = len(fit.log_strength)
    pairs, n, score, error = _by_pair(battles, np.zeros(k), sums)
    t = (score - n / 2) / error
    p = holm(np.array([student_p_value(float(one), fit.n_effective - 1) for one in t]))
    beats = np.zeros((k, k), dtype=np.bool_)
    for i, j, statistic, q in zip(*pairs, t, p, strict=True):
        if q < alpha:
            beats[(i, j) if statistic > 0 else (j, i)] = True
    reach = reachable(beats)
    both = reach & reach.T
    groups = {tuple(np.flatnonzero(row).tolist()) for row in both}
    return sorted(list(group) for group in groups if len(group) > 1)


def _by_pair(battles: Battles, theta: Array, sums: Sums) -> tuple[Index, Array, Array, Array]:
    """Pairs (2, pairs), their numbers of comparisons, points of the first, and clustered errors of these points.

    The errors are those of the residuals from the strengths ``theta``.
    """
    k = len(theta)
    groups = battles.n_clusters
    pairs = np.stack(np.triu_indices(k, 1))
    rate = expit(theta[pairs[0]] - theta[pairs[1]])
    found = sums.by_pair(k)
    if found is not None:
        points, played = found
        n, total = played.sum(axis=0), points.sum(axis=0)
        squares = ((points - played * rate) ** 2).sum(axis=0)
    else:
        n, total, squares = _by_rows(battles, k, rate)
    met = n > 0
    scale = groups / (groups - 1) if groups > 1 else math.nan
    error = np.sqrt(np.where(squares > 0, squares, math.nan) * scale)
    return pairs[:, met], n[met], total[met], error[met]


def _by_rows(battles: Battles, k: int, rate: Array) -> tuple[Array, Array, Array]:
    """(pairs,) comparisons, points of the first, and squared sums of residuals, by sorting."""
    low, high = np.minimum(battles.first, battles.second), np.maximum(battles.first, battles.second)
    score = np.where(battles.first > battles.second, 1 - battles.score, battles.score)
    weight = np.ones(len(score)) if battles.weight is None else battles.weight
    low, high = low.astype(np.intp), high.astype(np.intp)
    number = low * k - low * (low + 1) // 2 + high - low - 1
    codes, n_codes = battles.codes
    cell, inverse = np.unique(number * n_codes + codes, return_inverse=True)
    pair = cell // n_codes
    played = summed(inverse, weight, len(cell))
    points = summed(inverse, weight * score, len(cell))
    residual = points - played * rate[pair]
    size = len(rate)
    return summed(pair, played, size), summed(pair, points, size), summed(pair, residual**2, size)


def fragility(battles: Battles, fit: BradleyTerryFit, sums: Sums) -> list[Fragility]:
    """For every two neighbours in rank, the fewest prompts whose removal changes their order, the first place first.

    The prompts are chosen by their influence on the difference, to first order, and the change is confirmed by fitting
    without them; one by one more are taken where the first guess does not do. Between equal strengths it takes none.

    References: Huang et al., arXiv 2508.11847; Broderick, Giordano and Meager, arXiv 2011.14999.
    """
    order = [
        int(i)
        for i in np.argsort(-fit.log_strength, kind="stable")
        if math.isfinite(fit.log_strength[i])
    ]
    return [_fragile(battles, sums, fit, i, j) for i, j in itertools.pairwise(order)]


def _fragile(
    battles: Battles, sums: Sums, fit: BradleyTerryFit, better: int, worse: int
) -> Fragility:
    gap = float(fit.log_strength[better] - fit.log_strength[worse])
    if not has_spread(gap):
        return Fragility(better, worse, 0, np.zeros(0, dtype=np.intp))
    push = fit.influence[:, better] - fit.influence[:, worse]
    order = np.argsort(-push, kind="stable")
    size = int(np.searchsorted(np.cumsum(np.maximum(push[order], 0)), gap)) + 1
    while size <= fit.n_clusters // 2:
        removed = order[:size]
        try:
            again = log_strengths(sums.wins - _wins_of(battles, sums, removed))
        except NotRankableError:
            break
        if again[better] <= again[worse]:
            return Fragility(better, worse, size, np.sort(removed))
        size += max(1, size // 10)
    return Fragility(better, worse, None, np.zeros(0, dtype=np.intp))


def _wins_of(battles: Battles, sums: Sums, clusters: Index) -> Array:
    """(models, models) the points that some clusters gave."""
    k = len(sums.wins)
    if sums.won is not None and sums.played is not None:
        won = sums.won[clusters].sum(axis=0).reshape(k, k)
        return won + (sums.played[clusters].sum(axis=0).reshape(k, k) - won).T
    codes, n_codes = battles.codes
    chosen = np.zeros(n_codes, dtype=np.bool_)
    chosen[clusters] = True
    keep = chosen[codes]
    weight = None if battles.weight is None else battles.weight[keep]
    rest = Battles(
        battles.first[keep], battles.second[keep], battles.score[keep], codes[keep], weight
    )
    return added_up(rest, k).wins
