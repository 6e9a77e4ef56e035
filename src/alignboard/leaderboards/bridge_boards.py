"""Boards as a bridge reads them: of the alpaca-eval wheel, a csv file of one's own, or a folder of annotations."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from alignboard.errors import ConvergenceError, InputError, nearest
from alignboard.leaderboards.scores import joint_lc_win_rates
from alignboard.records import Annotations
from alignboard.results.folder import ResultsFolder
from alignboard.results.published import PublishedRow, read_published_board
from alignboard.stats.win_rate import win_rate
from alignboard.suites import Suite


@dataclass(frozen=True)
class Scored:
    """One model as one judge scored it. Rates and their errors are percentages, None = not known."""

    win_rate: float
    standard_error: float
    lc_win_rate: float | None = None
    length: float | None = None
    """characters, mean over the model's answers"""


@dataclass(frozen=True)
class JudgeBoard:
    """What one judge says of its models, and where that was read."""

    judge: str
    source: str
    models: dict[str, Scored]
    annotations: dict[str, Annotations] = field(default_factory=dict)
    """the verdicts themselves, where they are at hand"""
    left_out: dict[str, str] = field(default_factory=dict)
    """models that the source has and a bridge cannot use, and why"""


def new_board(
    new: str, suites: Sequence[Suite], folder: ResultsFolder | None, n_instructions: int
) -> JudgeBoard:
    """The board called ``new``: an annotator in ``folder``, where one is given; else a csv file, or a published board.

    A published board is named by its annotator, after its suite and a slash where two suites have it. Raises
    `InputError` where there is none.
    """
    if folder is not None:
        return _annotated(new, folder)
    if new.lower().endswith(".csv"):
        return _from_csv(Path(new), n_instructions)
    found = {
        f"{suite.name}/{board.annotator}": (suite, board.file)
        for suite in suites
        for board in suite.boards
    }
    named = [key for key in found if new in {key, key.partition("/")[2]}]
    if len(named) != 1:
        known = sorted({key.partition("/")[2] for key in found})
        several = (
            f"is on several boards: {', '.join(named)}" if named else "names no published board"
        )
        raise InputError(
            f"{new!r} {several}{nearest(new, known) or '.'} Give one of {', '.join(known)}, a csv file, or "
            "--from DIR with an annotator of that folder."
        )
    return published_board(*found[named[0]])


def published_board(suite: Suite, file: str) -> JudgeBoard:
    """The board in ``file`` of the wheel, by the annotator that ``suite`` gives it."""
    rows = read_published_board(file)
    judge = next(board.annotator for board in suite.boards if board.file == file)
    return _board(judge, f"{suite.title}, published", rows, suite.n_instructions)


def official_board(suite: Suite, folder: ResultsFolder | None) -> JudgeBoard:
    """The published board of the suite's own judge; with ``folder``, its verdicts and the models that are only there.

    What is published stays: the folder adds win rates of other models, and no length-controlled ones.
    """
    board = published_board(suite, suite.board.file)
    if folder is None:
        return board
    names = folder.annotated_models(suite.annotator)
    tables = {
        name: table
        for name, table in folder.tables(names, suite.annotator).items()
        if table.baseline == suite.baseline
    }
    more, left_out = _scored({name: t for name, t in tables.items() if name not in board.models})
    return replace(
        board,
        source=f"{board.source}, and {folder.root}",
        models=board.models | more,
        annotations=tables,
        left_out=board.left_out | left_out,
    )


def _annotated(judge: str, folder: ResultsFolder) -> JudgeBoard:
    """Win rates of the models that ``judge`` annotated, and joint length-controlled ones where they can be fitted."""
    names = folder.annotated_models(judge)
    if not names:
        known = sorted(
            {file.annotator for name in folder.models for file in folder.annotation_files(name)}
        )
        raise InputError(
            f"{folder.root} holds no annotations by {judge!r}{nearest(judge, known) or '.'} It has those of "
            f"{', '.join(known)}."
        )
    tables = folder.tables(names, judge)
    baselines = sorted({table.baseline for table in tables.values()})
    if len(baselines) > 1:
        raise InputError(
            f"{folder.root}: {judge} compared models with several baselines ({', '.join(baselines)}); keep the models "
            "of one baseline."
        )
    models, left_out = _scored(tables)
    try:
        lc = joint_lc_win_rates({name: tables[name] for name in models})
    except (ConvergenceError, np.linalg.LinAlgError):
        lc = {}
    models = {
        name: replace(row, lc_win_rate=lc[name].win_rate * 100 if name in lc else None)
        for name, row in models.items()
    }
    return JudgeBoard(judge, str(folder.root), models, tables, left_out)


