"""Judgments as the trust report takes them: one table of rows for all judges.

Files are AlpacaEval's ``annotations``; a file may hold several annotators. Beyond AlpacaEval's columns a row may say
what happened when it was judged: ``switched`` (per call, whether ``output_2`` was shown first), ``order_preferences``
(per call, the preference for ``output_2`` in that order, null where not scored), ``mass``, ``status``, ``flags`` and
``price``. Where a row says none of this the order is AlpacaEval's coin (`alignboard.records`); a row with a
status and without ``switched`` was judged without an order, as single ratings are. ``balanced_preference`` is the row's
part in the estimate of `alignboard.stats.second_order`, where the second order was drawn, with the probability
``inclusion``; ``first_turn`` is in the rows of second turns, which are not independent of the first.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from alignboard.errors import InputError, nearest
from alignboard.parallel import fork_map
from alignboard.records import Judgment, is_switched, text_id
from alignboard.reports.judges.columns import Names
from alignboard.results.files import SUFFIXES
from alignboard.results.folder import ResultsFolder
from alignboard.results.formats import read_rows
from alignboard.results.verdict_paths import VerdictFile

STATUSES = ("scored", "unparsed", "refused", "truncated", "failed")
"""the first enters means, the others are counted"""
_WORTH_A_FORK = 64
"""files"""

PairKey: TypeAlias = tuple[int, int, int]
"""digests of the instruction and of the two answers, the smaller answer first"""


class JudgedRow(Judgment, gc=True):
    """A row of ``annotations.json`` with what alignboard's own judges add."""

    switched: list[bool] | None = None
    order_preferences: list[float | None] | None = None
    mass: list[float | None] | None = None
    status: str | None = None
    flags: list[str] | None = None
    price: float | None = None
    inclusion: float | None = None
    first_turn: str | None = None
    """of a second turn: what the conversation began with"""
    price_per_example: float | str | None = None
    """AlpacaEval's own column, in dollars"""


@dataclass(frozen=True)
class Judgments:
    """Rows of one or more judges as columns, each (n,)."""

    judge: Names
    model: Names
    baseline: Names
    instruction: NDArray[np.uint64]
    """what figures are clustered by; the turns of one conversation share it"""
    pair: NDArray[np.uint64]
    """(n, 3) what a `PairKey` holds"""
    mirrored: NDArray[np.bool_]
    """whether `pair` holds the answers in the other order than the row"""
    score: NDArray[np.float64]
    """preference for the model in [0, 1]; NaN unless scored"""
    status: Names
    model_first: NDArray[np.bool_]
    """whether the model's answer was shown first, in the first call"""
    first_score: NDArray[np.float64]
    """`score` of the first call alone"""
    other_score: NDArray[np.float64]
    """`score` of the call in the other order; NaN where there was none, or none that was scored"""
    inclusion: NDArray[np.float64]
    """how probable it was that the second order was asked; 1 where that was not left to chance"""
    balanced: NDArray[np.float64]
    """the row's part in the order-balanced estimate, less 1, where the second order was drawn; may leave [0, 1]"""
    order_recorded: NDArray[np.bool_]
    """False where the order is recomputed from AlpacaEval's coin, or where there was none"""
    ordered: NDArray[np.bool_]
    """whether the two answers were shown in an order at all"""
    asked_both: NDArray[np.bool_]
    longer: NDArray[np.int64]
    """characters by which the model's answer is longer than the baseline's"""
    mass: NDArray[np.float64]
    """least probability that the verdict tokens had together, over the calls; NaN where not recorded"""
    price: NDArray[np.float64]
    flags: Sequence[tuple[str, ...]]

    def __len__(self) -> int:
        return len(self.score)

    def where(self, keep: NDArray[np.bool_] | NDArray[np.intp]) -> Judgments:
        """The rows for which ``keep`` (n,) is true, or those whose numbers it holds."""
        rows = np.flatnonzero(keep) if keep.dtype == np.bool_ else keep
        taken: dict[str, Any] = {
            name: [column[row] for row in rows.tolist()] if name == "flags" else column[rows]
            for name, column in vars(self).items()
        }
        return Judgments(**taken)

    def pair_keys(self, rows: Sequence[int] | None = None) -> list[PairKey]:
        """`pair` as keys, of all rows or of some."""
        pairs = self.pair if rows is None else self.pair[list(rows)]
        return list(map(tuple, pairs.tolist()))

    def canonical_score(self) -> NDArray[np.float64]:
        """(n,) the preference for the second answer of `pair`, so that mirrored rows can be compared."""
        return np.where(self.mirrored, 1 - self.score, self.score)

    def compared(self) -> Judgments:
        """The rows of two different answers: about equal ones there is nothing to ask."""
        return self.where(self.pair[:, 1] != self.pair[:, 2])


_COLUMNS = tuple(Judgments.__dataclass_fields__)
_NAMES = frozenset(["judge", "model", "baseline", "status"])
_IDS = frozenset(["instruction", "pair"])
_Compared: TypeAlias = tuple[str, str, str]
"""judge, model and baseline"""


