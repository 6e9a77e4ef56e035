"""The board's files: every writer iterates over the columns, so that a column is declared once.

The same board gives the same bytes. Text that others wrote never acts as a formula, as markup or as a control.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from alignboard.boards.board import Board, table
from alignboard.boards.examples import EXAMPLES, Examples, packed
from alignboard.boards.latex import to_latex
from alignboard.boards.lines import LEFT, csv_lines, markdown_lines
from alignboard.parallel import fork_map
from alignboard.results.files import write_atomically
from alignboard.text import shown
from alignboard.text import table as text_table
from alignboard.workspace import model_name

TEXTS = "texts"
"""suffix of the folder beside a large page"""
_WHOLE = 100_000
"""columns of a line that is not broken"""
_WORTH_A_FORK = 1_000
"""cells"""


def to_csv(board: Board) -> str:
    """The board as csv, with every digit."""
    return str(csv_lines(board))


def to_markdown(board: Board) -> str:
    """The board as a page of markdown."""
    return str(markdown_lines(board))


def to_text(board: Board, width: int | None = None) -> str:
    """The board for a terminal or a pipe; without its intervals where these make it wider than ``width``."""
    full = _text(board, intervals=True, width=_WHOLE)
    if width is None or max(map(len, full.splitlines()), default=0) <= width:
        return "\n".join([full, "", *map(shown, board.notes)])
    brief = _text(board, intervals=False, width=width)
    note = (
        "Intervals are left out, because this terminal is too narrow: csv, md and html have them."
    )
    return "\n".join([brief, "", note, *map(shown, board.notes)])


def _text(board: Board, *, intervals: bool, width: int | None = None) -> str:
    found = table(board, intervals=intervals)
    groups, names = [shown(g) for g in found.groups], [shown(n) for n in found.names]
    cells = [[shown(cell) for cell in line] for line in found.cells]
    left = [k for k, name in enumerate(names) if name in LEFT]
    heads = [(group, name) if group else name for group, name in zip(groups, names, strict=True)]
    return text_table(heads, cells, left, width)


def _to_png(board: Board) -> bytes:
    from alignboard.boards.plots import to_png

    return to_png(board)


WRITERS: dict[str, Callable[[Board], str | bytes]] = {
    "csv": to_csv,
    "md": to_markdown,
    "tex": to_latex,
    "json": Board.to_json,
    "png": _to_png,
}
"""by the suffix of the file"""


def write_board(board: Board, folder: Path, examples: Examples | None = None) -> list[Path]:
    """Write ``<name>.csv``, ``.md``, ``.tex``, ``.json``, ``.png`` and ``.html``, each whole or not at all.

    The prompts, responses and verdicts in ``examples`` go onto the page and into ``<name>.examples.json.gz``, from
    which the page is made again; where they are many, the page reads them from ``<name>.texts/``. All are made before
    the first is written: a board that cannot be drawn leaves nothing behind.
    """
    name = model_name(board.name)
    beside = f"{name}.{TEXTS}"

    def make(suffix: str) -> dict[str, str | bytes]:
        if suffix in WRITERS:
            return {suffix: WRITERS[suffix](board)}
        from alignboard.boards.page import page_files

        return page_files(board, examples, beside)

    many = len(board.rows) * len(board.columns) >= _WORTH_A_FORK
    made = fork_map(make, ["html", *WRITERS], least=2 if many else len(WRITERS) + 2)
    files = made[0]
    contents = {suffix: content for one in made[1:] for suffix, content in one.items()}
    contents["html"] = files.pop("")
    contents |= {f"{TEXTS}/{file}": content for file, content in files.items()}
    if examples is not None:
        contents[EXAMPLES] = packed(examples)
    if (folder / beside).is_dir() and not files:
        shutil.rmtree(folder / beside)
    paths = []
    for suffix, content in contents.items():
        path = folder / f"{name}.{suffix}"
        write_atomically(path, content.encode() if isinstance(content, str) else content)
        paths.append(path)
    return paths
