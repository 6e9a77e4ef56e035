"""The board of a plan to be read: a table for a terminal, and the markdown file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import quote

from alignboard.leaderboards.plan_board import PlanBoard, Rate, number, span, summary
from alignboard.text import markdown_text, shown, table

_N_TEXT = 2
"""columns that are no numbers: model and method"""


class _Column(NamedTuple):
    group: str
    """what several columns share, such as the judge"""
    name: str
    cells: list[str]

    @property
    def full_name(self) -> str:
        return f"{self.group}: {self.name}" if self.group else self.name


def to_markdown(board: PlanBoard) -> str:
    """The board as a page of markdown, with its picture."""
    columns = _columns(board)
    lines = [
        f"# {markdown_text(board.title)}",
        "",
        f"![{markdown_text(board.title)}]({quote(board.name, safe='')}.png)",
        "",
        markdown_text(summary(board)),
        "",
        _line([markdown_text(column.full_name) for column in columns]),
        _line(["---" if n < _N_TEXT else "---:" for n in range(len(columns))]),
        *(
            _line([markdown_text(column.cells[n]) for column in columns])
            for n in range(len(board.rows))
        ),
        "",
        *(f"- {markdown_text(sentence)}" for sentence in board.conditions),
    ]
    return "\n".join(lines) + "\n"


def plan_table(board: PlanBoard) -> str:
    """The board for a terminal or a pipe: a line of groups, a line of names, and a line for every model."""
    columns = _columns(board)
    rows = [[shown(column.cells[n]) for column in columns] for n in range(len(board.rows))]
    names = [(shown(column.group), shown(column.name)) for column in columns]
    return "\n".join([table(names, rows, left=range(_N_TEXT)), "", *board.conditions])


def _columns(board: PlanBoard) -> list[_Column]:
    """Percentages have one decimal, and intervals stand beside their numbers."""
    rows = board.rows
    columns = [
        _Column("", "model", [row.model for row in rows]),
        _Column("", "method", [row.method for row in rows]),
    ]
    if any(row.correct is not None for row in rows):
        columns.append(_Column("", "correct %", [_percent(row.correct) for row in rows]))
    columns.append(_Column("", "length", [number(row.mean_length) for row in rows]))
    for judge in board.judges:
        columns += _judge_columns(board, judge)
    for name in board.benchmarks:
        columns.append(_Column("", name, [_percent(row.benchmarks.get(name)) for row in rows]))
    if board.rating_judge is not None:
        ratings = [row.rating for row in rows]
        columns += [
            _Column(
                board.rating_judge,
                "rating",
                [number(r.value, digits=0) if r else "" for r in ratings],
            ),
            _Column(
                board.rating_judge,
                "95 %",
                [span(r.low, r.high, digits=0) if r else "" for r in ratings],
            ),
        ]
    return columns


def _judge_columns(board: PlanBoard, judge: str) -> list[_Column]:
    scores = [row.judges.get(judge) for row in board.rows]
    baseline = ["baseline" if row.baseline == row.model else "" for row in board.rows]
    rates = [score.win_rate if score else None for score in scores]
    return [
        _Column(
            judge, "win %", [_percent(r) if r else b for r, b in zip(rates, baseline, strict=True)]
        ),
        _Column(judge, "95 %", [span(r.low, r.high, 100) if r else "" for r in rates]),
        _Column(judge, "LC %", [_percent(score.lc_win_rate) if score else "" for score in scores]),
    ]


def _percent(rate: Rate | None) -> str:
    return number(rate.value if rate else None, 100)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
