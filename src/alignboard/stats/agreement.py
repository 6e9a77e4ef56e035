"""Agreement between judges, and with humans: raw, Cohen's kappa, Krippendorff's alpha, and AlpacaFarm's measure.

Raw agreement follows prevalence: two judges that both prefer the baseline nine times in ten agree on four verdicts of
five without looking. Kappa and alpha take out what the judges' own frequencies would give by chance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from alignboard.stats.intervals import (
    Interval,
    bounded_mean,
    clustered_mean,
    has_spread,
    student_interval,
)

Array = NDArray[np.float64]
Metric: TypeAlias = Literal["nominal", "ordinal", "interval"]
Weights: TypeAlias = Literal["nominal", "linear", "quadratic"]


@dataclass(frozen=True)
class Alpha:
    """Krippendorff's alpha: 1 = the raters agree, 0 = as chance would, NaN = every rating is the same."""

    alpha: float
    low: float
    high: float
    level: float
    metric: Metric
    n_units: int
    """units with at least two ratings; the others say nothing"""
    n_ratings: int
    n_resamples: int
    n_undefined: int
    """resamples without any variation, in which alpha does not exist; they are not in the interval"""


def raw_agreement(
    first: Array, second: Array, clusters: NDArray | None = None, level: float = 0.95
) -> Interval:
    """The share of rows on which two raters say the same.

    ``first`` and ``second`` are (n,) categories as numbers, NaN = no rating (the row is left out); ``clusters`` (n,)
    are the prompts.
    """
    first, second, clusters = _both(first, second, clusters)
    return bounded_mean((first == second).astype(float), clusters, level)


def cohen_kappa(
    first: Array,
    second: Array,
    clusters: NDArray | None = None,
    weights: Weights = "nominal",
    level: float = 0.95,
) -> Interval:
    """Agreement of two raters beyond chance, in [-1, 1], with an interval that clusters by prompt.

    ``first`` and ``second`` are (n,) categories as numbers, NaN = no rating (the row is left out). Disagreement is 0 or
    1 (nominal), or grows with the distance between the places of the categories in their order (linear, quadratic).
    NaN where both raters only ever use one and the same category: chance alone agrees, and kappa is 0/0.

    The standard error is the delta method's, with residuals added up within clusters (CR2); for single rows it is that
    of Fleiss, Cohen and Everitt with n - 1 in place of n.

    References: Cohen 1960, Educational and Psychological Measurement 20; Cohen 1968, Psychological Bulletin 70
    (weights); Fleiss, Cohen and Everitt 1969, Psychological Bulletin 72 (standard error).

    >>> kappa = cohen_kappa(np.array([1.0, 1, 2, 2]), np.array([1.0, 1, 2, 1]))
    >>> kappa.estimate
    0.5
    """
    first, second, clusters = _both(first, second, clusters)
    names, codes = np.unique(np.concatenate([first, second]), return_inverse=True)
    one, two = codes[: len(first)], codes[len(first) :]
    distance = _distances(len(names), weights)
    share_one = np.bincount(one, minlength=len(names)) / max(1, len(one))
    share_two = np.bincount(two, minlength=len(names)) / max(1, len(two))
    expected = float(share_one @ distance @ share_two)
    if expected == 0:
        groups = len(first) if clusters is None else len(np.unique(clusters))
        return Interval(math.nan, math.nan, math.nan, math.nan, level, groups, groups)
    observed = distance[one, two]
    ratio = float(observed.mean()) / expected
    by_chance = (distance @ share_two)[one] + (distance @ share_one)[two]
    influence = -(observed - observed.mean()) / expected
    influence += ratio * (by_chance - 2 * expected) / expected
    estimate = replace(clustered_mean(influence, clusters)[0], value=1 - ratio)
    limits = student_interval(estimate, level, within=(-1.0, 1.0))
    if observed.any():
        return limits
    # Raters that never differed: as much disagreement as so many prompts leave open, at the chance that was seen.
    furthest = float(distance.max())
    unseen = bounded_mean(observed / furthest, clusters, level).high * furthest
    return replace(limits, low=max(-1.0, 1 - unseen / expected), high=1.0)


