"""The benchmark columns of a plan's board: one per metric, one per part of a suite, one for its average."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from alignboard.benchmarks.mirror import ALIAS
from alignboard.boards.board import Board
from alignboard.boards.columns import Column, Score
from alignboard.boards.scoring import benchmark_column, benchmark_score
from alignboard.pipeline.plans.references import UNPINNED
from alignboard.text import count

SCORES: Final = "scores.json"
"""the numbers of an lm-eval job: by task and metric, ``value``, ``standard_error``, ``n`` and ``chance``"""
WARNINGS: Final = "warnings.json"
"""what is to be said of a model in an lm-eval job"""
LM_EVAL: Final = "lm_eval"
"""the folder of lm-eval's own files in the job's"""
RESCALED: Final = "rescaled mean"
AT_CHANCE: Final = "at chance"
_Z: Final = 1.959963984540054

Columns = list[Column]
ByModel = dict[str, dict[str, Score]]
"""scores by model and column"""


def suite_scores(
    suite: Mapping[str, Any],
    models: Sequence[str],
    inputs: Mapping[str, Path],
    *,
    several: bool,
) -> tuple[Columns, ByModel]:
    """The columns of a suite and every model's scores; ``several`` suites are on the board."""
    numbers = {
        model: json.loads((inputs[role] / SCORES).read_text(encoding="utf-8"))
        for model in models
        if (role := f"lm-eval {suite['name']} {model}") in inputs
    }
    columns: Columns = []
    scores: ByModel = {model: {} for model in numbers}
    parts: dict[str, list[tuple[Column, float]]] = {}
    for one in suite["benchmarks"]:
        for metric in _metrics(one, numbers):
            column = benchmark_column(one["task"], metric, suite=suite["name"] if several else None)
            columns.append(column)
            part = one.get("part") or f"{one['task']} {metric}"
            parts.setdefault(part, []).append((column, one.get("chance") or 0.0))
            for model, found in numbers.items():
                if metric in found[one["task"]]:
                    own = found[one["task"]][metric]
                    scores[model][column.key] = _score(column, own, one.get("chance"))
    if suite["average"] is not None:
        rescaled = suite["average"] == RESCALED
        means = _averages(suite["name"], parts, rescaled=rescaled)
        columns += [column for column, _ in means]
        for own in scores.values():
            for column, members in means:
                own[column.key] = _mean(
                    [_from_chance(own.get(key, Score()), chance) for key, chance in members]
                )
    return columns, scores


def with_warnings(board: Board, inputs: Mapping[str, Path]) -> Board:
    """``board`` with the warnings of lm-eval jobs as flags of their models."""
    said: dict[str, dict[str, None]] = {}
    for folder in inputs.values():
        if (folder / WARNINGS).is_file():
            found = json.loads((folder / WARNINGS).read_text(encoding="utf-8"))
            said.setdefault(found["model"], {}).update(dict.fromkeys(found["warnings"]))
    return board.with_flags({model: list(warnings) for model, warnings in said.items()})


def suite_notes(
    suite: Mapping[str, Any], models: Sequence[str], inputs: Mapping[str, Path]
) -> list[str]:
    """What a reader of a suite's numbers has to know of the runs: no run, an adapter without effect, cut contexts."""
    notes: list[str] = []
    unpinned: set[str] = set()
    aliases: dict[str, str] = {}
    sizes: dict[str, dict[int, str]] = {}
    for model in models:
        role = f"lm-eval {suite['name']} {model}"
        if role not in inputs:
            notes.append(
                f"{model} has no benchmarks of {suite['name']}: it has responses, and neither weights nor an endpoint "
                "that could run them."
            )
            continue
        for file in (inputs[role] / LM_EVAL).glob("results_*.json"):
            stamp = json.loads(file.read_bytes()).get("alignboard", {})
            notes += _run_notes(model, stamp)
            files = stamp.get("task_files_sha256", {})
            unpinned |= {name for name, said in files.items() if said == UNPINNED}
            aliases |= {
                name.removeprefix(ALIAS): said
                for name, said in files.items()
                if name.startswith(ALIAS)
            }
            if stamp.get("embedding_rows"):
                own = sizes.setdefault(stamp["weights_sha256"], {})
                own.setdefault(stamp["embedding_rows"], model)
    if unpinned:
        names = ", ".join(name.removeprefix("hub ") for name in sorted(unpinned))
        notes.append(
            f"{suite['name']}: documents of {names} are those of the hub on the day of the run; no revision is pinned."
        )
    notes += (
        f"{suite['name']}: documents of {name} are those of {other}."
        for name, other in sorted(aliases.items())
    )
    for own in sizes.values():
        if len(own) > 1:
            each = ", ".join(f"{model} {rows}" for rows, model in own.items())
            notes.append(
                f"Models of one base have embeddings of several sizes ({each} rows): their log-probabilities are over "
                "several vocabularies, and not like for like."
            )
    return notes


