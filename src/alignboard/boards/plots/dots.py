"""Plots of dots with intervals, one line per model: ranking, win rates, benchmarks, ratings and families."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from alignboard.boards.board import Board
from alignboard.boards.columns import Column, Row, Score
from alignboard.boards.plots.style import (
    FAINT,
    FLAGGED,
    MUTED,
    OTHER,
    PLAIN,
    SMALL,
    Look,
    draw_scores,
    drawable,
    families,
    figures_axis,
    flagged,
    limits,
    looks,
    model_axis,
    new_axes,
    percent_limits,
    points,
    short_name,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.legend import Legend

ALL_UP_TO = 30
"""models of a board that are all drawn in the ranking"""
TOP = 15
"""models of a larger board that are drawn besides the families'"""
_OFFSET = 0.2
_SHORT = 24
_BESIDE = Look(MUTED, "d")


def ranking_rows(board: Board) -> list[Row]:
    """The rows that the ranking draws: all of a small board, else the leading ones and the families' members."""
    if board.ranked_by is None:
        return []
    rows = [row for row in board.rows if board.score(row, board.ranked_by).value is not None]
    if len(rows) <= ALL_UP_TO:
        return rows
    members = {row.model for group in families(board).values() for row in group}
    kept = [row for k, row in enumerate(rows) if k < TOP or row.model in members]
    return kept[: 2 * ALL_UP_TO]


def plot_ranking(board: Board, ax: Axes | None = None) -> Axes:
    """Draw the column that the board is ranked by, one line per model, with ranks and figures."""
    ax = ax or new_axes()
    rows = ranking_rows(board)
    if board.ranked_by is None or not rows:
        return nothing(ax)
    column = board.column(board.ranked_by)
    known, places = looks(board), list(range(len(rows)))
    ranks = dict(zip([row.model for row in board.rows], board.ranks(), strict=True))
    scores = [board.score(row, column) for row in rows]
    beside = [board.score(row, board.beside) for row in rows] if board.beside else []
    shift = _OFFSET if beside else 0.0
    draw_scores(ax, [(y + shift, s, _BESIDE) for y, s in enumerate(beside)], size=14, width=1.0)
    marks = [
        (y - shift, s, known[row.model]) for y, s, row in zip(places, scores, rows, strict=True)
    ]
    draw_scores(ax, marks)
    published = _published(board, column, rows)
    if published:
        x, y = zip(*((value, y - shift) for y, value in published), strict=True)
        ax.scatter(x, y, s=60, facecolors="none", edgecolors=MUTED, linewidths=0.9, zorder=4)
    names = [f"{row.model}   {ranks[row.model]:>3}" for row in rows]
    model_axis(
        ax, names, places, {n: FLAGGED for n, r in zip(names, rows, strict=True) if flagged(r)}
    )
    ax.set_yticklabels([f"{short_name(row.model)}  {ranks[row.model]:>3}" for row in rows])
    figures_axis(ax, [_figures(column, score) for score in scores], places)
    _value_axis(board, ax, column, [*scores, *beside], [value for _, value in published])
    legend(ax, _ranking_entries(board, column, rows, published=bool(published)))
    return ax


def _published(board: Board, column: Column, rows: Sequence[Row]) -> list[tuple[int, float]]:
    """The published figures of what is drawn, by line."""
    key = {"LC win rate": "published_lc_win_rate", "win rate": "published_win_rate"}.get(
        column.kind
    )
    if key is None:
        return []
    values = [board.score(row, key).value for row in rows]
    return [(y, value) for y, value in enumerate(values) if value is not None]


def _ranking_entries(
    board: Board, column: Column, rows: Sequence[Row], *, published: bool
) -> list[tuple[Look, bool, str]]:
    entries = [(PLAIN, False, column.name)]
    if board.beside:
        entries.append((_BESIDE, False, board.column(board.beside).name))
    if published:
        entries.append((Look(MUTED, "o"), True, "published"))
    if any(flagged(row) for row in rows):
        entries.append((OTHER, False, "flagged: constant or adversarial"))
    return entries if len(entries) > 1 else []


def series(board: Board) -> dict[str, list[Column]]:
    """The win-rate columns that share a place on every line, by name: one judge on one set.

    Their baselines differ by model. A judge with two baselines for one model has a series for each of them.
    """
    found: dict[tuple[str | None, str | None], list[Column]] = {}
    for column in board.of_kind("win rate"):
        found.setdefault((column.judge, column.set), []).append(column)
    n_sets = len({set_name for _, set_name in found})
    named: dict[str, list[Column]] = {}
    for (judge, set_name), columns in found.items():
        name = f"{judge}, {set_name}" if n_sets > 1 and set_name else judge or ""
        doubled = any(
            sum(board.score(row, column).value is not None for column in columns) > 1
            for row in board.rows
        )
        for column in columns:
            own = f"{name}, against {column.baseline}" if doubled else name
            named.setdefault(own, []).append(column)
    return named


