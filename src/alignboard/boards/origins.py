"""Family and method of the models of a results folder: from their records and their adapters' training cards."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from alignboard.boards.board import Board
from alignboard.boards.columns import Column, Row, Score
from alignboard.results.files import UNREADABLE
from alignboard.workspace import CARD

_RECORD = "model.json"
Schema = TypeVar("Schema", bound=msgspec.Struct)


class _Record(msgspec.Struct):
    """Which model a folder of results is of (`alignboard.pipeline.model_names`)."""

    base: str
    adapter: str | None = None


class _Card(msgspec.Struct):
    """What a training card says."""

    method: str | None = None
    steps: int | None = None
    seconds: float | None = None


def _column(key: str, unit: str, digits: int) -> Column:
    return Column(
        key=key,
        name=key,
        kind="diagnostic",
        unit=unit,
        source="training card",
        better="none",
        digits=digits,
        detail=True,
    )


STEPS, HOURS = _column("training steps", "steps", 0), _column("training time", "hours", 2)


def with_origins(board: Board, root: Path) -> Board:
    """``board`` of the results folder ``root`` with the family and the method of every model that is on record.

    A model's family is its base. Its method is read from the training card of its adapter, or of the model itself; a
    base beside its adapters is ``base``. What is not on record stays unknown.
    """
    records = {row.model: _read(root / row.model / _RECORD, _Record) for row in board.rows}
    bases = {record.base for record in records.values() if record and record.adapter}

    def placed(row: Row) -> Row:
        record = records[row.model]
        if record is None or row.family is not None:
            return row
        card = _read(root.absolute().parent / (record.adapter or record.base) / CARD, _Card)
        method = None if card is None else card.method
        if method is None and record.adapter is None and record.base in bases:
            method = "base"
        scores = {} if card is None else _scores(card)
        return msgspec.structs.replace(
            row, family=Path(record.base).name, method=method, scores=row.scores | scores
        )

    rows = [placed(row) for row in board.rows]
    held = [one for one in (STEPS, HOURS) if any(one.key in row.scores for row in rows)]
    return msgspec.structs.replace(board, columns=[*board.columns, *held], rows=rows)


def _scores(card: _Card) -> dict[str, Score]:
    found = {}
    if card.steps is not None:
        found[STEPS.key] = Score(float(card.steps))
    if card.seconds is not None:
        found[HOURS.key] = Score(card.seconds / 3600)
    return found


def _read(path: Path, schema: type[Schema]) -> Schema | None:
    """What ``path`` says; None where there is no such file, or another one of that name."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=schema)
    except (OSError, *UNREADABLE):
        return None
