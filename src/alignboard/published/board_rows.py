"""A row of a recomputed board: its figures, its flags, and what differs from the published row."""

from __future__ import annotations

import math

import msgspec
from msgspec.structs import replace

from alignboard.published.scores import CalibratedScores, LcScore, LcScores, lc_jump
from alignboard.published.wheel_boards import PublishedRow
from alignboard.records import Annotations, Outputs, TextId
from alignboard.stats.win_rate import win_rate
from alignboard.suites import Suite
from alignboard.text import count

# The columns of a published board that a recomputed row must equal; lengths are only flagged, because upstream's
# own outputs of five models were changed by a character or two after their board row was written.
COMPARED = (
    "win_rate",
    "standard_error",
    "discrete_win_rate",
    "n_wins",
    "n_wins_base",
    "n_draws",
    "n_total",
)


class BoardRow(msgspec.Struct, frozen=True):
    """One model of a board. Rates and their errors are percentages, as AlpacaEval publishes them.

    None = not known: nothing was published, or the figure cannot be computed (``flags`` says why).
    """

    model: str
    n_total: int
    n_unparsed: int
    win_rate: float | None
    standard_error: float | None
    ci_low: float | None
    ci_high: float | None
    discrete_win_rate: float | None
    n_wins: int
    n_wins_base: int
    n_draws: int
    avg_length: int | None
    """characters, mean over all released outputs, cut to a whole number"""
    lc_win_rate_compat: float | None = None
    lc_win_rate_aligned: float | None = None
    lc_win_rate_joint: float | None = None
    """with difficulties fitted to these models, where there are no calibration files: no estimate of the published"""
    lc_standard_error: float | None = None
    """of aligned or joint, for new instructions; upstream's column of this name is ``lc_spread`` here"""
    lc_ci_low: float | None = None
    lc_ci_high: float | None = None
    lc_spread: float | None = None
    lc_c: float | None = None
    """the C that cross-validation chose, for compat where there is one"""
    lc_kkt_violation: float | None = None
    lc_published_c: float | None = None
    """the C at which the published length-controlled win rate comes out, where that is not ours"""
    published_win_rate: float | None = None
    published_lc_win_rate: float | None = None
    win_rate_difference: float | None = None
    lc_difference: float | None = None
    """of the mode's length-controlled win rate to the published one"""
    rank: int | None = None
    """by win rate, with the best and the worst that paired tests leave open"""
    rank_low: int | None = None
    rank_high: int | None = None
    rank_note: str | None = None
    """how many times the prompts suffice to separate it from the next lower model"""
    disagreements: list[str] = []
    flags: list[str] = []


def board_row(
    name: str,
    table: Annotations,
    outputs: Outputs | None,
    reference: TextId,
    lc: LcScores | LcScore | None,
    reason: str | None,
) -> BoardRow:
    """The figures of one model, with what is odd about them."""
    rate = win_rate(table.preference, balanced=table.balanced)
    aligned = lc.aligned if isinstance(lc, LcScores) else lc
    compat = lc.compat if isinstance(lc, LcScores) else None
    row = BoardRow(
        model=name,
        n_total=rate.n_total,
        n_unparsed=rate.n_unparsed,
        win_rate=_percent(rate.win_rate),
        standard_error=_percent(rate.standard_error),
        ci_low=_percent(rate.interval.low),
        ci_high=_percent(rate.interval.high),
        discrete_win_rate=_percent(rate.discrete_win_rate),
        n_wins=rate.n_wins,
        n_wins_base=rate.n_wins_base,
        n_draws=rate.n_draws,
        avg_length=None if outputs is None else int(outputs.length.mean()),
        lc_win_rate_compat=_percent(compat.win_rate) if compat else None,
        lc_c=compat.C if compat and math.isfinite(compat.C) else None,
        flags=_flags(name, table, outputs, reference, lc) + ([reason] if reason else []),
    )
    return row if aligned is None else _with_lc(row, aligned, joint=lc is aligned)


