"""Widths of small samples in the coverage table: ours over that of the narrowest other method that is valid."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from coverage_cells import Cell

SMALL = 100
"""prompts, labels or clusters; from there on coverage alone is asked for"""
VALID = 0.93
LIMIT = 1.3
_SIZE = re.compile(r"\b[nG] = (\d+)|(\d+) (?:prompts|labels)")


@dataclass(frozen=True)
class Width:
    """Our mean width in a cell over that of another method which is valid there."""

    ours: Cell
    other: Cell
    lowest: Cell
    """the other method's cell of least coverage among all designs of this size"""

    @property
    def ratio(self) -> float:
        """Above 1 where the other method is narrower."""
        return self.ours.width / self.other.width

    @property
    def valid_at_size(self) -> bool:
        """Whether a user who knows the size alone could rely on the other method."""
        return valid(self.lowest)


def valid(cell: Cell) -> bool:
    """Whether coverage is not below 93 % by more than two Monte-Carlo errors; so many doubts help the other method."""
    return cell.coverage + 2 * cell.error >= VALID


def size_of(cell: Cell) -> int | None:
    """Prompts, labels or clusters of a design; None where it names none.

    >>> size_of(Cell("", "8 models, 20 prompts", "", 1, 0, 1, 1)), size_of(Cell("", "equal, G = 5", "", 1, 0, 1, 1))
    (20, 5)
    """
    found = _SIZE.search(cell.design)
    return int(found[1] or found[2]) if found else None


def widths(cells: Sequence[Cell], *, at_size: bool) -> list[Width]:
    """Of every small cell that has one: the narrowest other method, valid there or in all designs of its size."""
    found = []
    for ours in cells:
        size = size_of(ours)
        if ours.method != "alignboard" or size is None or size >= SMALL or not ours.width:
            continue
        place = (ours.quantity, ours.design)
        others = [
            Width(ours, other, min(_of_size(cells, other, size), key=_upper))
            for other in cells
            if (other.quantity, other.design) == place and other is not ours
            if other.width and valid(other)
        ]
        kept = [one for one in others if one.valid_at_size or not at_size]
        if kept:
            found.append(max(kept, key=lambda one: one.ratio))
    return found


def _of_size(cells: Iterable[Cell], other: Cell, size: int) -> list[Cell]:
    """The cells of a method for designs of one size and subject; tests of one difference are one subject."""
    return [
        cell
        for cell in cells
        if cell.method == other.method and size_of(cell) == size
        if _subject(cell) == _subject(other)
    ]


def _subject(cell: Cell) -> str:
    return cell.quantity.partition(",")[0]


def _upper(cell: Cell) -> float:
    return cell.coverage + 2 * cell.error
