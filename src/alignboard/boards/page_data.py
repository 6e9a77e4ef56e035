"""What the page's script reads: the files to download, and the examples, as compressed blocks that stand as text.

Blocks stand in the page, or those with texts in files beside it: style sheets, because these are what a page that was
opened from disk may load, and because a style sheet runs nothing. Names are as the table shows them.

Bytes stand as text: 13 bits in two characters, a quarter longer than the bytes, where base64 makes them a third longer.
The 91 characters are those of ASCII that are printed, without ``<``, which could end an element of HTML, and without
the quotation mark and the backslash, which could end a string of CSS.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from alignboard.boards.board import Board
from alignboard.boards.examples import CHUNK, Examples, packed
from alignboard.boards.latex import latex_lines
from alignboard.boards.lines import TableLines, csv_lines, markdown_lines
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


_ALPHABET = np.array(
    [code for code in range(0x21, 0x7F) if chr(code) not in '<"\\'], dtype=np.uint8
)
_BITS = 13
_LAST = 6
"""bits that fit into one character"""


def to_text(content: bytes) -> str:
    """``content`` as text; ``bytesOf`` in ``page_parts/state.js`` reads it.

    >>> to_text(b"hi")
    'Ge*'
    """
    bits = np.unpackbits(np.frombuffer(content, dtype=np.uint8))
    rest = len(bits) % _BITS
    single = 0 < rest <= _LAST
    missing = 0 if rest == 0 else (_LAST if single else _BITS) - rest
    bits = np.concatenate([bits, np.zeros(missing, dtype=np.uint8)]).astype(np.int32)
    whole = bits[: len(bits) - (_LAST if single else 0)].reshape(-1, _BITS)
    values = whole @ (1 << np.arange(_BITS - 1, -1, -1))
    pairs = np.stack(np.divmod(values, len(_ALPHABET)), axis=1).ravel()
    if single:
        last = bits[-_LAST:] @ (1 << np.arange(_LAST - 1, -1, -1))
        pairs = np.append(pairs, last)
    return _ALPHABET[pairs].tobytes().decode("ascii")