def krippendorff_alpha(
    ratings: Array,
    metric: Metric,
    rng: np.random.Generator,
    n_resamples: int = 1000,
    clusters: NDArray | None = None,
    level: float = 0.95,
) -> Alpha:
    """Agreement of any number of raters beyond chance, ratings missing or not.

    ``ratings`` is (raters, units), NaN = not rated. The interval resamples units, or whole ``clusters`` (units,) of
    them such as the pairs of one prompt (percentile bootstrap). It is NaN with ``n_resamples`` 0, and where all
    resamples say the same, as they do of raters that never differ: the sample shows no spread.

    With m_u ratings of unit u and n of all units that have at least two, alpha = 1 - D_o / D_e, where D_o averages the
    squared differences within units (each unit's pairs divided by m_u - 1) and D_e those among all n ratings.
    Differences are 0 or 1 (nominal), of values (interval), or of mid-ranks among all n ratings (ordinal), which is
    Krippendorff's ordinal metric written without its double sum.

    References: Krippendorff, Computing Krippendorff's Alpha-Reliability (2011); Content Analysis (2004), chapter 11.

    >>> rng = np.random.default_rng(0)
    >>> krippendorff_alpha(np.array([[1.0, 2, 3], [1, 2, 3]]), "nominal", rng, 0).alpha
    1.0
    """
    if ratings.ndim != 2:
        raise ValueError(f"ratings must be (raters, units), got {ratings.ndim} dimensions")
    counts, values, pairable = _counts(ratings)
    units = len(counts)
    cluster = np.arange(units)
    if clusters is not None:
        cluster = np.unique(clusters[pairable], return_inverse=True)[1]
    groups = int(cluster.max(initial=-1)) + 1
    alpha = _alpha(counts, values, np.ones(units), metric)
    draws = []
    for _ in range(n_resamples if groups > 1 and math.isfinite(alpha) else 0):
        drawn = np.bincount(rng.integers(groups, size=groups), minlength=groups)
        draws.append(_alpha(counts, values, drawn[cluster], metric))
    defined = [draw for draw in draws if math.isfinite(draw)]
    tail = (1 - level) / 2
    low, high = (math.nan, math.nan)
    if defined and has_spread(float(np.ptp(defined))):
        low, high = np.quantile(defined, [tail, 1 - tail])
    return Alpha(
        alpha=alpha,
        low=float(low),
        high=float(high),
        level=level,
        metric=metric,
        n_units=units,
        n_ratings=int(counts.sum()),
        n_resamples=len(draws),
        n_undefined=len(draws) - len(defined),
    )


def agreement_with_humans(
    preference: Array,
    human: Sequence[Sequence[float]],
    clusters: NDArray | None = None,
    level: float = 0.95,
) -> Interval:
    """One annotation against the majority of humans: 1 - mean absolute error, in [0, 1].

    ``preference`` is (n,), 1 to 2 as in `alignboard.records.Preference`, NaN = not scored; ``human`` holds n lists of
    the humans' preferences for the same pairs. Pairs without a verdict on either side are left out.

    References: AlpacaEval ``analyze.py`` (`agreement_of_annotations`, 1 against all) and ``metrics/helpers.py``
    (`AbsoluteScoringRule`). Differs from upstream: where humans are evenly split, upstream draws one of the modes; here
    the expectation over that draw is taken.

    >>> agreement_with_humans(np.array([1.0, 2.0]), [[1, 1, 2], [1, 2]]).estimate
    0.75
    """
    used = [
        row for row, votes in enumerate(human) if len(votes) and not math.isnan(preference[row])
    ]
    scores = np.array([_closeness(float(preference[row]), human[row]) for row in used])
    return bounded_mean(scores, None if clusters is None else clusters[used], level)


