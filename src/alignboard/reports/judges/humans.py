"""The labels of humans that judges are held to, as AlpacaFarm's cross-annotations have them."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec

from alignboard.errors import InputError
from alignboard.reports.judges.judgments import PairKey, pair_of
from alignboard.results.files import read_file
from alignboard.results.formats import preference_value


class HumanRow(msgspec.Struct):
    """One label of one human on one pair."""

    instruction: str
    output_1: str
    output_2: str
    preference: float | str | None
    annotator: str | int | None = None
    annotator_index: int | str | None = None


def read_human(path: Path) -> dict[PairKey, list[float]]:
    """The votes of humans on each pair, 1 to 2 for the second answer of the `PairKey`.

    A json list of rows ``instruction``, ``output_1``, ``output_2``, ``preference`` and ``annotator`` or
    ``annotator_index``, several per pair (AlpacaFarm's cross-annotations). Rows without a preference are skipped.
    """
    rows = _rows(path)
    votes: dict[PairKey, list[float]] = {}
    seen: dict[tuple[PairKey, str], int] = {}
    for number, row in enumerate(rows, start=1):
        pair, mirrored = pair_of(row.instruction, row.output_1, row.output_2)
        who = row.annotator_index if row.annotator_index is not None else row.annotator
        if who is not None:
            earlier = seen.setdefault((pair, str(who)), number)
            if earlier != number:
                raise InputError(
                    f"{path}, row {number}, field 'annotator': annotator {who!r} has labelled the pair before, in "
                    f"row {earlier}; number the labels by annotator_index, or remove one."
                )
        preference = preference_value(path, number, row.preference)
        if not math.isnan(preference):
            votes.setdefault(pair, []).append(3 - preference if mirrored else preference)
    if not votes:
        raise InputError(f"{path}, field 'preference': null in every row; a label takes 1 or 2.")
    return votes


def _rows(path: Path) -> list[HumanRow]:
    content = read_file(path)
    try:
        rows = msgspec.json.decode(content, type=list[HumanRow])
    except (UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not readable JSON: {error}.") from error
    except msgspec.DecodeError as error:
        what, _, where = str(error).partition(" - at `$[")
        number, _, rest = where.partition("]")
        field = rest.strip("`.")
        place = f", row {int(number) + 1}" if number.isdigit() else ""
        raise InputError(
            f"{path}{place}{f', field {field!r}' if field else ''}: {what.replace('`', '')}; expected a json list of "
            "rows with instruction, output_1, output_2, preference and annotator_index."
        ) from error
    if not rows:
        raise InputError(f"{path} holds no rows.")
    return rows
