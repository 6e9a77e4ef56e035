"""What the panels of a plan's board share: lines for its models, marks with intervals, keys and scales.

A family has one colour and one marker in every panel; judges differ by how their marks are filled. `y` of lines and
marks is in inches downwards from the top of the axes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from alignboard.leaderboards.plan_board import PlanBoard, PlanRow
from alignboard.leaderboards.plots_canvas import (
    INK,
    SMALL,
    TEXT,
    Box,
    Canvas,
    drawn_name,
    text_width,
)
from alignboard.leaderboards.plots_style import (
    MARKERS,
    MUTED,
    PALETTE,
    RULE,
    Look,
    nice_ticks,
    percent_limits,
    write_scale,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 5.925
"""inches of a panel; two of them stand side by side"""
KEY_LINE = 0.19
"""inches of a line of a key"""
NEUTRAL = Look(INK, "o")
"""stands for any family in a key"""
FAMILY_ROOM = 1.5
"""inches of the longest name of a family beside the axes"""
UNKNOWN = "n/a"
# How the marks of the first, second, ... judge are filled; the second's are hollow.
_FILLS = ("full", "full", "left", "bottom", "right", "top")
# Inches between families, and above the first and below the last line.
_GAP, _PAD = 0.1, 0.13
_METHOD_ROOM = 1.1


@dataclass(frozen=True)
class Panel:
    """A part of the picture: ``height`` is what ``draw`` needs below the heading, in inches."""

    heading: str
    description: str
    """for those who do not see it"""
    height: float
    draw: Callable[[Canvas, Box], None]


@dataclass(frozen=True)
class Line:
    """A model in a panel of lines."""

    y: float
    row: PlanRow
    look: Look
    first: bool
    """of its family"""


@dataclass(frozen=True)
class Mark:
    """A value in percent or points, with its interval where it is known."""

    y: float
    value: float
    low: float | None
    high: float | None
    look: Look
    fill: int = 0


Entry: TypeAlias = tuple[Look, int, str]
"""of a key: the mark's look, its fill and what it stands for"""


def looks(board: PlanBoard) -> dict[str, Look]:
    """The look of each family."""
    families = dict.fromkeys(row.family for row in board.rows)
    return {
        family: Look(PALETTE[k % len(PALETTE)], MARKERS[k % len(MARKERS)])
        for k, family in enumerate(families)
    }


def stacked(
    rows: Sequence[PlanRow], known: dict[str, Look], pitch: float
) -> tuple[list[Line], float]:
    """A line for every row, ``pitch`` inches apart, with room between families; and the height of all."""
    lines: list[Line] = []
    y = _PAD
    for row in rows:
        first = not lines or lines[-1].row.family != row.family
        y += _GAP if first and lines else 0.0
        lines.append(Line(y + pitch / 2, row, known[row.family], first))
        y += pitch
    return lines, y + _PAD


def names_room(lines: Sequence[Line], room: float = FAMILY_ROOM) -> float:
    """Inches that the names of the families, at most ``room``, and of the methods take beside the axes."""
    return _widest(_family_names(lines, room)) + _widest(_method_names(lines)) + 0.42


def write_names(
    canvas: Canvas, inner: Box, lines: Sequence[Line], room: float = FAMILY_ROOM
) -> None:
    """The method beside every line, and the family with its mark beside its first one."""
    methods, families = _method_names(lines), _family_names(lines, room)
    left = inner.left - names_room(lines, room)
    for line, method, family in zip(lines, methods, families, strict=True):
        y = inner.top - line.y - 0.037
        canvas.write(inner.left - 0.08, y, method, size=SMALL, align=1.0)
        if line.first:
            put_mark(canvas, left + 0.05, y + 0.037, line.look)
            canvas.write(left + 0.15, y, family, size=TEXT, bold=True)


def _family_names(lines: Sequence[Line], room: float) -> list[str]:
    return [drawn_name(line.row.family, room, TEXT) if line.first else "" for line in lines]


def _method_names(lines: Sequence[Line]) -> list[str]:
    return [drawn_name(line.row.method, _METHOD_ROOM, SMALL) for line in lines]


