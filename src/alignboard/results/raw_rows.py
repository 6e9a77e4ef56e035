"""Rows of json, jsonl and csv files that others wrote, as mappings, and what of a row is its instruction.

The columns that Alpaca's format puts beside an instruction are part of the question: ``input`` and ``context`` follow
it after a blank line, as AlpacaFarm does it; a system text or an earlier conversation, which an instruction cannot
hold, is refused by name, and so are a passage, options to choose from, tools and a second question. None is ever
dropped.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from alignboard.errors import InputError
from alignboard.results.files import SUFFIXES, read_file
from alignboard.strict_json import RepeatedKeyError, parse_json, require_columns
from alignboard.text import storable

MERGED: Final = ("input", "context")
"""columns that are the second part of an instruction"""
SYSTEM: Final = ("system", "system_prompt", "system_message", "system_instruction", "persona")
REFUSED: Final = (
    *SYSTEM, "history", "chat_history", "passage", "document", "article", "options", "choices", "tools", "functions",
    "image", "images", "audio", "video", "attachments", "documents", "contexts", "paragraph", "story", "background",
    "evidence", "premise", "constraints", "examples", "option_a", "A", "code", "source_code", "snippet", "table",
    "schema", "sentence", "sentence1", "sentence2", "hypothesis", "transcript",
)  # fmt: skip
"""columns of a question that an instruction cannot hold"""
ASKED: Final = ("question", "prompt")
"""columns that are a question, too: refused beside another text"""
BESIDE: Final = (*MERGED, *REFUSED, *ASKED)
LAYOUTS: Final = (
    "AlpacaEval's (instruction, output, generator)",
    "AlpacaFarm's (instruction, input, output)",
    "FastChat's and Arena-Hard's (question_id, model_id, choices)",
    "Arena-Hard's of 2025 (uid, model, messages)",
)
"""the layouts of responses that are read"""
_LONGEST_CELL: Final = 2**31 - 1
_LEAST_FOUND: Final = 8
"""characters from which a text that is found in a question is not there by chance"""


def raw_rows(path: Path) -> list[Any]:
    """The rows of a file; raises `InputError` where it cannot be read. Lone surrogates become U+FFFD."""
    try:
        content = read_file(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 (byte {error.start}); save the file as UTF-8."
        ) from error
    try:
        match path.suffix:
            case ".csv":
                return _table(path, content)
            case ".jsonl":
                return _lines(content)
            case ".json":
                return _listed(path, content)
            case _:
                raise InputError(
                    f"{path} has none of the formats that are read: {', '.join(SUFFIXES)}."
                )
    except RepeatedKeyError as error:
        raise InputError(f"{path}, {error}.") from error
    except (ValueError, csv.Error, RecursionError) as error:
        raise InputError(f"{path} is no valid {path.suffix[1:]}: {error}.") from error


def instruction_of(path: Path, number: int, row: Mapping[str, Any], column: str, text: str) -> str:
    """The instruction ``text`` of a row's ``column`` with what the row's other columns add to it.

    Raises `InputError` that names the column for what an instruction cannot hold.
    """
    for name in REFUSED:
        if name != column and row.get(name) and not is_held(row[name], text):
            way = (
                "remove the column, and set a system text in the model's entry (prompt: {system: ...})"
                if name in SYSTEM
                else "write it into the instruction, and remove the column"
            )
            raise InputError(
                f"{path}, row {number}: the column {name!r} is part of the question, and an instruction cannot hold "
                f"it; {way}."
            )
    for name in ASKED:
        other = row.get(name) if name != column else None
        if isinstance(other, str) and other.strip() not in text and text.strip() not in other:
            raise InputError(
                f"{path}, row {number}: {column!r} and {name!r} are two questions; join them in one column, and remove "
                "the other."
            )
    parts = [text]
    for name in MERGED:
        more = row.get(name) if name != column else None
        if more is not None and not isinstance(more, str):
            raise InputError(f"{path}, row {number}, field {name!r}: a text was expected.")
        if more and more.strip():
            parts.append(more)
    return "\n\n".join(parts)


def is_held(value: Any, text: str) -> bool:
    """Whether a question ``text`` holds a value already, or the value is the question in a form around it."""
    if not isinstance(value, str):
        return False
    return text.strip() in value or (len(value.strip()) >= _LEAST_FOUND and value.strip() in text)


def merged_rows(path: Path) -> list[Any]:
    """The rows of a file of responses or verdicts with whole instructions; raises `InputError` for unknown layouts.

    Where no row names its model, the file does: ``sft.json``, or the folder of a ``model_outputs.json``.
    """
    rows = raw_rows(path)
    first = rows[0] if rows and isinstance(rows[0], Mapping) else {}
    if first and not isinstance(first.get("instruction"), str):
        raise unknown_layout(path, first)
    unnamed = all(isinstance(row, Mapping) and not row.get("generator") for row in rows)
    name = {"generator": file_model(path)} if unnamed and "output" in first else {}
    return [
        {**merged_row(path, number, row), **name} if isinstance(row, Mapping) else row
        for number, row in enumerate(rows, start=1)
    ]


def merged_row(path: Path, number: int, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with its whole instruction."""
    text = row.get("instruction")
    if not isinstance(text, str):
        return dict(row)
    return {**row, "instruction": instruction_of(path, number, row, "instruction", text)}


def file_model(path: Path) -> str:
    """What the model of a file is called whose rows do not name it."""
    own = path.absolute()
    return own.parent.name if own.stem == "model_outputs" else own.stem


def unknown_layout(path: Path, row: Mapping[str, Any]) -> InputError:
    """What to say of a file whose columns are none of those that are read."""
    if "choices" in row or "messages" in row:
        return InputError(
            f"{path} holds answers by question ({', '.join(map(str, row))}), whose questions are a set's: name the "
            "file NAME.jsonl and give the set by --set."
        )
    return InputError(
        f"{path}, row 1 has the columns {', '.join(map(str, row)) or '(none)'}; read are {', '.join(LAYOUTS)}."
    )


def _table(path: Path, content: str) -> list[Any]:
    csv.field_size_limit(_LONGEST_CELL)
    reader = csv.DictReader(io.StringIO(content, newline=""), strict=True)
    require_columns(path, reader.fieldnames)
    rows: list[Any] = list(reader)
    for number, row in enumerate(rows, start=1):
        if None in row:
            raise InputError(
                f"{path}, row {number}: more values than the header has columns; quote texts that hold a comma."
            )
    return rows


def _lines(content: str) -> list[Any]:
    rows = []
    for line in content.split("\n"):
        if line.strip():
            try:
                rows.append(storable(parse_json(line)))
            except RepeatedKeyError as error:
                raise RepeatedKeyError(error.key, len(rows) + 1) from error
    return rows


def _listed(path: Path, content: str) -> list[Any]:
    """A list of rows; also one row a line, which many tools call .json."""
    try:
        rows = parse_json(content)
    except json.JSONDecodeError as error:
        if not error.msg.startswith("Extra data"):
            raise
        rows = _lines(content)
    if not isinstance(rows, list):
        raise InputError(f"{path} is no list of rows.")
    return storable(rows)
