"""Plots of a board, and the files that they are drawn into.

A plot is a function ``plot_x(board, ..., ax=None) -> Axes`` on plain matplotlib. One that is registered as ``plot``
(`alignboard.registry`) stands on the picture and the page of every board that it draws something of; the same board
gives the same bytes.
"""

from __future__ import annotations

from alignboard.boards.plots.dots import (
    plot_families,
    plot_ranking,
    plot_ratings,
    plot_scores,
    plot_win_rates,
)
from alignboard.boards.plots.figure import to_png, to_svg
from alignboard.boards.plots.lengths import plot_lengths
from alignboard.boards.plots.registry import Panel, panels

__all__ = [
    "Panel",
    "panels",
    "plot_families",
    "plot_lengths",
    "plot_ranking",
    "plot_ratings",
    "plot_scores",
    "plot_win_rates",
    "to_png",
    "to_svg",
]
