"""Comparisons that may be looked at, and stopped, at any time: betting e-processes and confidence sequences.

An e-process is the wealth of a gambler who bets against "the mean difference is 0" and never owes. Where that is true
its expectation stays 1, so that the chance of ever reaching 1 / alpha is alpha, however often it is looked at.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from alignboard.stats.multiplicity import holm

Array = NDArray[np.float64]
Index = NDArray[np.intp]

STAKES: Array = np.linspace(0.02, 0.95, 24)
"""shares of the wealth that a gambler bets; equal parts of the first wealth bet each of them, up and down"""
_BOTH = np.concatenate([STAKES, -STAKES])
_GRID = np.linspace(-0.995, 0.995, 200)
_PRIOR_TRIALS = 4.0


class EProcesses:
    """E-processes of several pairs, fed with differences in [-1, 1] as they come.

    References: Waudby-Smith and Ramdas, JRSS B 86 (2024), arXiv 2010.09686 (betting); Ville 1939.

    >>> pairs = EProcesses(1)
    >>> for difference in [1.0] * 8: pairs.add(np.array([0]), np.array([difference]))
    >>> bool(pairs.log_e[0] > np.log(20))
    True
    """

    def __init__(self, n_pairs: int) -> None:
        self._wealth = np.zeros((n_pairs, len(_BOTH)))
        self.log_e = np.zeros(n_pairs)
        """(pairs,) logarithm of the wealth"""
        self.highest = np.zeros(n_pairs)
        """(pairs,) of the highest wealth so far"""
        self.n = np.zeros(n_pairs, dtype=np.intp)
        self.total = np.zeros(n_pairs)
        self.squares = np.zeros(n_pairs)

    def add(self, pairs: Index, difference: Array) -> None:
        """Add one ``difference`` (k,) to each of ``pairs`` (k,), all of them different."""
        if np.any(np.abs(difference) > 1) or np.isnan(difference).any():
            raise ValueError("differences must lie in [-1, 1]")
        wealth = self._wealth[pairs] + np.log1p(difference[:, None] * _BOTH)
        self._wealth[pairs] = wealth
        self.log_e[pairs] = _mixed(wealth)
        self.highest[pairs] = np.maximum(self.highest[pairs], self.log_e[pairs])
        self.n[pairs] += 1
        self.total[pairs] += difference
        self.squares[pairs] += difference**2

    @property
    def mean(self) -> Array:
        """(pairs,) mean difference; NaN before the first."""
        return np.where(self.n > 0, self.total / np.maximum(self.n, 1), math.nan)

    def adjusted_p(self) -> Array:
        """(pairs,) anytime-valid p-values by Holm's correction (closed testing): true at once and at every look."""
        return holm(np.exp(-self.highest))

    def growth(self) -> Array:
        """(pairs,) the best expected growth of log wealth per further difference, at shrunken means and squares."""
        weight = self.n + _PRIOR_TRIALS
        mean, square = self.total / weight, (self.squares + _PRIOR_TRIALS / 2) / weight
        # E log(1 + b d) is about b m - b^2 s / 2.
        found = _BOTH * mean[:, None] - _BOTH**2 * square[:, None] / 2
        return np.maximum(found.max(axis=1), 0.0)


def e_process(difference: Array) -> Array:
    """(n,) log of the mixture e-process after each of ``difference`` (n,) in [-1, 1]."""
    return _mixed(np.cumsum(np.log1p(difference[:, None] * _BOTH), axis=0))


def confidence_sequence(difference: Array, alpha: float = 0.05) -> tuple[float, float]:
    """Limits of the mean of ``difference`` (n,) that hold at all times at once with 1 - ``alpha``.

    A value is excluded once a gambler against it has had 1 / ``alpha`` of the first wealth.
    """
    open_values = []
    for value in _GRID:
        stakes = _BOTH / (1 + abs(value))  # wealth stays positive for every difference in [-1, 1]
        wealth = np.cumsum(np.log1p((difference - value)[:, None] * stakes), axis=0)
        if not len(difference) or _mixed(wealth).max() < -math.log(alpha):
            open_values.append(float(value))
    if not open_values:
        mean = float(difference.mean())
        return mean, mean
    step = float(_GRID[1] - _GRID[0])
    return max(-1.0, min(open_values) - step), min(1.0, max(open_values) + step)


def query_probabilities(preference: Array, wanted: float, least: float = 0.2) -> Array:
    """(n,) how probable it should be that a person is asked, ``wanted`` of them expected.

    Rows of which the judge (``preference`` (n,) in [0, 1]) is unsure are asked more often; ``least`` is the smallest
    probability over the mean one, so that no row is out of reach.

    References: Zrnic and Candes, arXiv 2403.03208 (active statistical inference).
    """
    unsure = np.sqrt(preference * (1 - preference))
    mean = float(unsure.mean())
    mixed = least + (1 - least) * (unsure / mean if mean > 0 else np.ones(len(unsure)))
    probability = np.minimum(1.0, mixed * wanted / len(preference))
    for _ in range(50):  # those that are certain leave more to the others
        free = probability < 1
        left = wanted - float((~free).sum())
        if not free.any() or abs(left - float(probability[free].sum())) < 1e-9:
            break
        probability[free] = np.minimum(1.0, probability[free] * left / probability[free].sum())
    return probability


def _mixed(log_wealth: Array) -> Array:
    """The logarithm of the mean over the last axis."""
    top = log_wealth.max(axis=-1)
    return top + np.log(np.exp(log_wealth - top[..., None]).mean(axis=-1))
