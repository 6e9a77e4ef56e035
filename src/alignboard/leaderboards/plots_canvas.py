"""A figure measured in inches, with all of its text as outlines that are placed once.

matplotlib lays every text out twice and renders it glyph by glyph; for a picture of some 150 texts that was most of
the time. Here the glyphs' outlines are put together into one path per colour. Names are hostile text: control and
bidirectional characters are shown as escapes, long names lose their middle, and nothing is parsed as mathematics.
"""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from alignboard.text import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ft2font import FT2Font

INK = "#222222"
TITLE, HEADING, SUBTITLE, TEXT, SMALL = 13.0, 10.0, 9.0, 8.0, 7.5
"""font sizes in points"""
MAX_NAME = 40
"""characters of a name that are drawn"""
_FONT = "DejaVu Sans"  # comes with matplotlib, so that a board looks the same everywhere


@dataclass(frozen=True)
class Box:
    """A rectangle of the figure in inches from its lower left corner."""

    left: float
    bottom: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """The right edge."""
        return self.left + self.width

    @property
    def top(self) -> float:
        """The upper edge."""
        return self.bottom + self.height


@dataclass(frozen=True)
class Writing:
    """One line of text in the figure: ``x`` and ``y`` are inches, of its left end on the baseline."""

    x: float
    y: float
    text: str
    size: float
    color: str
    bold: bool


class Canvas:
    """A figure of ``width`` by ``height`` inches."""

    def __init__(self, width: float, height: float, dpi: int) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.width, self.height, self.dpi = width, height, dpi
        self.figure: Figure = Figure(figsize=(width, height), dpi=dpi, facecolor="white")
        self.writings: list[Writing] = []
        self._agg = FigureCanvasAgg(self.figure)

    def axes(self, box: Box, x: tuple[float, float], y: tuple[float, float]) -> Axes:
        """Bare axes over ``box`` with limits ``x`` and ``y``: no ticks, no frame but a line at the bottom."""
        axes = self.figure.add_axes(
            (
                box.left / self.width,
                box.bottom / self.height,
                box.width / self.width,
                box.height / self.height,
            ),
            xlim=x,
            ylim=y,
            facecolor="none",
        )
        axes.xaxis.set_visible(False)
        axes.yaxis.set_visible(False)
        axes.spines[["left", "right", "top"]].set_visible(False)
        axes.spines["bottom"].set(color="#a3a3a3", linewidth=0.8)
        return axes

    def write(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = TEXT,
        color: str = INK,
        bold: bool = False,
        align: float = 0.0,
    ) -> None:
        """Put ``text`` at inches (x, y), its baseline on y; ``align`` 0 = x is its left end, 0.5 middle, 1 right."""
        x -= align * text_width(text, size, bold=bold) if align else 0.0
        self.writings.append(Writing(x, y, text, size, color, bold))

    def line(self, x: Sequence[float], y: Sequence[float], color: str) -> None:
        """A hairline through points in inches."""
        from matplotlib.lines import Line2D

        line = Line2D(x, y, color=color, linewidth=0.5, alpha=0.6)
        line.set_transform(self.figure.dpi_scale_trans)
        self.figure.add_artist(line)

    def mark(self, x: float, y: float, marker: str, color: str, *, hollow: bool = False) -> None:
        """One marker at inches (x, y)."""
        from matplotlib.lines import Line2D

        face = "none" if hollow else color
        line = Line2D([x], [y], marker=marker, markersize=5, color=color, markerfacecolor=face)
        line.set_transform(self.figure.dpi_scale_trans)
        self.figure.add_artist(line)

    def png(self) -> bytes:
        """The figure as PNG, without alpha, and without metadata but its resolution."""
        from PIL import Image

        self._set_type()
        self._agg.draw()
        image = Image.fromarray(np.asarray(self._agg.buffer_rgba()))
        target = io.BytesIO()
        image.convert("RGB").save(target, "png", compress_level=2, dpi=(self.dpi, self.dpi))
        return target.getvalue()

    def _set_type(self) -> None:
        """Turn the writings into one path per colour."""
        from matplotlib.patches import PathPatch
        from matplotlib.path import Path

        for color in dict.fromkeys(writing.color for writing in self.writings):
            outlines = [
                outline
                for writing in self.writings
                if writing.color == color
                for outline in _outlines(writing)
            ]
            if outlines:
                vertices, codes = (np.concatenate(part) for part in zip(*outlines, strict=True))
                patch = PathPatch(Path(vertices, codes), facecolor=color, linewidth=0, zorder=9)
                patch.set_transform(self.figure.dpi_scale_trans)
                self.figure.add_artist(patch)