@dataclass(frozen=True)
class _Met:
    """The rows of one comparison in one file."""

    file: Path
    rows: Judgments
    kept: Sequence[int]


def read_judgments(paths: Sequence[Path]) -> Judgments:
    """The rows of annotation files and results folders; `InputError` where one cannot be read or counts twice."""
    files: dict[Path, VerdictFile | None] = {}
    for path in paths:
        files.update(_files(path))
    parts: list[Judgments] = []
    seen: dict[_Compared, list[_Met]] = defaultdict(list)
    for (file, record), own in zip(files.items(), _all_rows(list(files)), strict=True):
        kept = _new_rows(file, record, own, seen)
        parts.append(own if len(kept) == len(own) else own.where(np.array(kept, dtype=np.intp)))
    return Judgments(**{name: _joined([vars(p)[name] for p in parts]) for name in _COLUMNS})


def _all_rows(files: Sequence[Path]) -> Iterator[Judgments]:
    """The rows of every file, read on all cores, a few files at a time."""
    for first in range(0, len(files), 2 * _WORTH_A_FORK):
        some = files[first : first + 2 * _WORTH_A_FORK]
        yield from fork_map(_file_rows, some, least=_WORTH_A_FORK)


def _file_rows(file: Path) -> Judgments:
    """The rows of a file."""
    values = [_columns(file, number, row) for number, row in enumerate(_read(file), start=1)]
    columns = dict(zip(_COLUMNS, zip(*values, strict=True), strict=True))
    made: dict[str, Any] = {}
    for name, column in columns.items():
        if name in _NAMES:
            made[name] = Names.of(column)
        elif name == "flags":
            made[name] = list(column)
        else:
            made[name] = np.array(column, dtype=np.uint64 if name in _IDS else None)
    return Judgments(**made)


def _joined(parts: Sequence[Any]) -> Any:
    """One column of those of several files."""
    if isinstance(parts[0], Names):
        return Names.joined(parts)
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    return [value for part in parts for value in part]


def _new_rows(
    file: Path,
    record: VerdictFile | None,
    own: Judgments,
    seen: dict[_Compared, list[_Met]],
) -> list[int]:
    """The rows of a file that no other file holds, by number; ``seen`` says where a comparison was met before."""
    of: dict[_Compared, list[int]] = defaultdict(list)
    named = zip(own.judge.tolist(), own.model.tolist(), own.baseline.tolist(), strict=True)
    for row, compared in enumerate(named):
        of[compared].append(row)
    keys, kept = own.pair_keys(), []
    for compared, rows in of.items():
        if record is not None and compared[0] != record.judge:
            raise InputError(
                f"{file}, row {rows[0] + 1}, field 'annotator': {compared[0]!r}, but the folder is that of "
                f"{record.judge!r}; rename one of the two."
            )
        known = {
            key: (met.file, row, met.rows)
            for met in seen[compared]
            for row, key in zip(met.kept, met.rows.pair_keys(met.kept), strict=True)
        }
        new = []
        for row in rows:
            there = known.setdefault(keys[row], (file, row, own))
            if there[2] is own and there[1] == row:
                new.append(row)
            elif not _same_verdict(record, there, own, row):
                raise InputError(
                    f"{file}, row {row + 1}: annotator {compared[0]!r} has judged this pair of {compared[1]!r} "
                    f"before, in {there[0]}, row {there[1] + 1}; remove one of the two, or name the annotators apart."
                )
        seen[compared].append(_Met(file, own, new))
        kept += new
    return sorted(kept)


def _same_verdict(
    record: VerdictFile | None, there: tuple[Path, int, Judgments], own: Judgments, row: int
) -> bool:
    """Whether a row repeats another file's: two sets may share instructions, and a part is of its set."""
    if record is None or record.set is None or there[2] is own:
        return False
    other, at = there[2], there[1]
    scores = float(other.score[at]), float(own.score[row])
    same_score = scores[0] == scores[1] or all(map(math.isnan, scores))
    return same_score and other.status.tolist()[at] == own.status.tolist()[row]


def _files(path: Path) -> dict[Path, VerdictFile | None]:
    """The annotation files that ``path`` means: itself, or all of a results folder with their places."""
    if not path.is_dir():
        if not path.is_file():
            raise InputError(
                f"{path} is neither an annotations file nor a results folder; give one of the two."
            )
        return {path.resolve(): None}
    folder = ResultsFolder(path)
    found = {
        file.path.resolve(): file for model in folder.models for file in folder.verdict_files(model)
    }
    if not found:
        raise InputError(
            f"{path} holds no <model>/[<set>/]<judge>/annotations{'|'.join(SUFFIXES)}; judge its answers first."
        )
    # AlpacaEval's own place first: what other sets repeat of it is left out.
    return {
        path: found[path] for path in sorted(found, key=lambda path: found[path].set is not None)
    }


