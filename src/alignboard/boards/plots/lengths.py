"""The plot of a score against the length of the responses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from alignboard.boards.board import BASELINE_REASON, Board
from alignboard.boards.columns import Column, Row
from alignboard.boards.plots.dots import first_score, legend, nothing, series
from alignboard.boards.plots.style import (
    FLAGGED,
    MUTED,
    PLAIN,
    drawable,
    families,
    flagged,
    label_points,
    looks,
    new_axes,
    percent_limits,
    settle,
    short_name,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROOM = 0.12
"""of the values' range, on either side: a label beside the outermost point has to fit in"""
_NEAR = 0.03
"""of the axes: points nearer to each other are not named by their methods"""


def length_points(board: Board, columns: Sequence[Column]) -> dict[str, tuple[float, float]]:
    """(mean length, score) by model; 50 for a baseline that has a length."""
    found = board.of_kind("length")
    points = {}
    # Base models that are no baseline have no place on the way from it, and are far from all others.
    drawn = [row for row in board.rows if row.method != "base" or _is_baseline(board, row)]
    for row in drawn if found else ():
        length = board.score(row, found[0]).value
        value = first_score(board, row, columns).value
        if value is None and any(
            board.score(row, column).reason == BASELINE_REASON and column.kind == "win rate"
            for column in columns
        ):
            value = 50.0
        if length is not None and length > 0 and value is not None:
            points[row.model] = (length, value)
    return points


def _is_baseline(board: Board, row: Row) -> bool:
    judged = board.of_kind("win rate")
    return any(board.score(row, column).reason == BASELINE_REASON for column in judged)


def against_length(board: Board) -> list[tuple[str, list[Column]]]:
    """The scores that are drawn against the length of responses, by their names."""
    found: list[tuple[str, list[Column]]] = []
    if board.ranked_by is None:
        found += [(f"Win rate by {name}", cs) for name, cs in list(series(board).items())[:2]]
    elif (column := board.column(board.ranked_by)).kind in {"win rate", "LC win rate"}:
        found.append((column.name, [column]))
    return found + [(column.name, [column]) for column in board.of_kind("accuracy")[:1]]


def plot_lengths(
    board: Board, columns: Sequence[Column] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw ``columns`` (several where baselines differ by model) against the mean length of the responses.

    Without ``columns`` they are the first that the board's own page draws so.
    """
    own = ax is None
    if columns is None:
        columns = next((found for _, found in against_length(board)), [])
    ax = ax or new_axes()
    points, known = length_points(board, columns), looks(board)
    if not points:
        return nothing(ax)
    for look in dict.fromkeys(known[model] for model in points):
        x, y = zip(*(points[m] for m in points if known[m] == look), strict=True)
        plain = look == PLAIN
        ax.scatter(
            x, y, s=16 if plain else 28, marker=look.marker, color=MUTED if plain else look.color,
            alpha=0.6 if plain else 1.0, linewidths=0, zorder=2 if plain else 3,
        )  # fmt: skip
    for members in families(board).values():
        there = [row for row in members if row.model in points]
        for one, other in _steps(there):
            (x, y), (x2, y2) = points[one.model], points[other.model]
            color = known[other.model].color
            ax.plot((x, x2), (y, y2), color=color, linewidth=0.8, alpha=0.45, zorder=1.5)
    _axes(ax, columns[0], [x for x, _ in points.values()], [y for _, y in points.values()])
    if any(row.family for row in board.rows):
        there = {name: members for name, members in families(board).items() if len(members) > 1}
        legend(ax, [(known[members[-1].model], False, name) for name, members in there.items()])
    if own:
        settle(ax)
        label_lengths(board, columns, ax)
    return ax


def _steps(members: Sequence[Row]) -> list[tuple[Row, Row]]:
    """The lines of a family: from its first method to each other one, or along the named family's order."""
    if members and members[0].method:
        return [(members[0], other) for other in members[1:]]
    return list(pairwise(members))


def _axes(ax: Axes, column: Column, lengths: list[float], values: list[float]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    ax.set_xscale("log")
    low, high = min(lengths), max(lengths)
    if high / low > 8:
        ax.xaxis.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0)))
    else:
        ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    beyond = 1.05 * (high / low) ** _ROOM
    ax.set_xlim(low / beyond, high * beyond)
    if column.unit == "%":
        ax.set_ylim(*percent_limits(values, _ROOM))
    ax.set_xlabel("mean length in characters, logarithmic")
    ax.set_ylabel(drawable(f"{column.name} ({column.unit})"))
    ax.tick_params(axis="y", labelcolor=MUTED)
    ax.grid(visible=True)


def label_lengths(board: Board, columns: Sequence[Column], ax: Axes) -> None:
    """Name the points that matter: flagged models, each family's last member, the leading and the extreme models."""
    points, known = length_points(board, columns), looks(board)
    rows = [row for row in board.rows if row.model in points]
    labels = [(row.model, row.model, FLAGGED) for row in rows if flagged(row)][:4]
    methods = any(row.method for row in rows)
    for name, members in families(board).items():
        there = [row for row in members if row.model in points]
        if there and not methods:
            labels.append((there[-1].model, name, known[there[-1].model].color))
        if methods:
            far = [row for row in there if _alone(row.model, points)]
            labels += [(r.model, r.method or r.model, known[r.model].color) for r in far]
    plain = [row for row in rows if known[row.model] == PLAIN]
    ends = sorted(plain, key=lambda row: points[row.model][0])
    chosen = [*plain[: 8 if len(rows) <= 30 else 4], *ends[:1], *ends[-1:]]
    labels += [(m, m, MUTED) for m in dict.fromkeys(row.model for row in chosen)]
    label_points(
        ax, [(*points[model], short_name(text, 28), color) for model, text, color in labels]
    )


def _alone(model: str, points: dict[str, tuple[float, float]]) -> bool:
    """Whether no other point is so near that a label could be either's."""
    xs, ys = zip(*points.values(), strict=True)
    width = max(math.log(max(xs) / min(xs)), 1e-9)
    height = max(max(ys) - min(ys), 1e-9)
    x, y = points[model]
    return all(
        abs(math.log(x / x2)) > _NEAR * width or abs(y - y2) > _NEAR * height
        for other, (x2, y2) in points.items()
        if other != model
    )
