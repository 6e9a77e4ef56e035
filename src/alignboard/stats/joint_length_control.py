"""Length control without calibration rows: difficulties come from the other models' verdicts on the same prompts.

Responses identical to the baseline's are draws of length difference zero by construction. They say nothing about how
the judge weighs length, and being nearly all the rows at zero they would decide what is predicted there; they are left
out of the fit, and their scores are added back to the rate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from alignboard.errors import ConvergenceError
from alignboard.stats.difficulty import difficulties_of_others
from alignboard.stats.intervals import Estimate, Interval, has_spread, rate_interval
from alignboard.stats.length_control import (
    LengthControlled,
    length_controlled_win_rate,
    length_feature,
)
from alignboard.stats.logistic import expit

Array = NDArray[np.float64]
Index = NDArray[np.intp]
Mask = NDArray[np.bool_]

# The rate at equal lengths is extrapolated where fewer than this share of rows lies this close to equal lengths, in sd.
_NEAR, _FEWEST_NEAR = 0.25, 0.05

_NO_FIT = "length and difficulty all but decide these verdicts, and the fit did not converge"


@dataclass(frozen=True)
class JudgedLengths:
    """One model's verdicts with lengths; each array is (n,)."""

    instruction: Index
    """numbers of the prompts, from 0, the same for all models"""
    score: Array
    """for the model, in [0, 1]; NaN = not scored"""
    length_difference: Array
    """the baseline's characters minus the model's"""
    identical: Mask
    """whether both responses are the same text"""

    @property
    def fitted(self) -> Mask:
        """(n,) the rows that length control is fitted to."""
        return ~self.identical & ~np.isnan(self.score)


@dataclass(frozen=True)
class JointlyControlled:
    """A length-controlled win rate of a joint fit."""

    found: LengthControlled
    n_identical: int
    extrapolated: bool
    """hardly any two different responses are about equally long: the rate at equal lengths lies outside of the data"""


def joint_length_control(
    models: Mapping[str, JudgedLengths], level: float = 0.95
) -> dict[str, JointlyControlled | str]:
    """The length-controlled win rate of every model, or why it has none.

    The difficulties that a model is fitted with are those of the other models' verdicts, so that its own verdicts are
    not in them; two models have too few for any. They are taken as known by the interval.
    """
    names = list(models)
    rows = [models[name] for name in names]
    found: dict[str, JointlyControlled | str] = {}
    features: dict[str, Array] = {}
    for name, one in models.items():
        try:
            features[name] = length_feature(one.length_difference[one.fitted])[0]
        except ConvergenceError as error:
            found[name] = str(error)
    usable = [name for name in names if name in features]
    n_prompts = 1 + max((int(one.instruction.max(initial=0)) for one in rows), default=0)
    difficulty = np.zeros((len(usable), n_prompts))
    if len(usable) > 2:
        kept = [models[name] for name in usable]
        difficulty = difficulties_of_others(
            np.repeat(np.arange(len(kept)), [int(one.fitted.sum()) for one in kept]),
            np.concatenate([one.instruction[one.fitted] for one in kept]),
            np.concatenate([one.score[one.fitted] for one in kept]),
            np.concatenate([features[name] for name in usable]),
            n_prompts,
        )
    for name, own in zip(usable, difficulty, strict=True):
        try:
            found[name] = _controlled(models[name], own, level)
        except (ConvergenceError, np.linalg.LinAlgError):
            found[name] = _NO_FIT
    return {name: found[name] for name in names}


def lacks_support(rows: JudgedLengths) -> bool:
    """Whether a rate at equal lengths is an extrapolation: hardly any response is nearly as long as the baseline's."""
    length = rows.length_difference[rows.fitted]
    sd = float(np.std(length, ddof=1)) if len(length) > 1 else 0.0
    return sd > 0 and bool((np.abs(length) <= _NEAR * sd).mean() < _FEWEST_NEAR)


def _controlled(rows: JudgedLengths, difficulty: Array, level: float) -> JointlyControlled:
    fitted = rows.fitted
    length = rows.length_difference[fitted]
    fit = length_controlled_win_rate(
        rows.score[fitted] + 1,
        length,
        difficulty[rows.instruction[fitted]],
        gamed=None,
        level=level,
    )
    same = rows.identical & ~np.isnan(rows.score)
    found = _with_identical(fit, rows.score[fitted], rows.score[same], level)
    extrapolated = lacks_support(rows)
    if extrapolated:
        found = replace(found, interval=_by_few_rows(found.interval, found.influence))
    return JointlyControlled(found, int(same.sum()), extrapolated=extrapolated)


def _by_few_rows(interval: Interval, influence: Array) -> Interval:
    """The interval with as many degrees of freedom as prompts decide it; ``influence`` (n,) is that of each.

    Far from equal lengths the few rows that are least far decide the rate, and its error is known no better than from
    so few.
    """
    if not has_spread(interval.standard_error) or not 0 < interval.low < interval.high < 1:
        return interval
    known = Estimate(
        interval.estimate, interval.standard_error, interval.n_clusters, interval.n_effective
    ).known_by(influence)
    ratio = known.reach(interval.level) / replace(known, n_effective=interval.n_effective).reach(
        interval.level
    )
    low, high = (math.log(end / (1 - end)) for end in (interval.low, interval.high))
    centre, reach = (low + high) / 2, (high - low) / 2 * ratio
    limits = expit(centre - reach), expit(centre + reach)
    return replace(interval, low=limits[0], high=limits[1], n_effective=known.n_effective)


def _with_identical(
    fit: LengthControlled, scores: Array, identical: Array, level: float
) -> LengthControlled:
    """The fit with the scores of identical responses added back, as the prompts that they are."""
    if not len(identical):
        return fit
    n = len(scores) + len(identical)
    share = len(scores) / n
    rate = share * fit.win_rate + float(identical.sum()) / n
    influence = np.concatenate(
        [share * fit.influence + (fit.win_rate - rate) / n, (identical - rate) / n]
    )
    error = math.sqrt(n / (n - 1) * float(influence @ influence))
    limits = rate_interval(
        Estimate.of_equal_clusters(rate, error, n),
        level,
        units=np.concatenate([scores, identical]),
    )
    return replace(fit, win_rate=rate, interval=limits, influence=influence)
