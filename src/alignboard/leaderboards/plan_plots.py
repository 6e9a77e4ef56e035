"""The picture of a plan's board: win rates, what they are made of, benchmarks and ratings.

One PNG of all panels for the README, and each panel as SVG for the page; a panel without data is left out, and the
same board gives the same bytes. The SVG's colours are custom properties (``--222222`` for that grey), so that the
page can show it on a dark ground; its texts are texts, as wide as the font that they were measured in.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any

from alignboard.leaderboards.plan_board import PlanBoard, summary
from alignboard.leaderboards.plan_lengths import length_panel
from alignboard.leaderboards.plan_marks import WIDTH, Panel
from alignboard.leaderboards.plan_panels import benchmark_panel, rating_panel, win_panel
from alignboard.leaderboards.plots_canvas import (
    HEADING,
    SMALL,
    SUBTITLE,
    TITLE,
    Box,
    Canvas,
    Writing,
    drawable,
    fitted,
    text_width,
    wrapped,
)
from alignboard.leaderboards.plots_style import MUTED

DPI = 150
# Inches between panels, around the figure and of the title.
_GAP, _ROW_GAP, _MARGIN, _HEAD = 0.55, 0.3, 0.3, 0.85
_HEADING_ROOM = 0.3
_POINTS = 72
_PANELS = (win_panel, length_panel, benchmark_panel, rating_panel)


def columns(board: PlanBoard) -> list[list[Panel]]:
    """The panels that have data, in one or two columns of about the same height."""
    found = [panel for make in _PANELS if (panel := make(board))]
    placed: list[list[Panel]] = [[], []]
    for panel in found:
        min(placed, key=_height).append(panel)
    return [column for column in placed if column]


def draw_plan_board(board: PlanBoard) -> bytes:
    """All panels as PNG."""
    placed = columns(board)
    n_columns = max(len(placed), 1)
    width = n_columns * WIDTH + (n_columns - 1) * _GAP + 2 * _MARGIN
    footer = wrapped(drawable(" ".join(board.conditions)), width - 2 * _MARGIN, SMALL)
    foot = 0.3 + 0.14 * len(footer)
    body = max((_height(column) for column in placed), default=0.3)
    with _defaults():
        canvas = Canvas(width, _HEAD + body + foot, DPI)
        _write_around(canvas, board, footer)
        for k, column in enumerate(placed):
            left, top = _MARGIN + k * (WIDTH + _GAP), canvas.height - _HEAD
            for panel in column:
                canvas.write(
                    left,
                    top - 0.13,
                    fitted(drawable(panel.heading), WIDTH, HEADING, bold=True),
                    size=HEADING,
                    bold=True,
                )
                top -= _HEADING_ROOM
                panel.draw(canvas, Box(left, top - panel.height, WIDTH, panel.height))
                top -= panel.height + _ROW_GAP
        return canvas.png()


def panel_svg(panel: Panel) -> str:
    """A panel without its heading, as an ``svg`` element for a page."""
    with _defaults(drawable(panel.heading)):
        canvas = Canvas(WIDTH, panel.height, DPI)
        panel.draw(canvas, Box(0, 0, WIDTH, panel.height))
        canvas.figure.patch.set_visible(False)
        target = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        canvas.figure.savefig(target, format="svg", metadata=nothing)
    drawn = target.getvalue()
    drawn = drawn[drawn.index(">", drawn.index("<svg")) + 1 : drawn.rindex("</svg>")]
    # Groups are numbered from 1 in every figure, and a page has several; nothing refers to them.
    drawn = re.sub(r'<g id="\w+_\d+">', "<g>", drawn)
    # The style is the page's to give.
    drawn = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r"(?<=: )#([0-9a-f]{6})\b", r"var(--\1, #\1)", drawn)
    texts = "".join(_text(writing, panel.height) for writing in canvas.writings)
    size = f"0 0 {WIDTH * _POINTS:g} {panel.height * _POINTS:g}"
    label = escape(drawable(panel.description))
    return f'<svg viewBox="{size}" role="img" aria-label="{label}">{drawn}{texts}</svg>'


def _text(writing: Writing, height: float) -> str:
    """One text where the canvas has it; the browser's font is stretched to the width that was measured."""
    length = text_width(writing.text, writing.size, bold=writing.bold) * _POINTS
    attributes = {
        "x": f"{writing.x * _POINTS:.2f}",
        "y": f"{(height - writing.y) * _POINTS:.2f}",
        "font-size": f"{writing.size:g}",
        "textLength": f"{length:.2f}",
        "lengthAdjust": "spacingAndGlyphs",
        "style": f"fill: var(--{writing.color[1:]}, {writing.color})",
        **({"font-weight": "bold"} if writing.bold else {}),
    }
    if not writing.text:
        return ""
    listed = " ".join(f'{name}="{value}"' for name, value in attributes.items())
    return f"<text {listed}>{escape(writing.text)}</text>\n"


def _height(column: Sequence[Panel]) -> float:
    return sum(panel.height + _HEADING_ROOM + _ROW_GAP for panel in column)


def _write_around(canvas: Canvas, board: PlanBoard, footer: Sequence[str]) -> None:
    """Title above, conditions below."""
    room = canvas.width - 2 * _MARGIN
    title = fitted(drawable(board.title), room, TITLE, bold=True)
    canvas.write(_MARGIN, canvas.height - 0.35, title, size=TITLE, bold=True)
    subtitle = fitted(drawable(summary(board)), room, SUBTITLE)
    canvas.write(_MARGIN, canvas.height - 0.57, subtitle, size=SUBTITLE, color=MUTED)
    for k, line in enumerate(reversed(footer)):
        canvas.write(_MARGIN, 0.15 + 0.14 * k, line, size=SMALL, color=MUTED)


@contextmanager
def _defaults(salt: str = "") -> Iterator[None]:
    """matplotlib as it comes, whatever the user's own matplotlibrc says; ``salt`` makes the ids of an SVG."""
    import matplotlib as mpl

    settings: dict[Any, Any] = {
        key: value for key, value in mpl.rcParamsDefault.items() if "backend" not in key
    }
    settings["svg.hashsalt"] = salt
    with mpl.rc_context(settings):
        yield
