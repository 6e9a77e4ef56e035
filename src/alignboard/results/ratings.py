"""Ratings of single outputs, ``ratings.json``: where they lie, and how they are read for a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from alignboard.errors import InputError
from alignboard.results.files import read_file
from alignboard.results.raw_rows import raw_rows
from alignboard.results.verdict_paths import judge_folder
from alignboard.workspace import model_name

RATINGS: Final = "ratings.json"
_TURNS_APART: Final = "\n\n"
"""stands between the questions of two turns"""


class _Row(msgspec.Struct):
    instruction: str
    generator: str
    annotator: str
    rating: float | None
    turn: int = 1


@dataclass(frozen=True)
class RatedOutputs:
    """One judge's ratings of one model's outputs, in the order of the file."""

    path: Path
    judge: str
    generator: str
    instruction: tuple[str, ...]
    """of a second turn both questions"""
    conversation: tuple[str, ...]
    """the first question, which the turns of a conversation share"""
    rating: NDArray[np.float64]
    """(n,) on the judge's scale; NaN where there is none"""

    def fraction(self, scale: tuple[float, float]) -> NDArray[np.float64]:
        """(n,) the ratings as fractions of ``scale``; raises `InputError` for one that lies outside."""
        low, high = scale
        outside = np.flatnonzero((self.rating < low) | (self.rating > high))
        if len(outside):
            row = int(outside[0])
            raise InputError(
                f"{self.path}, row {row + 1}, field 'rating': {self.rating[row]:g} is not between {low:g} and "
                f"{high:g}, the scale of {self.judge!r}; rate again, or mend the judge's file."
            )
        return (self.rating - low) / (high - low)


def is_ratings(path: Path) -> bool:
    """Whether ``path`` holds ratings of single outputs: rows with a rating, and no preference."""
    content = read_file(path)
    return b'"rating"' in content and b'"preference"' not in content


def read_ratings(path: Path) -> RatedOutputs:
    """The ratings of one model by one judge; raises `InputError` that names the row and the field."""
    rows = []
    for number, raw in enumerate(raw_rows(path), start=1):
        try:
            rows.append(msgspec.convert(raw, _Row))
        except msgspec.ValidationError as error:
            raise InputError(
                f"{path}, row {number}: {error}; a rating's row holds instruction, generator, annotator and rating."
            ) from error
    if not rows:
        raise InputError(f"{path} holds no rows.")
    for field in ("generator", "annotator"):
        _require_one(path, field, [getattr(row, field) for row in rows])
    _require_each_once(path, [row.instruction for row in rows])
    opening = {row.instruction for row in rows if row.turn == 1}
    return RatedOutputs(
        path,
        rows[0].annotator,
        rows[0].generator,
        tuple(row.instruction for row in rows),
        tuple(_opening(row, opening) for row in rows),
        np.array([row.rating for row in rows], dtype=np.float64),
    )


def rating_files(
    results: Path, models: Sequence[str], judge: str, set_name: str | None = None
) -> dict[str, Path]:
    """The ratings by ``judge`` of every model, on one set; model -> file. Empty where some model has none.

    Raises `InputError` where the models share several sets, or none.
    """
    by_model: dict[str, dict[str, Path]] = {}
    for model in models:
        folder = results / model_name(model)
        below = [path for path in sorted(folder.glob("*/")) if path.is_dir()]
        by_model[model] = {
            name: path
            for name, place in (("alpaca-eval", folder), *((one.name, one) for one in below))
            if (path := place / judge_folder(judge, None) / RATINGS).is_file()
            and set_name in (None, name)
        }
    if not all(by_model.values()):
        return {}
    shared = sorted(set.intersection(*map(set, by_model.values())))
    if len(shared) != 1:
        raise InputError(
            f"The models share {'several sets' if shared else 'no set'} of ratings by {judge!r}"
            + (f" ({', '.join(shared)}): name one by --set." if shared else ".")
        )
    return {model: found[shared[0]] for model, found in by_model.items()}


def _opening(row: _Row, opening: set[str]) -> str:
    """The first question of the conversation that a row belongs to; its own where that was not rated."""
    parts = row.instruction.split(_TURNS_APART) if row.turn > 1 else []
    for end in range(len(parts) - 1, 0, -1):
        if (first := _TURNS_APART.join(parts[:end])) in opening:
            return first
    return row.instruction


def _require_one(path: Path, field: str, values: Sequence[str]) -> None:
    for number, value in enumerate(values, start=1):
        if value != values[0]:
            raise InputError(
                f"{path}, row {number}, field {field!r}: {value!r}, but row 1 has {values[0]!r}; split the file, one "
                "model and one judge each."
            )


def _require_each_once(path: Path, texts: Sequence[str]) -> None:
    first: dict[str, int] = {}
    for number, text in enumerate(texts, start=1):
        if first.setdefault(text, number) != number:
            raise InputError(
                f"{path}, row {number}, field 'instruction': the same instruction as in row {first[text]}; remove one "
                "of the two."
            )
