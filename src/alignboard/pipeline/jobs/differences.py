"""Trainings of a sweep against what they are compared with: differences by prompt, and rows that do not beat it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from alignboard.boards.board import Board
from alignboard.boards.columns import Score
from alignboard.pipeline.jobs.repeats import ByPrompt, draws_of, over_prompts

_HALF: Final = 50.0
"""the win rate, in %, of two models that are as good"""


def with_differences(
    board: Board, parameters: Mapping[str, Any], by_prompt: Mapping[str, Mapping[str, ByPrompt]]
) -> Board:
    """Behind correctness and length: the difference to the baseline on the same prompts; boards of sweeps alone.

    Rows whose win rate is not shown to be above 50 % are flagged.
    """
    runs: dict[str, list[Mapping[str, Any]]] = {}
    for entry in parameters["models"]:
        runs.setdefault(entry.get("row", entry["model"]), []).append(entry)
    if not any("chosen_among" in entry for entry in parameters["models"]):
        return board
    columns, scores = [], {row.model: dict(row.scores) for row in board.rows}
    for column in board.columns:
        columns.append(column)
        tables = by_prompt.get(column.key)
        if column.kind not in {"accuracy", "length"} or tables is None:
            continue
        difference = msgspec.structs.replace(
            column,
            key=f"{column.key}/difference",
            name=f"{column.name} - baseline",
            kind="diagnostic",
            unit="points" if column.unit == "%" else column.unit,
            estimator="mean difference to the baseline's response to the same prompt",
            conditional_on="new prompts drawn like these, new seeds; the one training of the baseline",
        )
        columns.append(difference)
        for name, entries in runs.items():
            own = [_difference(entry, tables) for entry in entries]
            there = [one for one in own if one is not None]
            if len(there) == len(own) and name in scores:
                found = over_prompts(there, draws_of(entries), bounded=False)
                scores[name][difference.key] = found
    rows = [msgspec.structs.replace(row, scores=scores[row.model]) for row in board.rows]
    return _with_unbeaten(msgspec.structs.replace(board, columns=columns, rows=rows))


def _difference(entry: Mapping[str, Any], tables: Mapping[str, ByPrompt]) -> ByPrompt | None:
    """Value minus the baseline's by prompt; None for the baseline itself."""
    model, baseline = entry["model"], entry.get("baseline")
    if baseline is None or baseline == model or not {baseline, model} <= tables.keys():
        return None
    theirs = tables[baseline]
    return {prompt: value - theirs.get(prompt, math.nan) for prompt, value in tables[model].items()}


def _with_unbeaten(board: Board) -> Board:
    rates = board.of_kind("win rate")
    if not rates:
        return board
    rows = []
    for row in board.rows:
        score, flags = row.scores.get(rates[0].key, Score()), list(row.flags)
        if score.high is not None and score.high < _HALF:
            flags.append("loses against its baseline")
        elif score.low is not None and score.low <= _HALF:
            flags.append("not shown to beat its baseline")
        rows.append(msgspec.structs.replace(row, flags=flags))
    return msgspec.structs.replace(board, rows=rows)
