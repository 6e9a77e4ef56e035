"""The win rate of a model against a baseline, as AlpacaEval defines it, with an interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from alignboard.stats.intervals import Interval, bounded_mean, clustered_mean


@dataclass(frozen=True)
class WinRate:
    """Rates are fractions in [0, 1]; counts are of the verdicts that could be parsed."""

    win_rate: float
    standard_error: float
    discrete_win_rate: float
    n_wins: int
    n_wins_base: int
    n_draws: int
    n_total: int
    n_unparsed: int
    interval: Interval


def win_rate(
    preference: ArrayLike,
    clusters: ArrayLike | None = None,
    level: float = 0.95,
    *,
    balanced: NDArray[np.float64] | None = None,
) -> WinRate:
    """Mean preference for the model.

    ``preference`` is (n,): 1 = baseline, 2 = model, 1.5 = draw, between = weighted, NaN = unparsed (counted, and
    left out of every mean). ``standard_error`` is upstream's: SD with ddof 1 over the square root of n. The
    interval clusters by ``clusters`` (n,), the prompts, where rows share them. Where second orders were drawn, the rate
    is the mean of ``balanced`` (n,) (`stats.second_order`); verdicts are counted by ``preference`` all the same.

    References: AlpacaEval ``metrics/winrate.py`` and ``metrics/helpers.py`` (`AbsoluteScoringRule`).

    >>> rate = win_rate([2.0, 2.0, 1.0, 1.5, None])
    >>> rate.win_rate, rate.n_wins, rate.n_draws, rate.n_unparsed
    (0.625, 2, 1, 1)
    """
    preference = np.asarray(preference, dtype=float)
    clusters = None if clusters is None else np.asarray(clusters)
    parsed = ~np.isnan(preference)
    score = preference[parsed] - 1
    n_total = len(score)
    n_wins = int((score > 0.5).sum())
    n_draws = int((score == 0.5).sum())
    averaged = preference if balanced is None else balanced
    known = ~np.isnan(averaged)
    plain, _ = clustered_mean(averaged[known] - 1)
    names = None if clusters is None else clusters[known]
    return WinRate(
        win_rate=plain.value,
        standard_error=plain.standard_error,
        discrete_win_rate=(n_wins + n_draws / 2) / n_total if n_total else float("nan"),
        n_wins=n_wins,
        n_wins_base=int((score < 0.5).sum()),
        n_draws=n_draws,
        n_total=n_total,
        n_unparsed=int((~parsed).sum()),
        interval=bounded_mean(averaged[known] - 1, names, level),
    )
