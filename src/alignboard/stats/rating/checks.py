"""Whether ratings describe the comparisons: pair rates against predicted ones, cycles, and how few prompts decide."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from alignboard.stats.multiplicity import holm
from alignboard.stats.rating.battles import (
    Array,
    Battles,
    Index,
    NotRankableError,
    reachable,
    summed,
)
from alignboard.stats.rating.bradley_terry import BradleyTerryFit, bradley_terry, expit
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


def pair_fits(battles: Battles, fit: BradleyTerryFit) -> list[PairFit]:
    """Every pair that met, the worst described first.

    The strengths are estimated from the same comparisons, which makes the tests cautious.
    """
    theta = fit.log_strength
    pairs, n, score, error = _by_pair(battles, theta)
    predicted = expit(theta[pairs[0]] - theta[pairs[1]])
    t = (score - n * predicted) / error
    p = holm(np.array([student_p_value(float(one), fit.n_clusters - 1) for one in t]))
    found = [
        PairFit(int(i), int(j), float(m), float(s / m), float(expected), float(q))
        for i, j, m, s, expected, q in zip(*pairs, n, score, predicted, p, strict=True)
    ]
    return sorted(found, key=lambda one: -abs(one.observed - one.predicted) * math.sqrt(one.n))


def certain_cycles(battles: Battles, fit: BradleyTerryFit, alpha: float = 0.05) -> list[list[int]]:
    """Groups of models that beat each other in a circle, every edge of it certain at once with 1 - ``alpha``."""
    k = len(fit.log_strength)
    pairs, n, score, error = _by_pair(battles, np.zeros(k))
    t = (score - n / 2) / error
    p = holm(np.array([student_p_value(float(one), fit.n_clusters - 1) for one in t]))
    beats = np.zeros((k, k), dtype=np.bool_)
    for i, j, statistic, q in zip(*pairs, t, p, strict=True):
        if q < alpha:
            beats[(i, j) if statistic > 0 else (j, i)] = True
    reach = reachable(beats)
    both = reach & reach.T
    groups = {tuple(np.flatnonzero(row).tolist()) for row in both}
    return sorted(list(group) for group in groups if len(group) > 1)


def _by_pair(battles: Battles, theta: Array) -> tuple[Index, Array, Array, Array]:
    """Pairs (2, pairs), their numbers of comparisons, points of the first, and clustered errors of these points.

    The errors are those of the residuals from the strengths ``theta``.
    """
    n_models = len(theta)
    swap = battles.first > battles.second
    low, high = (
        np.where(swap, battles.second, battles.first),
        np.where(swap, battles.first, battles.second),
    )
    score = np.where(swap, 1 - battles.score, battles.score)
    weight = np.ones(len(score)) if battles.weight is None else battles.weight
    codes, groups, n_codes = battles.clusters
    cell, inverse = np.unique((low * n_models + high) * n_codes + codes, return_inverse=True)
    pair, place = np.unique(cell // n_codes, return_inverse=True)
    played = summed(inverse, weight, len(cell))
    points = summed(inverse, weight * score, len(cell))
    n, total = summed(place, played, len(pair)), summed(place, points, len(pair))
    pairs = np.stack(np.divmod(pair, n_models))
    rate = expit(theta[pairs[0]] - theta[pairs[1]])
    squares = summed(place, (points - played * rate[place]) ** 2, len(pair))
    scale = groups / (groups - 1) if groups > 1 else math.nan
    error = np.sqrt(np.where(squares > 0, squares, math.nan) * scale)
    return pairs, n, total, error


def fragility(battles: Battles, fit: BradleyTerryFit) -> list[Fragility]:
    """For every two neighbours in rank, the fewest prompts whose removal changes their order, the first place first.

    The prompts are chosen by their influence on the difference, to first order, and the change is confirmed by fitting
    without them; one by one more are taken where the first guess does not do.

    References: Huang et al., arXiv 2508.11847; Broderick, Giordano and Meager, arXiv 2011.14999.
    """
    order = [
        int(i)
        for i in np.argsort(-fit.log_strength, kind="stable")
        if math.isfinite(fit.log_strength[i])
    ]
    return [_fragile(battles, fit, i, j) for i, j in itertools.pairwise(order)]


def _fragile(battles: Battles, fit: BradleyTerryFit, better: int, worse: int) -> Fragility:
    gap = fit.log_strength[better] - fit.log_strength[worse]
    # Without a cluster the estimate moves by its influence over 1 less its share: to first order by the influence.
    push = fit.influence[:, better] - fit.influence[:, worse]
    codes, groups, _ = battles.clusters
    order = np.argsort(-push, kind="stable")
    reached = np.cumsum(np.maximum(push[order], 0))
    guess = int(np.searchsorted(reached, gap)) + 1
    size = guess
    while size <= groups // 2:
        removed = order[:size]
        if _reversed(battles, len(fit.log_strength), removed, codes, better, worse):
            return Fragility(better, worse, size, np.sort(removed))
        size += max(1, size // 10)
    return Fragility(better, worse, None, np.zeros(0, dtype=np.intp))


def _reversed(
    battles: Battles, n_models: int, removed: Index, codes: Index, better: int, worse: int
) -> bool:
    keep = ~np.isin(codes, removed)
    if not keep.any():
        return False
    rest = Battles(
        battles.first[keep],
        battles.second[keep],
        battles.score[keep],
        codes[keep],
        None if battles.weight is None else battles.weight[keep],
    )
    try:
        fit = bradley_terry(rest, n_models)
    except NotRankableError:
        return False
    return bool(fit.log_strength[better] <= fit.log_strength[worse])