def agreement_among_humans(
    human: Sequence[Sequence[float]], clusters: NDArray | None = None, level: float = 0.95
) -> Interval:
    """One human against the majority of the others, over pairs with at least three: what a judge is to be held to.

    ``human`` holds a list of preferences per pair. References: as `agreement_with_humans`; upstream's ``humans`` row.
    """
    used = [row for row, votes in enumerate(human) if len(votes) > 2]
    scores = np.array([_leave_one_out(human[row]) for row in used])
    return bounded_mean(scores, None if clusters is None else clusters[used], level)


def side(preference: Array) -> Array:
    """(n,) the verdict without its strength: -1 = the baseline, 0 = a draw, 1 = the model, NaN = none.

    ``preference`` is (n,) in [0, 1].
    """
    return np.sign(preference - 0.5)


def _both(
    first: Array, second: Array, clusters: NDArray | None
) -> tuple[Array, Array, NDArray | None]:
    if len(first) != len(second):
        raise ValueError(f"the raters have {len(first)} and {len(second)} rows")
    known = ~(np.isnan(first) | np.isnan(second))
    return first[known], second[known], None if clusters is None else clusters[known]


def _distances(categories: int, weights: Weights) -> Array:
    place = np.arange(categories)
    apart = np.abs(place[:, None] - place[None, :]).astype(float)
    if weights == "nominal":
        return (apart > 0).astype(float)
    return apart if weights == "linear" else apart**2


def _counts(ratings: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
    """(units, values) how often a unit was given each value, the (values,), and which units have two ratings or more:
    the others are left out.
    """
    rated = ~np.isnan(ratings)
    pairable = rated & (rated.sum(axis=0) > 1)
    values, codes = np.unique(ratings[pairable], return_inverse=True)
    unit = np.broadcast_to(np.arange(ratings.shape[1]), ratings.shape)[pairable]
    counts = np.zeros((ratings.shape[1], len(values)))
    np.add.at(counts, (unit, codes), 1)
    two_or_more = pairable.any(axis=0)
    return counts[two_or_more], values, two_or_more


def _alpha(counts: Array, values: Array, times: NDArray, metric: Metric) -> float:
    """Alpha where unit u was drawn ``times[u]`` times; NaN without variation."""
    in_unit = counts.sum(axis=1)
    total = times @ counts
    n = float(total.sum())
    if metric == "nominal":
        within = in_unit**2 - (counts**2).sum(axis=1)
        among = n**2 - float(total @ total)
    else:
        scale = values if metric == "interval" else np.cumsum(total) - total / 2
        scale = scale - (float(total @ scale) / n if n else 0.0)
        within = 2 * (in_unit * (counts @ scale**2) - (counts @ scale) ** 2)
        among = 2 * (n * float(total @ scale**2) - float(total @ scale) ** 2)
    if n < 2 or np.count_nonzero(total) < 2:
        return math.nan
    observed = float(times @ (within / (in_unit - 1)))
    return 1 - (n - 1) * observed / among


def _closeness(preference: float, votes: Sequence[float]) -> float:
    return 1 - float(np.mean([abs(preference - mode) for mode in _modes(votes)]))


def _leave_one_out(votes: Sequence[float]) -> float:
    return float(
        np.mean([_closeness(vote, [*votes[:i], *votes[i + 1 :]]) for i, vote in enumerate(votes)])
    )


def _modes(votes: Sequence[float]) -> list[float]:
    """The most frequent votes; the median where some are weighted, as upstream has it."""
    if not set(votes) <= {1.0, 1.5, 2.0}:
        return [float(np.median(votes))]
    most = max(votes.count(vote) for vote in set(votes))
    return sorted(vote for vote in set(votes) if votes.count(vote) == most)
