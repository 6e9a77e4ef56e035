r"""The board as a LaTeX table for ``booktabs`` and ``siunitx``.

Numbers stand in ``S`` columns, aligned at their decimal point, with their interval or standard error beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from alignboard.boards.board import BEST, Board, table
from alignboard.boards.lines import TableLines
from alignboard.text import shown

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "≈": r"$\approx$",
} | {c: f"\\{c}" for c in "&%$#_{}"}


_LAST_LATIN = "\u017f"
_PUNCTUATION = "–—‘’“”…≈"  # noqa: RUF001


def latex_text(text: str) -> str:
    r"""``text`` as it reads, whatever it holds: no command, no new cell or line.

    Letters that pdfLaTeX has no glyph for are written as escapes.

    >>> latex_text(r"50 % of a_b & \input{x}")
    '50 \\% of a\\_b \\& \\textbackslash{}input\\{x\\}'
    """
    return "".join(_SPECIAL.get(c, c) for c in "".join(map(_latin, shown(text))))


def _latin(c: str) -> str:
    known = c <= _LAST_LATIN or c in _PUNCTUATION
    return c if known else c.encode("unicode_escape").decode()


def latex_lines(board: Board) -> TableLines:
    """The table with one line per row of the board."""
    found = table(board)
    groups, names, cells = found.groups, found.names, found.cells
    numeric = [
        _is_numeric([line[k] for line in cells if line[k] not in found.reasons])
        for k in range(len(names))
    ]
    spec = "".join(
        _column([line[k] for line in cells], numeric=numeric[k]) for k in range(len(names))
    )
    spans, rules = _spans(groups)
    heads = [
        f"{{{latex_text(name)}}}" if numeric[k] else latex_text(name)
        for k, name in enumerate(names)
    ]
    head = [
        "% Needs \\usepackage{booktabs,siunitx}; made by alignboard.",
        f"\\begin{{tabular}}{{{spec}}}",
        "\\toprule",
        *([_line(spans), rules] if any(groups) else []),
        _line(heads),
        "\\midrule",
    ]
    rows = [
        _line(
            [
                _cell(cell, numeric=numeric[k], best=(row, k) in found.best)
                for k, cell in enumerate(line)
            ]
        )
        + "\n"
        for row, line in enumerate(cells)
    ]
    said = [*board.notes, *([BEST] if found.best else [])]
    notes = [f"% {shown(note)}\n" for note in said]
    foot = "\\bottomrule\n\\end{tabular}\n" + "".join(notes)
    return TableLines("\n".join(head) + "\n", rows, foot)


def to_latex(board: Board) -> str:
    """The whole table."""
    return str(latex_lines(board))


def _is_numeric(cells: Sequence[str]) -> bool:
    known = [cell for cell in cells if cell]
    return bool(known) and all(_number(cell) for cell in known)


def _number(cell: str) -> bool:
    return cell.removeprefix("-").replace(".", "", 1).isdecimal() and cell.isascii()


def _column(cells: Sequence[str], *, numeric: bool) -> str:
    if not numeric:
        return "l"
    numbers = [cell for cell in cells if _number(cell)]
    wholes = max(len(cell.partition(".")[0]) for cell in numbers)
    decimals = max(len(cell.partition(".")[2]) for cell in numbers)
    return f"S[table-format={'-' if any(c.startswith('-') for c in numbers) else ''}{wholes}.{decimals}]"


def _cell(text: str, *, numeric: bool, best: bool) -> str:
    if best:
        return f"{{\\bfseries {latex_text(text)}}}"
    if numeric and _number(text):
        return text
    return f"{{{latex_text(text)}}}" if numeric else latex_text(text)


def _spans(groups: Sequence[str]) -> tuple[list[str], str]:
    """The line of groups, and the rules below them."""
    cells, rules, at = [], [], 1
    for group, members in groupby(groups):
        n = len(list(members))
        cells.append(f"\\multicolumn{{{n}}}{{c}}{{{latex_text(group)}}}")
        if group:
            rules.append(f"\\cmidrule(lr){{{at}-{at + n - 1}}}")
        at += n
    return cells, " ".join(rules)


def _line(cells: Sequence[str]) -> str:
    return f"{' & '.join(cells)} \\\\"
