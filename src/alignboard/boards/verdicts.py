"""The verdicts of a results folder: one file for each model, judge, set and baseline, and what was recorded of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from alignboard.errors import InputError
from alignboard.records import Annotations
from alignboard.results.cache import TableCache
from alignboard.results.files import UNREADABLE
from alignboard.results.outputs_paths import ALPACA_EVAL
from alignboard.results.verdict_paths import AGAINST, VerdictFile, judge_folder, verdict_files

_FAILED = ("refused", "truncated", "failed")


class JudgingRecord(msgspec.Struct):
    """What a ``judging.json`` says beside the verdicts (`alignboard.judges.annotations.Summary`)."""

    statuses: dict[str, int] = {}
    price: float | None = None
    """US dollars"""
    n_both: int = 0
    n_consistent: int = 0

    @property
    def n_failed(self) -> int:
        """The pairs without a usable reply."""
        return sum(self.statuses.get(status, 0) for status in _FAILED)


@dataclass(frozen=True)
class Verdicts:
    """One file of verdicts, and what its place and its rows say of it."""

    model: str
    judge: str
    set: str
    baseline: str
    table: Annotations
    record: JudgingRecord | None
    """what was written beside them; None of other tools' verdicts"""

    @property
    def column(self) -> tuple[str, str, str]:
        """What makes a column: judge, set, baseline."""
        return self.judge, self.set, self.baseline


def find_verdicts(folders: dict[str, Path], cache: TableCache) -> list[Verdicts]:
    """Every file of verdicts below the models' ``folders``."""
    files = [file for folder in folders.values() for file in verdict_files(folder)]
    tables = cache.read_all([(file.path.resolve(), Annotations) for file in files])
    found: dict[tuple[str, ...], Verdicts] = {}
    for file, table in zip(files, tables, strict=True):
        if isinstance(table, Annotations):
            one = _agreed(file, table)
            other = found.setdefault((one.model, *one.column), one)
            if other is not one:
                raise InputError(
                    f"{file.path} and {other.table.path} are both verdicts of {one.judge} on {one.model} against "
                    f"{one.baseline}; keep one of them."
                )
    return list(found.values())


def _agreed(file: VerdictFile, table: Annotations) -> Verdicts:
    """The verdicts of ``file``, whose folder and rows must name the same judge and baseline."""
    named = [name for name in table.annotator.split(" + ") if name]
    if len(named) == 1 and named[0] not in {file.judge, file.path.parent.name}:
        raise InputError(
            f"{file.path}: its rows are by the annotator {named[0]!r}, but its folder is that of {file.judge!r}; "
            "rename one of the two."
        )
    if file.baseline is not None and file.baseline not in {
        table.baseline,
        _folder_name(table.baseline),
    }:
        raise InputError(
            f"{file.path}, row 1, field 'generator_1': {table.baseline!r}, but its folder names the baseline "
            f"{file.baseline!r}; rename one of the two."
        )
    return Verdicts(
        model=file.model,
        judge=file.judge,
        set=file.set or ALPACA_EVAL,
        baseline=table.baseline,
        table=table,
        record=_record(file.path.with_name("judging.json")),
    )


def _folder_name(baseline: str) -> str:
    return judge_folder("judge", baseline).partition(AGAINST)[2]


def _record(path: Path) -> JudgingRecord | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=JudgingRecord)
    except (OSError, *UNREADABLE):
        return None