def first_score(board: Board, row: Row, columns: Sequence[Column]) -> Score:
    """The score of ``row`` in the one of ``columns`` that has it."""
    scores = [board.score(row, column) for column in columns]
    return next((s for s in scores if s.value is not None), scores[0] if scores else Score())


def plot_win_rates(board: Board, ax: Axes | None = None) -> Axes:
    """Draw every judge's win rates, family by family; length-controlled ones as small diamonds beside them."""
    ax = ax or new_axes()
    drawn = series(board)
    every = [column for columns in drawn.values() for column in columns]
    rows = [row for row in board.rows if first_score(board, row, every).value is not None]
    if not rows:
        return nothing(ax)
    known, places = looks(board), grouped_places(rows)
    pitch = min(0.8 / len(drawn), 0.34)
    scores = []
    for k, columns in enumerate(drawn.values()):
        at = [y + pitch * (k - (len(drawn) - 1) / 2) for y in places]
        raw = [first_score(board, row, columns) for row in rows]
        hollow = bool(k % 2)
        draw_scores(
            ax,
            [(y, s, known[r.model]) for y, s, r in zip(at, raw, rows, strict=True)],
            hollow=hollow,
        )
        controlled = [c for column in columns if (c := _controlled(board, column))]
        values = [Score(first_score(board, row, controlled).value) for row in rows]
        marks = [(y, s, _BESIDE) for y, s in zip(at, values, strict=True)]
        draw_scores(ax, marks, hollow=hollow, size=12)
        scores += [*raw, *values]
    model_axis(ax, [row.model for row in rows], places, {})
    _value_axis(board, ax, every[0], scores)
    entries = [(PLAIN, bool(k % 2), name) for k, name in enumerate(drawn)]
    if any(_controlled(board, column) for column in every):
        entries.append((_BESIDE, False, "length-controlled"))
    legend(ax, entries)
    return ax


def _controlled(board: Board, column: Column) -> Column | None:
    """The length-controlled win rate of the same judge, set and baseline."""
    same = (column.judge, column.set, column.baseline)
    found = [c for c in board.of_kind("LC win rate") if (c.judge, c.set, c.baseline) == same]
    return found[0] if found else None


def plot_scores(board: Board, column: Column | str, ax: Axes | None = None) -> Axes:
    """Draw one column, in the board's order; intervals are the column's, else 1.96 standard errors."""
    ax = ax or new_axes()
    column = board.column(column) if isinstance(column, str) else column
    rows = [row for row in board.rows if board.score(row, column).value is not None]
    return _dots(board, ax, column, rows, grouped_places(rows)) if rows else nothing(ax)


def _dots(
    board: Board, ax: Axes, column: Column, rows: Sequence[Row], places: Sequence[float]
) -> Axes:
    known, scores = looks(board), [board.score(row, column) for row in rows]
    draw_scores(ax, [(y, s, known[r.model]) for y, s, r in zip(places, scores, rows, strict=True)])
    model_axis(ax, [row.model for row in rows], places, {})
    figures_axis(ax, [_figures(column, score) for score in scores], places)
    _value_axis(board, ax, column, scores)
    return ax


def plot_ratings(board: Board, ax: Axes | None = None) -> Axes:
    """Draw the ratings of the round robin from the best."""
    ax = ax or new_axes()
    found = board.of_kind("rating")
    if not found:
        return nothing(ax)
    column = found[0]
    rows = [row for row in board.rows if board.score(row, column).value is not None]
    rows.sort(key=lambda row: (-(board.score(row, column).value or 0.0), row.model))
    return _dots(board, ax, column, rows, list(range(len(rows))))


def plot_families(board: Board, ax: Axes | None = None) -> Axes:
    """Draw the members of each named family in its order, with an arrow from each to the next."""
    ax = ax or new_axes()
    groups = family_rows(board)
    if board.ranked_by is None or not groups:
        return nothing(ax)
    column, known = board.column(board.ranked_by), looks(board)
    rows = [row for members in groups for row in members]
    breaks = [k * 0.6 for k, members in enumerate(groups) for _ in members]
    places = [k + extra for k, extra in enumerate(breaks)]
    at = dict(zip([row.model for row in rows], places, strict=True))
    scores = [board.score(row, column) for row in rows]
    draw_scores(ax, [(y, s, known[r.model]) for y, s, r in zip(places, scores, rows, strict=True)])
    for members in groups:
        for one, other in pairwise(members):
            ends = [(board.score(row, column).value or 0.0, at[row.model]) for row in (one, other)]
            ax.annotate(
                "", ends[1], ends[0],
                arrowprops={"arrowstyle": "-|>", "color": known[other.model].color, "alpha": 0.5,
                            "linewidth": 0.7, "shrinkA": 3, "shrinkB": 4},
            )  # fmt: skip
    model_axis(ax, [row.model for row in rows], places, {})
    figures_axis(ax, [_figures(column, score) for score in scores], places)
    _value_axis(board, ax, column, scores)
    return ax


