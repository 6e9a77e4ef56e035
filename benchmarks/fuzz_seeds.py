"""What the readers of `fuzz.py` are, and valid files that are made for them."""

from __future__ import annotations

import io
import json
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).parents[1]
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Reader:
    """A way into the project: how it is called, and valid content that it reads."""

    suffix: str
    seeds: tuple[bytes, ...]
    read: Callable[[Path], object]


def board() -> bytes:
    """A board of three models, as it is written."""
    from alignboard.boards.of_results import results_board

    with tempfile.TemporaryDirectory() as folder:  # whose name is another one each time
        results = Path(folder) / "results"
        shutil.copytree(ROOT / "tests/published/synthetic_release/results", results)
        return results_board(results).to_json().encode()


def record() -> bytes:
    """The first model of that board, as Every Eval Ever has it."""
    from alignboard.boards.board import Board
    from alignboard.boards.exports.every_eval_ever import Source, write_folder

    shown = msgspec.json.decode(board(), type=Board)
    with tempfile.TemporaryDirectory() as folder:
        return write_folder(shown, Path(folder), Source("x"))[0].read_bytes()


def examples() -> bytes:
    """The examples of a board of one prompt, before they are compressed."""
    from alignboard.boards.examples import Examples

    return msgspec.json.encode(Examples(["x"], {"m": [3], "b": [-1]}, [], []))


def renamed(entries: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Entries of the registry under the name that a mutated file has."""
    return tuple(re.sub(rb"(?m)^name: .*$", b"name: case", one) for one in entries)


def gguf() -> bytes:
    """A header of two keys and no tensor."""

    def text(value: str) -> bytes:
        return len(value).to_bytes(8, "little") + value.encode()

    keys = text("general.architecture") + (8).to_bytes(4, "little") + text("llama")
    keys += text("llama.context_length") + (4).to_bytes(4, "little") + (64).to_bytes(4, "little")
    return (
        b"GGUF"
        + (3).to_bytes(4, "little")
        + (0).to_bytes(8, "little")
        + (2).to_bytes(8, "little")
        + keys
    )


def sentencepiece() -> bytes:
    """A vocabulary of byte pairs with its bytes."""
    from sentencepiece import SentencePieceTrainer

    written = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(["What is the capital of France?", "Name two colours."] * 20),
        model_writer=written,
        vocab_size=290,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return written.getvalue()


def array(rows: Rows) -> bytes:
    """Rows as one list of JSON."""
    return json.dumps(rows).encode()


def lines(rows: Rows) -> bytes:
    """Rows as lines of JSON."""
    return b"\n".join(json.dumps(row).encode() for row in rows)


def table(rows: Rows) -> bytes:
    """Rows as csv."""
    cells = [",".join(map(str, row.values())) for row in rows]
    return "\n".join([",".join(rows[0]), *cells]).encode()


def parquet(rows: Rows) -> bytes:
    """Rows as columns, not compressed: compressed ones fail as a whole, whatever was changed."""
    import pyarrow as pa
    from pyarrow import parquet as file

    written = io.BytesIO()
    file.write_table(pa.Table.from_pylist(rows), written, compression="none")
    return written.getvalue()
