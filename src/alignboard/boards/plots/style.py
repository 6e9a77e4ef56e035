"""What the plots share: colours, markers, names that can be drawn, and labels beside points."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alignboard.boards.board import Board
from alignboard.boards.columns import Row, Score
from alignboard.text import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

INK, MUTED, FAINT, RULE = "#222222", "#6b6b6b", "#a3a3a3", "#ebebeb"
FLAGGED = "#c1121f"
TITLE, HEADING, SUBTITLE, TEXT, SMALL = 13.0, 10.0, 9.0, 8.0, 7.5
"""font sizes in points, of a figure whose texts have `TEXT`; see `points`"""
# Okabe and Ito's palette for colour-blind readers, with the two that are too pale for marks on white replaced by
# Tol's wine and olive. Families differ by marker as well.
PALETTE = (
    "#0072b2", "#d55e00", "#009e73", "#882255", "#8c8c1a", "#56b4e9", "#000000", "#e69f00",
)  # fmt: skip
MARKERS = ("o", "s", "^", "D", "v", "P", "p", "h")
MAX_NAME = 34
"""characters of a name that are drawn"""
FONT = "DejaVu Sans"
"""comes with matplotlib, so that a board looks the same everywhere"""
_RC: dict[str, Any] = {
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": False,
    "axes.unicode_minus": False,
    "xtick.color": MUTED,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.major.size": 0,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.labelcolor": MUTED,
    "svg.fonttype": "none",
}


@dataclass(frozen=True)
class Look:
    """How a model is marked wherever it appears."""

    color: str
    marker: str


PLAIN, OTHER = Look(INK, "o"), Look(FLAGGED, "X")


class Font(NamedTuple):
    """What a figure is set in: a family's name, and the points of its names and numbers; headings are larger."""

    family: str = FONT
    size: float = SMALL


def points(size: float) -> float:
    """``size`` (`SMALL` and its like) in the figure that is being drawn, whose texts may be larger or smaller."""
    import matplotlib as mpl

    return size * mpl.rcParams["font.size"] / TEXT


@contextmanager
def style(salt: str = "", font: Font = Font()) -> Iterator[None]:  # noqa: B008
    """matplotlib as it comes with this project's sheet on it, whatever the user's own matplotlibrc says.

    ``salt`` makes the ids of an SVG, so that the same plot gives the same bytes. Characters that ``font`` lacks are
    drawn in `FONT`.
    """
    import matplotlib as mpl

    defaults: dict[Any, Any] = {
        key: value for key, value in mpl.rcParamsDefault.items() if "backend" not in key
    }
    texts = dict.fromkeys(
        ("axes.labelsize", "xtick.labelsize", "ytick.labelsize", "legend.fontsize"), font.size
    )
    family = list(dict.fromkeys((font.family, FONT)))
    texts |= {"font.family": family, "font.size": TEXT * font.size / SMALL}
    sheet: dict[Any, Any] = {**defaults, **_RC, **texts, "svg.hashsalt": salt}
    with mpl.rc_context(sheet):
        yield


def new_axes() -> Axes:
    """Axes of a figure of its own, for a plot that was given none."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    return figure.add_subplot()


def drawable(text: str) -> str:
    r"""``text`` in characters that the font has; everything else becomes an escape.

    >>> drawable("evil\u202egpj")
    'evil\\u202egpj'
    """
    composed = shown(unicodedata.normalize("NFC", text))
    if composed.isascii():
        return composed
    glyphs = _glyphs()
    return "".join(
        c
        if ord(c) in glyphs and not unicodedata.combining(c)
        else c.encode("unicode_escape").decode()
        for c in composed
    )


def font_families() -> set[str]:
    """The names of the fonts that matplotlib finds on this machine."""
    from matplotlib.font_manager import get_font_names

    return set(get_font_names())


@lru_cache(maxsize=1)
def _glyphs() -> frozenset[int]:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return frozenset(get_font(findfont(FontProperties(family=[FONT]))).get_charmap())


def short_name(text: str, most: int = MAX_NAME) -> str:
    """``text`` to be drawn; a long name loses its middle.

    >>> short_name("a" * 30 + "b" * 30, 11)
    'aaaaa…bbbbb'
    """
    name = drawable(text)
    if len(name) <= most:
        return name
    head = most // 2
    return f"{name[:head]}…{name[len(name) - (most - head - 1) :]}"


def flagged(row: Row) -> bool:
    """Whether the model's responses are constant or declared adversarial."""
    return any("constant" in flag or "adversarial" in flag for flag in row.flags)


