"""Learning curves, and win rates of sweeps against the KL divergence from where training started."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from alignboard.boards.board import Board
from alignboard.boards.columns import Column, Row
from alignboard.boards.drift import STEP
from alignboard.boards.plots.style import (
    MARKERS,
    MUTED,
    PALETTE,
    drawable,
    label_points,
    new_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BESIDE: Final = 0.02
"""of the steps' range, to either side: as far lines stand from their steps, which would cover each other there"""
_Z: Final = 1.959963984540054
_SEED: Final = re.compile(r"-seed\d+$")
_SETTING: Final = re.compile(r"-([a-z_]+)(\d[\d.e+-]*)$")
"""of a sweep, in the name of a method: ``-beta0.1``"""


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
    """A line for each training: ``up`` with its interval against ``across``; seeds of one setting have one colour.

    Trainings stop at the same steps: there a line stands a little beside the next, so that each shows its intervals.
    """
    from matplotlib.ticker import MaxNLocator

    ax = ax or new_axes()
    colors: dict[str, str] = {}
    lines = {
        name: points
        for name, rows in trainings(board).items()
        if (points := _points(board, rows, across, up))
    }
    beside = np.zeros(len(lines))
    if across.key == STEP:
        ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        steps = [x for points in lines.values() for x, *_ in points]
        if len(lines) > 1:
            beside = np.linspace(-1, 1, len(lines)) * _BESIDE * (max(steps) - min(steps))
    for (name, points), aside in zip(lines.items(), beside, strict=True):
        setting = _SEED.sub("", name)
        label = None if setting in colors else drawable(setting)
        color = colors.setdefault(setting, PALETTE[len(colors) % len(PALETTE)])
        x, y, low, high = np.array(points).T
        ax.errorbar(
            x + aside, y, [y - low, high - y], color=color, label=label,
            marker="o", markersize=2.5, linewidth=1.0, elinewidth=0.6,
        )  # fmt: skip
    return _finished(ax, across, up)


def settings(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each method that a sweep trained with several settings; other methods have one row."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(_SETTING.sub("", row.method or row.model), []).append(row)
    return {name: own for name, own in found.items() if len(own) > 1}


def plot_settings(
    board: Board, rows: Sequence[Row], across: Column, up: Column, ax: Axes | None = None
) -> Axes:
    """A line for each method through its settings, and a cross for each of the other ``rows``.

    The shape of a point is its setting; where there are more of them than shapes, `label_settings` writes them.
    """
    ax = ax or new_axes()
    lines = settings(rows)
    shapes = _shapes(lines)
    for (name, own), color in zip(lines.items(), PALETTE * len(lines), strict=False):
        points = _points(board, own, across, up)
        if points:
            x, y, low, high = np.array(points).T
            ax.errorbar(
                x, y, [y - low, high - y], color=color, label=drawable(name), linewidth=1.2, elinewidth=0.6
            )  # fmt: skip
        for row in own:
            for at, height, _, _ in _points(board, [row], across, up):
                shape = shapes.get(_setting(row), "o")
                ax.plot(at, height, marker=shape, markersize=3.5, color=color)
    for setting, shape in shapes.items():
        # An errorbar like the lines: matplotlib's legend lists these after all plain marks.
        ax.errorbar([], [], marker=shape, markersize=3.5, linestyle="", color=MUTED, label=setting)
    for row in _alone(rows):
        for x, y, _, _ in _points(board, [row], across, up):
            ax.plot(x, y, marker="x", markersize=4, color=MUTED)
    return _finished(ax, across, up)


def label_settings(board: Board, rows: Sequence[Row], across: Column, up: Column, ax: Axes) -> None:
    """Name the crosses of `plot_settings` where there is room beside them, and the settings that have no shape."""
    lines = settings(rows)
    texts = [(row, drawable(row.method or row.model)) for row in _alone(rows)]
    if not _shapes(lines):
        texts += [(row, _setting(row)) for own in lines.values() for row in own]
    label_points(
        ax,
        [
            (x, y, text, MUTED)
            for row, text in texts
            for x, y, _, _ in _points(board, [row], across, up)
        ],
    )


def _setting(row: Row) -> str:
    """``beta 0.1`` of a row that is one of `settings`; a method of the same name without one is its recipe's."""
    found = _SETTING.search(row.method or row.model)
    return "the recipe's" if found is None else drawable(f"{found[1]} {found[2]}")


def _shapes(lines: Mapping[str, Sequence[Row]]) -> dict[str, str]:
    """The marker of each setting; none where there are too few of them."""
    found = dict.fromkeys(_setting(row) for rows in lines.values() for row in rows)
    return dict(zip(found, MARKERS, strict=False)) if len(found) <= len(MARKERS) else {}


def _alone(rows: Sequence[Row]) -> list[Row]:
    """The rows that no line of `settings` holds."""
    held = {row.model for own in settings(rows).values() for row in own}
    return [row for row in rows if row.model not in held]


def _finished(ax: Axes, across: Column, up: Column) -> Axes:
    for axis, column in ((ax.set_xlabel, across), (ax.set_ylabel, up)):
        axis(drawable(f"{column.name} {column.unit}".rstrip()))
    ax.tick_params(axis="y", labelcolor=MUTED)
    ax.grid(visible=True)
    # Win rates rise with steps and KL, and losses fall: that corner is free.
    free = "upper right" if up.better == "low" else "lower right"
    ax.legend(fontsize="x-small", ncols=2, loc=free)
    return ax


def _points(
    board: Board, rows: Sequence[Row], across: Column, up: Column
) -> list[tuple[float, float, float, float]]:
    found = []
    for row in rows:
        x, y = board.score(row, across).value, board.score(row, up)
        if x is not None and y.value is not None:
            half = _Z * (y.standard_error or 0.0)
            low = y.value - half if y.low is None else y.low
            found.append((x, y.value, low, y.value + half if y.high is None else y.high))
    return sorted(found)
