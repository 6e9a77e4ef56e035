"""Limits for groups of models that never lost, or never won, against the others: by likelihood, and on one side only.

The sandwich measures how residuals scatter, which they hardly do for a model that never lost: its interval has no
width and holds nothing. The likelihood rules out strengths at which such a record would be rarer than alpha / 2, which
for two models is the exact binomial limit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from alignboard.stats.rating.battles import Array, Battles, Index, Mask, classes, reachable
from alignboard.stats.rating.likelihood import log_likelihood
from alignboard.stats.rating.solvers import Derivatives, maximise

# Strengths that the likelihood leaves free are kept finite, by so much for each comparison.
_RIDGE = 1e-9
_FLAT = 1e-5
_SETTLED = 1e-6
_LONGEST = 4.0
# A p-value above it is no claim in any table.
_UNCERTAIN = 0.2
_MAX_STEPS = 100


@dataclass(frozen=True)
class Separation:
    """What the comparisons alone say of models in different groups."""

    wins: Array
    """(models, models) points of the row's model against the column's"""
    reach: Mask
    """(models, models) whether the row's model came at least level with the column's, if only through others"""
    group: Index
    """(models,) numbers of the groups: each came at least level with every one of its own, if only through others"""
    reference: Mask
    """(models, models) by row: the models whose mean strength a model's limits are measured from"""
    independent: Array
    """(models,) clusters by comparison, of comparisons between a model's group and others: rows of one cluster may
    repeat each other, of which a record without a loss shows nothing"""

    @cached_property
    def separate(self) -> Mask:
        """(models, models) whether two models are in different groups."""
        return self.group[:, None] != self.group

    def bounded(self, i: int) -> tuple[bool, bool]:
        """Whether the strength of ``i`` has a lower and an upper limit."""
        others = self.reference[i]
        return bool(self.reach[i, others].all()), bool(self.reach[others, i].all())

    def limits(
        self, i: int, others: Mask, share: float, level: float, *, above: bool
    ) -> tuple[float, float]:
        """Limits of the strength of ``i`` less the mean of ``others`` (models,), which ``i`` stands ``above`` or below.

        None where the record is too short to tell the order: given that one side never lost, it is the weaker side so
        often that a limit on the wrong side of 0 would not hold at its level.
        """
        found = self._limit(i, others, share, level)
        if above:
            return (found, math.inf) if found > 0 else (-math.inf, math.inf)
        return (-math.inf, found) if found < 0 else (-math.inf, math.inf)

    def _limit(self, i: int, others: Mask, share: float, level: float) -> float:
        """Where the strength of ``i`` less the mean of ``others`` (models,) makes the record rare; Newton's method.

        ``share`` is that of independent comparisons. The profile of a log-likelihood is concave, so that steps from
        beyond the limit stay there.
        """
        gap = 0.0
        wanted = math.log(2 / (1 - level))
        for _ in range(_MAX_STEPS):
            lost, slope = self._lost(i, others, gap)
            move = (wanted - share * lost) / (share * slope)
            gap += min(max(move, -_LONGEST), _LONGEST)
            if abs(move) < _SETTLED:
                return gap
        raise ArithmeticError(f"The limit of a strength did not settle in {_MAX_STEPS} steps.")

    def difference_limits(self, i: int, j: int, level: float) -> tuple[float, float]:
        """Limits of the log-strength of ``i`` less that of ``j``, which are in different groups."""
        if self.reach[i, j] == self.reach[j, i]:
            return -math.inf, math.inf
        other = np.arange(len(self.wins)) == j
        return self.limits(i, other, self._share(i, j), level, above=bool(self.reach[i, j]))

    def p_value(self, i: int, j: int) -> float:
        """Two-sided, that ``i`` and ``j`` of different groups are equally strong: twice the record's probability.

        Where no more than moving one of them to the other shows that nothing is certain, that bound is returned.
        """
        if self.reach[i, j] == self.reach[j, i]:
            return 1.0
        share = self._share(i, j)
        quick = 2 * math.exp(-share * min(self._moved(i, j), self._moved(j, i)))
        if quick > _UNCERTAIN:
            return min(1.0, quick)
        lost, _ = self._lost(i, np.arange(len(self.wins)) == j, 0.0)
        return min(1.0, 2 * math.exp(-share * lost))

    def _moved(self, i: int, j: int) -> float:
        """Log-likelihood lost where ``i`` stands at ``j`` and all others stay: at least `_lost`."""
        theta = self._free
        values = [
            self.wins[i] @ np.logaddexp(0, theta - at)
            + self.wins[:, i] @ np.logaddexp(0, at - theta)
            for at in (theta[j], theta[i])
        ]
        return float(values[0] - values[1])

    def _share(self, i: int, j: int) -> float:
        return float(min(self.independent[i], self.independent[j]))

    def _lost(self, i: int, others: Mask, gap: float) -> tuple[float, float]:
        """Log-likelihood lost where ``i`` stands ``gap`` above the mean of ``others``, and its slope."""
        mean = others / others.sum()
        own = 1 - mean[i]
        slopes = np.delete(mean, i) / own
        rest = np.delete(np.arange(len(mean)), i)

        def placed(x: Array) -> Array:
            return np.insert(x, i, gap / own + slopes @ x)

        def derivatives(x: Array) -> tuple[float, Array, Array]:
            value, gradient, information = log_likelihood(placed(x), self.wins)
            cross = np.outer(information[rest, i], slopes)
            inner = information[np.ix_(rest, rest)] + cross + cross.T
            inner += information[i, i] * np.outer(slopes, slopes)
            return value, gradient[rest] + gradient[i] * slopes, inner

        theta = placed(self._most_likely(derivatives, self._free[rest]))
        value, gradient, _ = log_likelihood(theta, self.wins)
        return log_likelihood(self._free, self.wins)[0] - value, -float(gradient[i] / own)

    @cached_property
    def _free(self) -> Array:
        """(models,) the most likely strengths."""
        start = np.zeros(len(self.wins))
        return self._most_likely(lambda x: log_likelihood(x, self.wins), start)

    def _most_likely(self, derivatives: Derivatives, start: Array) -> Array:
        ridge = _RIDGE * max(1.0, float(self.wins.sum()))

        def penalised(x: Array) -> tuple[float, Array, Array]:
            value, gradient, information = derivatives(x)
            information[np.diag_indices(len(x))] += ridge
            return value - ridge / 2 * float(x @ x), gradient - ridge * x, information

        return maximise(penalised, start, _FLAT)[0]