def _run_notes(model: str, stamp: Mapping[str, Any]) -> list[str]:
    notes: list[str] = []
    if stamp.get("adapter_moved_logprobs") == 0:
        notes.append(
            f"{model}: the adapter changes no log-probability of the requests that were tried; it is not in force, or "
            "does nothing."
        )
    if stamp.get("adapter_untried"):
        notes.append(
            f"{model}: whether the endpoint applies the adapter is not known; it gives no log-probabilities of the "
            "base's beside it."
        )
    for task, cut in stamp.get("cut_on_the_left", {}).items():
        notes.append(
            f"{model}, {task}: {count(cut['requests'], 'request')} did not fit in the context and lost "
            f"{count(cut['tokens'], 'token')} on the left, as lm-eval does it."
        )
    return notes


def _metrics(one: Mapping[str, Any], numbers: Mapping[str, Any]) -> list[str]:
    if one["metric"] is not None:
        return [one["metric"]]
    return list(dict.fromkeys(key for found in numbers.values() for key in found[one["task"]]))


def _score(column: Column, own: Mapping[str, Any], declared: float | None) -> Score:
    """A number with its error; a fraction that guessing may give, too, is marked."""
    score = benchmark_score(column, own["value"], own["standard_error"])
    chance = own.get("chance") if declared is None else declared
    if not chance or column.unit != "%" or score.value is None or score.standard_error is None:
        return score
    near = abs(score.value - 100 * chance) <= _Z * score.standard_error
    below = score.value < 100 * chance
    return msgspec.structs.replace(score, note=AT_CHANCE) if near or below else score


def _averages(
    suite: str, parts: Mapping[str, Sequence[tuple[Column, float]]], *, rescaled: bool
) -> list[tuple[Column, list[tuple[str, float]]]]:
    """Columns of means, each with the columns (and what guessing gives there) that it is the mean of."""
    found: list[tuple[Column, list[tuple[str, float]]]] = []
    whole: list[tuple[str, float]] = []
    for part, members in parts.items():
        own = [(column.key, chance if rescaled else 0.0) for column, chance in members]
        if len(own) == 1:
            whole += own
            continue
        column = _mean_column(suite, part, rescaled=rescaled)
        found.append((column, own))
        whole.append((column.key, 0.0))
    return [*found, (_mean_column(suite, "mean", rescaled=rescaled), whole)]


def _mean_column(suite: str, part: str, *, rescaled: bool) -> Column:
    of = "unweighted mean"
    of += " between chance (0) and all (100)" if rescaled else " of the tasks"
    return Column(
        key=f"lm-eval/{suite}/{part}",
        name=f"{suite} {part}",
        kind="benchmark",
        unit="%",
        set=suite,
        source="lm-eval",
        estimator=f"{of}, standard error of independent tasks",
        conditional_on="new documents drawn like these; the model and its decoding held fixed",
    )


def _from_chance(score: Score, chance: float) -> Score:
    """A percentage on the scale from chance to all; below chance is 0, as the public board has it."""
    if score.value is None or not chance:
        return score
    error = score.standard_error
    return msgspec.structs.replace(
        score,
        value=max(0.0, (score.value - 100 * chance) / (1 - chance)),
        standard_error=None if error is None else error / (1 - chance),
    )


def _mean(scores: Sequence[Score]) -> Score:
    """The unweighted mean, with the standard error of independent tasks; None where one of them is unknown."""
    values = [score.value for score in scores if score.value is not None]
    errors = [score.standard_error for score in scores if score.standard_error is not None]
    if not scores or len(values) < len(scores):
        return Score(reason="a task is missing")
    error = None
    if len(errors) == len(scores):
        error = sum(e * e for e in errors) ** 0.5 / len(errors)
    return Score(sum(values) / len(values), standard_error=error)
