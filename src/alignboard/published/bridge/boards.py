"""Boards as a bridge reads them: of the alpaca-eval wheel, a csv file of one's own, or a folder of annotations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from alignboard.errors import InputError, nearest
from alignboard.published.bridge.own_board import read_own_board
from alignboard.published.scores import joint_lc_win_rates
from alignboard.published.wheel_boards import PublishedRow, read_published_board
from alignboard.records import Annotations
from alignboard.results.folder import ResultsFolder
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
        path = Path(new)
        rows = read_own_board(path, n_instructions)
        return _board(path.stem, new, rows, n_instructions)
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
    lc = joint_lc_win_rates({name: tables[name] for name in models})
    models = {
        name: replace(
            row, lc_win_rate=None if isinstance(one := lc[name], str) else one.win_rate * 100
        )
        for name, row in models.items()
    }
    return JudgeBoard(judge, str(folder.root), models, tables, left_out)


def _scored(tables: dict[str, Annotations]) -> tuple[dict[str, Scored], dict[str, str]]:
    """The models that can be used, and why the others cannot."""
    models, left_out = {}, {}
    for name, table in tables.items():
        rate = win_rate(table.preference, balanced=table.balanced)
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
