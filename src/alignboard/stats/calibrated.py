"""What people would say, from few of their labels and many of a judge's: tuned prediction-powered inference."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from alignboard.stats.intervals import Estimate, Interval, bounded_mean, rate_interval
from alignboard.stats.paired import PairedDifference, paired_difference
from alignboard.stats.rating.battles import Battles
from alignboard.stats.rating.bradley_terry import BradleyTerryFit, bradley_terry

Array = NDArray[np.float64]

_FOLDS = 5
_FEWEST_LABELS = 10


@dataclass(frozen=True)
class Rectified:
    """Every row's score, corrected by the labels so that means over rows are unbiased for people's."""

    values: Array
    """(n,) may leave the scale of the scores"""
    weight: float
    """how much of the judge's labels enters; 0: the judge says nothing of what people say"""
    n_labels: int


@dataclass(frozen=True)
class CalibratedMean:
    """What people would say, from their own labels and from a judge's on everything."""

    rate: Interval
    humans_alone: Interval
    """from the labelled rows without the judge"""
    weight: float
    """how much of the judge's labels enters; 0: the estimate is that of the humans alone"""
    n_labels: int

    @property
    def gain(self) -> float:
        """Share of the humans' standard error that the judge saves; about 0 where it does not help."""
        alone = self.humans_alone.standard_error
        return 1 - self.rate.standard_error / alone if alone > 0 else math.nan


@dataclass(frozen=True)
class CalibratedDifference:
    """A minus B as people would see it."""

    found: PairedDifference
    weight: float
    n_labels: int


@dataclass(frozen=True)
class CalibratedStrengths:
    """Bradley-Terry strengths as people would see them; differences and rank sets are the fit's."""

    fit: BradleyTerryFit
    weight: float
    n_labels: int


def rectified(judge: Array, human: Array, probability: Array | None = None) -> Rectified:
    """Scores of all rows, of which people labelled a random part.

    Parameters
    ----------
    judge
        (n,) the judge's score of every row.
    human
        (n,) the human score, NaN where there is none.
    probability
        (n,) how probable it was that a row would be labelled, drawn independently. None: the labels are a
        simple random sample. Rows that were chosen otherwise, such as those that somebody found interesting, bias the
        estimate.

    Each labelled row's judge score is weighted by what the other folds' labels say of it, so that the weight of least
    variance costs no bias; an untuned weight of 1 is wider than the humans alone where the judge agrees with them as
    rarely as judges do.

    References: Angelopoulos, Duchi and Zrnic, PPI++, arXiv 2311.01453 (tuning); Zrnic and Candes, arXiv 2309.16598
    (cross-fitting) and 2403.03208 (known probabilities).
    """
    labelled = ~np.isnan(human)
    n_labels = int(labelled.sum())
    if not n_labels:
        raise ValueError("no row has a human label")
    share = np.full(len(judge), n_labels / len(judge)) if probability is None else probability
    if not ((share > 0) & (share <= 1)).all():
        raise ValueError("probabilities must lie above 0 and not above 1")
    inverse = 1 / share[labelled]
    h, f = human[labelled], judge[labelled]
    weight = np.zeros(n_labels)
    if n_labels >= _FEWEST_LABELS:
        fold = np.arange(n_labels) % _FOLDS
        for k in range(_FOLDS):
            others = fold != k
            weight[fold == k] = _best_weight(h[others], f[others], inverse[others])
    mean_weight = float(weight.mean())
    # Hajek's form: the mean correction is not scattered by how many rows happened to be drawn.
    rest = h - weight * f
    correction = float((inverse * rest).sum() / inverse.sum())
    values = mean_weight * judge + correction
    values[labelled] += inverse * (rest - correction)
    return Rectified(values, mean_weight, n_labels)


def calibrated_mean(
    judge: Array, human: Array, level: float = 0.95, *, probability: Array | None = None
) -> CalibratedMean:
    """The mean human score of all rows, in [0, 1]; arguments as in `rectified`."""
    labelled = ~np.isnan(human)
    h, n = human[labelled], int(labelled.sum())
    alone = bounded_mean(h, level=level)
    if n < _FEWEST_LABELS or len(judge) - n < 2:
        return CalibratedMean(alone, alone, 0.0, n)
    if probability is not None:  # labels that were drawn unevenly are no sample by themselves
        weighted = rectified(np.zeros(len(judge)), human, probability)
        alone = _mean_interval(weighted.values, h, n, level)
    found = rectified(judge, human, probability)
    return CalibratedMean(_mean_interval(found.values, h, n, level), alone, found.weight, n)


def calibrated_difference(
    judge: tuple[Array, Array],
    human: tuple[Array, Array],
    clusters: NDArray | None = None,
    *,
    probability: Array | None = None,
    level: float = 0.95,
) -> CalibratedDifference:
    """The mean human score of A minus that of B on shared prompts, labelled by people for both or for neither.

    ``judge`` and ``human`` are (n,) scores in [0, 1] of A and of B; otherwise as in `rectified` and
    `paired.paired_difference`. Its number of units is that of the labels, which decide how well the error is known.
    """
    found = rectified(judge[0] - judge[1], human[0] - human[1], probability)
    difference = paired_difference(
        found.values, np.zeros(len(found.values)), clusters, level=level, estimated=True
    )
    labelled = ~np.isnan(human[0] - human[1])
    names = np.arange(len(labelled)) if clusters is None else clusters
    units = len(np.unique(names[labelled]))
    return CalibratedDifference(difference.with_fewer_units(units), found.weight, found.n_labels)


def calibrated_strengths(
    battles: Battles, human: Array, n_models: int, *, probability: Array | None = None
) -> CalibratedStrengths:
    """Bradley-Terry strengths by people's verdicts, of which few are known, with the help of a judge's on all battles.

    ``battles`` holds the judge's scores; ``human`` (n,) people's, NaN where there is none; ``probability`` as in
    `rectified`. The estimating equations are those of Bradley-Terry at the rectified scores.

    References: Chatzi et al., arXiv 2402.17826 (prediction-powered ranking).
    """
    found = rectified(battles.score, human, probability)
    corrected = replace(battles, score=found.values, estimated=True)
    return CalibratedStrengths(bradley_terry(corrected, n_models), found.weight, found.n_labels)


def _mean_interval(values: Array, labels: Array, n_labels: int, level: float) -> Interval:
    """The interval of the mean of rectified ``values``, with the degrees of freedom and corners of the labels."""
    scale = n_labels / (n_labels - 1)  # the labels decide how well the spread is known
    error = float(values.std()) * math.sqrt(scale / len(values))
    estimate = Estimate.of_equal_clusters(float(values.mean()), error, n_labels)
    return rate_interval(estimate, level, units=labels)


def _best_weight(human: Array, judge: Array, inverse: Array) -> float:
    """The weight of least variance, between 0 (the judge says nothing) and 1.

    The slope of a regression in which a row counts by what its absence would cost: 1/p - 1, over its probability p.
    """
    row = inverse * (inverse - 1)
    if not row.sum() > 0:
        return 0.0
    h = human - np.average(human, weights=row)
    f = judge - np.average(judge, weights=row)
    spread = float((row * f * f).sum())
    return min(1.0, max(0.0, float((row * h * f).sum()) / spread)) if spread > 0 else 0.0
