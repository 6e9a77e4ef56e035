"""Heat maps: models against each other, judges against each other, benchmarks by how far they moved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from alignboard.boards.board import Board
from alignboard.boards.columns import Column, Row
from alignboard.boards.examples import Examples
from alignboard.boards.plots.dots import nothing
from alignboard.boards.plots.style import INK, MUTED, SMALL, drawable, new_axes, points, short_name
from alignboard.stats.multiplicity import holm
from alignboard.stats.paired import PairedDifference, paired_difference

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Matrix = NDArray[np.float64]
MOST = 30
"""models that a map of pairs draws, the leading ones"""
_ALPHA = 0.05
_WRITTEN = 14
"""columns up to which the figures are written into the cells"""


def plot_pairs(
    examples: Examples, column: str, models: Sequence[str], ax: Axes | None = None
) -> Axes:
    """How often the model of a line scores higher than that of a column on the same prompt, draws counted half.

    ``column`` is the key of a win-rate column. Two models are compared where both were judged against one baseline.
    """
    ax = ax or new_axes()
    scores = preferences_of(examples, column)
    shown = [model for model in models if model in {one for one, _ in scores}][:MOST]
    if len(shown) < 2:
        return nothing(ax)
    matrix = np.array([[_higher(scores, one, other) for other in shown] for one in shown])
    return heat_map(ax, matrix, shown, shown, Scale(50.0, 50.0, "% of prompts"))


def plot_tests(
    examples: Examples, column: str, models: Sequence[str], ax: Axes | None = None
) -> Axes:
    """Mean difference of a line's model and a column's on shared prompts, with a star where the two are separated.

    The tests are paired, corrected by Holm over the pairs that are drawn; ``column`` is the key of a win-rate column.
    """
    ax = ax or new_axes()
    scores = preferences_of(examples, column)
    shown = [model for model in models if model in {one for one, _ in scores}][:MOST]
    if len(shown) < 2:
        return nothing(ax)
    matrix = np.full((len(shown), len(shown)), np.nan)
    upper = np.triu_indices(len(shown), 1)
    found = [_difference(scores, shown[i], shown[j]) for i, j in zip(*upper, strict=True)]
    matrix[upper] = [math.nan if one is None else 100 * one.estimate for one in found]
    matrix.T[upper] = -matrix[upper]
    p = holm(np.array([math.nan if one is None else one.p_value for one in found]))
    stars = np.full(matrix.shape, "", dtype=object)
    stars[upper] = stars.T[upper] = np.where(p < _ALPHA, "*", "")
    reach = max(float(np.nanmax(np.abs(matrix), initial=0.0)), 1.0)
    scale = Scale(0.0, reach, "points; * separated after Holm", signed=True)
    figures = len(shown) <= _WRITTEN
    texts = [
        [(scale.text(value) if figures else "") + star for value, star in zip(*line, strict=True)]
        for line in zip(matrix, stars.tolist(), strict=True)
    ]
    return heat_map(ax, matrix, shown, shown, scale, texts)


def plot_agreement(examples: Examples, names: dict[str, str], ax: Axes | None = None) -> Axes:
    """Share of pairs on which two judges prefer the same response; ``names`` are the judges by column key.

    A draw agrees with a draw alone; below the diagonal the number of pairs that both scored.
    """
    ax = ax or new_axes()
    verdicts = {key: _verdicts(examples, key) for key in names}
    keys = [key for key, own in verdicts.items() if own]
    if len(keys) < 2:
        return nothing(ax)
    shares = np.full((len(keys), len(keys)), np.nan)
    texts = [["" for _ in keys] for _ in keys]
    for i, one in enumerate(keys):
        for j, other in enumerate(keys):
            shared = verdicts[one].keys() & verdicts[other].keys()
            if i < j and shared:
                same = sum(verdicts[one][k] == verdicts[other][k] for k in shared)
                shares[i, j] = 100 * same / len(shared)
                texts[i][j] = f"{shares[i, j]:.0f}"
                texts[j][i] = f"n {len(shared)}"
    labels = [names[key] for key in keys]
    return heat_map(ax, shares, labels, labels, Scale(50.0, 50.0, "% the same"), texts)


def plot_tax(board: Board, ax: Axes | None = None) -> Axes:
    """How far each benchmark of each tuned model lies from its family's base model: the alignment tax.

    Points of the benchmark; families without a base model are left out.
    """
    ax = ax or new_axes()
    columns = [column for column in board.of_kind("benchmark") if column.unit == "%"]
    lines = tax_rows(board)
    if not columns or not lines:
        return nothing(ax)
    matrix = np.array(
        [[_moved(board, row, base, column) for column in columns] for row, base in lines]
    )
    if np.isnan(matrix).all():
        return nothing(ax)
    reach = max(float(np.nanmax(np.abs(matrix))), 1.0)
    names = [row.model for row, _ in lines]
    scale = Scale(0.0, reach, "points from the base model", signed=True)
    return heat_map(ax, matrix, names, [column.name for column in columns], scale)


def tax_rows(board: Board) -> list[tuple[Row, Row]]:
    """The tuned models, each with its family's base model."""
    bases = {row.family: row for row in board.rows if row.method == "base" and row.family}
    return [
        (row, bases[row.family])
        for row in board.rows
        if row.family in bases and row.method != "base"
    ]


