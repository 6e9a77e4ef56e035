"""A published board recomputed from its annotations, and held against what was published."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from msgspec.structs import replace

from alignboard.data.set_texts import known_texts
from alignboard.errors import ConvergenceError, InputError
from alignboard.published.board_rows import BoardRow, board_row, compared_row, explained_row
from alignboard.published.calibration import Calibration
from alignboard.published.scores import (
    CalibratedScores,
    LcScore,
    LcScores,
    joint_lc_win_rates,
    kept_ranks,
    reference_position,
)
from alignboard.published.wheel_boards import read_published_board
from alignboard.records import Annotations, TextId
from alignboard.results.folder import ResultsFolder
from alignboard.suites import Suite


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
        row = board_row(name, table, folder.outputs(name), reference, lc, reason)
        if name in ranks:
            one = ranks[name]
            row = replace(
                row, rank=one.rank, rank_low=one.best, rank_high=one.worst, rank_note=one.note
            )
        row = compared_row(row, published.get(name), suite, mode)
        if mode == "compat" and scores is not None:
            row = explained_row(row, table, scores, suite)
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
        return joint, None
    try:
        found = scores.score(table)
    except (ConvergenceError, np.linalg.LinAlgError) as error:
        return None, f"no length control: {error}"
    return found, found.aligned.note
