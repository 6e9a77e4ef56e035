"""The panel that shows what length control is about: the score against the length of the answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from alignboard.leaderboards.plots_canvas import HEADING, SMALL, Box, Canvas, drawn_name, text_width
from alignboard.leaderboards.plots_labels import Label, place
from alignboard.leaderboards.plots_style import (
    FAINT,
    FLAGGED,
    MUTED,
    PLAIN,
    RULE,
    SMALL_HEAD_ROOM,
    BoardPicture,
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

_LENGTHS = (20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 1_000_000)


def draw_lengths(
    canvas: Canvas, box: Box, picture: BoardPicture, families: Sequence[Family]
) -> None:
    """The score against the mean length of the answers, lengths on a logarithmic axis."""
    heading = f"{as_heading(picture.main_label)} against length of the answers"
    canvas.write(box.left, box.top - 0.13, heading, size=HEADING, bold=True)
    rows = [row for row in picture.rows if row.main and row.length]
    points = {row.model: (math.log10(row.length or 1), row.main.value) for row in rows if row.main}
    axes = _length_axes(canvas, box, points, picture)
    known = looks(families)
    grouped: dict[Look, list[tuple[float, float]]] = {}
    for row in rows:
        grouped.setdefault(look_of(row, known), []).append(points[row.model])
    for look, found in sorted(grouped.items(), key=lambda item: item[0] != PLAIN):
        x, y = zip(*found, strict=True)
        plain = look == PLAIN
        axes.scatter(
            x,
            y,
            s=14 if plain else 30,
            c=FAINT if plain else look.color,
            marker=look.marker,
            linewidths=0 if plain else 0.6,
            edgecolors="white",
            alpha=0.75 if plain else 1.0,
            zorder=2 if plain else 4,
            clip_on=False,
        )
    paths = []
    for _, members in families:
        path = [points[row.model] for row in members if row.model in points]
        if len(path) > 1:
            x, y = zip(*path, strict=True)
            axes.plot(x, y, color=known[members[0].model].color, linewidth=0.9, alpha=0.6, zorder=3)
            paths.append(path)
    place(canvas, axes, _labels(rows, points, families, known), list(points.values()), paths)


def _length_axes(
    canvas: Canvas, box: Box, points: Mapping[str, tuple[float, float]], picture: BoardPicture
) -> Axes:
    """The axes, their grid, and the numbers beside them."""
    xs, ys = zip(*points.values(), strict=True)
    margin = max(0.04 * (max(xs) - min(xs)), 0.03)
    low, high = min(xs) - margin, max(xs) + margin
    limits = percent_limits(ys)
    ticks = nice_ticks(*limits)
    left = max(text_width(f"{tick:g}", SMALL) for tick in ticks) + 0.06
    inner = inner_box(box, left, head=SMALL_HEAD_ROOM)
    axes = canvas.axes(inner, (low, high), limits)
    lengths = [length for length in _LENGTHS if low <= math.log10(length) <= high]
    if len(lengths) < 2:
        lengths = [int(tick) for tick in nice_ticks(10**low, 10**high, 5) if tick == int(tick) >= 1]
    axes.hlines(ticks, low, high, color=RULE, linewidth=0.8, zorder=0)
    axes.vlines([math.log10(n) for n in lengths], *limits, color=RULE, linewidth=0.8, zorder=0)
    for tick in ticks:
        y = inner.bottom + inner.height * (tick - limits[0]) / (limits[1] - limits[0])
        canvas.write(inner.left - 0.06, y - 0.035, f"{tick:g}", size=SMALL, color=MUTED, align=1.0)
    marks = [((math.log10(n) - low) / (high - low), f"{n:,}") for n in lengths]
    write_scale(canvas, inner, marks, "mean length in characters, logarithmic")
    canvas.write(box.left, inner.top + 0.1, f"{picture.main_label} (%)", size=SMALL, color=MUTED)
    return axes


def _labels(
    rows: Sequence[PlotRow],
    points: Mapping[str, tuple[float, float]],
    families: Sequence[Family],
    known: Mapping[str, Look],
) -> list[Label]:
    """What is named, the most important first: flagged models, families at their last member, the leading models."""
    labels = [
        Label(points[row.model], drawn_name(row.model, 1.8, SMALL), FLAGGED, needed=True)
        for row in rows
        if row.flagged
    ][:4]
    for name, members in families:
        there = [row for row in members if row.model in points]
        if there:
            color = known[members[0].model].color
            labels.append(
                Label(points[there[-1].model], drawn_name(name, 1.8, SMALL), color, needed=True)
            )
    plain = [row for row in rows if row.model not in known and not row.flagged]
    few = 8 if len(rows) <= 30 else 4
    chosen = {row.model: row for row in plain[:few]}
    by_length = sorted(plain, key=lambda row: row.length or 0)
    chosen.update({row.model: row for row in (by_length[:1] + by_length[-1:])})
    return labels + [
        Label(points[model], drawn_name(model, 1.8, SMALL), MUTED, needed=False) for model in chosen
    ]
