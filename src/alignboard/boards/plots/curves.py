"""Learning curves: win rates of checkpoints against steps, and against the KL divergence from where they started."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from alignboard.boards.board import Board
from alignboard.boards.columns import Column, Row
from alignboard.boards.plots.style import MUTED, PALETTE, drawable, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STEP: Final = "step"
"""the key of the column that makes a board one of curves"""


def is_of_curves(board: Board) -> bool:
    """Whether the rows of ``board`` are checkpoints."""
    return any(column.key == STEP for column in board.columns)


def trainings(board: Board) -> dict[str, list[Row]]:
    """The checkpoints of each training, in the order of the board.

    Rows are called ``<model>@<step>``.
    """
    found: dict[str, list[Row]] = {}
    for row in board.rows:
        found.setdefault(row.model.rpartition("@")[0], []).append(row)
    return found


def plot_curves(board: Board, across: Column, up: Column, ax: Axes | None = None) -> Axes:
    """A line for each training: ``up`` with its interval against ``across``."""
    ax = ax or new_axes()
    for number, (name, rows) in enumerate(trainings(board).items()):
        color = PALETTE[number % len(PALETTE)]
        points = _points(board, rows, across, up)
        if not points:
            continue
        x, y, low, high = zip(*points, strict=True)
        ax.plot(x, y, marker="o", markersize=3, linewidth=1.2, color=color, label=drawable(name))
        ax.fill_between(x, low, high, color=color, alpha=0.12, linewidth=0)
    for axis, column in ((ax.set_xlabel, across), (ax.set_ylabel, up)):
        axis(drawable(f"{column.name} {column.unit}".rstrip()))
    ax.tick_params(axis="y", labelcolor=MUTED)
    ax.grid(visible=True)
    ax.legend(fontsize="x-small", ncols=2)
    return ax


def _points(
    board: Board, rows: Sequence[Row], across: Column, up: Column
) -> list[tuple[float, float, float, float]]:
    found = []
    for row in rows:
        x, y = board.score(row, across).value, board.score(row, up)
        if x is not None and y.value is not None:
            low = y.value if y.low is None else y.low
            found.append((x, y.value, low, y.value if y.high is None else y.high))
    return sorted(found)
