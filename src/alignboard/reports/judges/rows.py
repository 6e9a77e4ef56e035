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

from alignboard.errors import InputError
from alignboard.parallel import fork_map
from alignboard.reports.judges.columns import Names
from alignboard.reports.judges.judgments import (
    COLUMNS,
    IDS,
    NAMES,
    JudgedRow,
    Judgments,
    columns_of,
)
from alignboard.results.files import SUFFIXES
from alignboard.results.folder import ResultsFolder
from alignboard.results.formats import read_rows
from alignboard.results.verdict_paths import VerdictFile

_WORTH_A_FORK = 64
"""files"""


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
    return Judgments(**{name: _joined([vars(p)[name] for p in parts]) for name in COLUMNS})


def _all_rows(files: Sequence[Path]) -> Iterator[Judgments]:
    """The rows of every file, read on all cores, a few files at a time."""
    for first in range(0, len(files), 2 * _WORTH_A_FORK):
        some = files[first : first + 2 * _WORTH_A_FORK]
        yield from fork_map(_file_rows, some, least=_WORTH_A_FORK)


def _file_rows(file: Path) -> Judgments:
    """The rows of a file."""
    values = [columns_of(file, number, row) for number, row in enumerate(_read(file), start=1)]
    columns = dict(zip(COLUMNS, zip(*values, strict=True), strict=True))
    made: dict[str, Any] = {}
    for name, column in columns.items():
        if name in NAMES:
            made[name] = Names.of(column)
        elif name == "flags":
            made[name] = list(column)
        else:
            made[name] = np.array(column, dtype=np.uint64 if name in IDS else None)
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
