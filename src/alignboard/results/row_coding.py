"""The rows of AlpacaEval's files from bytes and to bytes: json, jsonl, csv.

The fast decoder says what is wrong only by a byte or a path; a second, slower look finds the row.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from alignboard.errors import InputError
from alignboard.records import Generation, Judgment
from alignboard.results.raw_rows import BESIDE, file_model, merged_row, unknown_layout
from alignboard.strict_json import require_columns
from alignboard.text import storable

Row = TypeVar("Row", bound=Generation | Judgment)


class WrittenJudgment(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """As `Judgment`, of a file with no columns but those of AlpacaEval's, of which none is part of an instruction.

    What most files of a folder share is left as it is written.
    """

    instruction: msgspec.Raw
    output_1: msgspec.Raw
    generator_1: str
    output_2: str
    generator_2: str
    preference: float | str | None
    annotator: str | None = None
    dataset: str | None = None
    balanced_preference: float | None = None
    datasplit: msgspec.Raw = msgspec.Raw()
    price_per_example: msgspec.Raw = msgspec.Raw()
    time_per_example: msgspec.Raw = msgspec.Raw()
    raw_completion: msgspec.Raw = msgspec.Raw()
    referenced_models: msgspec.Raw = msgspec.Raw()


AS_WRITTEN: Final = msgspec.json.Decoder(list[WrittenJudgment])
_BESIDE_ANSWERS: Final = tuple(
    name for name in WrittenJudgment.__struct_fields__ if name not in Judgment.__struct_fields__
)
"""AlpacaEval's columns that nothing here reads and that are no part of an instruction"""


@lru_cache(maxsize=8)
def _strict_decoder(row_type: type[Row]) -> msgspec.json.Decoder:
    """Of a list of rows that have no columns but those of AlpacaEval's and their own."""
    others = [name for name in _BESIDE_ANSWERS if name not in row_type.__struct_fields__]
    fields = [(name, msgspec.Raw, msgspec.Raw()) for name in others]
    gc = row_type.__struct_config__.gc
    strict = msgspec.defstruct(
        row_type.__name__, fields, bases=(row_type,), gc=gc, forbid_unknown_fields=True
    )
    return msgspec.json.Decoder(list[strict])


@lru_cache(maxsize=8)
def _wide_decoder(row_type: type[Row], *, listed: bool = False) -> msgspec.json.Decoder:
    """Of a row, or of a list, with what stands beside an instruction (`raw_rows.BESIDE`)."""
    fields = [(name, Any, None) for name in BESIDE]
    gc = row_type.__struct_config__.gc
    wide = msgspec.defstruct(row_type.__name__, fields, bases=(row_type,), gc=gc)
    return msgspec.json.Decoder(list[wide] if listed else wide)


_beside: Callable[[Any], tuple[Any, ...]] = attrgetter(*BESIDE)
_NOTHING: Final = (None,) * len(BESIDE)


def narrowed(rows: list[Row], row_type: type[Row]) -> list[Row]:
    """The rows as they are typed, without what a decoder has for what stands beside an instruction."""
    return msgspec.convert(rows, list[row_type], from_attributes=True)


def _decode_json(path: Path, content: bytes, row_type: type[Row]) -> list[Row] | None:
    # A board of a thousand models has a million rows, most of them without a column that is looked at again.
    try:
        return _strict_decoder(row_type).decode(content)
    except (msgspec.DecodeError, RecursionError):
        pass
    try:
        rows = _wide_decoder(row_type, listed=True).decode(content)
    except msgspec.ValidationError as error:
        raise _wrong_field(path, error) from error
    except (msgspec.DecodeError, RecursionError) as error:
        return _decode_again(path, content, row_type, error)
    return rows if all(_beside(row) == _NOTHING for row in rows) else None


def _decode_jsonl(path: Path, content: bytes, row_type: type[Row]) -> list[Row] | None:
    decoder = _wide_decoder(row_type)
    rows: list[Any] = []
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            rows.append(decoder.decode(line))
        except msgspec.ValidationError as error:
            raise _wrong_field(path, error, row=number) from error
        except (msgspec.DecodeError, RecursionError) as error:
            again = _decode_again(path, line, row_type, error, line=number)
            if again is None:
                return None
            rows += again
    beside = [_beside(row) for row in rows if type(row) is not row_type]
    return rows if beside.count(_NOTHING) == len(beside) else None


def _decode_csv(path: Path, content: bytes, row_type: type[Row]) -> list[Row]:
    csv.field_size_limit(2**31 - 1)
    reader = csv.DictReader(io.StringIO(content.decode("utf-8"), newline=""), strict=True)
    try:
        require_columns(path, reader.fieldnames)
        if "instruction" not in (reader.fieldnames or ()):
            raise unknown_layout(path, dict.fromkeys(reader.fieldnames or ()))
        return [_csv_row(path, number, raw, row_type) for number, raw in enumerate(reader, start=1)]
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not valid CSV ({error}).") from error


