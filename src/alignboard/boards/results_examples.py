"""Responses and verdicts of a results folder, as the page of its board shows them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from alignboard.boards.board import Board
from alignboard.boards.examples import Collector, Examples
from alignboard.boards.verdicts import Verdicts, find_verdicts
from alignboard.errors import InputError, nearest
from alignboard.results.cache import TableCache
from alignboard.results.files import SUFFIXES
from alignboard.results.outputs_paths import ALPACA_EVAL
from alignboard.workspace import PUBLISHED

MOST_VERDICTS = 250_000
"""on a page that holds their prompts and responses; the whole of AlpacaEval 2 has 180,000"""


def with_examples(root: Path, board: Board) -> tuple[Board, Examples | None]:
    """``board`` and its `results_examples`; without them, and with a note, where they are too many for a page."""
    shown = _shown(root, board)
    if sum(len(one.table) for one, _ in shown) <= MOST_VERDICTS:
        return board, _examples(root, board, shown)
    note = (
        f"The page holds no prompts, because there are more than {MOST_VERDICTS:,} verdicts; --models A,B makes a page "
        "with the prompts of some models."
    )
    return msgspec.structs.replace(board, notes=[*board.notes, note]), None


def results_examples(root: Path, board: Board) -> Examples:
    """The prompts behind the columns of verdicts of ``board``, a board of the results folder ``root``."""
    return _examples(root, board, _shown(root, board))


def _shown(root: Path, board: Board) -> list[tuple[Verdicts, str]]:
    """The verdicts that ``board`` shows, with the keys of their columns."""
    columns = {
        # Suites with published boards stand for AlpacaEval's own place.
        (c.judge, ALPACA_EVAL if c.set in PUBLISHED else c.set, c.baseline): c.key
        for c in board.of_kind("win rate")
    }
    found = find_verdicts(_board_folders(root, board), TableCache(root))
    return [(one, columns[one.column]) for one in found if one.column in columns]


def _board_folders(root: Path, board: Board) -> dict[str, Path]:
    return model_folders(root, [row.model for row in board.rows if (root / row.model).is_dir()])


def _examples(root: Path, board: Board, shown: Sequence[tuple[Verdicts, str]]) -> Examples:
    collector = Collector()
    for one, key in shown:
        path = Path(one.table.path)
        collector.add_verdicts(path, key, one.model, one.baseline, one.set)
    for set_name in sorted({one.set for one, _ in shown}) or [ALPACA_EVAL]:
        for model, path in output_files(_board_folders(root, board), set_name).items():
            collector.add_responses(path, model, set_name)
    return collector.examples()


def model_folders(root: Path, models: Sequence[str] | None) -> dict[str, Path]:
    """The folder of every model of ``models``, or of all, by name."""
    there = {
        path.name: path
        for path in sorted(root.iterdir())
        if path.is_dir() and not path.name.startswith(".")
    }
    for model in models or ():
        if model not in there:
            raise InputError(f"{root} has no model {model!r}{nearest(model, list(there)) or '.'}")
    return {m: p for m, p in there.items() if models is None or m in models}


def output_files(folders: dict[str, Path], set_name: str) -> dict[str, Path]:
    """The file of responses to a set of every model that has one."""
    found = {}
    for model, folder in folders.items():
        place = folder if set_name == ALPACA_EVAL else folder / set_name
        paths = (place / f"model_outputs{suffix}" for suffix in SUFFIXES)
        path = next((path for path in paths if path.is_file()), None)
        if path is not None:
            found[model] = path
    return found
