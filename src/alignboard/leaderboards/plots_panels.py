"""The panels of dots and intervals: the ranking, and the comparison within families."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from alignboard.leaderboards.plots_canvas import (
    HEADING,
    INK,
    SMALL,
    Box,
    Canvas,
    drawn_name,
    text_width,
)
from alignboard.leaderboards.plots_style import (
    FAINT,
    FLAGGED,
    MUTED,
    OTHER,
    RULE,
    SMALL_HEAD_ROOM,
    BoardPicture,
    Estimate,
    Family,
    Look,
    PlotRow,
    as_heading,
    inner_box,
    look_of,
    looks,
    nice_ticks,
    percent_limits,
    write_scale,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Inches that a line of the family panel takes at most.
_LINE = 0.3
# The second mark of a row stands this much lower, and the first as much higher: two intervals stay apart.
_OFFSET = 0.19


@dataclass(frozen=True)
class Line:
    """One line of a dot-and-interval panel, ``y`` downwards from 0."""

    y: float
    row: PlotRow
    look: Look


def draw_ranking(canvas: Canvas, box: Box, picture: BoardPicture, lines: Sequence[Line]) -> None:
    """The forest plot: one line per model, its score in figures at the right."""
    heading = _ranking_heading(picture, [line.row for line in lines])
    canvas.write(box.left, box.top - 0.13, heading, size=HEADING, bold=True)
    _key(canvas, box.left, box.top - 0.36, picture, [line.row for line in lines])
    numbered = [line.row.rank for line in lines if line.row.rank is not None]
    rank_room = text_width(str(max(numbered, default=0)), SMALL) + 0.12
    room = 0.36 * box.width
    names = [drawn_name(line.row.model, room) for line in lines]
    name_room = max(text_width(name) for name in names)
    texts = [_number(line.row.main) for line in lines]
    number_room = max(text_width(text, SMALL) for text in texts) + 0.1
    inner = inner_box(box, rank_room + name_room + 0.14, number_room)
    height_of = _draw_lines(canvas, inner, lines, f"{picture.main_label} (%)")
    for line, name in zip(lines, names, strict=True):
        y = height_of(line.y) - 0.04
        color = FLAGGED if line.row.flagged else INK
        canvas.write(inner.left - 0.08, y, name, color=color, align=1.0)
        rank = "" if line.row.rank is None else str(line.row.rank)
        canvas.write(box.left + rank_room - 0.12, y, rank, size=SMALL, color=FAINT, align=1.0)
    for line, text in zip(lines, texts, strict=True):
        y = height_of(line.y) - 0.04
        canvas.write(box.right, y, text, size=SMALL, color=MUTED, align=1.0)


def draw_families(
    canvas: Canvas, box: Box, picture: BoardPicture, families: Sequence[Family]
) -> None:
    """Members of each family in its order, with an arrow from each to the next."""
    canvas.write(box.left, box.top - 0.13, "Within families, in order", size=HEADING, bold=True)
    known = looks(families)
    lines, y = [], 0.0
    for _, members in families:
        for row in members:
            lines.append(Line(y, row, look_of(row, known)))
            y += 1
        y += 0.6
    names = [drawn_name(line.row.model, 0.42 * box.width, SMALL) for line in lines]
    inner = inner_box(
        box, max(text_width(name, SMALL) for name in names) + 0.12, head=SMALL_HEAD_ROOM
    )
    height = min(inner.height, _LINE * (lines[-1].y + 1.3))
    inner = Box(inner.left, inner.top - height, inner.width, height)
    height_of = _draw_lines(canvas, inner, lines, f"{picture.main_label} (%)", arrows=families)
    for line, name in zip(lines, names, strict=True):
        canvas.write(inner.left - 0.08, height_of(line.y) - 0.035, name, size=SMALL, align=1.0)


def _draw_lines(
    canvas: Canvas, box: Box, lines: Sequence[Line], label: str, arrows: Sequence[Family] = ()
) -> Callable[[float], float]:
    """Draw ``lines`` into ``box``; returns where a line stands, in inches of the figure."""
    last = lines[-1].y
    low, high = percent_limits([value for line in lines for value in _values(line.row)])
    axes = canvas.axes(box, (low, high), (last + 0.65, -0.65))
    ticks = nice_ticks(low, high)
    axes.vlines(ticks, -0.65, last + 0.65, color=RULE, linewidth=0.8, zorder=0)
    axes.hlines([line.y for line in lines], low, high, color=RULE, linewidth=0.6, zorder=0.5)
    write_scale(canvas, box, [((t - low) / (high - low), f"{t:g}") for t in ticks], label)
    if low < 50 < high:
        axes.axvline(50, color=FAINT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        x = box.left + box.width * (50 - low) / (high - low)
        canvas.write(x, box.top + 0.04, "baseline", size=SMALL, color=MUTED, align=0.5)
    _marks(axes, lines)
    _arrows(axes, lines, arrows)
    return lambda y: box.bottom + box.height * (1 - (y + 0.65) / (last + 1.3))


def _values(row: PlotRow) -> list[float]:
    values = [row.published]
    for estimate in (row.main, row.second):
        if estimate is not None:
            values += [estimate.value, estimate.low, estimate.high]
    return [value for value in values if value is not None]


def _marks(axes: Axes, lines: Sequence[Line]) -> None:
    seconds = [(line.y + _OFFSET, line.row.second) for line in lines if line.row.second]
    shift = -_OFFSET if seconds else 0.0
    mains = [(line.y + shift, line.row.main, line.look) for line in lines if line.row.main]
    _intervals(axes, [(y, estimate, FAINT) for y, estimate in seconds], 1.0)
    _intervals(axes, [(y, estimate, look.color) for y, estimate, look in mains], 1.6)
    if seconds:
        x = [estimate.value for _, estimate in seconds]
        axes.scatter(x, [y for y, _ in seconds], s=13, marker="d", c=MUTED, linewidths=0, zorder=3)
    for look in dict.fromkeys(look for *_, look in mains):
        found = [(estimate.value, y) for y, estimate, own in mains if own == look]
        x, y = zip(*found, strict=True)
        axes.scatter(x, y, s=30, marker=look.marker, c=look.color, linewidths=0, zorder=4)
    published = [
        (line.row.published, line.y + shift) for line in lines if line.row.published is not None
    ]
    if published:
        x, y = zip(*published, strict=True)
        axes.scatter(
            x, y, s=62, marker="o", facecolors="none", edgecolors=MUTED, linewidths=0.9, zorder=5
        )


def _intervals(axes: Axes, marks: Sequence[tuple[float, Estimate, str]], width: float) -> None:
    from matplotlib.collections import LineCollection

    known = [
        ([(mark.low, y), (mark.high, y)], color)
        for y, mark, color in marks
        if mark.low is not None and mark.high is not None
    ]
    if known:
        segments, colors = zip(*known, strict=True)
        axes.add_collection(
            LineCollection(segments, colors=colors, linewidths=width, zorder=2), autolim=False
        )


def _arrows(axes: Axes, lines: Sequence[Line], families: Sequence[Family]) -> None:
    from matplotlib.patches import FancyArrowPatch

    shift = -_OFFSET if any(line.row.second for line in lines) else 0.0
    at = {line.row.model: line for line in lines}
    for _, members in families:
        there = [at[row.model] for row in members]
        for one, other in pairwise(there):
            if one.row.main and other.row.main:
                axes.add_patch(
                    FancyArrowPatch(
                        (one.row.main.value, one.y + shift),
                        (other.row.main.value, other.y + shift),
                        arrowstyle="-|>,head_width=1.6,head_length=3.2",
                        shrinkA=3,
                        shrinkB=3.5,
                        color=other.look.color,
                        linewidth=0.7,
                        alpha=0.55,
                        zorder=2.5,
                    )
                )


def _key(
    canvas: Canvas, x: float, y: float, picture: BoardPicture, rows: Sequence[PlotRow]
) -> None:
    """What the marks mean, in one line above the axes."""
    entries = [("o", INK, False, picture.main_label)]
    if picture.second_label and any(row.second for row in rows):
        entries.append(("d", MUTED, False, picture.second_label))
    if any(row.published is not None for row in rows):
        entries.append(("o", MUTED, True, f"published {picture.main_label}"))
    if any(row.flagged for row in rows):
        entries.append((OTHER.marker, FLAGGED, False, "flagged: constant or adversarial answers"))
    if len(entries) == 1:
        return
    for marker, color, hollow, text in entries:
        canvas.mark(x + 0.05, y + 0.04, marker, color, hollow=hollow)
        canvas.write(x + 0.14, y, text, size=SMALL, color=MUTED)
        x += 0.14 + text_width(text, SMALL) + 0.2


def _ranking_heading(picture: BoardPicture, rows: Sequence[PlotRow]) -> str:
    """What the ranking shows; intervals are promised only where there are some."""
    main = as_heading(picture.main_label)
    if any(row.main and row.main.low is not None for row in rows):
        return f"{main} with 95 % intervals"
    if any(row.second and row.second.low is not None for row in rows):
        return f"{main}, and {picture.second_label} with 95 % intervals"
    return f"{main}, without intervals"


def _number(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.1f}"
    return f"{estimate.value:.1f}  [{estimate.low:.1f}, {estimate.high:.1f}]"
