"""One judge in the trust report: what became of its verdicts, and whether place and length decide them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alignboard.reports.judges.family import SelfPreference, self_preference
from alignboard.reports.judges.judgments import STATUSES, Judgments
from alignboard.stats.agreement import side
from alignboard.stats.intervals import Interval, bounded_mean
from alignboard.stats.position import PositionEffect, between_rows, group_means, within_rows
from alignboard.stats.second_order import weighted_share

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
    """share of rows of both orders in which they name the same winner; rows that were drawn for a second order count
    in proportion to those that they stand for"""
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
    return JudgeFigures(
        judge=name,
        n_rows=len(part),
        n_instructions=len(np.unique(part.instruction)),
        status={status: int((part.status.equal(status)).sum()) for status in STATUSES},
        order=_order(asked),
        n_both_orders=len(both),
        paired=paired,
        prefers_first=_prefers_first(asked, paired=paired),
        position_gap=_position(asked, paired=paired).gap,
        swap_consistency=weighted_share(
            side(both.first_score) == side(both.other_score), 1 / both.inclusion, both.instruction
        )
        if len(both)
        else None,
        prefers_longer=_prefers_longer(asked),
        n_low_mass=int((masses < LOW_MASS).sum()),
        mass=float(masses.mean()) if len(masses) else None,
        flags=dict(sorted(Counter(flag for flags in part.flags for flag in flags).items())),
        price=float(prices.sum()) if len(prices) else None,
        self_preference=self_preference(name, part.where(part.status.equal("scored")), everything),
        models=[_model(one) for one in _by_model(part) if len(one.compared())],
    )


def _by_model(part: Judgments) -> list[Judgments]:
    """The rows of each model and baseline, in the order of names."""
    code = _model_codes(part)
    order = np.argsort(code, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(code[order])) + 1) if len(code) else []
    parts = [part.where(rows) for rows in groups]
    return sorted(parts, key=lambda one: (one.model.tolist()[0], one.baseline.tolist()[0]))


def _model(part: Judgments) -> ModelFigures:
    asked = part.compared()
    gap = _position(asked, paired=_is_paired(asked)).gap
    # Equal answers read the same in any order, but without the others they say nothing of the balance.
    whole = part if asked.ordered.any() else asked
    balanced = _position(whole, paired=_is_paired(asked)).balanced
    if not np.isnan(part.balanced).all():
        balanced = bounded_mean(part.balanced, part.instruction)
    return ModelFigures(
        model=part.model.tolist()[0],
        baseline=part.baseline.tolist()[0],
        n_rows=len(part),
        n_scored=int((part.status.equal("scored")).sum()),
        win_rate=bounded_mean(part.score, part.instruction),
        balanced=balanced,
        position_gap=gap,
    )


def _is_paired(part: Judgments) -> bool:
    """Whether every scored row was asked in both orders. Where only some were, they were chosen, and what they say
    about the place holds for them alone.
    """
    scored = part.status.equal("scored")
    return bool(scored.any() and part.asked_both[scored].all())


def _order(part: Judgments) -> str:
    recorded = part.order_recorded[part.ordered]
    if not len(recorded):
        return "none"
    return "recorded" if recorded.all() else "mixed" if recorded.any() else "recomputed"


def _prefers_first(part: Judgments, *, paired: bool) -> Interval:
    if paired:
        apart = np.where(part.model_first, 1, -1) * (part.first_score - part.other_score)
        return bounded_mean((1 + apart) / 2, part.instruction)
    known = _in_both_places(part)
    preference = np.where(known.model_first, known.first_score, 1 - known.first_score)
    return bounded_mean(preference, known.instruction)


def _position(part: Judgments, *, paired: bool) -> PositionEffect:
    """The position gap, and the order-balanced win rate: within rows where all were asked in both orders."""
    if paired:
        when_first = np.where(part.model_first, part.first_score, part.other_score)
        when_second = np.where(part.model_first, part.other_score, part.first_score)
        return within_rows(when_first, when_second, part.instruction)
    known = _in_both_places(part)
    return between_rows(
        known.first_score, known.model_first, known.instruction, _model_codes(known)
    )


def _in_both_places(part: Judgments) -> Judgments:
    """The rows with a scored first call, of models that were shown first and second."""
    scored = part.where(~np.isnan(part.first_score))
    share_first = group_means(_model_codes(scored), scored.model_first.astype(np.float64))
    return scored.where((share_first > 0) & (share_first < 1))


def _model_codes(part: Judgments) -> NDArray[np.intp]:
    """(n,) a number for the row's model and baseline."""
    both = part.model.code.astype(np.int64) * len(part.baseline.texts) + part.baseline.code
    return np.unique(both, return_inverse=True)[1]


def _prefers_longer(part: Judgments) -> Interval:
    """Share of verdicts for the longer answer; draws and answers of about one length say nothing."""
    clear = (np.abs(part.longer) > LENGTH_DIFFERENCE) & ~np.isnan(part.score) & (part.score != 0.5)
    longer_won = (part.score[clear] > 0.5) == (part.longer[clear] > 0)
    return bounded_mean(longer_won.astype(float), part.instruction[clear])
