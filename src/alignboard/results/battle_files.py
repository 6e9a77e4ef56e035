"""Rows of comparisons from csv, json, jsonl and parquet files, some at once, as columns."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from alignboard.errors import InputError
from alignboard.extras import require
from alignboard.results.battle_layouts import LAYOUTS
from alignboard.strict_json import RepeatedKeyError, parse_json, require_columns

_ROWS_AT_ONCE = 65_536
_ARROW_ROWS_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class Texts:
    """A column of one batch: its different values, and (n,) which."""

    values: list[str]
    codes: NDArray[np.integer]

    @classmethod
    def of(cls, cells: Iterable[Any]) -> Texts:
        """The texts of some cells, each different one once."""
        known: dict[str, int] = {}
        codes = np.array(
            [known.setdefault("" if c is None else str(c), len(known)) for c in cells], np.int32
        )
        return cls(list(known), codes)


Columns = Mapping[str, Texts | NDArray[np.float64]]


def batches(path: Path) -> Iterator[Columns]:
    """The file's columns, a bounded number of rows at a time."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        yield from _parquet(path)
        return
    if suffix not in {".csv", ".json", ".jsonl"}:
        raise InputError(
            f"{path}: comparisons are read from .csv, .json, .jsonl and .parquet files."
        )
    try:
        rows = _csv_rows(path) if suffix == ".csv" else _json_rows(path)
        while batch := list(itertools.islice(rows, _ROWS_AT_ONCE)):
            yield {name: Texts.of(one.get(name) for one in batch) for name in batch[0]}
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: {error.reason}.") from error
    except csv.Error as error:
        raise InputError(f"{path} cannot be read as csv: {error}.") from error


def _csv_rows(path: Path) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(2**31 - 1)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        require_columns(path, reader.fieldnames)
        for number, row in enumerate(reader, start=1):
            if None in row or None in row.values():
                raise InputError(
                    f"{path}, row {number}: another number of fields than the header has."
                )
            yield row


def _json_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Flat rows of a known layout."""
    for number, row in enumerate(_objects(path), start=1):
        if not isinstance(row, dict):
            raise InputError(f"{path}, row {number}: an object was expected.")
        layout = next((one for one in LAYOUTS if one.fits(row)), None)
        try:
            yield from [row] if layout is None else layout.rows(row)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{path}, row {number}: no comparison of the layout of {layout.name if layout else 'battles'}: "
                f"{error}."
            ) from error


def _objects(path: Path) -> Iterator[Any]:
    place = str(path)
    try:
        if path.suffix.lower() == ".json":
            content = path.read_bytes()
            found = msgspec.json.decode(content)
            _require_once(content, found)
            yield from found if isinstance(found, list) else [found]
            return
        decoder = msgspec.json.Decoder()
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    place = f"{path}, line {number}"
                    row = decoder.decode(line)
                    _require_once(line, row)
                    yield row
    except RepeatedKeyError as error:
        raise InputError(f"{place}: {error}.") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise InputError(f"{place}: no valid JSON ({error}).") from error


def _require_once(content: bytes, found: Any) -> None:
    """Raise `RepeatedKeyError` for a key that is twice in an object; what has as many colons as keys has none."""
    rows = found if isinstance(found, list) else [found]
    if content.count(b'":') != sum(len(row) for row in rows if isinstance(row, dict)):
        parse_json(content)


def _parquet(path: Path) -> Iterator[Columns]:
    require("pyarrow")
    import pyarrow as pa  # noqa: PLC0415 - heavy, and only this format needs it
    import pyarrow.parquet as pq  # noqa: PLC0415 - as above

    try:
        texts = [one.name for one in pq.read_schema(path) if pa.types.is_string(one.type)]
        file = pq.ParquetFile(path, read_dictionary=texts)
        for batch in file.iter_batches(_ARROW_ROWS_AT_ONCE):
            yield {name: _arrow_column(batch.column(name)) for name in batch.schema.names}
    except (
        OSError,
        ValueError,
        pa.ArrowException,
    ) as error:  # damaged pages are met where they are read
        raise InputError(f"{path} cannot be read: {' '.join(str(error).split())}.") from error


def _arrow_column(column: Any) -> Texts | NDArray[np.float64]:
    import pyarrow as pa  # noqa: PLC0415 - as above

    if pa.types.is_floating(column.type) and not column.null_count:
        return column.to_numpy(zero_copy_only=False).astype(np.float64)
    coded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    coded.validate(
        full=True
    )  # which Arrow does not do by itself: a damaged page has places that no value has
    values = ["" if v is None else str(v) for v in coded.dictionary.to_pylist()]
    if not column.null_count:
        return Texts(values, coded.indices.to_numpy())
    codes = coded.indices.fill_null(len(values)).to_numpy(zero_copy_only=False)
    return Texts([*values, ""], codes)
