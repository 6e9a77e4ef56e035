"""Plots of a board: a registry of them, and the files that they are drawn into.

A plot is a function ``plot_x(board, ..., ax=None) -> Axes`` on plain matplotlib. `register_plot` puts one onto the
picture and the page of every board that it draws something of; the same board gives the same bytes.
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
from alignboard.boards.plots.registry import PLOTS, Panel, panels, register_plot

__all__ = [
    "PLOTS",
    "Panel",
    "panels",
    "plot_families",
    "plot_lengths",
    "plot_ranking",
    "plot_ratings",
    "plot_scores",
    "plot_win_rates",
    "register_plot",
    "to_png",
    "to_svg",
]
