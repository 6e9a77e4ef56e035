"""Rows of repeated runs: seeds, responses and verdicts become one row, and the chosen setting of a sweep is marked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np

from alignboard.boards.board import Board
from alignboard.boards.columns import Column, Row, Score, known
from alignboard.boards.scoring import rank_scores
from alignboard.records import Annotations
from alignboard.results.runs import repeated_verdicts
from alignboard.stats.intervals import bounded_mean
from alignboard.stats.repeats import RepeatedMean, repeated_mean
from alignboard.stats.student import student_quantile

ByPrompt: TypeAlias = Mapping[Any, float]
Draw: TypeAlias = tuple[int, ...]
"""(seed, response, verdict), counted from 0"""
_NUMBERS: Final = (
    "Where only a number per run is known (benchmarks, LC) the error of a run counts in full. Responses and verdicts "
    "by prompt are those of the first run."
)
_NOTE: Final = (
    "Rows of several seeds: means over the seeds; intervals are for new prompts and new seeds (crossed), SD is the "
    f"standard deviation between the seeds. {_NUMBERS}"
)


def with_repeats(
    board: Board, parameters: Mapping[str, Any], by_prompt: Mapping[str, Mapping[str, ByPrompt]]
) -> Board:
    """``board`` with one row for the runs of each model or setting; as it is where nothing is repeated.

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
        draws = draws_of([entries.get(run.model, {}) for run in runs])
        scores = {
            column.key: score
            for column in board.columns
            if (score := _score(column, runs, draws, by_prompt.get(column.key, {}))) is not None
        }
        rows.append(
            msgspec.structs.replace(runs[0], model=name, scores=scores, flags=_flags(name, runs))
        )
    several = any(len(runs) > 1 for runs in groups.values())
    notes = [*board.notes, *([_note(entries.values())] if several else [])]
    made = msgspec.structs.replace(board, rows=rows, notes=notes)
    return _with_chosen(made, parameters, entries)


def _flags(name: str, runs: Sequence[Row]) -> list[str]:
    """The flags of all runs once; those of some runs with what the run's name adds to ``name``."""
    found: dict[str, None] = {}
    for run in runs:
        for flag in run.flags:
            shared = all(flag in other.flags for other in runs)
            run_name = run.model.removeprefix(f"{name}-")
            found[flag if shared else f"{run_name}: {flag}"] = None
    return list(found)


def draws_of(entries: Sequence[Mapping[str, Any]]) -> list[Draw]:
    """(seed, response, verdict) of every run; runs of a sweep alone are its seeds, in their order."""
    return [tuple(entry.get("draw", (number, 0, 0))) for number, entry in enumerate(entries)]


def _note(entries: Iterable[Mapping[str, Any]]) -> str:
    """What the intervals of repeated rows contain, and what they do not."""
    draws = [entry["draw"] for entry in entries if "draw" in entry]
    if not draws:
        return _NOTE
    drawn = [len({draw[k] for draw in draws}) > 1 for k in range(3)]
    names = ("training seeds", "responses", "verdicts")
    repeated = " and ".join(name for name, one in zip(names, drawn, strict=True) if one)
    fixed = " and ".join(name for name, one in zip(names, drawn, strict=True) if not one)
    held = f"; {fixed} are one draw, of which it contains nothing" if fixed else ""
    return (
        f"Rows of several runs: means over {repeated}; the interval is for new prompts and contains new {repeated}"
        f"{held}. The baseline is not repeated. "
        f"SD of a run: what a single run's mean owes to each part. Rerun: 95 % limits for the mean of one "
        f"further run on these prompts, with new {repeated}. {_NUMBERS}"
    )


def ranks_of_rows(
    tables: Mapping[str, Annotations], entries: Sequence[Mapping[str, Any]]
) -> dict[str, Score]:
    """The rank sets of rows, by run: of repeated responses and verdicts by their means; none over training seeds."""
    runs: dict[str, list[str]] = {}
    for entry in entries:
        if entry["model"] in tables:
            name = entry["row"] if "draw" in entry else entry["model"]
            runs.setdefault(name, []).append(entry["model"])
    rows = {
        row: repeated_verdicts({name: tables[name] for name in names}).table
        for row, names in runs.items()
    }
    found = rank_scores(rows)
    return {name: found[row] for row, names in runs.items() if row in found for name in names}


