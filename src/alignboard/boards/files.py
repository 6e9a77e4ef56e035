"""The board's files: every writer iterates over the columns, so that a column is declared once.

The same board gives the same bytes. Text that others wrote never acts as a formula, as markup or as a control.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from alignboard.boards.board import Board, Column, Score
from alignboard.results.files import write_atomically
from alignboard.text import csv_cell, markdown_text, shown, text_table
from alignboard.workspace import model_name

_LEFT = {"model", "method", "flags"}
_PARTS = {"low": "low", "high": "high", "SE": "standard_error"}
_COUNTS = ("n", "unparsed", "failed")


def records(board: Board) -> list[dict[str, Any]]:
    """One flat record per row: what the csv file and the data frame hold, with every digit.

    A column gives its value, then low, high, SE, n, unparsed, failed and its counts where any row has them.
    """
    parts = {column.key: _parts(board, column) for column in board.columns}
    with_ranks = board.ranked_by is not None
    found = []
    for row, rank in zip(board.rows, board.ranks(), strict=True):
        record: dict[str, Any] = {"rank": rank} if with_ranks else {}
        record |= {"model": row.model, "family": row.family, "method": row.method}
        for column in board.columns:
            score, label = board.score(row, column), board.label(column)
            record[f"{label} {column.unit}".rstrip()] = score.value
            for part in parts[column.key]:
                unit = column.unit if part in _PARTS else ""
                record[f"{label} {part} {unit}".rstrip()] = _part(score, part)
        record["flags"] = "; ".join(row.flags)
        found.append(record)
    return found


def _parts(board: Board, column: Column) -> list[str]:
    """Which figures besides the value any row has."""
    scores = [board.score(row, column) for row in board.rows]
    counts = dict.fromkeys(name for score in scores for name in score.counts)
    every = [*_PARTS, *_COUNTS, *counts]
    return [part for part in every if any(_part(score, part) is not None for score in scores)]


def _part(score: Score, part: str) -> float | None:
    if part in _PARTS:
        return getattr(score, _PARTS[part])
    return getattr(score, part) if part in _COUNTS else score.counts.get(part)


def to_csv(board: Board) -> str:
    """The board as csv. A text that a spreadsheet would run as a formula gets a leading apostrophe."""
    rows = records(board)
    target = io.StringIO(newline="")
    writer = csv.writer(target, lineterminator="\n")
    if rows:
        writer.writerow([csv_cell(name) for name in rows[0]])
    writer.writerows([csv_cell(value) for value in row.values()] for row in rows)
    return target.getvalue()


def table(
    board: Board, *, intervals: bool = True, columns: Sequence[Column] | None = None
) -> tuple[list[str], list[str], list[list[str]]]:
    """Groups, names and cells of the table that is read; intervals stand beside their values."""
    groups, names = [], []
    cells: list[list[str]] = [[] for _ in board.rows]

    def add(group: str, name: str, texts: Sequence[str]) -> None:
        groups.append(group)
        names.append(name)
        for line, text in zip(cells, texts, strict=True):
            line.append(text)

    if board.ranked_by is not None:
        add("", "rank", ["" if rank is None else str(rank) for rank in board.ranks()])
    add("", "model", [row.model for row in board.rows])
    if any(row.method for row in board.rows):
        add("", "method", [row.method or "" for row in board.rows])
    for column in board.shown() if columns is None else columns:
        scores = [board.score(row, column) for row in board.rows]
        group = board.group(column) if column.judge else ""
        unit = "%" if column.unit == "%" else ""
        texts = [column.text(s.value) or (s.reason if s.reason == "baseline" else "") for s in scores]
        add(group, f"{column.name} {unit}".rstrip(), texts)
        spans = [column.interval(score) for score in scores]
        if intervals and any(spans):
            ends = any(score.low is not None for score in scores)
            add(group, "95 %" if ends and column.kind != "place" else "to" if ends else "SE", spans)
        for name in ("unparsed", "failed"):
            counts = [getattr(score, name) for score in scores]
            if any(counts):
                add(group, name, ["" if n is None else str(n) for n in counts])
    if any(row.flags for row in board.rows):
        add("", "flags", ["; ".join(row.flags) for row in board.rows])
    return groups, names, cells


def to_markdown(board: Board) -> str:
    """The board as a page of markdown, with its picture."""
    groups, names, cells = table(board)
    heads = [f"{group}: {name}" if group else name for group, name in zip(groups, names, strict=True)]
    title = markdown_text(board.title)
    lines = [
        f"# {title}",
        "",
        markdown_text(board.summary),
        "",
        f"![{title}]({quote(board.name, safe='')}.png)",
        "",
        _line([markdown_text(head) for head in heads]),
        _line([":--" if name in _LEFT else "--:" for name in names]),
        *(_line([markdown_text(cell) for cell in line]) for line in cells),
        "",
        *(f"- {markdown_text(note)}" for note in board.notes),
    ]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def to_text(board: Board, width: int | None = None) -> str:
    """The board for a terminal or a pipe; without its intervals where these make it wider than ``width``."""
    full = _text(board, intervals=True)
    if width is None or max(map(len, full.splitlines()), default=0) <= width:
        return "\n".join([full, "", *map(shown, board.notes)])
    brief = _text(board, intervals=False)
    note = "Intervals are left out, because this terminal is too narrow: csv, md and html have them."
    return "\n".join([brief, "", note, *map(shown, board.notes)])


def _text(board: Board, *, intervals: bool) -> str:
    groups, names, cells = table(board, intervals=intervals)
    groups, names = [shown(g) for g in groups], [shown(n) for n in names]
    cells = [[shown(cell) for cell in line] for line in cells]
    left = [k for k, name in enumerate(names) if name in _LEFT]
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    head, at = "", 0
    for k, width in enumerate(widths):
        at += width + (2 if k else 0)
        last = k + 1 == len(groups) or groups[k + 1] != groups[k]
        if groups[k] and last:
            head += f"  {groups[k]}".rjust(at - len(head))
    body = text_table(names, cells, left=left)
    return "\n".join([head.rstrip(), body]) if head else body


def _to_html(board: Board) -> str:
    from alignboard.boards.page import to_html

    return to_html(board)


def _to_png(board: Board) -> bytes:
    from alignboard.boards.plots import to_png

    return to_png(board)


WRITERS: dict[str, Callable[[Board], str | bytes]] = {
    "csv": to_csv,
    "md": to_markdown,
    "json": Board.to_json,
    "png": _to_png,
    "html": _to_html,
}
"""by the suffix of the file"""


def write_board(board: Board, folder: Path) -> list[Path]:
    """Write ``<name>.csv``, ``.md``, ``.json``, ``.png`` and ``.html`` into ``folder``, each whole or not at all.

    All are made before the first is written: a board that cannot be drawn leaves nothing behind.
    """
    name = model_name(board.name)
    contents = {suffix: make(board) for suffix, make in WRITERS.items()}
    paths = []
    for suffix, content in contents.items():
        path = folder / f"{name}.{suffix}"
        write_atomically(path, content.encode() if isinstance(content, str) else content)
        paths.append(path)
    return paths
