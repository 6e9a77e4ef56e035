"""AlpacaEval's boards: the published ones of the ``alpaca-eval`` wheel, and a recomputed one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from alignboard.boards.alpaca_eval_rows import (
    LC,
    LC_ALIGNED,
    LC_JOINT,
    WIN,
    declared_adversarial,
    published_row,
    recomputed_row,
)
from alignboard.boards.board import Board
from alignboard.boards.columns import RANKED, Column, Kind, Row, Score
from alignboard.boards.judge_prompts import with_judges
from alignboard.boards.of_results import PAIRED
from alignboard.boards.scoring import NEW_PROMPTS, length_column, rank_column
from alignboard.published.reproduce import Reproduction
from alignboard.published.wheel_boards import read_published_board
from alignboard.suites import PublishedBoard, Suite
from alignboard.text import count

_PUBLISHED_CONDITIONS = (
    "95 % intervals of the win rate follow from the published standard errors and are for new prompts with the judge "
    "held fixed"
)
_NO_LC_INTERVAL = (
    "LC win rates have none, because upstream's lc_standard_error is the spread of the instructions' difficulties "
    "and not a sampling error"
)
_RECOMPUTED_CONDITIONS = (
    "95 % intervals are for new prompts drawn like these, each model by itself, with the judge, the baseline's "
    "responses and {calibration} held fixed."
)
_BY_ROW = (
    "length-controlled with AlpacaEval's calibration, difficulty looked up by row as upstream does"
)
_BY_INSTRUCTION = (
    "length-controlled with AlpacaEval's calibration, difficulty looked up by instruction"
)
_FITTED = "length-controlled, difficulties fitted jointly to these models"


@dataclass(frozen=True)
class _Columns:
    """The columns of one suite's judge."""

    suite: Suite
    judge: str
    source: str

    def rate(self, key: str, name: str, kind: Kind, estimator: str, **changes: object) -> Column:
        made = Column(
            key=key,
            name=name,
            kind=kind,
            unit="%",
            judge=self.judge,
            set=self.suite.name,
            baseline=self.suite.baseline,
            source=self.source,
            estimator=estimator,
            conditional_on=NEW_PROMPTS,
            digits=2,
        )
        return msgspec.structs.replace(made, **changes)

    def diagnostic(self, key: str, name: str, unit: str = "%") -> Column:
        return self.rate(
            key, name, "diagnostic", name, unit=unit, better="none", detail=True, conditional_on=""
        )

    def shared(self) -> list[Column]:
        """The columns that follow the length-controlled ones on both kinds of boards."""
        return [
            self.rate(WIN, "win rate", "win rate", "mean preference"),
            self.diagnostic("discrete_win_rate", "discrete win rate"),
            self.diagnostic("lc_spread", "lc_standard_error of upstream (spread of difficulties)"),
            msgspec.structs.replace(length_column(), digits=0),
        ]


def published_board(
    suite: Suite, published: PublishedBoard | None = None, models: Sequence[str] | None = None
) -> Board:
    """A published board of the wheel: that of the suite's own annotator, or ``published``.

    Nothing is recomputed: the rows hold the published figures, and an interval where a standard error was published.
    ``models`` limits the rows.
    """
    source = published or suite.board
    columns = _Columns(suite, source.annotator, "published")
    adversarial = declared_adversarial(source.file)
    rows = [
        published_row(row, suite, source.file, declared=name in adversarial)
        for name, row in read_published_board(source.file).items()
    ]
    has_lc = any(LC in row.scores for row in rows)
    conditions = [_PUBLISHED_CONDITIONS] + ([_NO_LC_INTERVAL] if has_lc else [])
    made = _board(
        declared=columns,
        columns=[
            columns.rate(LC, "LC win rate", "LC win rate", "as published", conditional_on=""),
            *columns.shared(),
        ],
        rows=rows,
        ranked_by=LC if has_lc else WIN,
        notes=["; ".join(conditions) + ".", PAIRED],
        source="figures as published",
    )
    return made if models is None else made.only(models)


def with_published(board: Board, suite: Suite, models: Sequence[str] | None = None) -> Board:
    """``board`` with the published figures of ``suite`` for reference, in columns of their own.

    A published model that is a row of the board already shows both; the others come last. ``models`` limits the rows
    that are shown.
    """
    found = published_board(suite)
    shown = {row.model: row for row in found.rows if models is None or row.model in models}
    judge = suite.board.annotator
    columns = [
        msgspec.structs.replace(
            column,
            key=_reference_key(suite, column.key),
            name=f"published {column.name} ({suite.name})",
            set=suite.name,
            baseline=suite.baseline,
            judge=judge,
            source="published",
            detail=column.key not in {LC, WIN},
        )
        for column in found.columns
    ]
    scores = {
        name: {_reference_key(suite, key): score for key, score in row.scores.items()}
        for name, row in shown.items()
    }
    own = {row.model for row in board.rows}
    rows = [
        msgspec.structs.replace(row, scores=row.scores | scores.get(row.model, {}))
        for row in board.rows
    ]
    rows += [
        Row(name, scores[name], family="published", flags=row.flags)
        for name, row in shown.items()
        if name not in own
    ]
    note = (
        f"Columns of {suite.name} that say published hold its published board, judged by {judge} against "
        f"{suite.baseline}; they are for reference and rank nothing here."
    )
    return msgspec.structs.replace(
        board, columns=[*board.columns, *columns], rows=rows, notes=[*board.notes, note]
    )