def _moved(board: Board, row: Row, base: Row, column: Column) -> float:
    own, other = board.score(row, column).value, board.score(base, column).value
    return np.nan if own is None or other is None else own - other


def _higher(scores: dict[tuple[str, str], Matrix], one: str, other: str) -> float:
    """Percentage of prompts on which ``one`` scores higher than ``other``; NaN where they share no baseline."""
    found = [
        (own, scores[other, baseline])
        for (model, baseline), own in scores.items()
        if model == one != other and (other, baseline) in scores
    ]
    for own, theirs in found:
        both = ~np.isnan(own) & ~np.isnan(theirs)
        if both.any():
            a, b = own[both], theirs[both]
            return float(100 * ((a > b) + 0.5 * (a == b)).mean())
    return np.nan


def _difference(
    scores: dict[tuple[str, str], Matrix], one: str, other: str
) -> PairedDifference | None:
    """``one`` less ``other`` on the prompts that both have; None where they share no baseline or no prompt."""
    for (model, baseline), own in scores.items():
        if model == one and (other, baseline) in scores:
            found = paired_difference(own, scores[other, baseline])
            return found if found.n else None
    return None


def preferences_of(examples: Examples, column: str) -> dict[tuple[str, str], Matrix]:
    """(prompts,) scores in [0, 1] by model and baseline, NaN without a verdict."""
    return {
        (one.model, one.baseline): np.array(
            [np.nan if p is None else p - 1 for p in one.preference]
        )
        for one in examples.preferences
        if one.column == column
    }


def _verdicts(examples: Examples, column: str) -> dict[tuple[str, str, int], int]:
    """The side that each verdict prefers, by model, baseline and prompt."""
    return {
        (one.model, one.baseline, k): (p > 1.5) - (p < 1.5)
        for one in examples.preferences
        if one.column == column
        for k, p in enumerate(one.preference)
        if p is not None
    }


@dataclass(frozen=True)
class Scale:
    """What the colours mean: from ``middle`` - ``reach`` to ``middle`` + ``reach``."""

    middle: float
    reach: float
    label: str
    signed: bool = False

    def text(self, value: float) -> str:
        """The figure in a cell."""
        return "" if np.isnan(value) else f"{value:{'+' if self.signed else ''}.0f}"

    def ink(self, value: float) -> str:
        """A colour that can be read on that of ``value``."""
        if np.isnan(value):
            return MUTED
        return "#ffffff" if abs(value - self.middle) > 0.7 * self.reach else INK


def heat_map(
    ax: Axes,
    matrix: Matrix,
    rows: Sequence[str],
    columns: Sequence[str],
    scale: Scale,
    texts: list[list[str]] | None = None,
) -> Axes:
    """``matrix`` in colours, with its figures (or ``texts``) where they fit."""
    image = ax.imshow(
        matrix, cmap="PuOr_r", vmin=scale.middle - scale.reach, vmax=scale.middle + scale.reach,
        aspect="auto", interpolation="nearest",
    )  # fmt: skip
    ax.set_yticks(range(len(rows)), [short_name(name) for name in rows])
    ax.set_xticks(range(len(columns)), [short_name(name) for name in columns])
    upright = len(columns) > _WRITTEN  # slanted names of narrow columns lie on each other
    ax.tick_params(axis="x", labelrotation=90 if upright else 40, labelcolor=INK)
    for tick in ax.get_xticklabels():
        tick.set_horizontalalignment("right")
        tick.set_verticalalignment("center" if upright else "top")
        tick.set_rotation_mode("anchor")
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
    if texts is not None or len(columns) <= _WRITTEN:
        own = [[scale.text(value) for value in line] for line in matrix] if texts is None else texts
        for (i, j), value in np.ndenumerate(matrix):
            text = own[i][j]
            ax.text(
                j, i, text, ha="center", va="center", fontsize=points(SMALL), color=scale.ink(value)
            )
    figure = ax.get_figure(root=True)
    if figure is not None:
        bar = figure.colorbar(image, ax=ax, shrink=0.6, pad=0.02)
        bar.set_label(drawable(scale.label), fontsize=points(SMALL), color=MUTED)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelcolor=MUTED, labelsize=points(SMALL))
    return ax
