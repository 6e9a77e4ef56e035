"""Family and method of the models of a results folder: from their records and their adapters' training cards."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from alignboard.boards.board import Board
from alignboard.boards.columns import Row
from alignboard.results.files import UNREADABLE
from alignboard.workspace import CARD

_RECORD = "model.json"
Schema = TypeVar("Schema", bound=msgspec.Struct)


class _Record(msgspec.Struct):
    """Which model a folder of results is of (`alignboard.pipeline.model_names`)."""

    base: str
    adapter: str | None = None


class _Card(msgspec.Struct):
    """What a training card says of the method."""

    method: str | None = None


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
        return msgspec.structs.replace(row, family=Path(record.base).name, method=method)

    return msgspec.structs.replace(board, rows=[placed(row) for row in board.rows])


def _read(path: Path, schema: type[Schema]) -> Schema | None:
    """What ``path`` says; None where there is no such file, or another one of that name."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=schema)
    except (OSError, *UNREADABLE):
        return None