def _csv_row(path: Path, number: int, raw: dict[str, Any], row_type: type[Row]) -> Row:
    if None in raw:
        raise InputError(
            f"{path}, row {number}: more values than the header has columns; quote texts that hold a comma."
        )
    optional = {"preference", "annotator", "dataset", "balanced_preference"}
    values: dict[str, Any] = {
        key: None if value == "" and key in optional else _cell(key, value)
        for key, value in merged_row(path, number, raw).items()
        if key in row_type.__struct_fields__
    }
    if "generator" not in raw:
        values["generator"] = file_model(path)
    try:
        return msgspec.convert(values, row_type)
    except msgspec.ValidationError as error:
        raise _wrong_field(path, error, row=number) from error


def _cell(column: str, text: str) -> str | float:
    """The value of a cell: a number where the column is one; a text that is none is left to the row's type."""
    if column != "balanced_preference":
        return text
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text


DECODERS: dict[str, Callable[[Path, bytes, type], list | None]] = {
    ".json": _decode_json,
    ".jsonl": _decode_jsonl,
    ".csv": _decode_csv,
}
"""by suffix; None where rows hold more beside an instruction than their type does"""


def _encode_csv(rows: Sequence[Generation] | Sequence[Judgment]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=rows[0].__struct_fields__ if rows else ())
    writer.writeheader()
    writer.writerows({key: getattr(row, key) for key in row.__struct_fields__} for row in rows)
    return text.getvalue().encode("utf-8")


ENCODERS: dict[str, Callable[[Sequence], bytes]] = {
    ".json": lambda rows: msgspec.json.format(msgspec.json.encode(rows), indent=2) + b"\n",
    ".jsonl": lambda rows: msgspec.json.Encoder().encode_lines(rows),
    ".csv": _encode_csv,
}
"""by suffix"""


def _wrong_field(
    path: Path, error: msgspec.ValidationError, row: int | None = None, first: int = 1
) -> InputError:
    """msgspec's ``Expected `str`, got `int` - at `$[3].output` `` as a sentence with row and field."""
    what, _, where = str(error).partition(" - at ")
    match = re.search(r"\$(?:\[(\d+)\])?(?:\.(\w+))?", where)
    if match and match[1] is not None:
        row = int(match[1]) + first
    field = f", field {match[2]!r}" if match and match[2] else ""
    place = f"{path}, row {row}{field}" if row else str(path)
    return InputError(f"{place}: {what[0].lower()}{what[1:].replace('`', '')}.")


def _decode_again(
    path: Path, content: bytes, row_type: type[Row], error: Exception, line: int | None = None
) -> list[Row] | None:
    """What the fast decoder refuses: half of a surrogate pair is replaced, since no file can hold it again; anything
    else is an error that names the row where the file breaks, or the NaN that Python's own writer leaves.

    ``line`` is the row's number where ``content`` is one line of a jsonl file.
    """
    first = line or 1
    try:
        rows = json.loads(content)
    except (ValueError, RecursionError) as reason:
        position = reason.pos if isinstance(reason, json.JSONDecodeError) else 0
        before = len(re.findall(r'"instruction"\s*:', content.decode("utf-8")[:position]))
        place = f"row {line}" if line else f"about row {max(1, before)}"
        raise InputError(
            f"{path}, {place}: not valid JSON, cut off or damaged ({error})."
        ) from error
    rows = rows if line is None else [rows]
    for number, row in enumerate(rows if isinstance(rows, list) else [], start=first):
        for field, value in row.items() if isinstance(row, dict) else ():
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(
                    f"{path}, row {number}, field {field!r}: {value} is not valid JSON; write null for a verdict "
                    "that could not be parsed."
                ) from error
    listed = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    if any(row.get(name) is not None for row in listed for name in BESIDE):
        return None
    return converted(path, storable(rows), row_type, first)


def converted(path: Path, rows: Any, row_type: type[Row], first: int = 1) -> list[Row]:
    """Decoded JSON as rows, of which the first has the number ``first``."""
    try:
        return msgspec.convert(rows, list[row_type])
    except msgspec.ValidationError as error:
        raise _wrong_field(path, error, first=first) from error


def require_utf8(path: Path, content: bytes) -> None:
    """What could not be decoded may be no text at all; what could holds none but UTF-8 in the fields that are read."""
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        row = max(1, len(re.findall(rb'"instruction"\s*:', content[: error.start])))
        raise InputError(
            f"{path}, about row {row}: byte {error.start} is not UTF-8; save the file as UTF-8."
        ) from error
