"""Several boards as a folder for a static host: an index, and every board's files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from glob import escape as glob_escape
from pathlib import Path

from alignboard import __version__
from alignboard.boards.board import Board, read_board
from alignboard.boards.files import TEXTS
from alignboard.boards.page import template
from alignboard.errors import InputError
from alignboard.results.files import write_atomically

SUFFIXES = ("html", "csv", "md", "tex", "json", "png")
"""what is published of a board, the page first"""
_LEADERS = 3


@dataclass(frozen=True)
class Entry:
    """What the index says of one board."""

    board: Board
    files: list[str]
    leaders: list[tuple[str, str]]
    """the best models of a board with ranks, with their values"""


def board_files(folder: Path, names: Sequence[str] | None = None) -> list[Path]:
    """The json files of the boards in ``folder``, all or those called ``names``.

    Raises
    ------
    InputError
        Where one of ``names`` is missing or there is none at all, and where a board has no page beside it.
    """
    paths = (
        sorted(path for path in folder.glob("*.json") if not path.name.startswith("."))
        if names is None
        else [folder / f"{name}.json" for name in names]
    )
    for name in names or ():
        if name.endswith(".json") or len(Path(name).parts) > 1:
            raise InputError(
                f"{name!r} is no name of a board in {folder}; copy the board's files there, and name it "
                f"{Path(name).stem}."
            )
    if not paths:
        raise InputError(f"There are no boards in {folder}; write one first: alignboard board.")
    for path in paths:
        for needed in (path, path.with_suffix(".html")):
            if not needed.is_file():
                raise InputError(
                    f"There is no {needed}; write the board again: alignboard board {path.stem}."
                )
    return paths


def publish(paths: Sequence[Path], target: Path, title: str) -> Path:
    """Copy the boards whose json files are ``paths`` to ``target``, with an ``index.html``; returns the index."""
    entries = []
    for path in paths:
        board = read_board(path)
        files = [f"{path.stem}.{suffix}" for suffix in SUFFIXES]
        there = [name for name in files if (path.parent / name).is_file()]
        for name in there:
            write_atomically(target / name, (path.parent / name).read_bytes())
        for text in path.parent.glob(f"{glob_escape(path.stem)}.{TEXTS}/*.css"):
            write_atomically(target / text.parent.name / text.name, text.read_bytes())
        entries.append(Entry(board, there, _leaders(board)))
    index = target / "index.html"
    page = template("index.html").render(title=title, entries=entries, version=__version__)
    write_atomically(index, page.encode())
    return index


def _leaders(board: Board) -> list[tuple[str, str]]:
    if board.ranked_by is None:
        return []
    column = board.column(board.ranked_by)
    ranked = [
        (rank, row)
        for rank, row in zip(board.ranks(), board.rows, strict=True)
        if rank is not None and rank <= _LEADERS
    ]
    ranked.sort(key=lambda pair: pair[0])
    unit = " %" if column.unit == "%" else ""
    return [
        (row.model, f"{column.text(board.score(row, column).value)}{unit}") for _, row in ranked
    ]