def _read(path: Path) -> Iterable[JudgedRow]:
    # read_rows decodes into the type it is given; its annotation knows only the two types of every board.
    return cast("list[JudgedRow]", read_rows(path, JudgedRow))


def _columns(path: Path, number: int, row: JudgedRow) -> tuple[Any, ...]:
    """One row of `Judgments`, in the order of its fields."""
    status, score = _status(path, number, row)
    switched = row.switched or [is_switched(row.instruction)]
    calls = _calls(path, number, row, switched, score)
    first_side = switched[0]
    other = [value for side, value in calls[1:] if side != first_side and not math.isnan(value)]
    scored = status == "scored"
    balanced = row.balanced_preference
    if row.inclusion is not None and not 0 < row.inclusion <= 1:
        raise InputError(
            f"{path}, row {number}, field 'inclusion': {row.inclusion!r} is no probability of a second order that was "
            "asked; expected a number above 0, and at most 1."
        )
    masses = [value for value in row.mass or [] if value is not None]
    pair, mirrored = pair_of(row.instruction, row.output_1, row.output_2)
    same = pair[1] == pair[2]  # equal answers read the same in both orders
    ordered = bool(row.switched) or row.status is None
    return (
        row.annotator or path.parent.name,
        row.generator_2,
        row.generator_1,
        pair[0] if row.first_turn is None else text_id(row.first_turn),
        pair,
        mirrored,
        score,
        status,
        first_side,
        calls[0][1] if scored and (ordered or same) else math.nan,
        score if same else other[0] if other and scored else math.nan,
        1.0 if row.inclusion is None else row.inclusion,
        balanced - 1 if scored and balanced is not None else math.nan,
        bool(row.switched),
        ordered,
        same or any(side != first_side for side in switched[1:]),
        len(row.output_2) - len(row.output_1),
        min(masses, default=math.nan),
        _price(path, number, row),
        tuple(sorted(set(row.flags or ()))),
    )


def _status(path: Path, number: int, row: JudgedRow) -> tuple[str, float]:
    """The row's status and its score in [0, 1], NaN unless scored; the two must not contradict each other."""
    preference = preference_of(path, number, row.preference)
    status = row.status or ("unparsed" if math.isnan(preference) else "scored")
    if status not in STATUSES:
        raise InputError(
            f"{path}, row {number}, field 'status': {status!r} is no status"
            f"{nearest(status, STATUSES)}; expected one of {', '.join(STATUSES)}."
        )
    if (status == "scored") == math.isnan(preference):
        raise InputError(
            f"{path}, row {number}, field 'preference': "
            f"{'null' if math.isnan(preference) else repr(row.preference)}, but the status is {status!r}; a scored row "
            "has a preference, any other has null."
        )
    return status, preference - 1


def _calls(
    path: Path, number: int, row: JudgedRow, switched: Sequence[bool], score: float
) -> list[tuple[bool, float]]:
    """Per call, whether the model was shown first and its score."""
    if row.order_preferences is None:
        if len(switched) > 1:
            raise InputError(
                f"{path}, row {number}, field 'order_preferences': missing, but 'switched' names {len(switched)} "
                "calls; write the preference of each call, null where it was not scored."
            )
        return [(switched[0], score)]
    if row.switched is None or len(row.switched) != len(row.order_preferences):
        raise InputError(
            f"{path}, row {number}, field 'order_preferences': {len(row.order_preferences)} calls, but 'switched' "
            f"names {len(row.switched or [])}; both need one entry per call."
        )
    if not row.order_preferences:
        return [(switched[0], score)]
    values = (preference_of(path, number, value) - 1 for value in row.order_preferences)
    return list(zip(switched, values, strict=True))


def preference_of(path: Path, number: int, value: float | str | None) -> float:
    """1 to 2; NaN for null; AlpacaEval's old 0 is a draw."""
    if value is None:
        return math.nan
    try:
        preference = float(value)
    except ValueError:
        preference = math.nan
    if preference == 0:
        return 1.5
    if not 1 <= preference <= 2:
        raise InputError(
            f"{path}, row {number}, field 'preference': {str(value)[:60]!r} is no preference; expected a number from 1 "
            "(output_1) to 2 (output_2), 0 for an old draw, or null."
        )
    return preference


def _price(path: Path, number: int, row: JudgedRow) -> float:
    price = row.price_per_example if row.price is None else row.price
    try:
        return math.nan if price is None else float(price)
    except ValueError:
        raise InputError(
            f"{path}, row {number}, field 'price_per_example': {str(price)[:60]!r} is no number; expected dollars."
        ) from None


def pair_of(instruction: str, output_1: str, output_2: str) -> tuple[PairKey, bool]:
    """The identity of a pair, and whether it holds the answers in the other order."""
    one, two = text_id(output_1), text_id(output_2)
    return (text_id(instruction), min(one, two), max(one, two)), one > two
