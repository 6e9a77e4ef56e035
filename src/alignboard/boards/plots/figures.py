"""Figures that are drawn when they are asked for (``alignboard plot``): of a board, and of the prompts behind it.

One of another package is one registration: ``register("figure", "mine", "my_package.plots:panels")``, where ``panels``
takes a board and its examples, which may be None, and returns `Panel`s.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from alignboard.boards.board import Board
from alignboard.boards.columns import Column
from alignboard.boards.examples import Examples
from alignboard.boards.plots.heat import (
    MOST,
    plot_agreement,
    plot_pairs,
    plot_tax,
    plot_tests,
    tax_rows,
)
from alignboard.boards.plots.points import (
    name_points,
    plot_difficulty,
    plot_frontier,
    plot_two,
    two_values,
)
from alignboard.boards.plots.radar import LEAST, plot_radar, radar_columns, radar_rows
from alignboard.boards.plots.registry import Panel
from alignboard.errors import InputError, nearest
from alignboard.registry import lookup, names, register

_LINE, _FRAME = 0.24, 1.3


def kinds() -> list[str]:
    """What can be drawn: the plots of pages and pictures, and the figures."""
    return sorted({*names("plot"), *names("figure")})


def figure_panels(kind: str, board: Board, examples: Examples | None) -> list[Panel]:
    """The panels of ``kind``.

    Raises
    ------
    InputError
        Where there is no such kind, or the board has no data for it.
    """
    if kind in names("plot"):
        found = list(lookup("plot", kind)(board))
    elif kind in names("figure"):
        found = list(lookup("figure", kind)(board, examples))
    else:
        raise InputError(
            f"There is no plot {kind!r}{nearest(kind, kinds()) or '.'} There are: {', '.join(kinds())}."
        )
    if not found:
        needs = "" if examples is not None else " (this board has no examples file beside it)"
        raise InputError(f"The board {board.name!r} has nothing that a plot {kind!r} draws{needs}.")
    return found


def _pairs(board: Board, examples: Examples | None) -> list[Panel]:
    return _of_pairs(board, examples, "How often the line's model scores higher, by", plot_pairs)


def _tests(board: Board, examples: Examples | None) -> list[Panel]:
    return _of_pairs(board, examples, "Line less column on shared prompts, by", plot_tests)


def _of_pairs(
    board: Board, examples: Examples | None, heading: str, plot: Callable[..., object]
) -> list[Panel]:
    """A panel for every judge's column that has two models at least."""
    if examples is None:
        return []
    models = [row.model for row in board.rows]
    found = []
    for column in board.of_kind("win rate"):
        judged = {one.model for one in examples.preferences if one.column == column.key}
        n = min(len([model for model in models if model in judged]), MOST)
        if n > 1:
            draw = partial(plot, examples, column.key, models)
            found.append(Panel(f"{heading} {board.group(column)}", _LINE * n + _FRAME, draw))
    return found


def _agreement(board: Board, examples: Examples | None) -> list[Panel]:
    columns = board.of_kind("win rate")
    if examples is None or len({column.judge for column in columns}) < 2:
        return []
    labels = {column.key: board.group(column) for column in columns}
    height = 0.4 * len(columns) + _FRAME
    return [Panel("Agreement of the judges", height, partial(plot_agreement, examples, labels))]


def _difficulty(board: Board, examples: Examples | None) -> list[Panel]:
    if examples is None or not examples.preferences:
        return []
    columns = [(column.key, board.group(column)) for column in board.of_kind("win rate")]
    return [Panel("Prompts by difficulty", 3.2, partial(plot_difficulty, examples, columns))]


def _tax(board: Board, _: Examples | None) -> list[Panel]:
    lines, columns = tax_rows(board), board.of_kind("benchmark")
    if not lines or not columns:
        return []
    height = _LINE * len(lines) + _FRAME
    return [Panel("Benchmarks: from the base model", height, partial(plot_tax, board))]


def _frontier(board: Board, _: Examples | None) -> list[Panel]:
    rates, benchmarks = board.of_kind("win rate"), board.of_kind("benchmark")
    return [
        _two(board, across, rates[0], f"{board.label(rates[0])} and {across.name}", plot_frontier)
        for across in benchmarks
        if rates and len(two_values(board, across, rates[0])) > 1
    ]


def _length_control(board: Board, _: Examples | None) -> list[Panel]:
    found = []
    for column in board.of_kind("LC win rate"):
        for raw in board.of_kind("win rate"):
            same = (raw.judge, raw.set, raw.baseline) == (column.judge, column.set, column.baseline)
            if same and len(two_values(board, raw, column)) > 1:
                heading = f"Length-controlled against raw: {board.group(column)}"
                found.append(_two(board, raw, column, heading, partial(plot_two, diagonal=True)))
    return found


def _radar(board: Board, _: Examples | None) -> list[Panel]:
    if len(radar_columns(board)) < LEAST or not radar_rows(board):
        return []
    return [Panel("Benchmarks", 4.2, partial(plot_radar, board))]


def _two(
    board: Board, across: Column, up: Column, heading: str, draw: Callable[..., object]
) -> Panel:
    return Panel(
        heading,
        3.6,
        lambda ax: draw(board, across, up, ax=ax),
        lambda ax: name_points(board, across, up, ax),
    )


for _name, _make in {
    "pairs": _pairs,
    "tests": _tests,
    "agreement": _agreement,
    "difficulty": _difficulty,
    "alignment tax": _tax,
    "frontier": _frontier,
    "length control": _length_control,
    "radar": _radar,
}.items():
    register("figure", _name, _make)
