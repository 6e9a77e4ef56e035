"""The board's files: every writer iterates over the columns, so that a column is declared once.

The same board gives the same bytes. Text that others wrote never acts as a formula, as markup or as a control.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

from alignboard.boards.board import Board, records, table
from alignboard.results.files import write_atomically
from alignboard.text import csv_cell, markdown_text, shown
from alignboard.text import table as text_table
from alignboard.workspace import model_name

_LEFT = {"model", "method", "flags"}
_WHOLE = 100_000
"""columns of a line that is not broken"""


def to_csv(board: Board) -> str:
    """The board as csv. A text that a spreadsheet would run as a formula gets a leading apostrophe."""
    rows = records(board)
    target = io.StringIO(newline="")
    writer = csv.writer(target, lineterminator="\n")
    if rows:
        writer.writerow([csv_cell(name) for name in rows[0]])
    writer.writerows([csv_cell(value) for value in row.values()] for row in rows)
    return target.getvalue()


def to_markdown(board: Board) -> str:
    """The board as a page of markdown, with its picture."""
    groups, names, cells = table(board)
    heads = [
        f"{group}: {name}" if group else name for group, name in zip(groups, names, strict=True)
    ]
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
    full = _text(board, intervals=True, width=_WHOLE)
    if width is None or max(map(len, full.splitlines()), default=0) <= width:
        return "\n".join([full, "", *map(shown, board.notes)])
    brief = _text(board, intervals=False, width=width)
    note = (
        "Intervals are left out, because this terminal is too narrow: csv, md and html have them."
    )
    return "\n".join([brief, "", note, *map(shown, board.notes)])


def _text(board: Board, *, intervals: bool, width: int | None = None) -> str:
    groups, names, cells = table(board, intervals=intervals)
    groups, names = [shown(g) for g in groups], [shown(n) for n in names]
    cells = [[shown(cell) for cell in line] for line in cells]
    left = [k for k, name in enumerate(names) if name in _LEFT]
    heads = [(group, name) if group else name for group, name in zip(groups, names, strict=True)]
    return text_table(heads, cells, left, width)


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
