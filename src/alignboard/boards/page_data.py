"""What the page's script reads: the files to download, and the examples, as compressed blocks in the page.

A block is base64, which holds nothing that could end its element. Names are as the table shows them.
"""

from __future__ import annotations

import base64
from typing import Any

from alignboard.boards.board import Board
from alignboard.boards.examples import CHUNK, Examples, packed
from alignboard.boards.latex import latex_lines
from alignboard.boards.lines import TableLines, csv_lines, markdown_lines
from alignboard.text import shown

_TITLE = 90
"""characters of a prompt in the list of prompts"""


def page_blocks(board: Board, examples: Examples | None) -> dict[str, str]:
    """The page's blocks by their identity: ``files``, and of ``examples`` ``core`` and ``chunk-<k>``."""
    blocks: dict[str, Any] = {"files": _files(board)}
    if examples is not None and len(examples):
        blocks["core"] = _core(board, examples)
        for k, chunk in enumerate(examples.chunks):
            responses = {shown(model): own for model, own in chunk.responses.items()}
            blocks[f"chunk-{k}"] = {
                "texts": chunk.texts,
                "prompts": chunk.prompts,
                "responses": responses,
                "said": chunk.said,
            }
    return {name: base64.b64encode(packed(content)).decode() for name, content in blocks.items()}


def _files(board: Board) -> dict[str, Any]:
    lines = {
        "csv": (csv_lines(board), "text/csv"),
        "md": (markdown_lines(board), "text/markdown"),
        "tex": (latex_lines(board), "application/x-tex"),
        "json": (TableLines(board.to_json(), []), "application/json"),
    }
    return {
        kind: {
            "name": f"{board.name}.{kind}",
            "type": media,
            "head": found.head,
            "rows": found.rows,
            "foot": found.foot,
        }
        for kind, (found, media) in lines.items()
    }


def _core(board: Board, examples: Examples) -> dict[str, Any]:
    keys = {one.column for one in examples.preferences}
    return {
        "chunk": CHUNK,
        "sets": examples.sets,
        "titles": [
            _title(chunk.texts[place]) for chunk in examples.chunks for place in chunk.prompts
        ],
        "lengths": {shown(model): own for model, own in examples.lengths.items()},
        "labels": {c.key: shown(board.group(c)) for c in board.columns if c.key in keys},
        "preferences": [
            {
                "column": one.column,
                "model": shown(one.model),
                "baseline": shown(one.baseline),
                "preference": one.preference,
                "orders": one.orders if any(one.orders) else [],
            }
            for one in examples.preferences
        ],
    }


def _title(prompt: str) -> str:
    text = shown(" ".join(prompt.split()))
    return text if len(text) <= _TITLE else f"{text[: _TITLE - 1]}…"
