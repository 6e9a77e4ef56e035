"""The picture of a board: the ranking with its intervals, the score against length, and the families.

One PNG, drawn by matplotlib's Agg canvas without pyplot, in inches, without a second layout pass; the same board
gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignboard.leaderboards.plots_canvas import (
    SMALL,
    SUBTITLE,
    TITLE,
    Box,
    Canvas,
    drawable,
    fitted,
    wrapped,
)
from alignboard.leaderboards.plots_lengths import draw_lengths
from alignboard.leaderboards.plots_panels import Line, draw_families, draw_ranking
from alignboard.leaderboards.plots_style import (
    FOOT_ROOM,
    HEAD_ROOM,
    MUTED,
    SMALL_HEAD_ROOM,
    BoardPicture,
    Family,
    Look,
    PlotRow,
    look_of,
    looks,
)

DPI = 150
ALL_UP_TO = 30
"""models of a board that are all drawn in the ranking"""
TOP = 15
"""models of a larger board that are drawn besides the families'"""
# With at most this many lines the ranking stands above the other panels, not beside them.
_FEW = 10
# Inches: height of a line of the ranking, between panels, around the figure, title.
_ROW, _GAP, _MARGIN, _HEAD = 0.235, 0.55, 0.3, 0.8
# Lines left free between the leading models and the others of a selection.
_BREAK = 0.7
# Whatever the user's own matplotlibrc says about these.
_STYLE: dict[Any, Any] = {
    "path.sketch": None,
    "path.effects": [],
    "path.snap": True,
    "path.simplify": True,
    "lines.antialiased": True,
    "lines.markeredgewidth": 1.0,
    "patch.antialiased": True,
    "axes.axisbelow": "line",
    "axes.xmargin": 0.0,
    "axes.ymargin": 0.0,
}


@dataclass(frozen=True)
class Chosen:
    """What of a board is drawn, and what is not."""

    lines: list[Line]
    families: list[Family]
    with_lengths: bool
    notes: list[str]


def draw(picture: BoardPicture) -> bytes:
    """``picture`` as PNG."""
    import matplotlib as mpl

    chosen = choose(picture)
    with mpl.rc_context(_STYLE):
        canvas = _compose(picture, chosen)
        return canvas.png()


def choose(picture: BoardPicture) -> Chosen:
    """Which models the ranking shows, which families can be compared, and what a reader has to be told of it."""
    drawn = [row for row in picture.rows if row.main]
    notes = list(picture.notes)
    families, missing = _families(picture)
    members = {row.model for _, group in families for row in group}
    kept = drawn
    if len(drawn) > ALL_UP_TO:
        kept = [row for k, row in enumerate(drawn) if k < TOP or row.model in members]
        notes.append(
            f"The ranking shows the first {TOP} and the families' members; {len(drawn) - len(kept)} models are left "
            "out of it. The tables have them all."
        )
    if len(drawn) < len(picture.rows):
        what = picture.main_label
        notes.append(f"Not drawn: {len(picture.rows) - len(drawn)} models that have no {what}.")
    if missing:
        notes.append(f"Without data for a comparison: {', '.join(missing)}.")
    with_lengths = sum(bool(row.length) for row in drawn) > 1
    unknown = sum(not row.length for row in drawn)
    if unknown:
        notes.append(f"Lengths of the answers are not known for {unknown} of {len(drawn)} models.")
    known = looks(families)
    return Chosen(_lines(kept, known, selected=kept is not drawn), families, with_lengths, notes)


def _families(picture: BoardPicture) -> tuple[list[Family], list[str]]:
    """Families with at least two members that have data, and the names of what is missing."""
    rows = {row.model: row for row in picture.rows if row.main}
    families: list[Family] = []
    missing = []
    n_lines = 0
    for name, models in picture.families.items():
        there = [rows[model] for model in models if model in rows]
        if len(there) < 2 or n_lines + len(there) > ALL_UP_TO:
            missing.append(f"the family {name}")
            continue
        n_lines += len(there)
        families.append((name, there))
        missing += [model for model in models if model not in rows]
    return families, missing


