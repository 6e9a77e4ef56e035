"""Comparisons as encoded columns, their sums by pair and cluster, and whether they determine a rating."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from alignboard.stats.rating.kernel import kernels_for

Array = NDArray[np.float64]
Index = NDArray[np.intp]
Mask = NDArray[np.bool_]

# Sums by cluster and pair are kept where there are at most so many of them for each comparison.
_CELLS_PER_ROW = 4


class NotRankableError(ValueError):
    """Strengths that the comparisons do not determine.

    ``groups`` are the models that can be ranked among themselves, the strongest group first where they have met.
    ``missing`` are pairs, one of each two neighbouring groups, whose comparison would connect or determine the board.
    """

    def __init__(
        self, message: str, groups: list[list[int]], missing: list[tuple[int, int]]
    ) -> None:
        super().__init__(message)
        self.groups = groups
        self.missing = missing


@dataclass(frozen=True)
class Battles:
    """Comparisons as columns, each (n,)."""

    first: NDArray[np.integer]
    second: NDArray[np.integer]
    score: Array
    """1 = the first won, 0 = the second, 0.5 = a draw, between = how sure the judge is"""
    cluster: NDArray
    """comparisons of one cluster are dependent: the prompt"""
    weight: Array | None = None
    """how many comparisons each stands for; None: one"""
    estimated: bool = False
    """whether scores are unbiased estimates, of which single ones may leave [0, 1]"""

    def __post_init__(self) -> None:
        columns = [self.second, self.score, self.cluster]
        columns += [] if self.weight is None else [self.weight]
        if any(len(column) != len(self.first) for column in columns):
            raise ValueError("first, second, score, cluster and weight must have one length")
        if np.any(self.first == self.second):
            raise ValueError("a model was compared with itself")
        bounded = len(self.score) == 0 or (self.score.min() >= 0 and self.score.max() <= 1)
        if self.estimated:
            bounded = bool(np.isfinite(self.score).all())
        if not bounded:  # NaN is neither
            raise ValueError("scores must lie in [0, 1]; leave out what was not scored")
        if (
            self.weight is not None
            and len(self.weight)
            and not (self.weight.min() > 0 and np.isfinite(self.weight).all())
        ):
            raise ValueError(
                "weights must be finite numbers above 0; leave out what does not count"
            )

    @cached_property
    def codes(self) -> tuple[NDArray[np.integer], int]:
        """(n,) the clusters as numbers from 0, and one more than the largest.

        Numbers that are already dense stay: sorting a million of them takes longer than everything else.
        """
        cluster = self.cluster
        if cluster.dtype.kind in "iu" and len(cluster) and cluster.min() >= 0:
            largest = int(cluster.max())
            if largest <= len(cluster):
                return cluster, largest + 1
        names, codes = np.unique(cluster, return_inverse=True)
        return codes.astype(np.intp, copy=False), len(names)

    @cached_property
    def n_clusters(self) -> int:
        """How many clusters there are."""
        codes, n_codes = self.codes
        there = np.zeros(n_codes, dtype=np.bool_)
        there[codes] = True
        return int(there.sum())


@dataclass(frozen=True)
class Sums:
    """What a fit needs of the comparisons, added up in one pass."""

    wins: Array
    """(models, models) points of the row's model against the column's"""
    won: Array | None
    """(cluster codes, models x models) points of the first of each pair; None where there are too many cells"""
    played: Array | None
    """the same, comparisons"""

    def by_pair(self, n_models: int) -> tuple[Array, Array] | None:
        """(clusters, pairs) points of the first and comparisons, of pairs i < j in the order of `numpy.triu_indices`.

        None where they were not kept.
        """
        if self.won is None or self.played is None:
            return None
        i, j = np.triu_indices(n_models, 1)
        one, other = i * n_models + j, j * n_models + i
        points = self.won[:, one] + self.played[:, other] - self.won[:, other]
        return points, self.played[:, one] + self.played[:, other]


def summed(codes: NDArray[np.integer], values: Array | None, size: int) -> Array:
    """(size,) sums of ``values`` (None: ones) over the rows of each code."""
    return np.bincount(codes, values, size).astype(np.float64, copy=False)


def pair_sums(battles: Battles, n_models: int) -> Sums:
    """Points by pair in the quickest way: sums by cluster are kept only where they cost nothing."""
    kernels = kernels_for(len(battles.score))
    if kernels is None or battles.weight is not None:
        return added_up(battles, n_models)
    sums = kernels.by_pair(battles.first, battles.second, battles.score, n_models)
    return Sums(_wins(sums[None, :, 0], sums[None, :, 1], n_models), None, None)


def added_up(battles: Battles, n_models: int) -> Sums:
    """Points by pair, and by cluster and pair where these are few enough to be kept."""
    cluster, n_codes = battles.codes
    pairs = n_models**2
    by_cluster = n_codes * pairs <= _CELLS_PER_ROW * len(battles.score)
    key = (
        cluster.astype(np.intp) * n_models
        if by_cluster
        else np.zeros(len(battles.score), dtype=np.intp)
    )
    key += battles.first
    key *= n_models
    key += battles.second
    cells = (n_codes if by_cluster else 1) * pairs
    weight = battles.weight
    points = battles.score if weight is None else battles.score * weight
    played = summed(key, weight, cells).reshape(-1, pairs)
    won = summed(key, points, cells).reshape(-1, pairs)
    wins = _wins(won, played, n_models)
    if not by_cluster:
        return Sums(wins, None, None)
    return Sums(wins, won, played)


def _wins(won: Array, played: Array, n_models: int) -> Array:
    shape = (n_models, n_models)
    all_won, all_played = won.sum(axis=0).reshape(shape), played.sum(axis=0).reshape(shape)
    return all_won + (all_played - all_won).T


def components(wins: Array) -> Index:
    """(models,) models of different components have never met, not even through others."""
    return classes(reachable((wins + wins.T) > 0))


def require_rankable(wins: Array, component: Index) -> None:
    """Raise `NotRankableError` unless every model has beaten every other one, if only through others.

    References: Ford 1957, American Mathematical Monthly 64.
    """
    parts = [np.flatnonzero(component == c).tolist() for c in range(component.max(initial=-1) + 1)]
    if len(parts) > 1:
        raise NotRankableError(
            f"The models fall into {len(parts)} groups that were never compared with each other; rank each group by "
            "itself, or compare across.",
            parts,
            [(a[0], b[0]) for a, b in itertools.pairwise(parts)],
        )
    beat = reachable(wins > 0)
    groups = classes(beat & beat.T)
    if groups.max(initial=0) == 0:
        return
    found = [np.flatnonzero(groups == g).tolist() for g in range(groups.max() + 1)]
    found.sort(key=lambda group: -int(beat[group[0]].sum()))
    raise NotRankableError(
        f"The models fall into {len(found)} groups of which one never lost a point to another: their distance is "
        "infinite. Compare more, or state a prior (prior_sd; --prior normal:SD of the command).",
        found,
        [(a[0], b[0]) for a, b in itertools.pairwise(found)],
    )


def reachable(edges: Mask) -> Mask:
    """(k, k) whether j can be reached from i, itself included: squares the relation until it stays."""
    reach = edges | np.eye(len(edges), dtype=bool)
    while True:
        further = (reach.astype(np.float32) @ reach.astype(np.float32)) > 0
        if np.array_equal(further, reach):
            return reach
        reach = further


def classes(related: Mask) -> Index:
    """(k,) numbers of the classes of an equivalence relation, by first member."""
    first = related.argmax(axis=1)
    return np.unique(first, return_inverse=True)[1].astype(np.intp)