def families(board: Board) -> dict[str, list[Row]]:
    """The groups that are coloured: by base model, else the board's named families with two members that are here."""
    if any(row.family for row in board.rows):
        found: dict[str, list[Row]] = {}
        for row in board.rows:
            found.setdefault(row.family or "other", []).append(row)
        return found
    rows = {row.model: row for row in board.rows}
    named = {
        name: [rows[model] for model in models if model in rows]
        for name, models in board.families.items()
    }
    return {name: members for name, members in named.items() if len(members) > 1}


def looks(board: Board) -> dict[str, Look]:
    """The look of every model by its family; a flagged model looks flagged, whatever its family."""
    found = {row.model: OTHER if flagged(row) else PLAIN for row in board.rows}
    for k, members in enumerate(families(board).values()):
        look = Look(PALETTE[k % len(PALETTE)], MARKERS[k % len(MARKERS)])
        found |= {row.model: look for row in members if not flagged(row)}
    return found


def limits(score: Score) -> tuple[float | None, float | None]:
    """The ends of a score's bar: its interval, else 1.96 standard errors."""
    if score.value is None or score.low is not None or score.standard_error is None:
        return score.low, score.high
    reach = 1.96 * score.standard_error
    return score.value - reach, score.value + reach


def draw_scores(
    ax: Axes,
    marks: Sequence[tuple[float, Score, Look]],
    *,
    hollow: bool = False,
    size: float = 26,
    width: float = 1.5,
) -> None:
    """Marks at (y, score), each with its interval; 1.96 standard errors where there is none."""
    for look in dict.fromkeys(look for *_, look in marks):
        own = [(s.value, y) for y, s, other in marks if other == look and s.value is not None]
        bars = [(y, *limits(s)) for y, s, other in marks if other == look and s.value is not None]
        bars = [bar for bar in bars if None not in bar]
        if bars:  # one artist for all of a look: each costs as much as a bar
            ax.hlines(*zip(*bars, strict=True), color=look.color, linewidth=width, zorder=2)
        if own:
            x, y = zip(*own, strict=True)
            ax.scatter(
                x, y, s=size, marker=look.marker, zorder=3, linewidths=1.1,
                facecolors="#ffffff" if hollow else look.color, edgecolors=look.color,
            )  # fmt: skip


def model_axis(
    ax: Axes, names: Sequence[str], places: Sequence[float], colors: Mapping[str, str]
) -> None:
    """One line per model, the first at the top."""
    ax.set_yticks(list(places), [short_name(name) for name in names])
    for tick, name in zip(ax.get_yticklabels(), names, strict=True):
        tick.set_color(colors.get(name, INK))
    ends = (min(places, default=0.0), max(places, default=0.0))
    ax.set_ylim(ends[1] + 0.7, ends[0] - 0.7)
    ax.grid(visible=True, axis="both")


def figures_axis(ax: Axes, texts: Sequence[str], places: Sequence[float]) -> None:
    """The values in figures at the right of their lines: texts, for an axis of ticks costs ten times as much."""
    for text, place in zip(texts, places, strict=True):
        ax.annotate(
            text, (1, place), (3.5, 0), xycoords=ax.get_yaxis_transform(), textcoords="offset points",
            va="center_baseline", fontsize=points(SMALL), color=MUTED, annotation_clip=False,
        )  # fmt: skip


def percent_limits(values: Sequence[float], room: float = 0.04) -> tuple[float, float]:
    """Limits of a percentage axis around ``values``: inside what percentages can be and never of no width.

    ``room`` is what is left beyond the values on either side, as a share of their range.
    """
    low, high = min(values, default=0.0), max(values, default=100.0)
    margin = max(room * (high - low), 1.0)
    return max(low - margin, -1.0), min(high + margin, 101.0)