def _lines(rows: Sequence[PlotRow], known: Mapping[str, Look], *, selected: bool) -> list[Line]:
    """The rows from the top; in a selection there is some room between the leading models and the others."""
    return [
        Line(k + (_BREAK if selected and k >= TOP else 0.0), row, look_of(row, known))
        for k, row in enumerate(rows)
    ]


def _compose(picture: BoardPicture, chosen: Chosen) -> Canvas:
    """The figure, as high as its panels and its footer need."""
    beside = len(chosen.lines) > _FEW
    width = 13.0 if beside else 11.0
    footer = wrapped(drawable(" ".join(chosen.notes)), width - 2 * _MARGIN, SMALL)
    foot = 0.25 + 0.14 * len(footer)
    ranking, lengths, families = _heights(chosen)
    body = max(ranking, lengths + families) if beside else ranking + max(lengths, families)
    canvas = Canvas(width, _HEAD + body + foot, DPI)
    _head_and_foot(canvas, picture, footer)
    room = Box(_MARGIN, foot, width - 2 * _MARGIN, body)
    if not chosen.lines:
        canvas.write(_MARGIN, foot + 0.4, f"No model has a {picture.main_label}.", color=MUTED)
        return canvas
    boxes = _beside(room, chosen, families) if beside else _above(room, chosen, ranking)
    draw_ranking(canvas, boxes[0], picture, chosen.lines)
    if chosen.with_lengths:
        draw_lengths(canvas, boxes[1], picture, chosen.families)
    if chosen.families:
        draw_families(canvas, boxes[2], picture, chosen.families)
    return canvas


def _heights(chosen: Chosen) -> tuple[float, float, float]:
    """What the ranking, the panel of lengths and that of families need, in inches."""
    ranking = 0.8
    if chosen.lines:
        ranking = _ROW * (chosen.lines[-1].y + 1.3) + HEAD_ROOM + FOOT_ROOM
    n_lines = sum(len(members) + 0.6 for _, members in chosen.families)
    families = 0.21 * (n_lines + 0.7) + SMALL_HEAD_ROOM + FOOT_ROOM if chosen.families else 0.0
    return ranking, 3.6 if chosen.with_lengths else 0.0, families


def _beside(room: Box, chosen: Chosen, families: float) -> tuple[Box, Box, Box]:
    """The ranking at the left; lengths above ``families`` inches at the right."""
    if not (chosen.with_lengths or chosen.families):
        return room, room, room
    width = 0.57 * room.width
    left, right = room.left + width + _GAP, room.width - width - _GAP
    below = families if chosen.with_lengths else room.height
    return (
        Box(room.left, room.bottom, width, room.height),
        Box(left, room.bottom + families, right, room.height - families),
        Box(left, room.bottom, right, below),
    )


def _above(room: Box, chosen: Chosen, ranking: float) -> tuple[Box, Box, Box]:
    """The ranking above with ``ranking`` inches; lengths and families side by side below it."""
    height = room.height - ranking
    both = chosen.with_lengths and bool(chosen.families)
    width = (room.width - _GAP) / 2 if both else room.width
    return (
        Box(room.left, room.top - ranking, room.width, ranking),
        Box(room.left, room.bottom, width, height),
        Box(room.right - width, room.bottom, width, height),
    )


def _head_and_foot(canvas: Canvas, picture: BoardPicture, footer: Sequence[str]) -> None:
    room = canvas.width - 2 * _MARGIN
    title = fitted(drawable(picture.title), room, TITLE, bold=True)
    canvas.write(_MARGIN, canvas.height - 0.35, title, size=TITLE, bold=True)
    canvas.write(
        _MARGIN,
        canvas.height - 0.57,
        fitted(drawable(picture.subtitle), room, SUBTITLE),
        size=SUBTITLE,
        color=MUTED,
    )
    for k, line in enumerate(reversed(footer)):
        canvas.write(_MARGIN, 0.15 + 0.14 * k, line, size=SMALL, color=MUTED)
