"""What two judges say of the same answers, instruction by instruction: the new judge with the official one's taste.

How much a judge likes length shows within a model: on which of its answers it wins. For either judge, over models m and
instructions i, with t = tanh(length difference / sd) of the answer to the official baseline's::

    logit P(m preferred on i) = quality_m + w t_mi

w is shared by the models of a judge. A model's *calibrated win rate* is what the new judge would give with the official
judge's w: the mean over i of ``expit(quality_m + w_official t_mi)`` with the new judge's quality_m. It is a column of
`bridge.JudgeScores`, and the bridge fits what is left. For w_official a few models with verdicts of both judges are
enough; where a model is left out, to be estimated from the others, its official verdicts take no part in it.

Tried before: the mean official verdict expected after a new verdict, learnt over rows. It says as much of the models
that were learnt from as of the model at hand, and did worse than the plain win rate on simulated and released verdicts.

References: Dubois et al., arXiv 2404.04475, section 3 (the length feature).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alignboard.errors import ConvergenceError
from alignboard.stats.bridge.fit import Array
from alignboard.stats.logistic import expit

MIN_MODELS = 4
"""models with verdicts of both judges: three are left where one is left out"""

# A weak prior on qualities, for models that win or lose everything (standard deviation 10).
_PRECISION = 0.01
_MAX_STEPS = 100
_TOLERANCE = 1e-8


@dataclass(frozen=True)
class ItemVerdicts:
    """One model's verdicts; every array is (n,), one entry per instruction that the new judge could be parsed on."""

    new: Array
    """in [0, 1]: 1 = the new judge prefers the model's answer to its baseline's"""
    length_difference: Array
    """characters, the model's answer minus the official baseline's"""
    official: Array
    """in [0, 1]; NaN = the official judge has no verdict on this very answer"""

    @property
    def n_both(self) -> int:
        """Instructions with verdicts of both."""
        return int(np.isfinite(self.official).sum())


@dataclass(frozen=True)
class CalibratedRates:
    """Calibrated win rates of m models, fractions in (0, 1)."""

    rate: Array
    """(m + 1, m): row i without the official verdicts of model i, the last row with all of them"""
    error: Array
    """(m + 1, m) their sampling standard errors, the tastes taken as known"""
    new_taste: float
    """w of the new judge"""
    official_taste: Array
    """(m + 1,) w of the official judge, row by row"""


def calibrated_rates(models: Sequence[ItemVerdicts]) -> CalibratedRates:
    """Calibrated win rates of m models, for every one of them that may have to be left out.

    Raises `ValueError` where fewer than `MIN_MODELS` models have verdicts of both judges, and `ConvergenceError` where
    a fit does not settle.
    """
    both = [number for number, model in enumerate(models) if model.n_both]
    if len(both) < MIN_MODELS:
        raise ValueError(
            f"{len(both)} models have verdicts of both judges, {MIN_MODELS} are needed"
        )
    m = len(models)
    sd = float(np.concatenate([model.length_difference for model in models]).std()) or 1.0
    t = [np.tanh(model.length_difference / sd) for model in models]
    quality, new_taste = _tastes([model.new for model in models], t)
    official_taste = np.full(
        m + 1, _tastes([models[k].official for k in both], [t[k] for k in both])[1]
    )
    for left_out in both:
        kept = [number for number in both if number != left_out]
        official_taste[left_out] = _tastes(
            [models[k].official for k in kept], [t[k] for k in kept]
        )[1]
    rate, error = np.empty((m + 1, m)), np.empty((m + 1, m))
    for j, own in enumerate(t):
        p = expit(quality[j] + new_taste * own)
        variance = 1 / (float((p * (1 - p)).sum()) + _PRECISION)
        p = expit(quality[j] + official_taste[:, None] * own)
        slope = (p * (1 - p)).mean(axis=1)
        rate[:, j] = p.mean(axis=1)
        error[:, j] = np.sqrt(variance * slope**2 + p.var(axis=1) / len(own))
    return CalibratedRates(rate, error, new_taste, official_taste)


def _tastes(verdicts: Sequence[Array], t: Sequence[Array]) -> tuple[Array, float]:
    """(models,) qualities and the shared w of one judge, by Newton's method; NaN verdicts are left out.

    The Hessian is diagonal but for w, so a step takes one division per model.
    """
    n_models = len(verdicts)
    model = np.repeat(np.arange(n_models), [len(one) for one in verdicts])
    y, x = np.concatenate(verdicts), np.concatenate(t)
    known = np.isfinite(y)
    model, y, x = model[known], y[known], x[known]
    quality, w = np.zeros(n_models), 0.0
    for _ in range(_MAX_STEPS):
        p = expit(quality[model] + w * x)
        residual, weight = y - p, p * (1 - p)
        own = _sums(model, weight, n_models) + _PRECISION
        mixed = _sums(model, weight * x, n_models)
        by_quality = _sums(model, residual, n_models) - _PRECISION * quality
        by_w = float(residual @ x) - _PRECISION * w
        curvature = float(weight @ x**2) + _PRECISION - float(mixed @ (mixed / own))
        step_w = (by_w - float(mixed @ (by_quality / own))) / curvature
        step = (by_quality - mixed * step_w) / own
        largest = max(abs(step_w), float(np.abs(step).max()))
        # A step of more than 2 on the logit scale is outside of what the quadratic model knows about.
        scale = min(1.0, 2 / largest) if largest else 1.0
        quality, w = quality + scale * step, w + scale * step_w
        if largest < _TOLERANCE:
            return quality, w
    raise ConvergenceError(f"The judges' tastes did not settle within {_MAX_STEPS} steps.")


def _sums(model: NDArray[np.intp], values: Array, n_models: int) -> Array:
    return np.bincount(model, values, n_models).astype(np.float64)
