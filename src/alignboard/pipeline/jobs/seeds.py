"""The rows of a sweep: runs of one setting with several seeds become one row, and the chosen setting is marked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np

from alignboard.boards.board import Board
from alignboard.boards.columns import Column, Row, Score, known
from alignboard.stats.seeds import seed_mean
from alignboard.stats.student import student_quantile

HALF: Final = 50.0
"""the win rate, in %, of two models that are as good"""
ByPrompt: TypeAlias = Mapping[Any, float]
_NOTE: Final = (
    "Rows of several seeds: means over the seeds; intervals are for new prompts and new seeds (crossed), SD is the "
    "standard deviation between the seeds. Where only a number per run is known (benchmarks, LC) the error of a run "
    "counts in full. Responses and verdicts by prompt are those of the first seed."
)


def with_seeds(
    board: Board, parameters: Mapping[str, Any], by_prompt: Mapping[str, Mapping[str, ByPrompt]]
) -> Board:
    """``board`` with one row for the runs of each setting; as it is where the plan has no sweep.

    ``by_prompt``: column -> model -> value by prompt.
    """
    entries = {entry["model"]: entry for entry in parameters["models"]}
    groups: dict[str, list[Row]] = {}
    for row in board.rows:
        groups.setdefault(entries.get(row.model, {}).get("row", row.model), []).append(row)
    if not any("row" in entry for entry in entries.values()):
        return board
    rows = []
    for name, runs in groups.items():
        scores = {
            column.key: score
            for column in board.columns
            if (score := _score(column, runs, by_prompt.get(column.key, {}))) is not None
        }
        flags = [
            f"{run.model}: {flag}" if len(runs) > 1 else flag for run in runs for flag in run.flags
        ]
        rows.append(msgspec.structs.replace(runs[0], model=name, scores=scores, flags=flags))
    several = any(len(runs) > 1 for runs in groups.values())
    notes = [*board.notes, *([_NOTE] if several else [])]
    made = msgspec.structs.replace(board, rows=rows, notes=notes)
    made = _with_differences(made, groups, entries, by_prompt)
    return _with_chosen(_with_unbeaten(made), parameters, entries)


def mean_by_prompt(prompts: Any, values: Any) -> dict[Any, float]:
    """The mean of the values of each prompt; NaN where one of them is."""
    found: dict[Any, list[float]] = {}
    for prompt, value in zip(prompts.tolist(), values.tolist(), strict=True):
        found.setdefault(prompt, []).append(value)
    return {prompt: sum(own) / len(own) for prompt, own in found.items()}


def shown_runs(entries: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The row of each model whose responses are shown: of several seeds the first."""
    first: dict[str, str] = {}
    for entry in entries:
        first.setdefault(entry.get("row", entry["model"]), entry["model"])
    return {model: row for row, model in first.items()}


def _score(column: Column, runs: Sequence[Row], by_prompt: Mapping[str, ByPrompt]) -> Score | None:
    """The score of a row; of one run it is the run's."""
    given = [run.scores.get(column.key) for run in runs]
    scores = [score for score in given if score is not None]
    if len(runs) == 1 or not scores:
        return scores[0] if scores else None
    if column.kind == "place" or any(score.value is None for score in scores):
        return Score(reason=f"{len(runs)} seeds")
    tables = [by_prompt[run.model] for run in runs if run.model in by_prompt]
    if len(tables) == len(runs):
        return _over_prompts(tables, bounded=column.unit == "%")
    return _over_runs(scores)


def _over_prompts(tables: Sequence[ByPrompt], *, bounded: bool) -> Score:
    """Over the prompts that have a value with every seed."""
    shared = [
        prompt
        for prompt in tables[0]
        if all(math.isfinite(table.get(prompt, math.nan)) for table in tables)
    ]
    if not shared:
        return Score(reason="no prompt with a value for every seed")
    found = seed_mean(np.array([[table[prompt] for table in tables] for prompt in shared]))
    several = f"{found.n_seeds} seeds, SD {found.spread:.1f}" if found.n_seeds > 1 else None
    low, high = found.low, found.high
    if bounded:
        low, high = max(low, 0.0), min(high, 100.0)
    return Score(
        found.value,
        known(low),
        known(high),
        known(found.standard_error),
        n=len(shared),
        note=several,
    )


