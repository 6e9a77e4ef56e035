"""Designs of the coverage table, and how often a method's limits held the truth in each."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Labels = NDArray[np.intp]
Limits = tuple[float, float] | tuple[Array, Array]
"""of one quantity, or of several at once, such as all differences of a board"""

BLOCK = 100
"""repetitions of one seed"""


@dataclass(frozen=True)
class Cell:
    """One setting: how often the limits held the truth, and how wide they were on average."""

    quantity: str
    design: str
    method: str
    coverage: float
    error: float
    """Monte-Carlo standard error of the coverage, between repetitions"""
    width: float
    repetitions: int

    def with_more(self, more: Cell) -> Cell:
        """Both cells' repetitions as one cell."""
        n, m = self.repetitions, more.repetitions
        share = n / (n + m)
        coverage = share * self.coverage + (1 - share) * more.coverage
        squares = n * (n * self.error**2 + self.coverage**2)
        squares += m * (m * more.error**2 + more.coverage**2)
        variance = max(0.0, squares / (n + m) - coverage**2)
        return replace(
            self,
            coverage=coverage,
            error=math.sqrt(variance / (n + m)),
            width=share * self.width + (1 - share) * more.width,
            repetitions=n + m,
        )


@dataclass(frozen=True)
class Design:
    """How one setting is drawn, what is true in it, and the methods that see the same draws."""

    quantity: str
    name: str
    truth: float | Array | None
    """None: the last value of every draw, which no method sees"""
    draw: Callable[[np.random.Generator], tuple[Any, ...]]
    methods: dict[str, Callable[..., Limits]]
    worst: bool = False
    """of several quantities at once the one that is held least often counts, not their mean"""

    def cells(self, repetitions: int, start: int = 0) -> list[Cell]:
        """A cell per method, of repetitions ``start`` and after; every `BLOCK` of them has its own seed."""
        held: dict[str, list[Any]] = {name: [] for name in self.methods}
        width: dict[str, list[float]] = {name: [] for name in self.methods}
        own_seed = zlib.crc32(f"{self.quantity} {self.name}".encode())
        rng = np.random.default_rng([own_seed, start])
        for k in range(start, start + repetitions):
            if k % BLOCK == 0:
                rng = np.random.default_rng([own_seed, k])
            drawn = self.draw(rng)
            wanted = np.asarray(drawn[-1] if self.truth is None else self.truth)
            drawn = drawn[:-1] if self.truth is None else drawn
            for name, method in self.methods.items():
                low, high = method(*drawn)
                inside = (low <= wanted) & (wanted <= high)
                held[name].append(inside if self.worst else float(np.mean(inside)))
                across = np.atleast_1d(np.asarray(high) - np.asarray(low))
                finite = across[np.isfinite(across)]
                width[name].append(float(finite.mean()) if len(finite) else 0.0)
        return [self._cell(name, np.array(held[name]), np.array(width[name])) for name in held]

    def _cell(self, method: str, held: Array, width: Array) -> Cell:
        if self.worst:
            held = held[:, held.mean(axis=0).argmin()]
        n = len(held)
        error = float(held.std()) / math.sqrt(n)
        return Cell(
            self.quantity, self.name, method, float(held.mean()), error, float(width.mean()), n
        )


Found = dict[tuple[str, str], list[Cell]]
"""by quantity and design, a cell per method"""


def as_found(cells: Iterable[Cell]) -> Found:
    """Cells by quantity and design."""
    found: Found = {}
    for cell in cells:
        found.setdefault((cell.quantity, cell.design), []).append(cell)
    return found


def missing(design: Design, found: Found, repetitions: int) -> int:
    """How many repetitions a design lacks; all of them where its methods are others than those that were run."""
    have = found.get((design.quantity, design.name), [])
    if not have or [cell.method for cell in have] != list(design.methods):
        return repetitions
    return max(0, repetitions - have[0].repetitions)


def add(design: Design, found: Found, repetitions: int, more: int) -> None:
    """Simulate ``more`` of the ``repetitions`` that a design is to have, after those that it has."""
    key = (design.quantity, design.name)
    lacking = missing(design, found, repetitions)
    old = found[key] if key in found and lacking < repetitions else None
    start = 0 if old is None else old[0].repetitions
    new = design.cells(more, start)
    found[key] = new if old is None else [a.with_more(b) for a, b in zip(old, new, strict=True)]
