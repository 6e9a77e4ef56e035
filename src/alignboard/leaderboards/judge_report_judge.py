"""One judge in the trust report: what became of its verdicts, and whether place and length decide them."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alignboard.leaderboards.judge_report_family import SelfPreference, self_preference
from alignboard.leaderboards.judge_report_intervals import (
    LEVEL,
    known_mean,
    mean_interval,
    signed_interval,
)
from alignboard.leaderboards.judge_report_rows import STATUSES, Judgments
from alignboard.stats.agreement import side
from alignboard.stats.intervals import Interval, clustered_mean, rate_interval

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

LOW_MASS = 0.9
"""probability of the verdict tokens below which a row counts as one where the judge wanted to say something else"""
LENGTH_DIFFERENCE = 30
"""characters from which an answer counts as longer (AlpacaEval ``analyze.py``, ``significant_delta_length``)"""


@dataclass(frozen=True)
class ModelFigures:
    """One model against one baseline, by one judge."""

    model: str
    baseline: str
    n_rows: int
    n_scored: int
    win_rate: Interval
    """as the rows say"""
    balanced: Interval
    """order-balanced: the mean of what it gets when shown first and when shown second"""
    position_gap: Interval
    """score when shown first minus when shown second, in [-1, 1]"""


@dataclass(frozen=True)
class JudgeFigures:
    """What is known of one judge."""

    judge: str
    n_rows: int
    n_instructions: int
    status: dict[str, int]
    order: str
    """where the order shown comes from: ``recorded``, ``recomputed`` (AlpacaEval's coin), ``mixed`` or ``none``"""
    n_both_orders: int
    """scored rows of which both orders were scored"""
    paired: bool
    """whether the gap and the balance are taken within rows; otherwise between rows, from first calls alone"""
    prefers_first: Interval
    """mean preference for the answer that was shown first; unknown where the model always had the same place"""
    position_gap: Interval
    swap_consistency: Interval | None
    """share of rows of both orders in which they name the same winner"""
    prefers_longer: Interval
    n_low_mass: int
    mass: float | None
    """mean; None where not recorded"""
    flags: dict[str, int]
    price: float | None
    self_preference: SelfPreference | None
    models: list[ModelFigures]


def judge_figures(name: str, part: Judgments, everything: Judgments) -> JudgeFigures:
    """Everything that the rows of one judge say; ``everything`` holds the rows of all judges."""
    asked = part.compared()
    paired = _is_paired(asked)
    both = asked.where(~np.isnan(asked.other_score))
    masses = part.mass[~np.isnan(part.mass)]
    prices = part.price[~np.isnan(part.price)]
    pairs = sorted(set(zip(asked.model.tolist(), asked.baseline.tolist(), strict=True)))
    return JudgeFigures(
        judge=name,
        n_rows=len(part),
        n_instructions=len(np.unique(part.instruction)),
        status={status: int((part.status == status).sum()) for status in STATUSES},
        order=_order(asked),
        n_both_orders=len(both),
        paired=paired,
        prefers_first=_prefers_first(asked, paired=paired),
        position_gap=_position(asked, paired=paired)[0],
        swap_consistency=mean_interval(
            (side(both.first_score) == side(both.other_score)).astype(float), both.instruction
        )
        if len(both)
        else None,
        prefers_longer=_prefers_longer(asked),
        n_low_mass=int((masses < LOW_MASS).sum()),
        mass=float(masses.mean()) if len(masses) else None,
        flags=dict(sorted(Counter(flag for flags in part.flags for flag in flags).items())),
        price=float(prices.sum()) if len(prices) else None,
        self_preference=self_preference(name, part.where(part.status == "scored"), everything),
        models=[
            _model(part.where((part.model == model) & (part.baseline == baseline)))
            for model, baseline in pairs
        ],
    )


def _model(part: Judgments) -> ModelFigures:
    asked = part.compared()
    gap, _ = _position(asked, paired=_is_paired(asked))
    _, balanced = _position(part, paired=_is_paired(asked))
    if not np.isnan(part.balanced).all():
        balanced = mean_interval(part.balanced, part.instruction)
    return ModelFigures(
        model=str(part.model[0]),
        baseline=str(part.baseline[0]),
        n_rows=len(part),
        n_scored=int((part.status == "scored").sum()),
        win_rate=mean_interval(part.score, part.instruction),
        balanced=balanced,
        position_gap=gap,
    )


def _is_paired(part: Judgments) -> bool:
    """Whether every scored row was asked in both orders. Where only some were, they were chosen, and what they say
    about the place holds for them alone.
    """
    scored = part.status == "scored"
    return bool(scored.any() and part.asked_both[scored].all())


def _order(part: Judgments) -> str:
    recorded = part.order_recorded[part.ordered]
    if not len(recorded):
        return "none"
    return "recorded" if recorded.all() else "mixed" if recorded.any() else "recomputed"


def _prefers_first(part: Judgments, *, paired: bool) -> Interval:
    first = part.model_first & ~np.isnan(part.first_score)
    second = ~part.model_first & ~np.isnan(part.first_score)
    if paired:
        apart = np.where(part.model_first, 1, -1) * (part.first_score - part.other_score)
        return mean_interval((1 + apart) / 2, part.instruction)
    if not first.any() or not second.any():
        return rate_interval(math.nan, math.nan, 0, LEVEL)
    preference = np.where(part.model_first, part.first_score, 1 - part.first_score)
    return mean_interval(preference, part.instruction)


def _position(part: Judgments, *, paired: bool) -> tuple[Interval, Interval]:
    """The position gap, and the order-balanced win rate.

    Within rows where both orders were asked; else the difference and the mean of two groups of rows, those with the
    model shown first and second: the order is a coin, so the groups differ by chance alone. Each model's mean is taken
    out of the gap first, so that models with missing rows do not shift it.
    """
    if paired:
        apart = np.where(part.model_first, 1, -1) * (part.first_score - part.other_score)
        mean = (part.first_score + part.other_score) / 2
        return signed_interval(*known_mean(apart, part.instruction)), mean_interval(
            mean, part.instruction
        )
    known = ~np.isnan(part.first_score)
    score, first = part.first_score[known], part.model_first[known]
    if not first.any() or first.all():
        return signed_interval(math.nan, math.nan, 0), rate_interval(math.nan, math.nan, 0, LEVEL)
    clusters = part.instruction[known]
    centred = score - _model_means(part.model[known], part.baseline[known], score)
    gap, gap_error, n = _two_groups(centred, first, clusters, weights=(1.0, -1.0))
    mean, mean_error, _ = _two_groups(score, first, clusters, weights=(0.5, 0.5))
    return signed_interval(gap, gap_error, n), rate_interval(mean, mean_error, n, LEVEL)


def _model_means(model: NDArray, baseline: NDArray, score: Array) -> Array:
    """(n,) the mean score of the row's model against its baseline."""
    _, model_code = np.unique(model, return_inverse=True)
    _, baseline_code = np.unique(baseline, return_inverse=True)
    _, code = np.unique(model_code * (baseline_code.max() + 1) + baseline_code, return_inverse=True)
    return (np.bincount(code, weights=score) / np.bincount(code))[code]


def _two_groups(
    values: Array, first: Mask, clusters: NDArray, weights: tuple[float, float]
) -> tuple[float, float, int]:
    """A weighted sum of the means of two groups, its clustered standard error (CR1), and the clusters."""
    estimate, influence = 0.0, np.zeros(len(values))
    for group, weight in zip((first, ~first), weights, strict=True):
        mean = float(values[group].mean())
        estimate += weight * mean
        influence[group] = weight * (values[group] - mean) * len(values) / group.sum()
    _, error, n = clustered_mean(influence, clusters)
    return estimate, error if min(first.sum(), (~first).sum()) > 1 else math.nan, n


def _prefers_longer(part: Judgments) -> Interval:
    """Share of verdicts for the longer answer; draws and answers of about one length say nothing."""
    clear = (np.abs(part.longer) > LENGTH_DIFFERENCE) & ~np.isnan(part.score) & (part.score != 0.5)
    longer_won = (part.score[clear] > 0.5) == (part.longer[clear] > 0)
    return mean_interval(longer_won.astype(float), part.instruction[clear])
