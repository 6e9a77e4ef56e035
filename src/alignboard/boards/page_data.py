"""What the page's script reads: the files to download, and the examples, as compressed blocks.

Blocks stand in the page, or those with texts in files beside it: style sheets, because these are what a page that was
opened from disk may load, and because a style sheet runs nothing. Names are as the table shows them.
"""

from __future__ import annotations

from typing import Any

from alignboard.boards.board import Board
from alignboard.boards.examples import CHUNK, Examples, packed
from alignboard.boards.latex import latex_lines
from alignboard.boards.lines import TableLines, csv_lines, markdown_lines
from alignboard.boards.page_text import to_text
from alignboard.text import shown

_TITLE = 90
"""characters of a prompt in the list of prompts"""


def page_blocks(board: Board, examples: Examples | None) -> dict[str, str]:
    """The page's blocks by their identity: ``files``, and of ``examples`` ``core``; see `text_blocks`."""
    blocks: dict[str, Any] = {"files": _files(board)}
    if examples is not None and len(examples):
        blocks["core"] = _core(board, examples)
    return {name: to_text(packed(content)) for name, content in blocks.items()}


def text_blocks(examples: Examples | None) -> dict[str, str]:
    """The blocks with texts, ``chunk-<k>``, each of `alignboard.boards.examples.CHUNK` prompts."""
    if examples is None:
        return {}
    blocks = {
        f"chunk-{k}": {
            "texts": chunk.texts,
            "prompts": chunk.prompts,
            "responses": {shown(model): own for model, own in chunk.responses.items()},
            "said": chunk.said,
        }
        for k, chunk in enumerate(examples.chunks)
    }
    return {name: to_text(packed(content)) for name, content in blocks.items()}


def text_file(name: str, content: str) -> bytes:
    """The style sheet that holds the block ``name``."""
    return f':root{{--{name}:"{content}"}}\n'.encode()


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