def mean_by_prompt(prompts: Any, values: Any) -> dict[Any, float]:
    """The mean of the values of each prompt; NaN where one of them is."""
    found: dict[Any, list[float]] = {}
    for prompt, value in zip(prompts.tolist(), values.tolist(), strict=True):
        found.setdefault(prompt, []).append(value)
    return {prompt: sum(own) / len(own) for prompt, own in found.items()}


def shown_runs(entries: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The row of each model whose responses are shown: of several runs the first."""
    first: dict[str, str] = {}
    for entry in entries:
        first.setdefault(entry.get("row", entry["model"]), entry["model"])
    return {model: row for row, model in first.items()}


def _score(
    column: Column, runs: Sequence[Row], draws: Sequence[Draw], by_prompt: Mapping[str, ByPrompt]
) -> Score | None:
    """The score of a row; of one run, or where all runs have one and the same, it is that."""
    given = [run.scores.get(column.key) for run in runs]
    scores = [score for score in given if score is not None]
    if not scores or len(scores) == 1:
        return scores[0] if scores else None
    one_seed = len({seed for seed, _, _ in draws}) == 1
    if one_seed and all(score == scores[0] for score in scores):
        return scores[0]
    if column.kind == "place" or any(score.value is None for score in scores):
        return Score(reason=f"{len(runs)} {'runs' if one_seed else 'seeds'}")
    tables = [by_prompt[run.model] for run in runs if run.model in by_prompt]
    if len(tables) == len(runs):
        return over_prompts(tables, draws, bounded=column.unit == "%")
    return _over_runs(scores, "runs" if one_seed else "seeds")


def over_prompts(tables: Sequence[ByPrompt], draws: Sequence[Draw], *, bounded: bool) -> Score:
    """Over the prompts that have a value in every run."""
    shared = [
        prompt
        for prompt in tables[0]
        if all(math.isfinite(table.get(prompt, math.nan)) for table in tables)
    ]
    if not shared:
        return Score(reason="no prompt with a value in every run")
    by_draw = dict(zip(draws, tables, strict=True))
    shape = tuple(len(set(one)) for one in zip(*draws, strict=True))
    values = np.array([[by_draw[draw][prompt] for draw in sorted(draws)] for prompt in shared])
    found = repeated_mean(values.reshape(len(shared), *shape))
    low, high = found.low, found.high
    if bounded and shape[0] == 1:  # the corners of a rate: verdicts of one prompt are one unit
        limits = bounded_mean(values.mean(axis=1) / 100)
        low, high = 100 * limits.low, 100 * limits.high
    if bounded:
        low, high = max(low, 0.0), min(high, 100.0)
    return Score(
        found.value,
        known(low),
        known(high),
        known(found.standard_error),
        n=len(shared),
        note=_repeats_text(found, shape),
    )


def _repeats_text(found: RepeatedMean, shape: tuple[int, ...]) -> str | None:
    """How often, and what a run owes to what; None for one run."""
    if shape == (1, 1, 1):
        return None
    if shape[1:] == (1, 1):
        return f"{found.n_seeds} seeds, SD {found.spread:.1f}"
    times = " x ".join(
        f"{n} {what}"
        for n, what in zip(shape, ("seeds", "responses", "verdicts"), strict=True)
        if n > 1
    )
    parts = ", ".join(f"{part} {sd:.1f}" for part, sd in found.parts.items())
    return f"{times}; SD of a run: {parts}; rerun {found.rerun_low:.1f} to {found.rerun_high:.1f}"


def _over_runs(scores: Sequence[Score], what: str) -> Score:
    """Of numbers per run: the runs share their prompts, so that the mean of their variances is not divided."""
    values = np.array([score.value for score in scores], dtype=np.float64)
    spread = float(values.std(ddof=1))
    errors = [score.standard_error for score in scores if score.standard_error is not None]
    note = f"{len(values)} {what}, SD {spread:.1f}"
    if len(errors) < len(scores):
        return Score(float(values.mean()), note=note)
    between = spread**2 / len(values)
    error = math.sqrt(float(np.mean(np.square(errors))) + between)
    half = student_quantile(0.975, len(values) - 1) * math.sqrt(between)
    half = math.hypot(half, 1.96 * math.sqrt(error**2 - between))
    mean = float(values.mean())
    return Score(mean, mean - half, mean + half, error, note=note)


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
    flags: dict[str, list[str]] = {}
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
        flags[best] = [f"chosen among {len(names)} settings of {recipe} {where}"]
    return board.with_flags(flags)