def text_width(text: str, size: float = TEXT, *, bold: bool = False) -> float:
    """Width of ``text`` in inches."""
    weight = _weight(bold=bold)
    return sum(_glyph(c, weight).advance for c in text) * size / 72


def drawn_name(model: str, room: float, size: float = TEXT) -> str:
    """``model`` in characters that the font has, its middle left out where it is longer than ``room`` inches."""
    return fitted(shortened(drawable(model)), room, size)


def fitted(text: str, room: float, size: float = TEXT, *, bold: bool = False) -> str:
    """``text`` without as much of its middle as does not fit into ``room`` inches."""
    keep, short = len(text), text
    while keep > 3 and text_width(short, size, bold=bold) > room:
        keep -= 1
        short = shortened(text, keep)
    return short


def wrapped(text: str, room: float, size: float) -> list[str]:
    """``text`` as lines of at most ``room`` inches."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size) <= room:
            lines[-1] = longer
        else:
            lines.append(fitted(word, room, size))
    return lines


def shortened(text: str, at_most: int = MAX_NAME) -> str:
    """``text`` without its middle, where it has more than ``at_most`` characters.

    >>> shortened("Infinity-Instruct-7M-Gen-Llama3_1-70B", 20)
    'Infinity-Ins…3_1-70B'
    """
    if len(text) <= at_most:
        return text
    tail = (at_most - 1) * 2 // 5
    return text[: at_most - 1 - tail] + "…" + text[len(text) - tail :]


def drawable(text: str) -> str:
    """``text`` with escapes for what the font has no glyph for, and for marks that pile up on their neighbours."""
    if text.isascii():
        return shown(text)
    known = _font("normal").get_char_index
    return "".join(
        c
        if c.isascii() or (not unicodedata.combining(c) and known(ord(c)))
        else c.encode("unicode_escape").decode()
        for c in shown(unicodedata.normalize("NFC", text))
    )


def _font(weight: str) -> FT2Font:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return get_font(findfont(FontProperties(family=_FONT, weight=weight)))


@dataclass(frozen=True)
class _Glyph:
    """One character in units of the font's size."""

    advance: float
    vertices: NDArray[np.float64]
    codes: NDArray[np.integer]


@lru_cache(maxsize=4096)
def _glyph(character: str, weight: str) -> _Glyph:
    font = _font(weight)
    font.set_size(100, 72)
    advance = font.load_char(ord(character)).linearHoriAdvance / 65536 / 100
    vertices, codes = font.get_path()
    return _Glyph(advance, vertices / 100, codes)


def _outlines(writing: Writing) -> list[tuple[NDArray[np.float64], NDArray[np.integer]]]:
    """The outlines of the characters in inches, as vertices and codes."""
    found = []
    pen, weight = writing.x, _weight(bold=writing.bold)
    scale = writing.size / 72
    for character in writing.text:
        glyph = _glyph(character, weight)
        if len(glyph.codes):
            found.append((glyph.vertices * scale + (pen, writing.y), glyph.codes))
        pen += glyph.advance * scale
    return found


def _weight(*, bold: bool) -> str:
    return "bold" if bold else "normal"
