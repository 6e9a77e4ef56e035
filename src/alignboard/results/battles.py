"""Comparisons of models from files: csv, jsonl, json and parquet, read in batches and encoded as they come."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alignboard.errors import InputError, nearest
from alignboard.results.battle_files import Columns, Texts, batches
from alignboard.stats.rating.battles import Battles, Sums, added_up

_LABELS = {"model_a": 1.0, "a": 1.0, "tie": 0.5, "model_b": 0.0, "b": 0.0}
_BOTH_BAD = ("tie (bothbad)", "both_bad", "bothbad")
_UNSCORED = ("", "error")
_PROMPT = ("prompt_id", "question_id", "uid")
_PLACES = {"model_a": 1, "a": 1, "1": 1, "model_b": -1, "b": -1, "2": -1, "": 0}
_NEEDED = ("model_a", "model_b", "winner")


@dataclass(frozen=True)
class BattleTable:
    """Scored comparisons as encoded columns, and what was left out."""

    models: tuple[str, ...]
    battles: Battles
    """clustered by ``cluster``"""
    fields: Mapping[str, NDArray]
    """(n,) numbers of the values of other columns: prompts, annotators, judges; by field"""
    names: Mapping[str, tuple[str, ...]]
    """the values themselves, by field"""
    position: NDArray[np.float64] | None
    """(n,) 1: the first was shown first, -1: the second, 0: not known; None: no such column"""
    features: Mapping[str, NDArray[np.float64]]
    """(n,) first minus second over their sum, such as of lengths; by name"""
    unusable: Mapping[str, str]
    """pairs of columns that hold numbers, but not everywhere, or none that can be a length: what is wrong, by name"""
    n_rows: int
    n_unscored: int
    n_both_bad: int
    """draws because neither response was any good; they count as draws"""

    @cached_property
    def sums(self) -> Sums:
        """Points and comparisons by pair, and by cluster where these are few enough."""
        return added_up(self.battles, len(self.models))


def read_battles(paths: Sequence[Path], cluster: str | None = None) -> BattleTable:
    """All comparisons of ``paths``, in bounded memory.

    Parameters
    ----------
    paths
        Files with ``model_a, model_b, winner``, or verdicts of AlpacaEval, FastChat (pairs) or Arena-Hard.
    cluster
        The field whose equal values are dependent; None: the prompt, else every row its own.

    Raises
    ------
    InputError
        Naming file, row and field, for what is no comparison: an unknown label, a model against itself, no number.
    """
    table = _Table()
    for path in paths:
        first = 1
        for columns in batches(path):
            first += table.add(path, first, columns)
    return table.finished(paths[0], cluster)


@dataclass
class _Coded:
    """Texts as numbers, in the order of their first appearance."""

    numbers: dict[str, int] = field(default_factory=dict)
    parts: list[NDArray[np.int32]] = field(default_factory=list)

    def add(self, values: Texts, keep: _Kept) -> None:
        known = self.numbers
        places = np.array([known.setdefault(v, len(known)) for v in values.values], np.int32)
        self.parts.append(places[values.codes][keep])

    def column(self) -> NDArray[np.int32]:
        found = np.concatenate(self.parts)
        self.parts.clear()
        return found


_Kept = NDArray[np.bool_] | slice
"""rows that were scored; a slice of all copies nothing"""


class _Table:
    """What the batches hold so far."""

    def __init__(self) -> None:
        self.models = _Coded()
        self.fields: dict[str, _Coded] = {}
        self.score: list[NDArray[np.float64]] = []
        self.weight: list[NDArray[np.float64]] = []
        self.position: list[NDArray[np.float64]] = []
        self.features: dict[str, list[NDArray[np.float64]]] = {}
        self.unusable: dict[str, str] = {}
        self.n_rows = self.n_unscored = self.n_both_bad = 0
        self.shape: tuple[str, ...] | None = None

    def add(self, path: Path, row: int, columns: Columns) -> int:
        """Add a batch whose first row is ``row``; returns the number of its rows."""
        self._require_shape(path, columns)
        one, two, winner = (_texts(columns[name]) for name in _NEEDED)
        n = len(one.codes)
        score = _scores(path, row, winner)
        bad = np.flatnonzero([value in _BOTH_BAD for value in winner.values])
        for name, texts in (("model_a", one), ("model_b", two)):
            if "" in texts.values:
                at = row + int(np.flatnonzero(texts.codes == texts.values.index(""))[0])
                raise InputError(f"{path}, row {at}, field {name!r}: no model is named.")
        scored = ~np.isnan(score)
        keep = slice(None) if scored.all() else scored
        self.n_rows += n
        self.n_unscored += n - int(scored.sum())
        self.n_both_bad += int(np.isin(winner.codes, bad).sum()) if len(bad) else 0
        self.models.add(one, keep)
        self.models.add(two, keep)
        own = self.models.parts[-2] == self.models.parts[-1]
        if own.any():
            at = row + int(np.flatnonzero(scored)[np.flatnonzero(own)[0]])
            raise InputError(f"{path}, row {at}: a model is compared with itself; remove the row.")
        self.score.append(score[keep])
        self._add_others(path, row, columns, keep)
        return n

    def _add_others(self, path: Path, row: int, columns: Columns, keep: _Kept) -> None:
        for name, column in columns.items():
            if name in _NEEDED:
                continue
            if name == "weight":
                weight = _numbers(path, row, name, column)
                usable = (weight > 0) & np.isfinite(weight)
                bad = np.arange(len(weight))[keep][~usable[keep]]
                if len(bad):
                    raise InputError(
                        f"{path}, row {row + bad[0]}, field 'weight': {weight[bad[0]]:g}, a number above 0 expected."
                    )
                self.weight.append(weight[keep])
            elif name == "position":
                self.position.append(_places(path, row, _texts(column))[keep])
            elif name.endswith("_a") and f"{name[:-2]}_b" in columns:
                self._add_feature(path, row, name[:-2], columns, keep)
            elif not (name.endswith("_b") and f"{name[:-2]}_a" in columns):
                self.fields.setdefault(name, _Coded()).add(_texts(column), keep)

    def _add_feature(self, path: Path, row: int, name: str, columns: Columns, keep: _Kept) -> None:
        """The difference of two columns; a fault in them stops only who asks for it."""
        sides = [f"{name}_{side}" for side in "ab"]
        if not self.features.get(name) and all(_holds_no_number(columns[one]) for one in sides):
            return  # texts, such as the responses themselves
        try:
            a, b = (_lengths(path, row, one, columns[one]) for one in sides)
        except InputError as error:
            self.unusable.setdefault(name, str(error))
            return
        total = np.where(a + b == 0, 1, a + b)
        self.features.setdefault(name, []).append(((a - b) / total)[keep])

    def _require_shape(self, path: Path, columns: Columns) -> None:
        for name in _NEEDED:
            if name not in columns:
                raise InputError(
                    f"{path} has no field {name!r}{nearest(name, list(columns)) or '.'} Expected are model_a, model_b "
                    "and winner, or files of AlpacaEval, FastChat or Arena-Hard."
                )
        shape = tuple(sorted(columns))
        if self.shape not in {None, shape}:
            raise InputError(
                f"{path} has other fields than the rows before; give files of one layout."
            )
        self.shape = shape

    def finished(self, path: Path, cluster: str | None) -> BattleTable:
        """The table, clustered by ``cluster``."""
        if not self.score or not sum(map(len, self.score)):
            raise InputError(f"{path}: no comparison was scored, so there is nothing to rank.")
        fields = {name: coded.column() for name, coded in self.fields.items()}
        wanted = cluster or next((name for name in _PROMPT if name in fields), None)
        if wanted is not None and wanted not in fields:
            raise InputError(
                f"{path} has no field {wanted!r} to cluster by{nearest(wanted, list(fields)) or '.'}"
            )
        sides = self.models.parts
        first, second = np.concatenate(sides[::2]), np.concatenate(sides[1::2])
        score = np.concatenate(self.score)
        battles = Battles(
            first,
            second,
            score,
            np.arange(len(score)) if wanted is None else fields[wanted],
            np.concatenate(self.weight) if self.weight else None,
        )
        return BattleTable(
            models=tuple(self.models.numbers),
            battles=battles,
            fields=fields,
            names={name: tuple(coded.numbers) for name, coded in self.fields.items()},
            position=np.concatenate(self.position) if self.position else None,
            features={
                name: np.concatenate(parts)
                for name, parts in self.features.items()
                if name not in self.unusable
            },
            unusable=self.unusable,
            n_rows=self.n_rows,
            n_unscored=self.n_unscored,
            n_both_bad=self.n_both_bad,
        )


def _scores(path: Path, row: int, winner: Texts) -> NDArray[np.float64]:
    """(n,) points of the first; NaN = not scored."""
    table = np.array([_score(value) for value in winner.values])
    unknown = np.flatnonzero(np.isinf(table)[winner.codes])
    if len(unknown):
        value = winner.values[winner.codes[unknown[0]]]
        raise InputError(
            f"{path}, row {row + unknown[0]}, field 'winner': {value!r}; expected model_a, model_b, tie, both_bad, or "
            "the first one's share from 0 to 1."
        )
    return table[winner.codes]


def _score(value: str) -> float:
    if value in _LABELS:
        return _LABELS[value]
    if value in _BOTH_BAD:
        return 0.5
    if value in _UNSCORED:
        return math.nan
    try:
        number = float(value)
    except ValueError:
        return math.inf
    return number if 0 <= number <= 1 else math.inf


def _places(path: Path, row: int, column: Texts) -> NDArray[np.float64]:
    table = np.array([_PLACES.get(value, math.inf) for value in column.values], np.float64)
    unknown = np.flatnonzero(np.isinf(table)[column.codes])
    if len(unknown):
        value = column.values[column.codes[unknown[0]]]
        raise InputError(
            f"{path}, row {row + unknown[0]}, field 'position': {value!r}; expected which was shown first, "
            "model_a or model_b."
        )
    return table[column.codes]


def _texts(column: Texts | NDArray[np.float64]) -> Texts:
    return column if isinstance(column, Texts) else Texts.of(column.tolist())


def _numbers(
    path: Path, row: int, name: str, column: Texts | NDArray[np.float64]
) -> NDArray[np.float64]:
    if not isinstance(column, Texts):
        return column
    found = []
    for value in column.values:
        try:
            found.append(float(value))
        except ValueError:
            at = row + int(np.flatnonzero(column.codes == column.values.index(value))[0])
            raise InputError(
                f"{path}, row {at}, field {name!r}: {value!r}, a number was expected."
            ) from None
    return np.array(found)[column.codes]


def _holds_no_number(column: Texts | NDArray[np.float64]) -> bool:
    return isinstance(column, Texts) and not any(map(_is_number, column.values))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _lengths(
    path: Path, row: int, name: str, column: Texts | NDArray[np.float64]
) -> NDArray[np.float64]:
    """Numbers of which a sum makes sense: finite, none below 0."""
    found = _numbers(path, row, name, column)
    wrong = np.flatnonzero(~(np.isfinite(found) & (found >= 0)))
    if len(wrong):
        raise InputError(
            f"{path}, row {row + wrong[0]}, field {name!r}: {found[wrong[0]]:g}; a length or count was expected."
        )
    return found