def _with_lc(row: BoardRow, score: LcScore, *, joint: bool) -> BoardRow:
    flags = list(row.flags)
    if row.win_rate is not None and lc_jump(row.win_rate, score.win_rate * 100) is not None:
        flags.append("LC far from raw")
    rate = _percent(score.win_rate)
    return replace(
        row,
        lc_win_rate_aligned=None if joint else rate,
        lc_win_rate_joint=rate if joint else None,
        lc_standard_error=_percent(score.interval.standard_error),
        lc_ci_low=_percent(score.interval.low),
        lc_ci_high=_percent(score.interval.high),
        lc_spread=_percent(score.spread),
        lc_c=row.lc_c if row.lc_c is not None or not math.isfinite(score.C) else score.C,
        lc_kkt_violation=score.kkt_violation,
        flags=flags,
    )


def _flags(
    name: str,
    table: Annotations,
    outputs: Outputs | None,
    reference: TextId,
    lc: LcScores | LcScore | None,
) -> list[str]:
    flags = []
    if n_missing := len(reference) - len(table):
        flags.append(
            f"{count(n_missing, 'row')} missing"
            if n_missing > 0
            else f"{count(-n_missing, 'row')} too many"
        )
    if isinstance(lc, LcScores) and lc.n_misplaced:
        flags.append(f"{count(lc.n_misplaced, 'row')} out of place")
    if table.n_unparsed:
        flags.append(f"{table.n_unparsed} unparsed")
    if table.generator != name:
        flags.append(f"generator is {table.generator!r}")
    if outputs is None:
        flags.append("no outputs")
    elif len(outputs) > 1 and (outputs.output == outputs.output[0]).all():
        flags.append("one constant output")
    return flags


def compared_row(
    row: BoardRow, published: PublishedRow | None, suite: Suite, mode: str
) -> BoardRow:
    """The row beside what was published."""
    if published is None:
        return replace(row, flags=[*row.flags, "not on the published board"])
    differences = {
        name: _difference(getattr(row, name), getattr(published, name)) for name in COMPARED
    }
    lc = row.lc_win_rate_compat if mode == "compat" else row.lc_win_rate_aligned
    lc_difference = _difference(lc, published.length_controlled_winrate)
    disagreements = [
        f"{name} differs from the published board by {value:+.3g}"
        for name, value in differences.items()
        if value is not None and abs(value) > suite.tolerance
    ]
    flags = list(row.flags)
    if length := _difference(row.avg_length, published.avg_length):
        flags.append(f"outputs {length:+.0f} characters off the board")
    return replace(
        row,
        published_win_rate=published.win_rate,
        published_lc_win_rate=published.length_controlled_winrate,
        win_rate_difference=differences["win_rate"],
        lc_difference=lc_difference,
        disagreements=disagreements,
        flags=flags,
    )


def explained_row(
    row: BoardRow, table: Annotations, scores: CalibratedScores, suite: Suite
) -> BoardRow:
    """A length-controlled win rate off the published one: made with another C of the grid, or a disagreement.

    Cross-validation chooses between Cs whose losses differ in the seventh digit, so other calibration labels or
    another solver's tolerance can tip it. Only compat is held to the board: it repeats upstream's look-up of
    difficulties, and what aligned changes is the point of it.
    """
    published = row.published_lc_win_rate
    if (
        published is None
        or row.lc_difference is None
        or abs(row.lc_difference) <= suite.lc_tolerance
    ):
        return row
    C, rate = scores.nearest_C(table, published / 100, start=row.lc_c or 1.0)
    if abs(rate * 100 - published) <= suite.lc_tolerance:
        flag = (
            f"published LC is the fit at C = {C:.3g}, cross-validation here chooses {row.lc_c:.3g}"
        )
        return replace(row, lc_published_c=C, flags=[*row.flags, flag])
    reason = f"lc_win_rate differs from the published board by {row.lc_difference:+.3g}, at every C"
    return replace(row, disagreements=[*row.disagreements, reason])


def _difference(ours: float | None, published: float | None) -> float | None:
    return None if ours is None or published is None else ours - published


def _percent(rate: float) -> float | None:
    return rate * 100 if math.isfinite(rate) else None
