"""AlpacaEval's files in and out: ``model_outputs`` and ``annotations`` as json, jsonl or csv.

Reading is strict: whatever a board could silently get wrong (a duplicate instruction, a missing row, a preference
that is none, another generator, mixed baselines) raises `InputError` that names the file, the row (counted from
1) and the field. Files are UTF-8. Fields that boards do not use, such as the judge's raw completion, are skipped
without being decoded.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from alignboard.errors import InputError
from alignboard.records import (
    Annotations,
    Generation,
    Judgment,
    Outputs,
    TextId,
    is_switched,
    text_id,
)
from alignboard.results.files import SUFFIXES, read_file, write_atomically
from alignboard.results.raw_rows import BESIDE, file_model, merged_row, merged_rows, unknown_layout
from alignboard.text import storable

Row = TypeVar("Row", bound=Generation | Judgment)

_DRAW_OF_OLD_FILES = 0.0


def read_outputs(
    path: Path, *, generator: str | None = None, instructions: TextId | None = None
) -> Outputs:
    """The answers of one model.

    ``generator`` and ``instructions``, where given, are what the file must hold: another generator or a missing
    instruction raises `InputError`.
    """
    rows = read_rows(path, Generation)
    _require_one(path, "generator", [row.generator for row in rows])
    if generator is not None:
        _require_name(path, "generator", rows[0].generator, generator)
    ids = _unique_instructions(path, rows)
    if instructions is not None:
        _require_all(path, ids, instructions)
    return Outputs(
        path=str(path),
        generator=rows[0].generator,
        instruction=ids,
        output=_ids(row.output for row in rows),
        length=np.array([len(row.output) for row in rows], dtype=np.int32),
        blank=np.array([not row.output.strip() for row in rows], dtype=np.bool_),
        cut=np.array([row.finish == "length" for row in rows], dtype=np.bool_),
    )


def read_annotations(
    path: Path,
    *,
    generator: str | None = None,
    baseline: str | None = None,
    instructions: TextId | None = None,
) -> Annotations:
    """The verdicts on one model against one baseline.

    A verdict of 0 is a draw in old files and becomes 1.5; null is unparsed and becomes NaN. ``generator``,
    ``baseline`` and ``instructions``, where given, are what the file must hold.
    """
    rows = read_rows(path, Judgment)
    _require_one(path, "generator_1", [row.generator_1 for row in rows])
    _require_one(path, "generator_2", [row.generator_2 for row in rows])
    if generator is not None:
        _require_name(path, "generator_2", rows[0].generator_2, generator)
    if baseline is not None:
        _require_name(path, "generator_1", rows[0].generator_1, baseline)
    ids = _unique_instructions(path, rows)
    if instructions is not None:
        _require_all(path, ids, instructions)
    annotators = sorted({row.annotator for row in rows if row.annotator})
    columns = (
        ids,
        _ids(row.output_1 for row in rows),
        _ids(row.output_2 for row in rows),
        np.array(
            [
                preference_value(path, number, row.preference)
                for number, row in enumerate(rows, start=1)
            ]
        ),
    )
    preference = columns[3]
    drawn = any(row.balanced_preference is not None for row in rows)
    balanced = (
        np.array([row.balanced_preference for row in rows], np.float64) if drawn else preference
    )
    return Annotations(
        path=str(path),
        annotator=" + ".join(annotators) or path.parent.name,
        generator=rows[0].generator_2,
        baseline=rows[0].generator_1,
        digest=_digest(*columns, *([balanced] if drawn else [])),
        instruction=columns[0],
        output_1=columns[1],
        output_2=columns[2],
        preference=preference,
        balanced=balanced,
        length_1=np.array([len(row.output_1) for row in rows], dtype=np.int32),
        length_2=np.array([len(row.output_2) for row in rows], dtype=np.int32),
        switched=np.array([is_switched(row.instruction) for row in rows], dtype=np.bool_),
    )


def read_rows(path: Path, row_type: type[Row]) -> list[Row]:
    """The rows of a file as they are; at least one."""
    content = read_file(path)
    if not content or content.isspace():
        raise InputError(
            f"{path} is empty; a {'list of rows' if path.suffix == '.json' else 'row'} was expected."
        )
    content = content.removeprefix(codecs.BOM_UTF8)
    decode = _DECODERS.get(path.suffix)
    if decode is None:
        raise InputError(f"{path} has none of the formats that are read: {', '.join(SUFFIXES)}.")
    try:
        unnamed = row_type is Generation and b'"generator"' not in content
        rows = None if unnamed and path.suffix != ".csv" else decode(path, content, row_type)
    except (InputError, UnicodeDecodeError):
        _require_utf8(path, content)
        raise
    if rows is None:
        rows = _converted(path, merged_rows(path), row_type)
    if not rows:
        raise InputError(f"{path} holds no rows.")
    return rows


def write_rows(path: Path, rows: Sequence[Generation] | Sequence[Judgment]) -> None:
    """Write rows as ``path``'s suffix says, atomically: a reader sees the old file or the whole new one."""
    encode = _ENCODERS.get(path.suffix)
    if encode is None:
        raise InputError(f"{path} has none of the formats that are written: {', '.join(SUFFIXES)}.")
    write_atomically(path, encode(rows))


# Decoding. The fast decoder says what is wrong only by a byte or a path; a second, slower look finds the row.


