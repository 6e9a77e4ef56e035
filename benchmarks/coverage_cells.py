"""Cells of the coverage table: one setting, one method, and how often its limits held the truth."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Labels = NDArray[np.intp]
Limits = tuple[float, float] | tuple[Array, Array]
"""of one quantity, or of several at once, such as all differences of a board"""


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


def simulate(
    quantity: str,
    design: str,
    truth: float | Array | None,
    draw: Callable[[np.random.Generator], tuple[Any, ...]],
    methods: dict[str, Callable[..., Limits]],
    repetitions: int,
) -> Iterator[Cell]:
    """The cells of one design: all methods see the same draws, and the seed is the design's own.

    ``truth`` None: it is the last value of every draw, and no method sees it.
    """
    rng = np.random.default_rng(zlib.crc32(f"{quantity} {design}".encode()))
    held: dict[str, list[float]] = {name: [] for name in methods}
    width: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(repetitions):
        drawn = draw(rng)
        wanted = np.asarray(drawn[-1] if truth is None else truth)
        drawn = drawn[:-1] if truth is None else drawn
        for name, method in methods.items():
            low, high = method(*drawn)
            held[name].append(float(np.mean((low <= wanted) & (wanted <= high))))
            across = np.atleast_1d(np.asarray(high) - np.asarray(low))
            finite = across[np.isfinite(across)]
            width[name].append(float(finite.mean()) if len(finite) else 0.0)
    for name in methods:
        found = np.array(held[name])
        error = float(found.std()) / math.sqrt(repetitions)
        across = float(np.mean(width[name]))
        yield Cell(quantity, design, name, float(found.mean()), error, across, repetitions)
