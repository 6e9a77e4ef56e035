"""The board's page: one html file that needs nothing besides itself.

Everything that a model, a judge or a folder's name could have written is escaped by the template, with its control
and bidirectional characters made visible, and the script of the page holds no data: it sorts the rows that are there.
A content security policy allows that script alone. The same board gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from alignboard.boards.board import Board
from alignboard.boards.columns import Column, Row, Score
from alignboard.text import shown

if TYPE_CHECKING:
    from jinja2 import Environment

UNKNOWN = "n/a"
_PARTS = Path(__file__).with_name("page_parts")


@dataclass(frozen=True)
class Cell:
    """What a place of the table shows: a text, the small print below it, and what sorts it."""

    text: str = UNKNOWN
    notes: tuple[str, ...] = ()
    value: float | None = None


@dataclass(frozen=True)
class PageColumn:
    """A column of the table under the heading of its group, which names the judge."""

    group: str
    name: str
    column: Column
    about: str
    """what the numbers are conditional on, for a tooltip"""


@dataclass(frozen=True)
class FamilyResponses:
    """The sample prompts with the responses of one family, by method or model."""

    family: str
    prompts: list[tuple[str, list[tuple[str, str | None]]]]


def to_html(board: Board) -> str:
    """The page."""
    from markupsafe import Markup

    from alignboard.boards.plots import panels, to_svg

    script = (_PARTS / "board.js").read_text(encoding="utf-8")
    template = _environment().from_string((_PARTS / "board.html").read_text(encoding="utf-8"))
    plots = [
        (panel.heading, Markup(to_svg(panel)))  # noqa: S704 - its texts are escaped where it is made
        for panel in panels(board)
    ]
    return template.render(
        board=board,
        unknown=UNKNOWN,
        table=Markup(table_html(board)),  # noqa: S704 - made by a template of this package, which escapes
        # Plain text that this package wrote.
        style=Markup((_PARTS / "board.css").read_text(encoding="utf-8")),  # noqa: S704
        script=Markup(script),  # noqa: S704
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        plots=plots,
        responses=responses(board),
    )


def table_html(board: Board) -> str:
    """The table alone."""
    columns = page_columns(board)
    template = _environment().from_string((_PARTS / "table.html").read_text(encoding="utf-8"))
    return template.render(
        board=board,
        rows=list(zip(board.rows, board.ranks(), strict=True)),
        ranked=board.ranked_by is not None,
        with_method=any(row.method for row in board.rows),
        with_flags=any(row.flags for row in board.rows),
        groups=[(name, len(list(own))) for name, own in groupby(columns, lambda c: c.group)],
        columns=columns,
        cell=lambda row, column: cell(board, row, column),
    )


@lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["shown"] = shown
    environment.filters["lines"] = visible_lines
    return environment


def visible_lines(text: str) -> str:
    r"""``text`` with its line breaks, and escapes for everything else that is not seen.

    >>> visible_lines("a\nb\x00")
    'a\nb\\x00'
    """
    return "\n".join(shown(line) for line in text.split("\n"))


def page_columns(board: Board) -> list[PageColumn]:
    """The columns of numbers; models and methods stand before them."""
    return [
        PageColumn(
            group=_heading(board, column),
            name=f"{column.name} {'%' if column.unit == '%' else ''}".rstrip(),
            column=column,
            about="; ".join(filter(None, (column.estimator, column.conditional_on))),
        )
        for column in board.shown()
    ]


def _heading(board: Board, column: Column) -> str:
    if column.judge is None:
        return column.source
    how = "round robin by" if column.source == "round robin" else "judged by"
    return f"{how} {board.group(column)}"


def cell(board: Board, row: Row, column: Column) -> Cell:
    """What the table shows of one score."""
    score = board.score(row, column)
    if score.value is None:
        counts = _counts(score)
        if score.reason == "baseline":
            return Cell("", ("baseline",))
        return Cell(notes=tuple(filter(None, (score.reason or "", counts))))
    notes = tuple(filter(None, (column.interval(score), _counts(score))))
    return Cell(column.text(score.value), notes, score.value)


def _counts(score: Score) -> str:
    """The status of the verdicts: what the scored ones were, and those that were left out."""
    parts = [f"{n} {name}" for name, n in score.counts.items()]
    parts += [f"{n} {what}" for what in ("unparsed", "failed") if (n := getattr(score, what))]
    return ", ".join(parts)


def responses(board: Board) -> list[FamilyResponses]:
    """What the models of each family responded to the sample prompts; None where a model has no response."""
    families = (
        dict.fromkeys(row.family or "all models" for row in board.rows) if board.samples else {}
    )
    return [
        FamilyResponses(
            family,
            [
                (sample.instruction, _of_family(board.rows, family, sample.outputs))
                for sample in board.samples
            ],
        )
        for family in families
    ]


def _of_family(
    rows: Sequence[Row], family: str, outputs: dict[str, str]
) -> list[tuple[str, str | None]]:
    return [
        (row.method or row.model, outputs.get(row.model))
        for row in rows
        if (row.family or "all models") == family
    ]
