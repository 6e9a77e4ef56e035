"""The panel that shows what a win is made of: win rates and right answers against the length of the answers.

Its panes share the axis of lengths, so that a method which wins by losing content is seen to do so: it stands high
in the panes of the judges and low in the one below them, at the same place. Base models are left out where they are
not what the methods are compared with: their wrong answers would flatten the differences that the panel is about.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alignboard.leaderboards.plan_board import PlanBoard, PlanRow
from alignboard.leaderboards.plan_marks import (
    KEY_LINE,
    WIDTH,
    Entry,
    Mark,
    Panel,
    draw_marks,
    key_lines,
    looks,
    write_key,
)
from alignboard.leaderboards.plots_canvas import SMALL, Box, Canvas, drawable, drawn_name, fitted
from alignboard.leaderboards.plots_labels import Label, Point, place
from alignboard.leaderboards.plots_style import (
    FAINT,
    FOOT_ROOM,
    MUTED,
    RULE,
    Look,
    nice_ticks,
    percent_limits,
    write_scale,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Inches of a pane, and what is above each for its label.
_PANE, _LABEL_ROOM = 1.65, 0.26
_MAX_JUDGES = 3
_AXIS = "mean length in characters, logarithmic"


@dataclass(frozen=True)
class _Pane:
    label: str
    points: dict[str, Point]
    """by model: log10 of its length, and percent"""
    is_win_rate: bool


def length_panel(board: PlanBoard) -> Panel | None:
    """Win rates and correctness against length; None where there is nothing to draw."""
    panes = [pane for pane in _panes(board) if len(pane.points) > 1]
    if not panes:
        return None
    known = looks(board)
    entries: list[Entry] = [(look, 0, family) for family, look in known.items()]
    key = key_lines(entries)
    head = KEY_LINE * len(key) + 0.02
    lengths = [point[0] for pane in panes for point in pane.points.values()]
    margin = max(0.05 * (max(lengths) - min(lengths)), 0.02)
    limits = min(lengths) - margin, max(lengths) + margin

    label = f"{_AXIS}; arrows from {drawn_name(board.baseline, 1.0, SMALL)}"
    if not all(_is_compared(row) for row in board.rows):
        label += "; base models left out"

    def draw(canvas: Canvas, box: Box) -> None:
        write_key(canvas, box, key)
        top = box.top - head
        for pane in panes:
            inner = Box(box.left + 0.3, top - _LABEL_ROOM - _PANE, box.width - 0.4, _PANE)
            _draw_pane(canvas, inner, board, pane, limits)
            top = inner.bottom
            if pane is panes[-1]:
                marks = [(_part(math.log10(n), limits), f"{n:,g}") for n in length_ticks(*limits)]
                write_scale(canvas, inner, marks, label)

    what = " and ".join(
        name
        for name, wanted in (("Win rate", True), ("correctness", False))
        if any(pane.is_win_rate == wanted for pane in panes)
    )
    return Panel(
        heading=f"{what[0].upper()}{what[1:]} against length of the answers",
        description=f"{what} of the models against the mean length of their answers, with arrows from "
        f"{board.baseline} to the other methods of a family.",
        height=head + (_LABEL_ROOM + _PANE) * len(panes) + FOOT_ROOM,
        draw=draw,
    )


def _panes(board: PlanBoard) -> list[_Pane]:
    """One for each of the first judges, one for correctness."""
    placed = {
        row.model: math.log10(max(row.mean_length, 1))
        for row in board.rows
        if row.mean_length and _is_compared(row)
    }
    panes = []
    for judge in board.judges[:_MAX_JUDGES]:
        values = {row.model: _win_rate(row, judge) for row in board.rows}
        panes.append(
            _pane(
                f"win rate (%) by {judge}",
                placed,
                values,
                is_win_rate=True,
            )
        )
    values = {row.model: row.correct.value if row.correct else None for row in board.rows}
    return [
        *panes,
        _pane("correct answers (%)", placed, values, is_win_rate=False),
    ]


def _is_compared(row: PlanRow) -> bool:
    return row.model != row.family or row.model == row.baseline


def _pane(
    label: str,
    placed: Mapping[str, float],
    values: Mapping[str, float | None],
    *,
    is_win_rate: bool,
) -> _Pane:
    points = {
        model: (x, 100 * value)
        for model, x in placed.items()
        if (value := values[model]) is not None
    }
    return _Pane(label, points, is_win_rate)


def _win_rate(row: PlanRow, judge: str) -> float | None:
    """The baseline's own rate is one half by definition."""
    if row.model == row.baseline:
        return 0.5
    return row.judges[judge].win_rate.value if judge in row.judges else None


