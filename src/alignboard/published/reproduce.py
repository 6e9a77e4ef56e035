"""A published board recomputed from its annotations, and held against what was published."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from msgspec.structs import replace

from alignboard.data.set_texts import known_texts
from alignboard.errors import ConvergenceError, InputError
from alignboard.published.calibration import Calibration
from alignboard.published.scores import (
    CalibratedScores,
    LcScore,
    LcScores,
    joint_lc_win_rates,
    kept_ranks,
    lc_jump,
    reference_position,
)
from alignboard.published.wheel_boards import PublishedRow, read_published_board
from alignboard.records import Annotations, Outputs, TextId
from alignboard.results.folder import ResultsFolder
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


class Reproduction(msgspec.Struct, frozen=True):
    """A recomputed board."""

    suite: str
    annotator: str
    baseline: str
    mode: str
    length_control: str
    """where difficulties come from: ``calibrated`` (AlpacaEval's files) or ``joint`` (fitted to these models)"""
    models: list[BoardRow]
    n_published: int
    """models on the published board"""

    @property
    def n_compared(self) -> int:
        """Rows that have a published counterpart."""
        return sum(row.published_win_rate is not None for row in self.models)

    @property
    def disagreements(self) -> list[str]:
        """Every figure that differs from the published one by more than the suite's tolerance."""
        return [f"{row.model}: {reason}" for row in self.models for reason in row.disagreements]

    def to_json(self) -> dict:
        """Plain data, ``models`` first; NaN never occurs."""
        content = msgspec.to_builtins(self)
        return {"models": content.pop("models"), **content}


def reproduce(
    suite: Suite,
    folder: ResultsFolder,
    calibration: Calibration | None,
    *,
    models: Sequence[str] | None = None,
    mode: str = "compat",
    on_model: Callable[[str], None] | None = None,
) -> Reproduction:
    """Recompute the board of ``suite`` from the annotations of its own annotator in ``folder``.

    ``models`` limits the rows. Without ``calibration`` the difficulties are fitted jointly. Raises `InputError` where
    a model has no annotations, where the reference set is missing or does not hold an instruction, or where a file is
    damaged.
    """
    published = read_published_board(suite.board.file)
    names = list(models) if models else folder.annotated_models(suite.annotator)
    if not names:
        raise InputError(
            f"{folder.root} holds no annotations by {suite.annotator}, the judge of {suite.name}."
        )
    tables = folder.tables(names, suite.annotator)
    _require_agreement(tables, suite)
    reference = reference_set(folder, suite, tables)
    for table in tables.values():
        reference_position(table, reference)
    if calibration is not None and len(calibration.difficulty) != len(reference):
        raise InputError(
            f"The calibration files are for {len(calibration.difficulty)} instructions, the reference set of "
            f"{folder.root} has {len(reference)}; give the files of this set with --assets DIR."
        )
    scores = CalibratedScores(folder, reference, calibration) if calibration is not None else None
    if scores is not None:
        scores.compute(list(tables.values()))
    joint = {} if calibration is not None else joint_lc_win_rates(tables)
    ranks = kept_ranks(folder, tables)
    rows = []
    for name, table in tables.items():
        lc, reason = _length_control(table, scores, joint.get(name, ""))
        row = _row(name, table, folder.outputs(name), reference, lc, reason)
        if name in ranks:
            one = ranks[name]
            row = replace(
                row, rank=one.rank, rank_low=one.best, rank_high=one.worst, rank_note=one.note
            )
        row = _compared(row, published.get(name), suite, mode)
        if mode == "compat" and scores is not None:
            row = _explained(row, table, scores, suite)
        rows.append(row)
        if on_model is not None:
            on_model(name)
    length_control = "calibrated" if calibration is not None else "joint"
    key = f"lc_win_rate_{mode if length_control == 'calibrated' else length_control}"
    rows.sort(key=lambda row: (-(getattr(row, key) or row.win_rate or 0), row.model))
    return Reproduction(
        suite=suite.name,
        annotator=suite.annotator,
        baseline=suite.baseline,
        mode=mode,
        length_control=length_control,
        models=rows,
        n_published=len(published),
    )


def reference_set(folder: ResultsFolder, suite: Suite, tables: dict[str, Annotations]) -> TextId:
    """(N,) the suite's instructions in their order: those that its set declares, else the baseline's outputs, else a
    complete annotation file's rows.

    Raises `InputError` where none of them is there.
    """
    known = suite_texts(suite)
    if known is not None:
        return known
    outputs = folder.outputs(suite.baseline)
    if outputs is not None:
        return outputs.instruction
    orders: dict[bytes, list[Annotations]] = {}
    for table in tables.values():
        if len(table) == suite.n_instructions:
            orders.setdefault(table.instruction.tobytes(), []).append(table)
    if not orders:
        raise InputError(
            f"{folder.root} lacks the baseline: {suite.baseline}/model_outputs.json, which gives the "
            f"{suite.n_instructions} instructions and their order, and no annotation file is complete; add it."
        )
    return max(orders.values(), key=len)[0].instruction


def suite_texts(suite: Suite) -> TextId | None:
    """The identities of the suite's instructions, where its set declares them: a folder cannot change their order."""
    return None if suite.instructions is None else known_texts(suite.instructions.set)


def _require_agreement(tables: dict[str, Annotations], suite: Suite) -> None:
    for table in tables.values():
        if table.annotator != suite.annotator:
            raise InputError(
                f"{table.path}, row 1, field 'annotator': {table.annotator!r}, but the folder is that of "
                f"{suite.annotator!r}; verdicts of two judges do not belong in one column: rename one of the two."
            )
        if table.baseline != suite.baseline:
            raise InputError(
                f"{table.path}, row 1, field 'generator_1': {table.baseline!r}, but {suite.name} compares with "
                f"{suite.baseline!r}; models judged against another baseline do not belong on this board."
            )


def _length_control(
    table: Annotations, scores: CalibratedScores | None, joint: LcScore | str
) -> tuple[LcScores | LcScore | None, str | None]:
    """The length-controlled scores, or None and why there are none."""
    if scores is None:
        if isinstance(joint, str):
            return None, f"no length control: {joint}"
        return joint, f"LC win rate {joint.note}" if joint.note else None
    try:
        found = scores.score(table)
    except (ConvergenceError, np.linalg.LinAlgError) as error:
        return None, f"no length control: {error}"
    return found, found.aligned.note


def _row(
    name: str,
    table: Annotations,
    outputs: Outputs | None,
    reference: TextId,
    lc: LcScores | LcScore | None,
    reason: str | None,
) -> BoardRow:
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


def _compared(row: BoardRow, published: PublishedRow | None, suite: Suite, mode: str) -> BoardRow:
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


def _explained(
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
