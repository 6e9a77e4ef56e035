"""The built-in plots: what of a board each of them draws.

A plot of another package is one registration: ``register("plot", "mine", "my_package.plots:panels")``, where ``panels``
takes a board and returns `Panel`s; see `alignboard.registry`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from alignboard.boards.board import Board
from alignboard.boards.columns import Column
from alignboard.boards.drift import KL
from alignboard.boards.plots.curves import (
    STEP,
    is_of_curves,
    label_settings,
    plot_curves,
    plot_settings,
    settings,
)
from alignboard.boards.plots.dots import (
    family_rows,
    first_score,
    plot_families,
    plot_ranking,
    plot_ratings,
    plot_scores,
    plot_win_rates,
    ranking_rows,
    series,
)
from alignboard.boards.plots.lengths import (
    against_length,
    label_lengths,
    length_points,
    plot_lengths,
)
from alignboard.boards.plots.style import drawable
from alignboard.registry import lookup, names, register

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINE = 0.2
"""inches of a line of a plot with one line per model"""
_FRAME = 0.75
_MAX_BENCHMARKS = 6


@dataclass(frozen=True)
class Panel:
    """One axes of the picture: its heading, its height in inches, and what draws it."""

    heading: str
    height: float
    draw: Callable[[Axes], object]
    finish: Callable[[Axes], object] | None = None
    """called when the figure has its layout, for labels beside points"""


_FIRST = ("ranking", "win rates", "lengths", "families", "benchmarks", "ratings")
"""the order of the built-in plots; those of other packages follow by name"""


def panels(board: Board) -> list[Panel]:
    """The panels of ``board`` by every plot that is registered as ``plot``, this package's and others'."""
    known = names("plot")
    order = [*_FIRST, *(name for name in known if name not in _FIRST)]
    return [panel for name in order for panel in lookup("plot", name)(board)]


def _ranking(board: Board) -> list[Panel]:
    rows = ranking_rows(board)
    if board.ranked_by is None or not rows:
        return []
    column = board.column(board.ranked_by)
    n = len([r for r in board.rows if board.score(r, column).value is not None])
    some = "" if n == len(rows) else f", {len(rows)} of {n} models"
    heading = f"{_capital(column.name)}{_interval(board, column)}{some}"
    return [Panel(heading, (LINE + 0.03) * len(rows) + _FRAME, partial(plot_ranking, board))]


def _win_rates(board: Board) -> list[Panel]:
    drawn = series(board)
    if board.ranked_by is not None or not drawn:
        return []
    every = [column for columns in drawn.values() for column in columns]
    n = sum(first_score(board, row, every).value is not None for row in board.rows)
    height = n * max(LINE, 0.14 * len(drawn) + 0.02) + _FRAME
    return [Panel(f"Win rates{_interval(board, every[0])}", height, partial(plot_win_rates, board))]


def _lengths(board: Board) -> list[Panel]:
    return [
        Panel(
            f"{_capital(name)} against length",
            3.0,
            partial(plot_lengths, board, columns),
            partial(label_lengths, board, columns),
        )
        for name, columns in against_length(board)
        if len(length_points(board, columns)) > 1
    ]


def _families(board: Board) -> list[Panel]:
    groups = family_rows(board)
    if not groups:
        return []
    n_lines = sum(len(members) + 0.6 for members in groups)
    return [
        Panel("Within families, in order", LINE * n_lines + _FRAME, partial(plot_families, board))
    ]


def _benchmarks(board: Board) -> list[Panel]:
    columns = board.of_kind("benchmark")
    shown = columns[:_MAX_BENCHMARKS]
    return [
        Panel(
            f"{column.name}{_interval(board, column)}",
            LINE * sum(board.score(r, column).value is not None for r in board.rows) + _FRAME,
            partial(plot_scores, board, column),
        )
        for column in shown
    ]


def _ratings(board: Board) -> list[Panel]:
    found = board.of_kind("rating")
    if not found:
        return []
    n = sum(board.score(row, found[0]).value is not None for row in board.rows)
    heading = f"Ratings by {found[0].judge}{_interval(board, found[0])}"
    return [Panel(heading, LINE * n + _FRAME, partial(plot_ratings, board))]


def _curves(board: Board) -> list[Panel]:
    if not is_of_curves(board):
        return []
    across = [column for column in board.columns if column.key in {STEP, KL}]
    return [
        Panel(_against(board, family, up, x), 3.2, partial(plot_curves, own, x, up))
        for family, own in _by_family(board).items()
        for up in (*board.of_kind("win rate"), *board.of_kind("benchmark")[:_MAX_BENCHMARKS])
        for x in across
    ]


def _settings(board: Board) -> list[Panel]:
    kl = next((column for column in board.columns if column.key == KL), None)
    if kl is None or is_of_curves(board):
        return []
    return [
        Panel(
            _against(board, family, up, kl),
            3.4,
            partial(plot_settings, own, own.rows, kl, up),
            partial(label_settings, own, own.rows, kl, up),
        )
        for family, own in _by_family(board).items()
        for up in board.of_kind("win rate")
        if settings(own.rows)
    ]


def _by_family(board: Board) -> dict[str, Board]:
    """The board of each family; the whole one where there are no several."""
    names = dict.fromkeys(row.family or "" for row in board.rows)
    if len(names) < 2:
        return {"": board}
    return {
        name: board.only([row.model for row in board.rows if (row.family or "") == name])
        for name in names
    }


def _against(board: Board, family: str, up: Column, across: Column) -> str:
    judge = "" if up.judge is None else f" by {up.judge}"
    head = f"{_capital(up.name)}{judge} against {drawable(across.name)}{_interval(board, up)}"
    return f"{drawable(family)}: {head}" if family else head


def _interval(board: Board, column: Column) -> str:
    """What the bars are; nothing is promised where there are none."""
    scores = [board.score(row, column) for row in board.rows]
    if any(score.low is not None for score in scores):
        return ", 95 % intervals"
    return ", ±1.96 SE" if any(score.standard_error is not None for score in scores) else ""


def _capital(label: str) -> str:
    return label[:1].upper() + label[1:]


for _name, _make in {
    "ranking": _ranking,
    "win rates": _win_rates,
    "lengths": _lengths,
    "families": _families,
    "benchmarks": _benchmarks,
    "ratings": _ratings,
    "curves": _curves,
    "settings": _settings,
}.items():
    register("plot", _name, _make)
