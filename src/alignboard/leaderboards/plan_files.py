"""The files of a plan's board, beside each other in one folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from alignboard.leaderboards.plan_board import PlanBoard, to_csv, to_json
from alignboard.leaderboards.plan_page import to_html
from alignboard.leaderboards.plan_plots import draw_plan_board
from alignboard.leaderboards.plan_text import to_markdown
from alignboard.results.files import write_atomically
from alignboard.workspace import model_name

_WRITERS: Mapping[str, Callable[[PlanBoard], str | bytes]] = {
    "csv": to_csv,
    "md": to_markdown,
    "json": to_json,
    "png": draw_plan_board,
    "html": to_html,
}


def write_plan_board(board: PlanBoard, folder: Path) -> list[Path]:
    """Write ``<name>.csv``, ``.md``, ``.json``, ``.png`` and ``.html`` into ``folder``, each whole or not at all.

    All are made before the first is written: a board that cannot be drawn leaves nothing behind.
    """
    name = model_name(board.name)
    contents = {suffix: make(board) for suffix, make in _WRITERS.items()}
    paths = []
    for suffix, content in contents.items():
        path = folder / f"{name}.{suffix}"
        write_atomically(path, content.encode() if isinstance(content, str) else content)
        paths.append(path)
    return paths