def settle(ax: Axes) -> None:
    """Lay the figure of ``ax`` out, and keep it so: labels beside points are placed in the final layout."""
    figure = ax.get_figure(root=True)
    engine = None if figure is None else figure.get_layout_engine()
    if figure is not None and engine is not None:
        for axis in (axis for one in figure.axes for axis in (one.xaxis, one.yaxis)):
            if not axis.get_label_text():
                axis.set_label_coords(0, 0)  # else all ticks are measured for the place of no label
        engine.execute(figure)  # a whole drawing would cost twice as much, and changes nothing
        figure.set_layout_engine(None)


def _drawn(ax: Axes) -> NDArray[np.float64]:
    """(n, 2) pixels that a label must not cover: the marks, and points along the lines."""
    marks = [np.asarray(art.get_offsets(), dtype=float).reshape(-1, 2) for art in ax.collections]
    found = [ax.transData.transform(points) for points in marks]
    part = np.linspace(0, 1, 60)[:, None]
    for line in ax.lines:
        corners = line.get_transform().transform(np.column_stack(line.get_data()))
        found += [one + part * (other - one) for one, other in pairwise(corners)]
    return np.concatenate(found) if found else np.empty((0, 2))


def label_points(ax: Axes, labels: Sequence[tuple[float, float, str, str]]) -> list[str]:
    """Write (x, y, text, color) beside the points, the most important first; what finds no room is left out.

    A label that is nearer to other marks than to its own has a line to it.

    Call it when the figure has its final layout (`settle`); returns what was written.
    """
    marks = _drawn(ax)
    figure = ax.get_figure(root=True)
    radius = _RADIUS * (72 if figure is None else figure.dpi) / 72
    taken: list[Bbox] = []
    written = []
    for x, y, text, color in labels:
        for dx, dy, ha, va in _AROUND:
            art = ax.annotate(
                text, (x, y), (dx, dy), textcoords="offset points", ha=ha, va=va,
                fontsize=points(SMALL), color=color, zorder=5, annotation_clip=False,
            )  # fmt: skip
            art.set_in_layout(False)
            box = art.get_window_extent()
            inside = ax.bbox.padded(2)
            free = (
                box.x0 >= inside.x0 and box.x1 <= inside.x1 and box.y0 >= inside.y0 and box.y1 <= inside.y1
                and not any(box.overlaps(other) for other in taken)
                and not _covers(box.padded(radius), marks)
            )  # fmt: skip
            if free:
                if abs(dx) > _NEAR:
                    ax.annotate("", (x, y), (dx, dy), textcoords="offset points", arrowprops=_LINE)
                taken.append(box.padded(radius))
                written.append(text)
                break
            art.remove()
    return written


def _covers(box: Bbox, points: NDArray[np.float64]) -> bool:
    inside = (points > (box.x0, box.y0)) & (points < (box.x1, box.y1))
    return bool(inside.all(axis=1).any())


_RADIUS: Final = 3.0
"""points; a label keeps off marks by that much"""
_NEAR: Final = 6
_LINE: Final = {
    "arrowstyle": "-", "color": MUTED, "lw": 0.5, "shrinkA": 0.5, "shrinkB": _RADIUS, "zorder": 2,
}  # fmt: skip
_AROUND = (
    (6, 0, "left", "center"), (-6, 0, "right", "center"), (0, 6, "center", "bottom"), (0, -6, "center", "top"),
    (5, 5, "left", "bottom"), (-5, 5, "right", "bottom"), (5, -5, "left", "top"), (-5, -5, "right", "top"),
    (14, 10, "left", "bottom"), (-14, 10, "right", "bottom"), (14, -10, "left", "top"), (-14, -10, "right", "top"),
    (30, 22, "left", "bottom"), (-30, 22, "right", "bottom"), (30, -22, "left", "top"), (-30, -22, "right", "top"),
)  # fmt: skip