def _over_runs(scores: Sequence[Score]) -> Score:
    """Of numbers per run: the runs share their prompts, so that the mean of their variances is not divided."""
    values = np.array([score.value for score in scores], dtype=np.float64)
    spread = float(values.std(ddof=1))
    errors = [score.standard_error for score in scores if score.standard_error is not None]
    note = f"{len(values)} seeds, SD {spread:.1f}"
    if len(errors) < len(scores):
        return Score(float(values.mean()), note=note)
    between = spread**2 / len(values)
    error = math.sqrt(float(np.mean(np.square(errors))) + between)
    half = student_quantile(0.975, len(values) - 1) * math.sqrt(between)
    half = math.hypot(half, 1.96 * math.sqrt(error**2 - between))
    mean = float(values.mean())
    return Score(mean, mean - half, mean + half, error, note=note)


def _with_differences(
    board: Board,
    groups: Mapping[str, Sequence[Row]],
    entries: Mapping[str, Mapping[str, Any]],
    by_prompt: Mapping[str, Mapping[str, ByPrompt]],
) -> Board:
    """Behind correctness and length: the difference to the baseline on the same prompts, one training of it given."""
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
        for name, runs in groups.items():
            own = [_differences(run.model, entries, tables) for run in runs]
            known_runs = [one for one in own if one is not None]
            if known_runs and len(known_runs) == len(own):
                scores[name][difference.key] = _over_prompts(known_runs, bounded=False)
    rows = [msgspec.structs.replace(row, scores=scores[row.model]) for row in board.rows]
    return msgspec.structs.replace(board, columns=columns, rows=rows)


def _differences(
    model: str, entries: Mapping[str, Mapping[str, Any]], tables: Mapping[str, ByPrompt]
) -> dict[Any, float] | None:
    """Value minus the baseline's by prompt; None for the baseline itself."""
    baseline = entries.get(model, {}).get("baseline")
    if baseline is None or baseline == model or baseline not in tables or model not in tables:
        return None
    theirs = tables[baseline]
    return {prompt: value - theirs.get(prompt, math.nan) for prompt, value in tables[model].items()}


def _with_unbeaten(board: Board) -> Board:
    """Flag the rows of trainings whose win rate is not shown to be above 50 %."""
    rates = board.of_kind("win rate")
    if not rates:
        return board
    rows = []
    for row in board.rows:
        score, flags = row.scores.get(rates[0].key, Score()), list(row.flags)
        if score.high is not None and score.high < HALF:
            flags.append("loses against its baseline")
        elif score.low is not None and score.low <= HALF:
            flags.append("not shown to beat its baseline")
        rows.append(msgspec.structs.replace(row, flags=flags))
    return msgspec.structs.replace(board, rows=rows)


def _with_chosen(
    board: Board, parameters: Mapping[str, Any], entries: Mapping[str, Mapping[str, Any]]
) -> Board:
    """Mark, for each recipe and base, the setting with the highest win rate on the set that selects."""
    rates = board.of_kind("win rate")
    groups: dict[tuple[str, str, str | None], dict[str, None]] = {}
    for entry in entries.values():
        if entry.get("chosen_among") is not None:
            key = entry["chosen_among"], entry["family"], entry["select_on"]
            groups.setdefault(key, {})[entry["row"]] = None
    by_name = {row.model: row for row in board.rows}
    flags: dict[str, str] = {}
    for (recipe, _, suite), names in groups.items():
        asked = [one["name"] for one in parameters["sets"] if suite in {None, one["suite"]}]
        column = next((one for one in rates if asked and one.set in {None, asked[0]}), None)
        if column is None or all(
            by_name[name].scores.get(column.key, Score()).value is None for name in names
        ):
            continue
        value = {name: by_name[name].scores.get(column.key, Score()).value for name in names}
        best = max((rate, name) for name, rate in value.items() if rate is not None)[1]
        reported = len(parameters["sets"]) > 1 and suite is not None
        where = f"on {asked[0]} alone" if reported else "on the prompts that are reported"
        flags[best] = f"chosen among {len(names)} settings of {recipe} {where}"
    rows = [
        msgspec.structs.replace(row, flags=[*row.flags, flags[row.model]])
        if row.model in flags
        else row
        for row in board.rows
    ]
    return msgspec.structs.replace(board, rows=rows)
