"""A radar of benchmarks, for those who ask for one: areas exaggerate differences, and intervals have no place in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from alignboard.boards.board import Board
from alignboard.boards.columns import Column, Row
from alignboard.boards.plots.dots import nothing
from alignboard.boards.plots.style import (
    INK,
    MUTED,
    PALETTE,
    RULE,
    SMALL,
    drawable,
    new_axes,
    points,
    short_name,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEAST, MOST = 3, 8
"""axes of a radar at least, and models at most: the first rows of the board that have every benchmark"""
_RINGS = (25, 50, 75, 100)


def radar_columns(board: Board) -> list[Column]:
    """The benchmarks that are percentages, which share an axis from 0 to 100."""
    return [column for column in board.of_kind("benchmark") if column.unit == "%"]


def radar_rows(board: Board) -> list[Row]:
    """The models that are drawn."""
    columns = radar_columns(board)
    known = [
        row
        for row in board.rows
        if all(board.score(row, column).value is not None for column in columns)
    ]
    return known[:MOST]


def plot_radar(board: Board, ax: Axes | None = None) -> Axes:
    """Draw every model's benchmarks as a polygon; the outer ring is 100 %."""
    ax = ax or new_axes()
    columns, rows = radar_columns(board), radar_rows(board)
    if len(columns) < LEAST or not rows:
        return nothing(ax)
    angles = np.pi / 2 - 2 * np.pi * np.arange(len(columns)) / len(columns)
    _net(ax, angles, columns)
    for k, row in enumerate(rows):
        values = np.array([board.score(row, column).value or 0.0 for column in columns])
        x, y = _closed(values * np.cos(angles)), _closed(values * np.sin(angles))
        ax.plot(
            x,
            y,
            color=PALETTE[k % len(PALETTE)],
            linewidth=1.4,
            label=drawable(short_name(row.model)),
        )
    ax.legend(loc="upper left", bbox_to_anchor=(1.02, 1), fontsize=points(SMALL), frameon=False)
    return ax


def _net(ax: Axes, angles: np.ndarray, columns: Sequence[Column]) -> None:
    """Rings, spokes and the names at their ends."""
    ax.set_axis_off()
    ax.set_aspect("equal")
    ax.set_xlim(-150, 150)
    ax.set_ylim(-122, 122)
    turn = np.linspace(0, 2 * np.pi, 181)
    for ring in _RINGS:
        ax.plot(ring * np.cos(turn), ring * np.sin(turn), color=RULE, linewidth=0.6, zorder=1)
        ax.text(
            2,
            ring,
            f"{ring} %" if ring == _RINGS[-1] else str(ring),
            color=MUTED,
            fontsize=points(SMALL - 1),
        )
    for angle, column in zip(angles, columns, strict=True):
        x, y = np.cos(angle), np.sin(angle)
        ax.plot([0, 100 * x], [0, 100 * y], color=RULE, linewidth=0.6, zorder=1)
        side = "center" if abs(x) < 0.2 else "left" if x > 0 else "right"
        ax.text(
            107 * x, 112 * y, drawable(short_name(column.name)),
            ha=side, va="center", color=INK, fontsize=points(SMALL),
        )  # fmt: skip


def _closed(values: np.ndarray) -> np.ndarray:
    return np.append(values, values[:1])