@lru_cache(maxsize=8)
def _decoders(row_type: type[Row]) -> tuple[msgspec.json.Decoder, msgspec.json.Decoder]:
    """Of a list of rows and of one row, with what may stand beside an instruction (`raw_rows.BESIDE`)."""
    beside = [(name, Any, None) for name in BESIDE]
    wide = msgspec.defstruct(
        row_type.__name__, beside, bases=(row_type,), gc=row_type.__struct_config__.gc
    )
    return msgspec.json.Decoder(list[wide]), msgspec.json.Decoder(wide)


_beside: Callable[[Any], tuple[Any, ...]] = attrgetter(*BESIDE)


def _narrow(rows: list[Any], row_type: type[Row]) -> list[Row] | None:
    """The decoded rows as they are typed; None where an instruction is more than its column."""
    wide = (row for row in rows if type(row) is not row_type)
    if any(value is not None for row in wide for value in _beside(row)):
        return None
    return msgspec.convert(rows, list[row_type], from_attributes=True)


def _decode_json(path: Path, content: bytes, row_type: type[Row]) -> list[Row] | None:
    try:
        return _narrow(_decoders(row_type)[0].decode(content), row_type)
    except msgspec.ValidationError as error:
        raise _wrong_field(path, error) from error
    except (msgspec.DecodeError, RecursionError) as error:
        return _decode_again(path, content, row_type, error)


def _decode_jsonl(path: Path, content: bytes, row_type: type[Row]) -> list[Row] | None:
    decoder = _decoders(row_type)[1]
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
    return _narrow(rows, row_type)


def _decode_csv(path: Path, content: bytes, row_type: type[Row]) -> list[Row]:
    csv.field_size_limit(2**31 - 1)
    reader = csv.DictReader(io.StringIO(content.decode("utf-8"), newline=""), strict=True)
    try:
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


_DECODERS: dict[str, Callable[[Path, bytes, type], list | None]] = {
    ".json": _decode_json,
    ".jsonl": _decode_jsonl,
    ".csv": _decode_csv,
}


def _encode_csv(rows: Sequence[Generation] | Sequence[Judgment]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=rows[0].__struct_fields__ if rows else ())
    writer.writeheader()
    writer.writerows({key: getattr(row, key) for key in row.__struct_fields__} for row in rows)
    return text.getvalue().encode("utf-8")


_ENCODERS: dict[str, Callable[[Sequence], bytes]] = {
    ".json": lambda rows: msgspec.json.format(msgspec.json.encode(rows), indent=2) + b"\n",
    ".jsonl": lambda rows: msgspec.json.Encoder().encode_lines(rows),
    ".csv": _encode_csv,
}


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
    return _converted(path, storable(rows), row_type, first)


def _converted(path: Path, rows: Any, row_type: type[Row], first: int = 1) -> list[Row]:
    try:
        return msgspec.convert(rows, list[row_type])
    except msgspec.ValidationError as error:
        raise _wrong_field(path, error, first=first) from error


def _require_utf8(path: Path, content: bytes) -> None:
    """What could not be decoded may be no text at all; what could holds none but UTF-8 in the fields that are read."""
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        row = max(1, len(re.findall(rb'"instruction"\s*:', content[: error.start])))
        raise InputError(
            f"{path}, about row {row}: byte {error.start} is not UTF-8; save the file as UTF-8."
        ) from error


# Validation of what was decoded.


def preference_value(path: Path, row: int, value: float | str | None) -> float:
    """The preference of a row: NaN where it was not parsed; raises `InputError` for what is none."""
    if value is None:
        return math.nan
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if number == _DRAW_OF_OLD_FILES:
        return 1.5
    if not 1 <= number <= 2:
        shown = _short(value) if isinstance(value, str) else repr(value)
        raise InputError(
            f"{path}, row {row}, field 'preference': {shown} is no preference; expected a number from 1 "
            "(baseline) to 2 (model), 0 for an old draw, or null for an unparsed verdict."
        )
    return number


def _unique_instructions(path: Path, rows: Sequence[Generation] | Sequence[Judgment]) -> TextId:
    first: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        earlier = first.setdefault(row.instruction, number)
        if earlier != number:
            raise InputError(
                f"{path}, row {number}, field 'instruction': the same instruction as in row {earlier} "
                f"({_short(row.instruction)}); remove one of the two."
            )
    return _ids(first)


def _require_one(path: Path, field: str, values: Sequence[str]) -> None:
    for number, value in enumerate(values, start=1):
        if value != values[0]:
            raise InputError(
                f"{path}, row {number}, field {field!r}: {value!r}, but row 1 has {values[0]!r}; "
                "split the file, one model and one baseline each."
            )


def _require_name(path: Path, field: str, found: str, expected: str) -> None:
    if found != expected:
        raise InputError(
            f"{path}, row 1, field {field!r}: {found!r}, but {expected!r} was expected."
        )


def _require_all(path: Path, ids: TextId, expected: TextId) -> None:
    missing = np.flatnonzero(~np.isin(expected, ids))
    if len(missing):
        raise InputError(
            f"{path} lacks {len(missing)} of {len(expected)} instructions, the first is number {missing[0] + 1} of "
            "the reference set; add the missing rows."
        )


def _ids(texts: Iterable[str]) -> NDArray[np.uint64]:
    return np.array([text_id(text) for text in texts], dtype=np.uint64)


def _digest(*columns: np.ndarray) -> str:
    return hashlib.blake2b(
        b"".join(column.tobytes() for column in columns), digest_size=16
    ).hexdigest()


def _short(text: str, width: int = 60) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= width else line[: width - 3] + "...")
