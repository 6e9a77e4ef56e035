"""A board's panels as one PNG, and each panel as SVG for the page."""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from alignboard.boards.board import Board
from alignboard.boards.plots.dots import legend_above, legend_columns
from alignboard.boards.plots.registry import Panel, panels
from alignboard.boards.plots.style import (
    HEADING,
    MUTED,
    SMALL,
    SUBTITLE,
    TITLE,
    Font,
    drawable,
    points,
    settle,
    style,
)
from alignboard.results.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase
    from matplotlib.layout_engine import LayoutEngine
    from matplotlib.text import Text

DPI = 150
WIDTH = 6.4
"""inches of a panel"""
_HEAD, _NOTE_LINE, _HEADING_ROOM = 0.75, 0.135, 0.35
_LETTERS_PER_INCH = 17.5
_EDGE = 0.08
"""inches that stay free beside a heading"""


def to_png(board: Board) -> bytes:
    """All panels of ``board`` as PNG, in one or two columns of about the same height."""
    with style():
        figure = compose(board)
        target = io.BytesIO()
        figure.savefig(target, format="png", dpi=DPI, metadata={"Software": None})
    return target.getvalue()


def compose(board: Board) -> Figure:
    """The figure: title above, the panels in columns; below what an interval means, the first of the board's notes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = _placed(panels(board))
    width = WIDTH * max(len(columns), 1) + 0.4
    notes = textwrap.wrap(drawable(" ".join(board.notes[:1])), int(width * _LETTERS_PER_INCH))
    body = max((_height(column) for column in columns), default=0.4)
    foot = 0.2 + _NOTE_LINE * len(notes)
    figure = Figure(
        figsize=(width, _HEAD + body + foot), dpi=DPI, layout=_layout(), facecolor="white"
    )
    FigureCanvasAgg(figure)
    parts = figure.subfigures(3, 1, squeeze=False, height_ratios=[_HEAD, body, foot])
    head, middle, bottom = parts[:, 0]
    _write_head(head, board, width)
    bottom.text(
        0.2 / width,
        1.0,
        "\n".join(notes),
        va="top",
        fontsize=points(SMALL),
        color=MUTED,
        linespacing=1.25,
    ).set_in_layout(False)
    drawn = []
    if columns:
        beside = middle.subfigures(1, len(columns), squeeze=False, wspace=0.02)[0]
        for place, column in zip(beside, columns, strict=True):
            rest = body - _height(column)
            ratios = [panel.height + _HEADING_ROOM for panel in column] + (
                [rest] if rest > 0.2 else []
            )
            axes = place.subplots(len(ratios), 1, squeeze=False, height_ratios=ratios)[:, 0]
            for ax in axes[len(column) :]:
                ax.set_axis_off()
            for ax, panel in zip(axes, column, strict=False):
                panel.draw(ax)
                _head(ax, panel)
                drawn.append((ax, panel))
    if drawn:
        settle(drawn[0][0])
    for ax, panel in drawn:
        if panel.finish is not None:
            panel.finish(ax)
    return figure


def _layout() -> LayoutEngine:
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return ConstrainedLayoutEngine(h_pad=0.06, w_pad=0.12)


def _head(ax: Axes, panel: Panel, letters: int | None = None) -> Text:
    """Write the heading, in lines of at most ``letters``, above the legend."""
    legend = legend_above(ax)
    texts = [text.get_text() for text in legend.get_texts()] if legend else []
    above = 20 + 11 * math.ceil(len(texts) / legend_columns(ax, texts)) if texts else 16
    # A place of its own: else every layout measures all ticks to see whether the title has to give way to them.
    fixed = 1.0 if ax.xaxis.get_ticks_position() == "bottom" else None
    heading = drawable(panel.heading)
    return ax.set_title(
        heading if letters is None else textwrap.fill(heading, letters),
        loc="left",
        fontsize=points(HEADING),
        fontweight="bold",
        pad=points(above),
        y=fixed,
    )


def _fitted_head(figure: Figure, ax: Axes, panel: Panel) -> None:
    """The heading and the legend inside a figure of any width and font: in lines, and begun left of the axes."""
    heading, legend = _head(ax, panel), legend_above(ax)
    room = figure.bbox.width - 2 * _EDGE * figure.dpi
    part = min(1.0, room / heading.get_window_extent().width)
    _head(ax, panel, math.floor(part * len(heading.get_text())))
    if legend is not None:
        legend.set_in_layout(
            False
        )  # the heading keeps its room above; beside the axes it needs none
    settle(ax)
    edge, frame = figure.bbox.width - _EDGE * figure.dpi, ax.get_window_extent()

    def begin(width: float) -> float:
        """Where a text of this width begins, in parts of the axes' width: left of them where it has to."""
        return min(0.0, edge - width - frame.x0) / frame.width

    heading.set_x(begin(heading.get_window_extent().width))
    if legend is not None:
        _, height = ax.transAxes.inverted().transform(legend.get_bbox_to_anchor().p0)
        legend.set_bbox_to_anchor((begin(legend.get_window_extent().width), height))