def _scored(tables: dict[str, Annotations]) -> tuple[dict[str, Scored], dict[str, str]]:
    """The models that can be used, and why the others cannot."""
    models, left_out = {}, {}
    for name, table in tables.items():
        rate = win_rate(table.preference)
        if table.generator == table.baseline:
            left_out[name] = "it is the baseline"
        elif not 0 < rate.win_rate < 1 or not math.isfinite(rate.standard_error):
            left_out[name] = (
                f"its win rate of {rate.win_rate * 100:g} % has no finite log-odds or no error"
            )
        else:
            models[name] = Scored(
                win_rate=rate.win_rate * 100,
                standard_error=rate.standard_error * 100,
                length=float(table.length_2.mean()),
            )
    return models, left_out


def _board(
    judge: str, source: str, rows: dict[str, PublishedRow], n_instructions: int
) -> JudgeBoard:
    models, left_out = {}, {}
    for name, row in rows.items():
        reason = _unusable(row)
        if reason is not None or row.win_rate is None:
            left_out[name] = reason or "it has no win rate"
            continue
        p, n = row.win_rate / 100, row.n_total or n_instructions
        bound = math.sqrt(p * (1 - p) / n) * 100
        models[name] = Scored(
            win_rate=row.win_rate,
            standard_error=bound if row.standard_error is None else row.standard_error,
            lc_win_rate=row.length_controlled_winrate,
            length=None if row.avg_length is None else float(row.avg_length),
        )
    return JudgeBoard(judge, source, models, left_out=left_out)


def _unusable(row: PublishedRow) -> str | None:
    for what, value in (
        ("win rate", row.win_rate),
        ("length-controlled win rate", row.length_controlled_winrate),
    ):
        if value is not None and not 0 < value < 100:
            return f"its {what} of {value:g} % has no finite log-odds"
    return None


# A board of one's own: percentages, with the columns of the published boards.

_COLUMNS = {
    "name": "model",
    "model": "model",
    "": "model",
    "win_rate": "win_rate",
    "standard_error": "standard_error",
    "length_controlled_winrate": "length_controlled_winrate",
    "avg_length": "avg_length",
    "n_total": "n_total",
}


def _from_csv(path: Path, n_instructions: int) -> JudgeBoard:
    """The board in ``path``; raises `InputError` that names the row (counted from 1 after the header) and the field."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            header = [_COLUMNS.get(name.strip(), "") for name in reader.fieldnames or ()]
            raw = [dict(zip(header, row.values(), strict=False)) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path} cannot be read as csv: {' '.join(str(error).split())}."
        ) from error
    for needed in ("model", "win_rate"):
        if header.count(needed) != 1:
            raise InputError(
                f"{path}: the header has {header.count(needed)} columns {needed!r}, one was expected; columns are "
                "name, win_rate, and where known standard_error, length_controlled_winrate, avg_length, n_total."
            )
    rows: dict[str, PublishedRow] = {}
    for number, values in enumerate(raw, start=1):
        name = (values["model"] or "").strip()
        if not name or name in rows:
            wrong = "has no name" if not name else f"repeats the model {name!r}"
            raise InputError(f"{path}, row {number}: {wrong}; every model takes one row.")
        rows[name] = _csv_row(path, number, name, values)
    if not rows:
        raise InputError(f"{path} holds no rows.")
    if len(rows) > 1 and all((row.win_rate or 0) <= 1 for row in rows.values()):
        raise InputError(
            f"{path}, field 'win_rate': no value is above 1; percentages were expected, not fractions."
        )
    return _board(path.stem, str(path), rows, n_instructions)


_LIMITS = {
    "win_rate": (0, 100),
    "length_controlled_winrate": (0, 100),
    "standard_error": (0, 50),
    "avg_length": (1, math.inf),
    "n_total": (1, math.inf),
}


def _csv_row(path: Path, number: int, name: str, values: dict[str, str | None]) -> PublishedRow:
    found: dict[str, float] = {}
    for column, (low, high) in _LIMITS.items():
        text = (values.get(column) or "").strip()
        if not text:
            continue
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high or math.isinf(value):
            raise InputError(
                f"{path}, row {number}, field {column!r}: {text[:40]!r}; expected a number from {low} to {high:g}, or "
                "nothing where it is not known."
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
