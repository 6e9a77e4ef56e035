"""The board as text with one piece per row, so that a reader may take some of the rows in another order.

Text that others wrote never acts as a formula, as markup or as a control.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from alignboard.boards.board import BEST, Board, records, table
from alignboard.text import csv_cell, markdown_text

LEFT = {"model", "method", "flags"}
"""columns of text"""


@dataclass(frozen=True)
class TableLines:
    """A table as text: what stands before the rows, every row with its line break, what stands after them."""

    head: str
    rows: list[str]
    foot: str = ""

    def __str__(self) -> str:
        return self.head + "".join(self.rows) + self.foot


def csv_lines(board: Board) -> TableLines:
    """A text that a spreadsheet would run as a formula gets a leading apostrophe."""
    rows = records(board)
    return TableLines(_csv_line(rows[0]) if rows else "", [_csv_line(row.values()) for row in rows])


def _csv_line(values: Any) -> str:
    target = io.StringIO(newline="")
    csv.writer(target, lineterminator="\n").writerow([csv_cell(value) for value in values])
    return target.getvalue()


def markdown_lines(board: Board) -> TableLines:
    """A page of markdown, with the board's picture."""
    found = table(board)
    title = markdown_text(board.title)
    head = [
        f"# {title}",
        "",
        markdown_text(board.summary),
        "",
        f"![{title}]({quote(board.name, safe='')}.png)",
        "",
        _markdown_line([markdown_text(head) for head in found.heads]),
        _markdown_line([":--" if name in LEFT else "--:" for name in found.names]),
    ]
    rows = [
        _markdown_line(
            [
                f"**{markdown_text(cell)}**" if (row, place) in found.best else markdown_text(cell)
                for place, cell in enumerate(line)
            ]
        )
        + "\n"
        for row, line in enumerate(found.cells)
    ]
    notes = [*board.notes, *([BEST] if found.best else [])]
    foot = ["", *(f"- {markdown_text(note)}" for note in notes)]
    return TableLines("\n".join(head) + "\n", rows, "\n".join(foot) + "\n")


def _markdown_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
