"""Scores for the Hub: ``.eval_results/*.yaml`` of a model's repository, and ``model-index`` of its card.

Neither has a field for an interval: it stands in the notes, or beside the value's name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from alignboard.boards.board import Board, read_board
from alignboard.boards.columns import Column, Row, Score
from alignboard.errors import InputError
from alignboard.extras import require
from alignboard.guarded_yaml import to_yaml
from alignboard.results.files import write_atomically
from alignboard.workspace import model_name

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, EvalResultEntry


def write_eval_results(board: Board, folder: Path, datasets: Mapping[str, str]) -> list[Path]:
    """``<folder>/<model>/.eval_results/<board>.yaml`` for every model that has a score on one of ``datasets``.

    Parameters
    ----------
    datasets
        Instruction set or column name -> ``ID`` or ``ID:TASK`` of the benchmark on the Hub.

    Raises
    ------
    InputError
        Where a name in ``datasets`` is on no column.
    """
    require("huggingface_hub")
    from huggingface_hub import eval_result_entries_to_yaml

    names = {name for column in board.columns for name in (column.set, column.name) if name}
    unknown = next((name for name in datasets if name not in names), None)
    if unknown is not None:
        raise InputError(
            f"The board {board.name!r} has no set or column {unknown!r}; it has: {', '.join(sorted(names))}."
        )
    written = []
    for row in board.rows:
        entries = [
            _entry(board, column, score, dataset)
            for column, score in _scores(board, row)
            if (dataset := datasets.get(column.set or "") or datasets.get(column.name))
        ]
        if entries:
            path = (
                folder / model_name(row.model) / ".eval_results" / f"{model_name(board.name)}.yaml"
            )
            write_atomically(path, to_yaml(eval_result_entries_to_yaml(entries)).encode())
            written.append(path)
    return written


def write_model_index(board: Board, folder: Path) -> list[Path]:
    """``<folder>/<model>/model-index.yaml`` for every model: the part of a model card's head with its scores."""
    require("huggingface_hub")
    from huggingface_hub.repocard_data import eval_results_to_model_index

    written = []
    for row in board.rows:
        results = eval_results(board, row)
        if results:
            path = folder / model_name(row.model) / "model-index.yaml"
            index = eval_results_to_model_index(row.model, results)
            write_atomically(path, to_yaml({"model-index": index}).encode())
            written.append(path)
    return written


def eval_results(board: Board, row: Row) -> list[EvalResult]:
    """The scores of a model as entries of a model card's ``model-index``."""
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=model_name(column.set or column.name),
            dataset_name=column.set or column.name,
            metric_type=column.kind.replace(" ", "_").lower(),
            metric_value=score.value,
            metric_name=_name(board, column, score),
        )
        for column, score in _scores(board, row)
    ]


def results_of(model: str, leaderboards: Path) -> list[EvalResult]:
    """The entries of every board in ``leaderboards`` that has a row for ``model``.

    Of a run of several seeds that is the row of all of them, whose intervals say so.
    """
    found, names = [], {model, re.sub(r"-seed\d+$", "", model)}
    for path in sorted(leaderboards.glob("*.json")):
        try:
            board = read_board(path)
        except InputError:  # another tool's file
            continue
        found += [
            one for row in board.rows if row.model in names for one in eval_results(board, row)
        ]
    return found


def _scores(board: Board, row: Row) -> list[tuple[Column, Score]]:
    """The scores that say how good a model is; lengths and diagnostics stay at home."""
    kept = [
        column for column in board.columns if column.better != "none" and column.kind != "place"
    ]
    found = [(column, board.score(row, column)) for column in kept]
    return [(column, score) for column, score in found if score.value is not None]


def _name(board: Board, column: Column, score: Score) -> str:
    interval = column.interval(score)
    parts = [board.label(column), *([f"against {column.baseline}"] if column.baseline else [])]
    if interval:
        parts.append(
            f"95 % interval {interval}"
            if score.low is not None
            else f"standard error {interval[2:]}"
        )
    return ", ".join(parts)


def _entry(board: Board, column: Column, score: Score, dataset: str) -> EvalResultEntry:
    from huggingface_hub import EvalResultEntry

    identity, _, task = dataset.partition(":")
    return EvalResultEntry(
        dataset_id=identity,
        task_id=task or "default",
        value=score.value,
        notes=_name(board, column, score),
    )
