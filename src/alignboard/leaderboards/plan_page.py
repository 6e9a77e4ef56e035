"""The page of a plan's board: one html file that needs nothing besides itself.

Everything that a model, a judge or a folder's name could have written is escaped by the template, with its control
and bidirectional characters made visible, and the script of the page holds no data: it sorts the rows that are there.
A content security policy allows that script alone. The same board gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

from alignboard.leaderboards.plan_board import (
    JudgeScore,
    PlanBoard,
    PlanRow,
    Rate,
    number,
    span,
    summary,
)
from alignboard.leaderboards.plan_marks import UNKNOWN
from alignboard.leaderboards.plan_plots import columns, panel_svg
from alignboard.text import shown

_PARTS = Path(__file__).with_name("page")


@dataclass(frozen=True)
class Cell:
    """What a place of the table shows: a text, what is said in small print below it, and what sorts it."""

    text: str = UNKNOWN
    note: str = ""
    value: float | None = None


@dataclass(frozen=True)
class Column:
    """A column of numbers under the heading of its group, which names the judge."""

    group: str
    label: str
    cell: Callable[[PlanRow], Cell]


@dataclass(frozen=True)
class Answers:
    """The sample prompts with the answers of one family, by method."""

    family: str
    prompts: list[tuple[str, list[tuple[str, str | None]]]]


def to_html(board: PlanBoard) -> str:
    """The page."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    script = (_PARTS / "plan.js").read_text(encoding="utf-8")
    made = table_columns(board)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["shown"] = shown
    environment.filters["lines"] = visible_lines
    page = environment.from_string((_PARTS / "plan.html").read_text(encoding="utf-8"))
    return page.render(
        board=board,
        unknown=UNKNOWN,
        summary=summary(board),
        # Plain text that this package wrote, and SVG whose texts are escaped where it is made.
        style=Markup((_PARTS / "plan.css").read_text(encoding="utf-8")),  # noqa: S704
        script=Markup(script),  # noqa: S704
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        groups=[(name, len(list(own))) for name, own in groupby(made, lambda c: c.group)],
        columns=made,
        plots=[
            [(panel.heading, Markup(panel_svg(panel))) for panel in column]  # noqa: S704
            for column in columns(board)
        ],
        answers=answers(board),
    )


def visible_lines(text: str) -> str:
    r"""``text`` with its line breaks, and escapes for everything else that is not seen.

    >>> visible_lines("a\nb\x00")
    'a\nb\\x00'
    """
    return "\n".join(shown(line) for line in text.split("\n"))


def table_columns(board: PlanBoard) -> list[Column]:
    """The columns of numbers; models and methods stand before them."""
    made = []
    if any(row.correct for row in board.rows):
        made.append(Column("answers", "correct %", lambda row: _rate_cell(row.correct)))
    made.append(Column("answers", "mean length", _length_cell))
    for judge in board.judges:
        group = f"judged by {judge}"
        made += [
            Column(group, "win %", partial(_judged_cell, judge, _win_cell)),
            Column(group, "LC win %", partial(_judged_cell, judge, _lc_cell)),
            Column(group, "won / drawn / lost", partial(_judged_cell, judge, _verdicts_cell)),
        ]
    made += [
        Column("lm-eval, % ± SE", name, partial(_benchmark_cell, name)) for name in board.benchmarks
    ]
    if any(row.rating for row in board.rows):
        group = f"round robin by {board.rating_judge}" if board.rating_judge else "round robin"
        made += [Column(group, "rating", _rating_cell), Column(group, "place", _place_cell)]
    return made


def _rate_cell(rate: Rate | None) -> Cell:
    if rate is None or rate.value is None:
        return Cell()
    return Cell(number(rate.value, 100), span(rate.low, rate.high, 100), rate.value)


def _length_cell(row: PlanRow) -> Cell:
    if row.mean_length is None:
        return Cell()
    return Cell(number(row.mean_length), value=row.mean_length)


def _judged_cell(judge: str, cell: Callable[[JudgeScore], Cell], row: PlanRow) -> Cell:
    """What ``cell`` shows of the judge's score; a baseline is not compared with itself."""
    if judge in row.judges:
        return cell(row.judges[judge])
    return Cell("", "baseline") if row.model == row.baseline else Cell()


def _win_cell(score: JudgeScore) -> Cell:
    return _rate_cell(score.win_rate)


def _lc_cell(score: JudgeScore) -> Cell:
    return _rate_cell(score.lc_win_rate)


def _verdicts_cell(score: JudgeScore) -> Cell:
    counts = f"{score.n_wins} / {score.n_draws} / {score.n_losses}"
    return Cell(counts, f"{score.n_unparsed} unparsed" if score.n_unparsed else "", score.n_wins)


def _benchmark_cell(name: str, row: PlanRow) -> Cell:
    rate = row.benchmarks.get(name)
    if rate is None or rate.value is None:
        return Cell()
    error = number(rate.standard_error, 100)
    return Cell(number(rate.value, 100), f"± {error}" if error else "", rate.value)


def _rating_cell(row: PlanRow) -> Cell:
    rating = row.rating
    if rating is None or rating.value is None:
        return Cell()
    interval = span(rating.low, rating.high, digits=0)
    return Cell(number(rating.value, digits=0), interval, rating.value)


def _place_cell(row: PlanRow) -> Cell:
    """Sorted with the best first when the largest come first."""
    rating = row.rating
    if rating is None or rating.value is None:
        return Cell()
    best, worst = rating.rank_best, rating.rank_worst
    return Cell(str(best) if best == worst else f"{best} to {worst}", value=-best)


def answers(board: PlanBoard) -> list[Answers]:
    """What the models of each family answered to the sample prompts; None where a model has no answer."""
    families = dict.fromkeys(row.family for row in board.rows) if board.samples else {}
    return [
        Answers(
            family,
            [
                (sample.instruction, _of_family(board.rows, family, sample.outputs))
                for sample in board.samples
            ],
        )
        for family in families
    ]


def _of_family(
    rows: Sequence[PlanRow], family: str, outputs: dict[str, str]
) -> list[tuple[str, str | None]]:
    return [(row.method, outputs.get(row.model)) for row in rows if row.family == family]
