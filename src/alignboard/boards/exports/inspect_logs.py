"""Logs of Inspect (UK AISI) as a board: one row per model, one column per task, scorer and metric.

A log is json, or a zip called ``.eval`` whose ``header.json`` holds the same without samples. Numbers and standard
errors are Inspect's own. Source of the layout: inspect_ai.log.EvalLog, version 2.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from alignboard.boards.board import Board
from alignboard.boards.columns import Column, Row, Score, known
from alignboard.errors import InputError
from alignboard.results.files import UNREADABLE, paths_under
from alignboard.text import count

SUFFIXES = (".eval", ".json")
_ERROR = "stderr"
_ZSTANDARD = 93


class _Metric(msgspec.Struct):
    value: float | None


class _Scores(msgspec.Struct):
    name: str
    metrics: dict[str, _Metric]
    scored_samples: int | None = None


class _Results(msgspec.Struct):
    scores: list[_Scores]


class _Eval(msgspec.Struct):
    task: str
    model: str
    created: str = ""


class _Log(msgspec.Struct):
    status: str
    eval: _Eval
    results: _Results | None = None


def is_log(path: Path) -> bool:
    """Whether ``path`` looks like a log of Inspect, from its first bytes."""
    if path.suffix == ".eval":
        return True
    if path.suffix != ".json":
        return False
    with path.open("rb") as file:
        head = file.read(4096)
    return b'"status"' in head and b'"eval_id"' in head


def read_logs(folder: Path) -> Board:
    """The board of all logs in ``folder``; of two runs of a model on a task the newer one counts.

    Raises
    ------
    InputError
        Where there is no log, where one cannot be read, and where a run did not end: its numbers would be of some of
        its samples.
    """
    newest: dict[tuple[str, str], _Log] = {}
    for path in sorted(path for path in paths_under(folder) if path.is_file() and is_log(path)):
        log = _read(path)
        if log.status != "success" or log.results is None:
            raise InputError(
                f"{path}: the run of {log.eval.model} on {log.eval.task} ended with status {log.status!r}; finish it "
                "(inspect eval-retry), or take this log out of the folder."
            )
        key = (log.eval.model, log.eval.task)
        if key not in newest or newest[key].eval.created < log.eval.created:
            newest[key] = log
    if not newest:
        raise InputError(f"There are no logs of Inspect (.eval, .json) in {folder}.")
    columns: dict[str, Column] = {}
    rows: dict[str, dict[str, Score]] = {}
    for (model, _), log in newest.items():
        for column, score in _scores(log):
            columns.setdefault(column.key, column)
            rows.setdefault(model, {})[column.key] = score
    return Board(
        name=folder.resolve().name,
        title=f"Inspect: {folder.resolve().name}",
        columns=list(columns.values()),
        rows=[Row(model, rows[model]) for model in sorted(rows)],
        summary=f"{count(len(rows), 'model')} on {count(len({task for _, task in newest}), 'task')} of Inspect.",
        notes=["Numbers are Inspect's own, with its standard errors."],
        ranked_by=next(iter(columns)) if len(columns) == 1 else None,
        provenance={"source": f"logs of Inspect in {folder.name}"},
    )


def _scores(log: _Log) -> Iterator[tuple[Column, Score]]:
    for scores in log.results.scores if log.results is not None else ():
        error = scores.metrics.get(_ERROR)
        for name, metric in scores.metrics.items():
            if name == _ERROR:
                continue
            fraction = name == "accuracy"
            scale = 100 if fraction else 1
            column = Column(
                key=f"inspect/{log.eval.task}/{scores.name}/{name}",
                name=f"{log.eval.task} {name} ({scores.name})",
                kind="benchmark",
                unit="%" if fraction else "",
                set=log.eval.task,
                source="inspect",
                estimator=f"{name} of the scorer {scores.name}, by Inspect",
                conditional_on="new samples drawn like these; the model and its decoding held fixed",
                digits=1 if fraction else 3,
            )
            found = known(None if metric.value is None else metric.value, scale)
            spread = known(None if error is None else error.value, scale)
            reason = "not known" if found is None else None
            yield (
                column,
                Score(found, standard_error=spread, n=scores.scored_samples, reason=reason),
            )


def _read(path: Path) -> _Log:
    try:
        return msgspec.json.decode(_content(path), type=_Log)
    except (
        OSError,
        KeyError,
        NotImplementedError,
        zipfile.BadZipFile,
        *UNREADABLE,
    ) as error:
        raise InputError(f"{path} is not a log of Inspect that can be read: {error}.") from error


def _content(path: Path) -> bytes:
    if path.suffix != ".eval":
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        header: Any = archive.getinfo("header.json")
        if header.compress_type == _ZSTANDARD:
            raise InputError(
                f"{path} is compressed by Zstandard, which this Python cannot read; write it as json: inspect log "
                f"convert --to json --output-dir DIR {path}."
            )
        return archive.read(header)
