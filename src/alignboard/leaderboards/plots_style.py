"""What the panels of a board's picture share: its data, its colours and its scales.

Nothing here knows where the numbers come from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from alignboard.leaderboards.plots_canvas import INK, SMALL, Box, Canvas

MUTED, FAINT, RULE = "#6b6b6b", "#a3a3a3", "#ebebeb"
FLAGGED = "#c1121f"
# Okabe and Ito's palette for colour-blind readers, with the two that are too pale for marks on white replaced by
# Tol's wine and olive. Families differ by marker as well.
PALETTE = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#882255",
    "#8c8c1a",
    "#56b4e9",
    "#000000",
    "#e69f00",
)
MARKERS = ("o", "s", "^", "D", "v", "P", "p", "h")

HEAD_ROOM, SMALL_HEAD_ROOM, FOOT_ROOM = 0.6, 0.44, 0.45
"""inches of a panel above its axes (heading and key, heading alone) and below (numbers, label)"""


@dataclass(frozen=True)
class Estimate:
    """A rate with its interval, in percent; without limits where none is known."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class PlotRow:
    """One model of the picture. ``main`` is what the board is ranked by, ``second`` is drawn beside it."""

    model: str
    rank: int | None
    main: Estimate | None
    second: Estimate | None = None
    published: float | None = None
    length: float | None = None
    """mean length of the answers in characters"""
    flagged: bool = False


@dataclass(frozen=True)
class BoardPicture:
    """Everything that is drawn; ``rows`` in the order of the board."""

    title: str
    subtitle: str
    main_label: str
    second_label: str | None
    rows: Sequence[PlotRow]
    families: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    """what the intervals mean; drawn below the panels"""


def nice_ticks(low: float, high: float, at_most: int = 6) -> list[float]:
    """Round numbers between ``low`` and ``high``.

    >>> nice_ticks(0, 93), nice_ticks(11.2, 13.1)
    ([0.0, 20.0, 40.0, 60.0, 80.0], [11.5, 12.0, 12.5, 13.0])
    """
    steps = [step * 10.0**power for power in range(-6, 9) for step in (1, 2, 2.5, 5)]
    step = next((s for s in steps if (high - low) / s < at_most), steps[-1])
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 9) for k in range(first, last + 1)]


def percent_limits(values: Sequence[float]) -> tuple[float, float]:
    """Limits of a percentage axis around ``values``, inside what percentages can be and never of no width."""
    low, high = min(values), max(values)
    margin = max(0.04 * (high - low), 1.0)
    return max(low - margin, -1.0), min(high + margin, 101.0)


Family: TypeAlias = tuple[str, list[PlotRow]]
"""its name, and its members that have data, in its order"""


@dataclass(frozen=True)
class Look:
    """How a model is marked wherever it appears."""

    color: str
    marker: str


PLAIN = Look(INK, "o")
OTHER = Look(FLAGGED, "X")


def looks(families: Sequence[Family]) -> dict[str, Look]:
    """The look of every member of a family; a flagged model looks flagged, whatever its family."""
    return {
        row.model: OTHER
        if row.flagged
        else Look(PALETTE[k % len(PALETTE)], MARKERS[k % len(MARKERS)])
        for k, (_, members) in enumerate(families)
        for row in members
    }


def look_of(row: PlotRow, known: Mapping[str, Look]) -> Look:
    """The look of ``row``."""
    return OTHER if row.flagged else known.get(row.model, PLAIN)


def inner_box(box: Box, left: float, right: float = 0.0, *, head: float = HEAD_ROOM) -> Box:
    """What a panel leaves to its axes, with ``left`` and ``right`` inches for names and numbers."""
    height = box.height - head - FOOT_ROOM
    return Box(box.left + left, box.bottom + FOOT_ROOM, box.width - left - right, height)


def write_scale(canvas: Canvas, inner: Box, marks: Sequence[tuple[float, str]], label: str) -> None:
    """Numbers below an axis, at parts of its width, and what it measures."""
    for part, text in marks:
        x = inner.left + inner.width * part
        canvas.write(x, inner.bottom - 0.15, text, size=SMALL, color=MUTED, align=0.5)
    middle = inner.left + inner.width / 2
    canvas.write(middle, inner.bottom - 0.31, label, size=SMALL, color=MUTED, align=0.5)


def as_heading(label: str) -> str:
    """``label`` with a capital."""
    return label[0].upper() + label[1:]