def _draw_pane(
    canvas: Canvas, inner: Box, board: PlanBoard, pane: _Pane, limits: tuple[float, float]
) -> None:
    known = looks(board)
    rows = [row for row in board.rows if row.model in pane.points]
    points = [pane.points[row.model] for row in rows]
    low, high = _roomy([y for _, y in points])
    axes = canvas.axes(inner, limits, (low, high))
    lengths = [math.log10(n) for n in length_ticks(*limits)]
    ticks = nice_ticks(low, high, 5)
    axes.hlines(ticks, *limits, color=RULE, linewidth=0.8, zorder=0)
    axes.vlines(lengths, low, high, color=RULE, linewidth=0.8, zorder=0)
    for tick in ticks:
        y = inner.bottom + inner.height * _part(tick, (low, high)) - 0.035
        canvas.write(inner.left - 0.06, y, f"{tick:g}", size=SMALL, color=MUTED, align=1.0)
    label = fitted(drawable(pane.label), WIDTH, SMALL)
    canvas.write(inner.left - 0.3, inner.top + 0.08, label, size=SMALL, color=MUTED)
    if pane.is_win_rate and low < 50 < high:
        axes.axhline(50, color=FAINT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    marks = [
        Mark(y, x, None, None, known[row.family]) for row, (x, y) in zip(rows, points, strict=True)
    ]
    draw_marks(axes, marks)
    steps = _steps(rows, pane, known)
    _draw_arrows(axes, steps)
    labels = [
        Label(point, drawn_name(row.method, 1.0, SMALL), known[row.family].color, needed=False)
        for row, point in zip(rows, points, strict=True)
        if row.model != row.baseline
    ]
    place(canvas, axes, labels, points, [_dense(start, end) for start, end, _ in steps])


def _steps(
    rows: Sequence[PlanRow], pane: _Pane, known: Mapping[str, Look]
) -> list[tuple[Point, Point, Look]]:
    """From the baseline of each family to its other methods."""
    return [
        (pane.points[row.baseline], pane.points[row.model], known[row.family])
        for row in rows
        if row.baseline in pane.points and row.model != row.baseline
    ]


def _draw_arrows(axes: Axes, steps: Sequence[tuple[Point, Point, Look]]) -> None:
    from matplotlib.patches import FancyArrowPatch

    for start, end, look in steps:
        arrow = FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>,head_width=1.6,head_length=3.2",
            shrinkA=3,
            shrinkB=3.5,
            color=look.color,
            linewidth=0.7,
            alpha=0.5,
            zorder=2.5,
        )
        axes.add_patch(arrow)


def _dense(start: Point, end: Point) -> list[Point]:
    """Points along an arrow, so close that no name falls between them."""
    (x, y), (right, top) = start, end
    return [(x + (right - x) * k / 6, y + (top - y) * k / 6) for k in range(7)]


def _roomy(values: Sequence[float]) -> tuple[float, float]:
    """Limits of a percentage axis with room for names above and below the points."""
    margin = 0.1 * (max(values) - min(values))
    return percent_limits([min(values) - margin, max(values) + margin])


def _part(value: float, limits: tuple[float, float]) -> float:
    low, high = limits
    return (value - low) / (high - low)


def length_ticks(low: float, high: float) -> Sequence[float]:
    """Round lengths between powers ``low`` and ``high`` of ten.

    >>> length_ticks(1.3, 2.1)
    [20, 30, 40, 50, 60, 80, 100]
    """
    powers = range(math.floor(low), math.ceil(high) + 1)
    ticks = [
        int(n * 10**power)
        for power in powers
        for n in (1, 1.5, 2, 3, 4, 5, 6, 8)
        if n * 10**power % 1 == 0
    ]
    found = [tick for tick in ticks if low <= math.log10(tick) <= high]
    if len(found) > 9:
        found = [tick for tick in found if str(tick)[0] in "125"]
    return found if len(found) > 1 else nice_ticks(10**low, 10**high, 5)