def _write_head(head: FigureBase, board: Board, width: float) -> None:
    left, most = 0.2 / width, int(width * 11)
    title, summary = (
        textwrap.shorten(drawable(text), room, placeholder="…") if text.strip() else ""
        for text, room in ((board.title, most), (board.summary, int(1.4 * most)))
    )
    for text, y, size, weight, color in (
        (title, 0.62, TITLE, "bold", "#222222"),
        (summary, 0.25, SUBTITLE, "normal", MUTED),
    ):
        art = head.text(left, y, text, fontsize=size, fontweight=weight, color=color)
        art.set_in_layout(False)


def _placed(every: Sequence[Panel]) -> list[list[Panel]]:
    """The panels in one column, or in two of about the same height."""
    if len(every) < 2:
        return [list(every)] if every else []
    placed: list[list[Panel]] = [[], []]
    for panel in every:
        min(placed, key=_height).append(panel)
    return [column for column in placed if column]


def _height(column: Sequence[Panel]) -> float:
    return sum(panel.height + _HEADING_ROOM for panel in column)


FORMATS = ("svg", "pdf", "png")
"""what `save_panel` writes"""


def save_panel(
    panel: Panel,
    path: Path,
    size: tuple[float, float] | None = None,
    font: Font = Font(),  # noqa: B008
) -> None:
    """Draw one panel with its heading into ``path`` as its suffix says; the same panel gives the same bytes.

    ``size`` is in inches, by default `WIDTH` by the panel's own height, which is for ``font``'s default size and grows
    with it; texts have the size that ``font`` says at any size of the figure.
    """
    kind = path.suffix[1:].lower()
    unsaid = {"png": ("Software",), "pdf": ("CreationDate", "Producer"), "svg": ("Date",)}[kind]
    target = io.BytesIO()
    with style(drawable(panel.heading), font):
        grown = max(1.0, font.size / SMALL)
        figure = draw_panel(panel, size or (WIDTH, grown * (panel.height + _HEADING_ROOM)))
        figure.savefig(target, format=kind, metadata=dict.fromkeys(unsaid))
    write_atomically(path, target.getvalue())


def draw_panel(panel: Panel, size: tuple[float, float]) -> Figure:
    """One panel with its heading as a figure of ``size`` in inches, in the style that is in force."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=2 * DPI, layout=_layout(), facecolor="white")
    FigureCanvasAgg(figure)
    ax = figure.add_subplot()
    panel.draw(ax)
    _fitted_head(figure, ax, panel)
    if panel.finish is not None:
        panel.finish(ax)
    return figure


def to_svg(panel: Panel) -> str:
    """A panel without its heading as an ``svg`` element for a page; its texts are texts, its style is the page's."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with style(drawable(panel.heading)):
        # Laid out at the 72 dots per inch at which it is drawn.
        figure = Figure(figsize=(WIDTH, panel.height), dpi=72, layout="constrained")
        FigureCanvasAgg(figure)
        ax = figure.add_subplot(facecolor="none")
        panel.draw(ax)
        settle(ax)
        if panel.finish is not None:
            panel.finish(ax)
        figure.patch.set_visible(False)
        target = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(target, format="svg", metadata=nothing)
    drawn = target.getvalue()
    drawn = drawn[drawn.index(">", drawn.index("<svg")) + 1 : drawn.rindex("</svg>")]
    drawn = re.sub(r"<!--.*?-->", "", drawn, flags=re.DOTALL)
    # Groups are numbered from 1 in every figure, and a page has several; nothing refers to them.
    drawn = re.sub(r'(<(?:g|use|path|text)) id="[\w.]+_\d+"', r"\1", drawn)
    drawn = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r"(?<=: )#([0-9a-f]{6})\b", r"var(--\1, #\1)", drawn)
    size = f"0 0 {WIDTH * 72:g} {panel.height * 72:g}"
    return f'<svg viewBox="{size}" role="img" aria-label="{escape(drawable(panel.heading))}">{drawn}</svg>'