def family_rows(board: Board) -> list[list[Row]]:
    """The named families with at least two members that have the ranking's value."""
    if board.ranked_by is None or any(row.family for row in board.rows):
        return []
    found = []
    for members in families(board).values():
        there = [row for row in members if board.score(row, board.ranked_by).value is not None]
        if len(there) > 1 and sum(map(len, found)) + len(there) <= ALL_UP_TO:
            found.append(there)
    return found


def grouped_places(rows: Sequence[Row]) -> list[float]:
    """The line of every row from the top, with some room between families."""
    places, y = [], 0.0
    for k, row in enumerate(rows):
        if k:
            y += 1.0 if row.family == rows[k - 1].family else 1.6
        places.append(y)
    return places


def _figures(column: Column, score: Score) -> str:
    value = column.text(score.value)
    if score.low is not None and score.high is not None:
        return f"{value}  [{column.text(score.low)}, {column.text(score.high)}]"
    return f"{value} {column.interval(score)}".rstrip()


def _value_axis(
    board: Board, ax: Axes, column: Column, scores: Sequence[Score], more: Sequence[float] = ()
) -> None:
    values = [*more]
    for score in scores:
        values += [v for v in (score.value, *limits(score)) if v is not None]
    unit = f" ({column.unit})" if column.unit else ""
    ax.set_xlabel(drawable(f"{column.name}{unit}"))
    if column.unit == "%":
        low, high = percent_limits(values)
        ax.set_xlim(low, high)
    if column.kind in {"win rate", "LC win rate"}:
        low, high = ax.get_xlim()
        if low < 50 < high:
            names = {c.baseline for c in board.of_kind(column.kind)}
            ax.axvline(50, color=FAINT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
            one = column.baseline if len(names) == 1 else None
            name = f"{one if one and len(one) <= _SHORT else 'baseline'} = 50"
            text = ax.text(
                50, 1.0, drawable(name), transform=ax.get_xaxis_transform(), ha="center", va="bottom",
                fontsize=points(SMALL), color=MUTED,
            )  # fmt: skip
            text.set_in_layout(False)


def legend_columns(ax: Axes, texts: Sequence[str]) -> int:
    """How many entries of a legend stand side by side, as the width of the figure and its font allow."""
    figure = ax.get_figure(root=False)
    inches = figure.bbox.width / figure.dpi if figure is not None else 6.4
    letters = 10 * inches * SMALL / points(SMALL)
    if sum(map(len, texts)) <= letters:
        return max(len(texts), 1)
    half = (len(texts) + 1) // 2
    beside = sum(max(map(len, column), default=0) for column in (texts[:half], texts[half:]))
    return 2 if beside <= 1.3 * letters else 1


def legend(ax: Axes, entries: Sequence[tuple[Look, bool, str]]) -> None:
    """Write what the marks mean above the axes: look, whether hollow, text."""
    from matplotlib.lines import Line2D

    if not entries:
        return
    handles = [
        Line2D(
            [], [], linestyle="none", marker=look.marker, markersize=5, markeredgecolor=look.color,
            markerfacecolor="#ffffff" if hollow else look.color, label=short_name(text, 44),
        )
        for look, hollow, text in entries
    ]  # fmt: skip
    n_columns = legend_columns(ax, [text for *_, text in entries])
    figure = ax.get_figure(root=True)
    inches = ax.get_position().height * (figure.get_figheight() if figure else 4.0)
    ax.legend(
        handles=handles, loc="lower left", ncols=n_columns, borderaxespad=0.0, handletextpad=0.1,
        columnspacing=1.2, bbox_to_anchor=(0.0, 1.0 + points(0.19) / max(inches, 1.0)),
    )  # fmt: skip


def legend_above(ax: Axes) -> Legend | None:
    """The legend that `legend` wrote above the axes; none where it stands inside of them or beside them."""
    own = ax.get_legend()
    if own is None:
        return None
    return own if own.get_bbox_to_anchor().transformed(ax.transAxes.inverted()).y0 > 1 else None


def nothing(ax: Axes) -> Axes:
    """Say on the axes that there is nothing to draw."""
    ax.text(0.5, 0.5, "no data", transform=ax.transAxes, ha="center", color=MUTED)
    ax.set_axis_off()
    return ax
