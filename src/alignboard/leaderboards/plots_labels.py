"""Names beside points, so that none covers another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from alignboard.leaderboards.plots_canvas import SMALL, Canvas, text_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Point: TypeAlias = tuple[float, float]
Rectangle: TypeAlias = tuple[float, float, float, float]
"""left, bottom, right, top in pixels"""

# Directions in which a name may stand from its point, the best first, and how far (inches).
_DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
_DISTANCES = (0.07, 0.2, 0.4, 0.65)
_FEW_COVERED = 1
# Half of a point, in parts of the smallest distance.
_RADIUS = 0.45
# A name further than this from its point (inches) gets a line to it.
_LEADER = 0.12


@dataclass(frozen=True)
class Label:
    """A name at a point in data coordinates; one that is ``needed`` may cover other points, but no other name."""

    point: Point
    text: str
    color: str
    needed: bool


@dataclass
class _Occupied:
    """What is there already, in pixels."""

    frame: Rectangle
    points: NDArray[np.float64]
    """(n, 2) points of the panel, and points along its lines"""
    names: list[Rectangle]


def place(
    canvas: Canvas,
    axes: Axes,
    labels: Sequence[Label],
    points: Sequence[Point],
    paths: Sequence[Sequence[Point]] = (),
) -> None:
    """Write each label where it fits, in order; one that fits nowhere is left out.

    ``points`` and ``paths`` (in data coordinates) are what the names should not cover.
    """
    dpi = canvas.dpi
    lines = [_along(axes.transData.transform(np.array(path))) for path in paths]
    occupied = np.concatenate([axes.transData.transform(np.array(points)), *lines])
    (left, bottom), (right, top) = axes.transAxes.transform([(0, 0), (1, 1)])
    there = _Occupied((left, bottom, right + 0.05 * dpi, top), occupied, [])
    for label in labels:
        x, y = axes.transData.transform(label.point)
        size = text_width(label.text, SMALL) * dpi, SMALL / 72 * dpi
        near = _DISTANCES if label.needed else _DISTANCES[:2]
        found = _best_place((x, y), size, [distance * dpi for distance in near], there)
        if found is None or (found[1] > _FEW_COVERED and not label.needed):
            continue
        rectangle, _ = found
        there.names.append(rectangle)
        there.points = np.concatenate([there.points, _along(_leader((x, y), rectangle))])
        _write(canvas, label, (x, y), rectangle)


def _best_place(
    point: Point, size: Point, distances: Sequence[float], there: _Occupied
) -> tuple[Rectangle, int] | None:
    """The rectangle that covers the fewest points, and how many; None where every one covers a name or the edge."""
    best: tuple[Rectangle, int] | None = None
    for distance in distances:
        for direction in _DIRECTIONS:
            rectangle = _rectangle(point, size, distance, direction)
            if not _inside(rectangle, there.frame):
                continue
            leader = _along(_leader(point, rectangle))
            if any(_overlap(rectangle, name) or _covered(name, leader, 0) for name in there.names):
                continue
            covered = _covered(rectangle, there.points, _RADIUS * distances[0])
            if best is None or covered < best[1]:
                best = rectangle, covered
        if best is not None and best[1] == 0:
            break
    return best


def _leader(point: Point, rectangle: Rectangle) -> NDArray[np.float64]:
    """(2, 2) the shortest line from ``point`` to ``rectangle``."""
    left, bottom, right, top = rectangle
    x, y = point
    return np.array([(x, y), (min(max(x, left), right), min(max(y, bottom), top))])


def _along(path: NDArray[np.float64]) -> NDArray[np.float64]:
    """(9 * (n - 1), 2) points along ``path`` (n, 2), its corners left out."""
    steps = np.linspace(0, 1, 11)[1:-1, None]
    parts = [one + steps * (other - one) for one, other in pairwise(path)]
    return np.concatenate(parts)


def _rectangle(point: Point, size: Point, distance: float, direction: tuple[int, int]) -> Rectangle:
    (x, y), (width, height), (right, up) = point, size, direction
    left = x + right * distance + (right - 1) * width / 2
    bottom = y + up * distance + (up - 1) * height / 2
    return left, bottom, left + width, bottom + height


def _inside(one: Rectangle, frame: Rectangle) -> bool:
    return one[0] >= frame[0] and one[1] >= frame[1] and one[2] <= frame[2] and one[3] <= frame[3]


def _overlap(one: Rectangle, other: Rectangle) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _covered(rectangle: Rectangle, points: NDArray[np.float64], radius: float) -> int:
    left, bottom, right, top = rectangle
    x, y = points[:, 0], points[:, 1]
    inside = (x > left - radius) & (x < right + radius) & (y > bottom - radius) & (y < top + radius)
    return int(inside.sum())


def _write(canvas: Canvas, label: Label, point: Point, rectangle: Rectangle) -> None:
    """The name, with a thin line to its point where it stands apart from it."""
    dpi = canvas.dpi
    (x, y), end = _leader(point, rectangle) / dpi
    if abs(end - (x, y)).sum() > _LEADER:
        canvas.line([x, end[0]], [y, end[1]], label.color)
    left, bottom = rectangle[0] / dpi, rectangle[1] / dpi
    canvas.write(left, bottom + 0.025, label.text, size=SMALL, color=label.color)