def _widest(names: Sequence[str]) -> float:
    return max(text_width(name, TEXT, bold=True) for name in names)


def line_axes(
    canvas: Canvas, inner: Box, lines: Sequence[Line], limits: tuple[float, float], label: str
) -> Axes:
    """Axes with a guide for every line and numbers below, as many as there is room for."""
    low, high = limits
    axes = canvas.axes(inner, limits, (inner.height, 0.0))
    ticks = nice_ticks(low, high, max(2, min(7, int(inner.width / 0.4))))
    axes.vlines(ticks, 0, inner.height, color=RULE, linewidth=0.8, zorder=0)
    axes.hlines([line.y for line in lines], low, high, color=RULE, linewidth=0.6, zorder=0)
    write_scale(canvas, inner, [((t - low) / (high - low), f"{t:g}") for t in ticks], label)
    return axes


def limits_of(marks: Sequence[Mark], *others: float) -> tuple[float, float]:
    """Limits of a percentage axis that shows all of ``marks`` with their intervals, and ``others``."""
    ends = [end for mark in marks for end in (mark.value, mark.low, mark.high) if end is not None]
    return percent_limits([*ends, *others])


def draw_marks(axes: Axes, marks: Sequence[Mark], size: float = 5.5) -> None:
    """The marks over their intervals."""
    from matplotlib.collections import LineCollection

    spans = [
        (((mark.low, mark.y), (mark.high, mark.y)), mark.look.color)
        for mark in marks
        if mark.low is not None and mark.high is not None
    ]
    if spans:
        segments, colors = zip(*spans, strict=True)
        intervals = LineCollection(
            segments, colors=colors, linewidths=1.4, alpha=0.7, zorder=2, clip_on=False
        )
        axes.add_collection(intervals, autolim=False)
    for look, fill in dict.fromkeys((mark.look, mark.fill) for mark in marks):
        own = [mark for mark in marks if (mark.look, mark.fill) == (look, fill)]
        axes.plot(
            [mark.value for mark in own],
            [mark.y for mark in own],
            markersize=size,
            clip_on=False,
            zorder=4,
            **_style(look, fill),
        )


def put_mark(canvas: Canvas, x: float, y: float, look: Look, fill: int = 0) -> None:
    """One mark at inches (x, y) of the figure."""
    from matplotlib.lines import Line2D

    mark = Line2D([x], [y], markersize=5.5, **_style(look, fill))
    mark.set_transform(canvas.figure.dpi_scale_trans)
    canvas.figure.add_artist(mark)


def _style(look: Look, fill: int) -> dict[str, Any]:
    return {
        "linestyle": "none",
        "marker": look.marker,
        "color": look.color,
        "fillstyle": _FILLS[fill % len(_FILLS)],
        "markerfacecolor": "white" if fill == 1 else look.color,
        "markerfacecoloralt": "white",
        "markeredgewidth": 1.0,
    }


def key_lines(entries: Sequence[Entry]) -> list[list[Entry]]:
    """The entries of a key as lines that fit into a panel; long names lose their middle."""
    lines: list[list[Entry]] = []
    used = WIDTH
    for look, fill, text in entries:
        short = drawn_name(text, WIDTH / 2, SMALL)
        width = _entry_width(short)
        if used + width > WIDTH:
            lines.append([])
            used = 0.0
        lines[-1].append((look, fill, short))
        used += width
    return lines


def write_key(canvas: Canvas, box: Box, lines: Sequence[Sequence[Entry]]) -> None:
    """The lines of a key from the top of ``box``."""
    for k, line in enumerate(lines):
        x, y = box.left, box.top - KEY_LINE * (k + 0.7)
        for look, fill, text in line:
            put_mark(canvas, x + 0.05, y + 0.035, look, fill)
            canvas.write(x + 0.15, y, text, size=SMALL, color=MUTED)
            x += _entry_width(text)


def _entry_width(text: str) -> float:
    return 0.15 + text_width(text, SMALL) + 0.2
