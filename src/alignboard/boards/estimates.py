"""Columns of estimates: what people would say, by few of their labels, and official scores by the bridge.

They are of the kind ``estimate``, which every format shows with a sign of its own, and rank nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from alignboard.boards.board import Board
from alignboard.boards.columns import ESTIMATED, Column, Score
from alignboard.boards.verdicts import Verdicts
from alignboard.errors import InputError, nearest
from alignboard.published.bridge.report import COLUMN
from alignboard.records import Annotations
from alignboard.results.files import UNREADABLE
from alignboard.stats.calibrated import calibrated_mean

NOTE = f"{ESTIMATED} before a number: estimated, not measured; its column says from what."
_FEWEST = 10
"""labels below which a judge is not corrected: `calibrated_mean` would give the people's own mean"""


def with_corrections(board: Board, verdicts: Sequence[Verdicts], people: str) -> Board:
    """``board`` with every judge's win rates corrected by the labels of the annotator ``people``.

    A judge's and the people's verdicts belong together where they are on the same two responses to a prompt of one set.

    Raises
    ------
    InputError
        Where ``people`` has no verdicts, or nowhere enough on responses that a judge has judged.
    """
    annotators = sorted({one.judge for one in verdicts})
    if people not in annotators:
        hint = nearest(people, annotators) or f"; there are annotations by {', '.join(annotators)}."
        raise InputError(f"--people {people}: there are no annotations by {people}{hint}")
    labels = {(v.model, v.set, v.baseline): v.table for v in verdicts if v.judge == people}
    scores: dict[str, dict[str, Score]] = {}
    rates = {(c.judge, c.set, c.baseline): c for c in board.of_kind("win rate")}
    columns: dict[str, Column] = {}
    for one in verdicts:
        rate, given = rates.get(one.column), labels.get((one.model, one.set, one.baseline))
        if one.judge == people or rate is None or given is None:
            continue
        found = _corrected(one.table, given)
        if found is not None:
            column = _corrected_column(rate, people)
            columns[column.key] = column
            scores.setdefault(one.model, {})[column.key] = found
    if not columns:
        raise InputError(
            f"--people {people}: no judge has judged {_FEWEST} or more of the pairs that {people} labelled."
        )
    return _joined(board, list(columns.values()), scores)


def _corrected_column(rate: Column, people: str) -> Column:
    return msgspec.structs.replace(
        rate,
        key=f"{rate.key}/corrected-by/{people}",
        name=f"win rate, corrected by {people}",
        kind="estimate",
        estimator="tuned prediction-powered inference (PPI++, cross-fitted): few labels of people, all of the judge",
        conditional_on=f"the prompts that {people} labelled are a random sample of those that the judge judged",
    )


def _corrected(judged: Annotations, labelled: Annotations) -> Score | None:
    """The win rate by people's labels with the judge's help, in percent; None with too few labels in common."""
    known = {
        pair: value
        for pair, value in zip(_pairs(labelled), labelled.preference.tolist(), strict=True)
        if not np.isnan(value)
    }
    scored = ~np.isnan(judged.preference)
    human = np.array([known.get(pair, np.nan) for pair in _pairs(judged)]) - 1
    human, judge = human[scored], judged.balanced[scored].astype(float) - 1
    if (~np.isnan(human)).sum() < _FEWEST:
        return None
    found = calibrated_mean(judge, human)
    rate = found.rate
    return Score(
        100 * rate.estimate,
        100 * rate.low,
        100 * rate.high,
        100 * rate.standard_error,
        n=found.n_labels,
        note=f"{found.n_labels} labels",
    )


def _pairs(table: Annotations) -> list[tuple[int, int, int]]:
    ids = (table.instruction.tolist(), table.output_1.tolist(), table.output_2.tolist())
    return list(zip(*ids, strict=True))


class _Bridge(msgspec.Struct):
    """What of ``alignboard bridge --json FILE`` a board shows."""

    new_judge: str
    official_judge: str
    suite: str
    metric: Literal["win_rate", "lc"]
    estimates: list[dict[str, str | float | None]]
    """as `alignboard.published.bridge.report.BridgeRow.to_json` writes them"""


def with_bridge(board: Board, path: Path) -> Board:
    """``board`` with the official scores that ``alignboard bridge --json`` estimated, in the file ``path``.

    Raises
    ------
    InputError
        Where ``path`` is no such file, or estimates none of the board's models.
    """
    try:
        bridge = msgspec.json.decode(path.read_bytes(), type=_Bridge)
    except (OSError, *UNREADABLE) as error:
        raise InputError(
            f"{path} holds no estimates ({error}); make it: alignboard bridge JUDGE --json {path}"
        ) from error
    column = Column(
        key=f"{bridge.suite}/{bridge.metric}/bridge/{bridge.new_judge}",
        name=f"{bridge.suite} {'LC win rate' if bridge.metric == 'lc' else 'win rate'}",
        kind="estimate",
        unit="%",
        judge=bridge.official_judge,
        set=bridge.suite,
        source="bridge",
        estimator=f"bridge from the scores of {bridge.new_judge}; 95 % prediction interval",
        conditional_on="models like those that both judges scored",
    )
    models = {row.model for row in board.rows}
    scores = {
        str(one["model"]): {column.key: found}
        for one in bridge.estimates
        if one.get("model") in models
        and (found := _estimate(one, COLUMN[bridge.metric])) is not None
    }
    if not scores:
        raise InputError(f"{path} estimates no score of a model of this board.")
    return _joined(board, [column], scores)


def _estimate(row: dict[str, str | float | None], name: str) -> Score | None:
    value, low, high = (row.get(f"estimated_{name}{end}") for end in ("", "_low", "_high"))
    if not all(isinstance(x, (int, float)) for x in (value, low, high)):
        return None
    return msgspec.convert({"value": value, "low": low, "high": high}, Score)


def _joined(board: Board, columns: list[Column], scores: dict[str, dict[str, Score]]) -> Board:
    rows = [
        msgspec.structs.replace(row, scores=row.scores | scores.get(row.model, {}))
        for row in board.rows
    ]
    notes = board.notes if NOTE in board.notes else [*board.notes, NOTE]
    return msgspec.structs.replace(
        board, columns=[*board.columns, *columns], rows=rows, notes=notes
    )
