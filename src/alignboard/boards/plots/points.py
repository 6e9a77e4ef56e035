"""Plots of points: length control against raw win rates, the frontier of win rate and benchmarks, hard prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from alignboard.boards.board import Board
from alignboard.boards.columns import Column
from alignboard.boards.examples import Examples
from alignboard.boards.plots.dots import nothing
from alignboard.boards.plots.heat import preferences_of
from alignboard.boards.plots.style import (
    FAINT,
    MUTED,
    PALETTE,
    drawable,
    label_points,
    looks,
    new_axes,
    short_name,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_two(
    board: Board, across: Column, up: Column, ax: Axes | None = None, *, diagonal: bool = False
) -> Axes:
    """Every model at its values in two columns; ``diagonal`` draws where both are equal."""
    ax = ax or new_axes()
    points = two_values(board, across, up)
    if not points:
        return nothing(ax)
    known = looks(board)
    for look in dict.fromkeys(known[model] for model in points):
        x, y = zip(*(points[m] for m in points if known[m] == look), strict=True)
        ax.scatter(x, y, s=24, marker=look.marker, color=look.color, linewidths=0, zorder=3)
    if diagonal:
        ends = [min(min(p) for p in points.values()), max(max(p) for p in points.values())]
        ax.plot(ends, ends, color=FAINT, linewidth=0.8, zorder=1)
    for axis, column in ((ax.set_xlabel, across), (ax.set_ylabel, up)):
        axis(drawable(f"{column.name} {column.unit}".rstrip()))
    ax.tick_params(axis="y", labelcolor=MUTED)
    ax.grid(visible=True)
    return ax


def two_values(board: Board, across: Column, up: Column) -> dict[str, tuple[float, float]]:
    """The models that have a value in both columns."""
    return {
        row.model: (x, y)
        for row in board.rows
        if (x := board.score(row, across).value) is not None
        and (y := board.score(row, up).value) is not None
    }


def name_points(board: Board, across: Column, up: Column, ax: Axes) -> None:
    """Name the points, the best first, where there is room."""
    points, known = two_values(board, across, up), looks(board)
    best = sorted(points, key=lambda model: -points[model][1])
    label_points(ax, [(*points[m], short_name(m, 28), known[m].color) for m in best])


def frontier(points: dict[str, tuple[float, float]]) -> list[str]:
    """The models that no other is better than in both, from left to right.

    >>> frontier({"a": (1, 3), "b": (2, 2), "c": (1, 1), "d": (3, 1)})
    ['a', 'b', 'd']
    """
    kept = [
        model
        for model, (x, y) in points.items()
        if not any(x2 >= x and y2 >= y and (x2, y2) != (x, y) for x2, y2 in points.values())
    ]
    return sorted(kept, key=lambda model: points[model])


def plot_frontier(board: Board, across: Column, up: Column, ax: Axes | None = None) -> Axes:
    """`plot_two` with the line of the models that no other beats in both columns."""
    ax = plot_two(board, across, up, ax)
    points = two_values(board, across, up)
    best = [points[model] for model in frontier(points)]
    if len(best) > 1:
        x, y = zip(*best, strict=True)
        ax.plot(x, y, color=MUTED, linewidth=1.0, linestyle="--", zorder=2)
    return ax


def plot_difficulty(
    examples: Examples, columns: Sequence[tuple[str, str]], ax: Axes | None = None
) -> Axes:
    """Mean score of all models on every prompt, from the hardest to the easiest; one line per (key, name) column."""
    ax = ax or new_axes()
    drawn = False
    for k, (key, name) in enumerate(columns):
        scores = list(preferences_of(examples, key).values())
        table = np.array(scores) if scores else np.empty((0, 0))
        asked = ~np.isnan(table).all(axis=0) if len(table) else np.zeros(0, dtype=bool)
        if not asked.any():
            continue
        means = np.sort(100 * np.nanmean(table[:, asked], axis=0))
        share = 100 * (np.arange(len(means)) + 0.5) / len(means)
        ax.plot(
            share,
            means,
            color=PALETTE[k % len(PALETTE)],
            label=drawable(name),
            drawstyle="steps-mid",
        )
        drawn = True
    if not drawn:
        return nothing(ax)
    ax.set_xlabel("prompts, from the hardest to the easiest, %")
    ax.set_ylabel("mean score over the models, %")
    ax.tick_params(axis="y", labelcolor=MUTED)
    ax.grid(visible=True)
    if len(columns) > 1:
        ax.legend(loc="upper left")
    return ax