def separation(battles: Battles, wins: Array, component: Index) -> Separation | None:
    """The groups of which one never came level with another; None where there are none.

    A verdict of .9995 counts as a win: it shows no more of what the loser can do than one of 1.
    """
    reach = reachable(_level(battles, wins))
    group = classes(reach & reach.T)
    if group.max(initial=0) == component.max(initial=0):
        return None
    return Separation(
        wins, reach, group, _references(group, component), _independent(battles, group)
    )


def _level(battles: Battles, wins: Array) -> Mask:
    """(models, models) whether some comparison did not go against the row's model."""
    if battles.estimated or (2 * wins == np.rint(2 * wins)).all():  # wins, draws and losses
        return wins > 0
    k = len(wins)
    key = battles.first.astype(np.intp) * k + battles.second
    first, second = (
        np.bincount(key[kept], minlength=k * k).reshape(k, k) > 0
        for kept in (battles.score >= 0.5, battles.score <= 0.5)
    )
    return first | second.T


def _references(group: Index, component: Index) -> Mask:
    """(models, models) the largest group of a model's component; the whole component where two groups are as large."""
    size = np.bincount(group)[group]
    together = component[:, None] == component
    largest = together & (size == np.where(together, size, 0).max(axis=1)[:, None])
    single = largest.sum(axis=1) == np.where(largest, size, 0).max(axis=1)
    return np.where(single[:, None], largest, together)


def _independent(battles: Battles, group: Index) -> Array:
    """(models,) clusters over comparisons between a model's group and others, at most 1."""
    across = group[battles.first] != group[battles.second]
    codes, n_codes = battles.codes
    weight = np.ones(int(across.sum())) if battles.weight is None else battles.weight[across]
    n_groups = int(group.max()) + 1
    rows, clusters = np.zeros(n_groups), np.zeros(n_groups)
    cells = []
    for side in (battles.first, battles.second):
        own = group[side[across]]
        rows += np.bincount(own, weight, n_groups)
        cells.append(own * n_codes + codes[across])
    found = np.unique(np.concatenate(cells)) // n_codes
    clusters = np.bincount(found, minlength=n_groups)
    return np.minimum(1, clusters / np.where(rows > 0, rows, 1))[group]
