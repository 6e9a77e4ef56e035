"""A board of one's own: a csv file with the columns of the published boards, rates and their errors as percentages."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from alignboard.errors import InputError, nearest
from alignboard.published.wheel_boards import PublishedRow

_COLUMNS = {
    "name": "name",
    "model": "name",
    "win_rate": "win_rate",
    "standard_error": "standard_error",
    "length_controlled_winrate": "length_controlled_winrate",
    "length_controlled_win_rate": "length_controlled_winrate",
    "lc_win_rate": "length_controlled_winrate",
    "avg_length": "avg_length",
    "n_total": "n_total",
}
_LIMITS = {
    "win_rate": (0, 100),
    "length_controlled_winrate": (0, 100),
    "standard_error": (0, 50),
    "avg_length": (1, math.inf),
    "n_total": (1, math.inf),
}
# Standard errors are at most those of verdicts that are 0 or 1. Fractions in their place are about a hundredth of that.
_SMALLEST_ERROR = 0.02


def read_own_board(path: Path, n_instructions: int) -> dict[str, PublishedRow]:
    """The board in ``path``, model by model; ``n_instructions`` is for rows that do not say how many they are made of.

    Raises `InputError` that names the row (counted from 1 after the header, without empty lines) and the field. Columns
    that a published board has beside these are passed over, and so are names that resemble none.
    """
    header, *lines = _lines(path)
    columns = _columns(path, header)
    rows: dict[str, PublishedRow] = {}
    for number, line in enumerate(lines, start=1):
        if any(line[len(header) :]):
            raise InputError(
                f"{path}, row {number}: {len(line)} cells, and the header has {len(header)} columns; put text with "
                "commas in double quotes, and write numbers without them."
            )
        values = {name: line[at].strip() for name, at in columns.items() if at < len(line)}
        name = values.get("name", "")
        if not name or name in rows:
            wrong = "has no name" if not name else f"repeats the model {name!r}"
            raise InputError(f"{path}, row {number}: {wrong}; every model takes one row.")
        rows[name] = _row(path, number, name, values)
    if not rows:
        raise InputError(f"{path} holds no rows.")
    _require_percentages(path, list(rows.values()), n_instructions)
    return rows


def _lines(path: Path) -> list[list[str]]:
    """The header and the rows; a file without any has an empty header."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = [line for line in csv.reader(file, strict=True) if any(map(str.strip, line))]
    except OSError as error:
        raise InputError(f"{path} cannot be read as csv: {error.strerror}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path} cannot be read as csv: {' '.join(str(error).split())}."
        ) from error
    return lines or [[]]


def _columns(path: Path, header: list[str]) -> dict[str, int]:
    """Where the columns are that are read."""
    found: dict[str, int] = {}
    titles = [title.strip() for title in header]
    for at, title in enumerate(titles):
        name = _COLUMNS.get(title)
        if name in found:
            raise InputError(
                f"{path}: the columns {titles[found[name]]!r} and {title!r} of the header both hold the {name}; keep "
                "one of them."
            )
        if name is not None:
            found[name] = at
        elif ";" in title or title in PublishedRow.__struct_fields__:
            continue
        elif hint := nearest(title, _LIMITS):
            raise InputError(f"{path}: the column {title!r} is none that is read{hint}")
    # A table written with its index has the models in a column without a title.
    if "name" not in found and "" in titles[:1]:
        found["name"] = 0
    for needed in ("name", "win_rate"):
        if needed not in found:
            raise InputError(
                f"{path}: the header has no column {needed!r}; columns, separated by commas, are name, win_rate, and "
                "where known standard_error, length_controlled_winrate, avg_length, n_total."
            )
    return found


def _row(path: Path, number: int, name: str, values: dict[str, str]) -> PublishedRow:
    found: dict[str, float] = {}
    for column, (low, high) in _LIMITS.items():
        text = values.get(column, "")
        if not text:
            continue
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high or math.isinf(value):
            expected = f"from {low} to {high}" if math.isfinite(high) else f"of at least {low}"
            raise InputError(
                f"{path}, row {number}, field {column!r}: {text[:40]!r}; expected a number {expected}, or nothing "
                "where it is not known."
            )
        found[column] = value
    if "win_rate" not in found:
        raise InputError(f"{path}, row {number}, field 'win_rate': empty; expected a percentage.")
    whole = {key: int(found.pop(key)) for key in ("avg_length", "n_total") if key in found}
    return PublishedRow(
        name,
        win_rate=found["win_rate"],
        standard_error=found.get("standard_error"),
        length_controlled_winrate=found.get("length_controlled_winrate"),
        avg_length=whole.get("avg_length"),
        n_total=whole.get("n_total"),
    )


def _require_percentages(path: Path, rows: list[PublishedRow], n_instructions: int) -> None:
    """Raise `InputError` where a whole column looks like fractions; one row alone tells nothing."""
    for field in ("win_rate", "length_controlled_winrate"):
        rates = [rate for row in rows if (rate := getattr(row, field)) is not None]
        if len(rates) > 1 and max(rates) <= 1:
            raise InputError(
                f"{path}, field {field!r}: no value is above 1; percentages were expected, not fractions."
            )
    shares = []
    for row in rows:
        p = (row.win_rate or 0) / 100
        if row.standard_error and 0 < p < 1:
            most = 100 * math.sqrt(p * (1 - p) / (row.n_total or n_instructions))
            shares.append(row.standard_error / most)
    if len(shares) > 1 and max(shares) < _SMALLEST_ERROR:
        raise InputError(
            f"{path}, field 'standard_error': every value is less than a fiftieth of the error of a share; percentages "
            "were expected, not fractions."
        )