def _reference_key(suite: Suite, key: str) -> str:
    return f"published_{suite.name}_{key}".replace("-", "_").replace(".", "_")


def recomputed_board(reproduction: Reproduction, suite: Suite) -> Board:
    """A board that `alignboard.published.reproduce` recomputed, beside the published figures."""
    joint = reproduction.length_control == "joint"
    adversarial = declared_adversarial(suite.board.file)
    columns = _Columns(suite, reproduction.annotator, "annotations")
    aligned = LC_JOINT if joint else LC_ALIGNED
    by_row = columns.rate(LC, "LC win rate (by row)", "LC win rate", _BY_ROW)
    by_instruction = columns.rate(
        aligned,
        "LC win rate (joint fit)" if joint else "LC win rate (by instruction)",
        "LC win rate",
        _FITTED if joint else _BY_INSTRUCTION,
    )
    published = {"source": "published", "conditional_on": ""}
    has_lc = any(
        row.lc_win_rate_aligned is not None or row.lc_win_rate_joint is not None
        for row in reproduction.models
    )
    first = LC if reproduction.mode == "compat" and not joint else aligned
    calibration = "the difficulties fitted to these models" if joint else "the calibration"
    return _board(
        declared=columns,
        columns=[
            *([] if joint else [by_row]),
            by_instruction,
            *_with_ranks(columns.shared()),
            columns.rate(
                "published_lc_win_rate", "published LC", "diagnostic", "as published", **published
            ),
            columns.rate(
                "published_win_rate",
                "published win rate",
                "diagnostic",
                "as published",
                **published,
            ),
            columns.diagnostic("win_rate_difference", "win rate minus published"),
            columns.diagnostic("lc_difference", "LC minus published"),
            columns.diagnostic("lc_c", "C of the fit", unit=""),
            columns.diagnostic("lc_published_c", "C of the published fit", unit=""),
            columns.diagnostic("lc_kkt_violation", "KKT violation of the fit", unit=""),
        ],
        rows=[
            recomputed_row(row, aligned, declared=row.model in adversarial)
            for row in reproduction.models
        ],
        ranked_by=first if has_lc else WIN,
        notes=[_RECOMPUTED_CONDITIONS.format(calibration=calibration), PAIRED],
        source="recomputed from the annotations",
    )


def _with_ranks(columns: list[Column]) -> list[Column]:
    """``columns`` with the rank sets of the win rate behind it."""
    return [
        one
        for column in columns
        for one in ([column, rank_column(column)] if column.key == WIN else [column])
    ]


def _board(
    *,
    declared: _Columns,
    columns: list[Column],
    rows: list[Row],
    ranked_by: str,
    notes: list[str],
    source: str,
) -> Board:
    suite, judge = declared.suite, declared.judge
    name = suite.name if judge == suite.annotator else f"{suite.name}-{judge}"
    held = [column for column in columns if any(column.key in row.scores for row in rows)]
    held = held or [column for column in columns if column.key == ranked_by]
    beside = {LC: LC_ALIGNED, LC_ALIGNED: WIN, LC_JOINT: WIN}.get(ranked_by)
    if beside not in {column.key for column in held}:
        beside = WIN if ranked_by != WIN else None
    ranked = next(column for column in columns if column.key == ranked_by)
    made = Board(
        name=name,
        title=suite.title,
        columns=held,
        rows=_ranked(rows, ranked_by),
        summary=f"{count(len(rows), 'model')} against {suite.baseline}, judged by {judge}: {source}.",
        notes=[*notes, _ranking_note(ranked, rows)],
        ranked_by=ranked_by if any(column.key == ranked_by for column in held) else None,
        beside=beside if any(column.key == beside for column in held) else None,
        provenance={"source": source, "suite": suite.name, "annotator": judge},
        families=suite.families,
    )
    return with_judges(made)


def _ranking_note(ranked: Column, rows: Sequence[Row]) -> str:
    if all(ranked.key in row.scores for row in rows):
        return f"{RANKED} {ranked.name}."
    return f"{RANKED} {ranked.name}; models without one are not ranked."


def _ranked(rows: Sequence[Row], key: str) -> list[Row]:
    """By the ranking's values, then by win rate, then by name."""

    def order(row: Row) -> tuple[float, float, str]:
        first, second = (row.scores.get(k, Score()).value for k in (key, WIN))
        return (
            math.inf if first is None else -first,
            math.inf if second is None else -second,
            row.model,
        )

    return sorted(rows, key=order)
