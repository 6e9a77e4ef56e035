"""The board's page: one html file that needs nothing besides itself.

Everything that a model, a judge or a folder's name could have written is escaped by the template, with its control
and bidirectional characters made visible. Without a script the page is a table with plots. The script holds no data:
it sorts, filters and compares the rows that are there, and reads prompts, responses and verdicts from compressed
blocks in the page, which it shows as text and never as markup. A content security policy allows that script alone, and
no request. The same board gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from alignboard import __version__
from alignboard.boards.board import BEST, Board
from alignboard.boards.columns import Column, Row, Score
from alignboard.boards.examples import Examples
from alignboard.boards.page_data import page_blocks, text_blocks, text_file
from alignboard.text import shown

if TYPE_CHECKING:
    from jinja2 import Environment, Template

UNKNOWN = "n/a"
_SCRIPTS = ("state.js", "table.js", "statistics.js", "compare.js", "examples.js", "start.js")
"""in this order, each may use the ones before"""
_LONG = 40
"""rows above which the table scrolls inside a box of its own, so that its head stays in sight"""
MOST_TEXT = 10_000_000
"""characters of compressed texts above which these lie in files beside the page"""
PARTS = Path(__file__).with_name("page_parts")
"""the folder of templates, style and scripts"""


@dataclass(frozen=True)
class Cell:
    """What a place of the table shows: a text, the small print below it, and what sorts it."""

    text: str = UNKNOWN
    notes: tuple[str, ...] = ()
    counts: str = ""
    value: float | None = None
    bar: Bar | None = None
    best: bool = False
    """first in its column with 95 %; see `Board.best`"""


@dataclass(frozen=True)
class Bar:
    """An interval on the range of its column: all in percent of the bar's width."""

    start: float
    width: float
    at: float


@dataclass(frozen=True)
class PageColumn:
    """A column of the table under the heading of its group, which names the judge."""

    group: str
    name: str
    column: Column
    about: str
    """what the numbers are conditional on, for a tooltip"""
    span: tuple[float, float] | None = None
    """least and greatest limit of its intervals; None where it has none"""
    best: Row | None = None
    """see `Board.best`"""


def to_html(board: Board, examples: Examples | None = None) -> str:
    """The page, with prompts, responses and verdicts where there are ``examples``; it needs no other file."""
    return _page(board, page_blocks(board, examples) | text_blocks(examples), beside=None)


def page_files(board: Board, examples: Examples | None, folder: str) -> dict[str, str | bytes]:
    """The page as ``""``, and where its texts are many, the files in ``folder`` beside it that it loads them from."""
    texts = text_blocks(examples)
    blocks = page_blocks(board, examples)
    if sum(map(len, texts.values())) <= MOST_TEXT:
        return {"": _page(board, blocks | texts, beside=None)}
    files = {f"{name}.css": text_file(name, content) for name, content in texts.items()}
    return {"": _page(board, blocks, beside=folder), **files}


def _page(board: Board, blocks: dict[str, str], beside: str | None) -> str:
    from markupsafe import Markup

    from alignboard.boards.plots import panels, to_svg

    script = "\n".join((PARTS / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    script = f"(() => {{\n{script}}})();"
    plots = [
        (panel.heading, Markup(to_svg(panel)))  # noqa: S704 - its texts are escaped where it is made
        for panel in panels(board)
    ]
    return template("board.html").render(
        board=board,
        unknown=UNKNOWN,
        table=Markup(table_html(board)),  # noqa: S704 - made by a template of this package, which escapes
        script=Markup(script),  # noqa: S704
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        plots=plots,
        blocks={name: Markup(content) for name, content in blocks.items()},  # noqa: S704 - see `to_text` of `page_data`
        beside=beside,
        version=__version__,
        long=_LONG,
        bold=BEST if any(board.best(column) for column in board.shown()) else "",
    )


def table_html(board: Board) -> str:
    """The table alone."""
    columns = page_columns(board)
    return template("table.html").render(
        board=board,
        rows=list(zip(board.rows, board.ranks(), strict=True)),
        ranked=board.ranked_by is not None,
        with_method=any(row.method for row in board.rows),
        with_flags=any(row.flags for row in board.rows),
        by_family=_is_by_family(board),
        groups=[(name, len(list(own))) for name, own in groupby(columns, lambda c: c.group)],
        columns=columns,
        cell=lambda row, column: cell(board, row, column),
    )


def _is_by_family(board: Board) -> bool:
    """Whether the rows of every family stand together, so that a line may part the families."""
    runs = [family for family, _ in groupby(board.rows, lambda row: row.family)]
    return len(runs) == len(set(runs))


def template(name: str) -> Template:
    """A template of the pages, with their style; it escapes what it is given."""
    return _environment().get_template(name)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(PARTS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = shown
    environment.filters["visible"] = lambda text: "\n".join(map(shown, text.split("\n")))
    # Plain text that this package wrote.
    style = (PARTS / "board.css").read_text(encoding="utf-8")
    environment.globals["style"] = Markup(style)  # noqa: S704
    return environment


def page_columns(board: Board) -> list[PageColumn]:
    """The columns of numbers; models and methods stand before them."""
    return [
        PageColumn(
            group=_heading(board, column),
            name=f"{column.name} {'%' if column.unit == '%' else ''}".rstrip(),
            column=column,
            about="; ".join(filter(None, (column.estimator, column.conditional_on))),
            span=_span(board, column),
            best=board.best(column),
        )
        for column in board.shown()
    ]


def _span(board: Board, column: Column) -> tuple[float, float] | None:
    if column.kind == "place":
        return None
    ends = [
        end
        for row in board.rows
        if (score := board.score(row, column)).value is not None
        for end in (score.low, score.high)
        if end is not None and math.isfinite(end)
    ]
    return (min(ends), max(ends)) if ends and min(ends) < max(ends) else None


def _bar(score: Score, span: tuple[float, float] | None) -> Bar | None:
    if span is None or score.value is None or score.low is None or score.high is None:
        return None
    least, most = span
    low, high, at = (
        100 * (min(max(x, least), most) - least) / (most - least)
        for x in (score.low, score.high, score.value)
    )
    return Bar(round(low, 1), round(high - low, 1), round(at, 1))


def _heading(board: Board, column: Column) -> str:
    if column.judge is None:
        return column.source
    how = "round robin by" if column.source == "round robin" else "judged by"
    return f"{how} {board.group(column)}"


def cell(board: Board, row: Row, page_column: PageColumn) -> Cell:
    """What the table shows of one score."""
    column = page_column.column
    score = board.score(row, column)
    if score.value is None:
        counts = _counts(score)
        if score.reason == "baseline":
            return Cell("", ("baseline",))
        return Cell(notes=tuple(filter(None, (score.reason,))), counts=counts)
    notes = tuple(filter(None, (column.interval(score),)))
    bar = _bar(score, page_column.span)
    best = page_column.best is row
    return Cell(column.text(score.value), notes, _counts(score), score.value, bar, best)


def _counts(score: Score) -> str:
    """The status of the verdicts: what the scored ones were, and those that were left out."""
    shown_as = {"won": "W", "drawn": "D", "lost": "L"}
    parts = [
        f"{shown_as[name]} {n}" if name in shown_as else f"{n} {name}"
        for name, n in score.counts.items()
    ]
    parts += [f"{n} {what}" for what in ("unparsed", "failed") if (n := getattr(score, what))]
    return " · ".join(parts)
