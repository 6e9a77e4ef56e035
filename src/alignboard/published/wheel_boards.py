"""The published AlpacaEval boards: CSV files inside the installed ``alpaca-eval`` wheel."""

from __future__ import annotations

import csv

import msgspec

from alignboard.errors import InputError
from alignboard.fetch.package_file import package_file


class PublishedRow(msgspec.Struct, frozen=True):
    """One model of a published board; percentages as published, None where the board has no figure."""

    model: str
    win_rate: float | None = None
    standard_error: float | None = None
    n_wins: int | None = None
    n_wins_base: int | None = None
    n_draws: int | None = None
    n_total: int | None = None
    discrete_win_rate: float | None = None
    mode: str | None = None
    avg_length: int | None = None
    length_controlled_winrate: float | None = None
    lc_standard_error: float | None = None


def read_published_board(relative: str) -> dict[str, PublishedRow]:
    """The published board in ``relative`` (a path inside the package), model by model in its own order."""
    path = package_file(relative)
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        rows = {}
        for number, raw in enumerate(reader, start=1):
            values = {
                key or "model": value for key, value in raw.items() if value not in ("", None)
            }
            known = {
                key: value for key, value in values.items() if key in PublishedRow.__struct_fields__
            }
            try:
                row = msgspec.convert(_whole_numbers(known), PublishedRow, strict=False)
            except msgspec.ValidationError as error:
                raise InputError(f"{path}, row {number}: {error}.") from error
            rows[row.model] = row
    return rows


def _whole_numbers(values: dict[str, str]) -> dict[str, str]:
    """Counts such as ``805.0`` (pandas writes them so beside missing ones) without their fraction."""
    counts = {"n_wins", "n_wins_base", "n_draws", "n_total", "avg_length"}
    return {
        key: value.removesuffix(".0") if key in counts else value for key, value in values.items()
    }
