"""The audit of a judge: does the place in which an answer is shown decide, and what could not be parsed.

AlpacaEval shows every pair once, in an order drawn per instruction (`alignboard.records`). Whether a model
was shown first is thus a randomised treatment, and the difference of its win rate between the two groups of
instructions estimates the effect of the place without another call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alignboard.parallel import fork_map
from alignboard.published.audit.column import WORTH_A_FORK
from alignboard.published.audit.finding import Finding, Severity, rows_text
from alignboard.records import Annotations, TextId
from alignboard.stats.multiplicity import holm
from alignboard.stats.position import place_limits, place_test
from alignboard.text import count

LEVEL = 0.05
"""of the tests; over models it holds for all together (Holm)"""
LARGE_GAP = 5.0
"""points of the whole board from which the gap is a warning"""
LARGE_GAP_OF_ONE = 10.0
"""the same for one model"""
_UNPARSED_SHARE = 0.01


@dataclass(frozen=True)
class PositionGap:
    """Win rate when shown first minus win rate when shown second, in percentage points."""

    gap: float
    low: float
    high: float
    """95 % interval: difference of two means with unequal variances"""
    z: float
    p_value: float
    first: float
    """win rate in percent where the model was shown first"""
    second: float
    n_first: int
    n_second: int


def position_gap(
    score: NDArray[np.float64], shown_first: NDArray[np.bool_], *, bounded: bool = True
) -> PositionGap | None:
    """The gap of one model, or of a board's means per instruction; None where it cannot be tested.

    ``score`` is (n,), in [0, 1] where ``bounded``, NaN left out; ``shown_first`` is (n,). The limits do not take the
    place for without effect, the test does: `stats.position`.
    """
    test = place_test(score, shown_first)
    if test is None:
        return None
    parsed = ~np.isnan(score)
    first, second = score[parsed & shown_first], score[parsed & ~shown_first]
    low, high = place_limits(first, second, bounded=bounded)
    return PositionGap(
        gap=(test.first - test.second) * 100,
        low=low * 100,
        high=high * 100,
        z=test.z,
        p_value=test.p_value,
        first=test.first * 100,
        second=test.second * 100,
        n_first=test.n_first,
        n_second=test.n_second,
    )


def board_gap(columns: Mapping[str, Annotations]) -> PositionGap | None:
    """The gap of a whole board: of the means per instruction over its models.

    Every model is shown in the same order on an instruction, so the instruction is the unit; each model's own mean
    is taken out first, so that a missing row is no shift. ``first`` and ``second`` are relative to the board's mean.
    """
    if not columns:
        return None
    shown_first = np.concatenate([column.switched for column in columns.values()])
    score = np.concatenate(
        [column.preference - np.nanmean(column.preference) for column in columns.values()]
    )
    parsed = ~np.isnan(score)
    cluster = _numbers([column.instruction for column in columns.values()])[parsed]
    rows = np.bincount(cluster)
    first = np.zeros(len(rows), np.bool_)
    first[cluster[::-1]] = shown_first[parsed][::-1]  # of an instruction's rows the first stays
    means = np.bincount(cluster, weights=score[parsed])[rows > 0] / rows[rows > 0]
    return position_gap(means, first[rows > 0], bounded=False)


def _numbers(instructions: Sequence[TextId]) -> NDArray[np.intp]:
    """Each row's instruction as a number from 0; most of a thousand files have the same ones in the same order."""
    orders = {one.tobytes(): one for one in instructions}
    known = np.unique(np.concatenate(list(orders.values())))
    numbers = {order: known.searchsorted(one) for order, one in orders.items()}
    return np.concatenate([numbers[one.tobytes()] for one in instructions])


def audit_position(annotator: str, columns: Mapping[str, Annotations]) -> list[Finding]:
    """The judge's preference for a place: of the whole board, and of each model beyond chance among all of them."""
    usable = {
        model: column
        for model, column in columns.items()
        if column.generator != column.baseline and not np.isnan(column.preference).all()
    }
    gaps = fork_map(_gap, list(usable.values()), least=WORTH_A_FORK)
    found = {model: gap for model, gap in zip(usable, gaps, strict=True) if gap is not None}
    if not found:
        return []
    adjusted = holm(np.array([gap.p_value for gap in found.values()]))
    p_holm = dict(zip(found, adjusted.tolist(), strict=True))
    # Where the board leans as a whole, that one finding holds every model's figures.
    return _of_board(annotator, usable, found, p_holm) or [
        _of_model(annotator, model, gap, p_holm[model], len(found))
        for model, gap in found.items()
        if p_holm[model] < LEVEL
    ]


def _gap(table: Annotations) -> PositionGap | None:
    return position_gap(table.preference - 1, table.switched)


