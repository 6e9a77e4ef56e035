"""Columns of other packages: one registration puts a column onto every board made from responses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import msgspec

from alignboard.boards.board import Board
from alignboard.boards.columns import Column, Score
from alignboard.registry import lookup, names

ColumnMaker: TypeAlias = Callable[[Mapping[str, Path]], tuple[Column, Mapping[str, Score]] | None]
"""takes the file of responses of every model; returns a column and its scores by model, or None"""


def with_registered(board: Board, outputs: Mapping[str, Path]) -> Board:
    """``board`` with the columns that are registered as ``column`` (`alignboard.registry`)."""
    for name in names("column"):
        make: ColumnMaker = lookup("column", name)
        found = make(outputs)
        if found is None:
            continue
        column, scores = found
        board = msgspec.structs.replace(
            board,
            columns=[*board.columns, column],
            rows=[
                msgspec.structs.replace(row, scores=row.scores | {column.key: scores[row.model]})
                if row.model in scores
                else row
                for row in board.rows
            ],
        )
    return board
