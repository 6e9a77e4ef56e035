"""Presets: which columns a board shows, in which order and grouping; ``leaderboards/<name>.yaml``.

A preset describes columns and never computes: it is laid over a board of any source, so that the methods of one family
are shown alike whether their numbers come from a plan, a folder of results or a published board. What it does not
describe stays in the csv and json files.
"""

from __future__ import annotations

import math
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import msgspec

from alignboard.boards.board import Board
from alignboard.boards.columns import RANKED, Column, Kind, Row
from alignboard.errors import InputError
from alignboard.suites import convert, read_yaml
from alignboard.workspace import declaration

ROOM = "leaderboards"
_ORDER = ("base", "sft")
"""methods that stand first in their family"""


class Described(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The columns that agree with everything given here; texts may hold ``*``."""

    kind: Kind | None = None
    name: str | None = None
    judge: str | None = None
    set: str | None = None
    baseline: str | None = None
    source: str | None = None

    def fits(self, column: Column) -> bool:
        """Whether ``column`` is one of them."""
        if self.kind is not None and column.kind != self.kind:
            return False
        wanted = ((getattr(self, k), getattr(column, k)) for k in _TEXTS)
        return all(one is None or fnmatchcase(there or "", one) for one, there in wanted)

    def __str__(self) -> str:
        given = {k: v for k in ("kind", *_TEXTS) if (v := getattr(self, k)) is not None}
        return ", ".join(f"{k} {v}" for k, v in given.items()) or "every column"


_TEXTS = ("name", "judge", "set", "baseline", "source")


class Preset(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What a board shows."""

    title: str
    columns: list[Described]
    """in this order; each stands for every column that it describes"""
    sort: Described | None = None
    """the first column that it describes ranks the rows; null: as the board was"""
    group_by: Literal["family", "method"] | None = None
    """rows of one family, or of one method, stand together"""
    suite: str | None = None
    """the published suite whose board is meant where no other source is given"""


def load_preset(name: str, workspace: Path | None = None) -> Preset:
    """The preset called ``name``; raises `InputError` that names the file and the field."""
    path = declaration(ROOM, name, workspace)
    return convert(path, read_yaml(path), Preset, "the preset")


def apply_preset(board: Board, preset: Preset, name: str | None = None) -> Board:
    """``board`` as ``preset`` shows it, under ``name`` or its own.

    Columns that the preset does not describe are kept for csv and json; rows without a value in any described column
    are left out.

    Raises
    ------
    InputError
        Where the board has none of the described columns.
    """
    first = [column for wanted in preset.columns for column in board.columns if wanted.fits(column)]
    shown = list(
        {column.key: msgspec.structs.replace(column, detail=False) for column in first}.values()
    )
    shown = [column for column in shown if board.holds(column)]
    if not shown:
        wanted = "; ".join(map(str, preset.columns))
        there = ", ".join(sorted({column.kind for column in board.columns if board.holds(column)}))
        raise InputError(
            f"The board {board.name!r} has no column that this preset shows ({wanted}); it has: {there or 'none'}."
        )
    keys = {column.key for column in shown}
    others = [
        msgspec.structs.replace(column, detail=True)
        for column in board.columns
        if column.key not in keys
    ]
    ranked = board.ranked_by
    if preset.sort is not None:
        ranked = next((c.key for c in shown if preset.sort.fits(c) and c.kind != "place"), None)
    rows = [
        row for row in board.rows if any(board.score(row, key).value is not None for key in keys)
    ]
    made = msgspec.structs.replace(
        board,
        name=name or board.name,
        title=preset.title if preset.suite is None else board.title,
        columns=[*shown, *others],
        rows=rows,
        ranked_by=ranked,
        beside=board.beside if ranked == board.ranked_by else None,
        notes=_notes(board, ranked),
    )
    return msgspec.structs.replace(made, rows=_grouped(made, preset.group_by))


def _notes(board: Board, ranked: str | None) -> list[str]:
    """The board's notes, with a sentence on the ranking in place of the one that it had."""
    notes = [note for note in board.notes if not note.startswith(RANKED)]
    return notes if ranked is None else [*notes, f"{RANKED} {board.label(board.column(ranked))}."]


def _grouped(board: Board, group_by: Literal["family", "method"] | None) -> list[Row]:
    """Rows by the ranking; group by group where these are asked for, each group where its best row stands."""
    ranks = {row.model: rank for row, rank in zip(board.rows, board.ranks(), strict=True)}

    def rank(row: Row) -> float:
        found = ranks[row.model]
        return math.inf if found is None else found

    def place(row: Row) -> int:
        return _ORDER.index(row.method) if row.method in _ORDER else len(_ORDER)

    rows = sorted(board.rows, key=rank) if board.ranked_by is not None else list(board.rows)
    if group_by is None:
        return rows
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(getattr(row, group_by) or "", []).append(row)
    inside = place if group_by == "family" else (lambda _: 0)
    return [row for own in groups.values() for row in sorted(own, key=inside)]