def _of_board(
    annotator: str,
    columns: Mapping[str, Annotations],
    found: Mapping[str, PositionGap],
    p_holm: Mapping[str, float],
) -> list[Finding]:
    """The board leans when its mean gap is beyond chance, and still is without its most extreme model."""
    largest = max(found, key=lambda model: abs(found[model].gap))
    whole = board_gap(columns)
    others = board_gap({model: table for model, table in columns.items() if model != largest})
    if whole is None or others is None or max(whole.p_value, others.p_value) >= LEVEL:
        return []
    models = sorted(found, key=lambda model: (-abs(found[model].gap), model))
    beyond = [model for model in models if p_holm[model] < LEVEL]
    severity: Severity = "warning" if abs(whole.gap) >= LARGE_GAP else "note"
    message = (
        f"A model shown first scores {_points(whole)} than shown second, on average over {len(found)} models "
        f"(z = {whole.z:.1f}); {len(beyond)} of them differ beyond chance (Holm), the most {largest} with "
        f"{found[largest].first:.1f} first against {found[largest].second:.1f} second."
    )
    evidence = {
        "gap": whole.gap,
        "ci_low": whole.low,
        "ci_high": whole.high,
        "z": whole.z,
        "p_value": whole.p_value,
        "models": beyond,
        "all_models": models,
        "gaps": [found[model].gap for model in models],
        "gaps_low": [found[model].low for model in models],
        "gaps_high": [found[model].high for model in models],
        "p_holm": [p_holm[model] for model in models],
    }
    return [Finding("position_gap", severity, None, f"*/{annotator}", message, evidence)]


def _of_model(
    annotator: str, model: str, gap: PositionGap, p_holm: float, n_models: int
) -> Finding:
    severity: Severity = "warning" if abs(gap.gap) >= LARGE_GAP_OF_ONE else "note"
    message = (
        f"Shown first, {model} scores {_points(gap)} than shown second: {gap.first:.1f} over {gap.n_first} rows "
        f"against {gap.second:.1f} over {gap.n_second} (z = {gap.z:.1f}; p = {p_holm:.2g} among "
        f"{count(n_models, 'model')}, Holm)."
    )
    evidence = {
        "gap": gap.gap,
        "ci_low": gap.low,
        "ci_high": gap.high,
        "z": gap.z,
        "p_value": gap.p_value,
        "p_holm": p_holm,
        "win_rate_first": gap.first,
        "win_rate_second": gap.second,
    }
    return Finding("position_gap", severity, model, f"{model}/{annotator}", message, evidence)


def audit_unparsed(annotator: str, columns: Mapping[str, Annotations]) -> list[Finding]:
    """Verdicts that could not be parsed, with their rows; one finding for the models that have few of them."""
    rows = {
        model: (np.flatnonzero(np.isnan(column.preference)) + 1).tolist()
        for model, column in columns.items()
        if column.n_unparsed
    }
    many = {m for m, found in rows.items() if len(found) > _UNPARSED_SHARE * len(columns[m])}
    findings = [
        Finding(
            "unparsed",
            "warning",
            model,
            f"{model}/{annotator}",
            f"{len(rows[model])} of {len(columns[model])} verdicts could not be parsed and are in no figure: "
            f"{rows_text(rows[model])}.",
            {"n_unparsed": len(rows[model]), "n_rows": len(columns[model]), "rows": rows[model]},
        )
        for model in sorted(many)
    ]
    few = sorted(rows.keys() - many, key=lambda model: (-len(rows[model]), model))
    if few:
        total = sum(len(rows[model]) for model in few)
        parts = [f"{model} ({rows_text(rows[model])})" for model in few]
        rest = f" and {len(parts) - 5} more" if len(parts) > 5 else ""
        message = (
            f"{count(total, 'verdict')} of {count(len(few), 'model')} could not be parsed and are in no figure: "
            f"{', '.join(parts[:5])}{rest}."
        )
        evidence = {
            "models": few,
            "n_unparsed": [len(rows[m]) for m in few],
            "rows": [rows[m] for m in few],
        }
        findings.append(Finding("unparsed", "note", None, f"*/{annotator}", message, evidence))
    return findings


def _points(gap: PositionGap) -> str:
    side = "lower" if gap.gap < 0 else "higher"
    low, high = sorted((abs(gap.low), abs(gap.high)))
    if (
        gap.low < 0 < gap.high
    ):  # the interval is Welch's, the test is not: they can disagree at the edge
        return f"{abs(gap.gap):.1f} points {side} (95 % interval of the gap {gap.low:.1f} to {gap.high:.1f})"
    return f"{abs(gap.gap):.1f} points {side} (95 % interval {low:.1f} to {high:.1f})"
