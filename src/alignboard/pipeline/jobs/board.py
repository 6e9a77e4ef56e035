"""The job that makes the board of a plan from answers, verdicts, benchmarks and ratings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from alignboard.data import world
from alignboard.errors import ConvergenceError
from alignboard.leaderboards.plan_board import (
    JudgeScore,
    PlanBoard,
    PlanRow,
    Rate,
    RatingTable,
    Sample,
    known,
)
from alignboard.leaderboards.plan_files import write_plan_board
from alignboard.pipeline.answering import OUTPUTS
from alignboard.pipeline.executors.worker import Task
from alignboard.pipeline.judging import ANNOTATIONS
from alignboard.published.scores import LcScore, joint_lc_win_rates
from alignboard.records import Annotations, Generation
from alignboard.results.formats import read_annotations, read_rows
from alignboard.stats.intervals import clustered_mean, rate_interval
from alignboard.stats.win_rate import win_rate

SCORES = "scores.json"
RATINGS = "ratings.json"
MEAN = "mean"
_N_SAMPLES = 12


def board(task: Task) -> dict[str, str]:
    """``leaderboards/<plan>.csv``, ``.md``, ``.json``, ``.png`` and ``.html``."""
    made = board_of(task.job.parameters, task.inputs)
    paths = write_plan_board(made, task.folder)
    return {f"leaderboards/{path.name}": path.name for path in paths}


def found(folder: Path, name: str) -> Path:
    """The file called ``name`` in a job's folder, wherever it lies there."""
    (path,) = folder.rglob(name)
    return path


def board_of(parameters: Mapping[str, Any], inputs: Mapping[str, Path]) -> PlanBoard:
    """The board, from the folders of the jobs that it is made of."""
    sets = parameters["sets"]
    by_set = {one["name"]: _outputs(one["name"], parameters, inputs) for one in sets}
    outputs = by_set[sets[0]["name"]] if sets else {}
    answer_key = bool(sets) and sets[0]["answer_key"]
    verdicts = {
        _column(judge, one, sets): _judge_scores(judge, one, parameters["models"], inputs)
        for one in sets
        for judge in parameters["judges"]
    }
    rated = _rated(inputs)
    benchmarks = {
        entry["model"]: _benchmarks(entry["model"], parameters, inputs)
        for entry in parameters["models"]
    }
    rows = [
        PlanRow(
            model=(model := entry["model"]),
            family=entry["family"],
            method=entry["method"],
            baseline=entry["baseline"],
            n_prompts=len(outputs.get(model, ())),
            correct=_correct(outputs[model]) if answer_key and model in outputs else None,
            mean_length=float(np.mean([len(row.output) for row in outputs[model]]))
            if model in outputs
            else None,
            judges={judge: scores[model] for judge, scores in verdicts.items() if model in scores},
            benchmarks=benchmarks[model],
            rating=rated.ratings.get(model) if rated else None,
        )
        for entry in parameters["models"]
    ]
    return PlanBoard(
        name=parameters["name"],
        title=parameters["title"],
        seed=parameters["seed"],
        baseline=parameters["baseline"] or ", ".join(_references(parameters)),
        judges=list(verdicts),
        benchmarks=list(dict.fromkeys(name for scores in benchmarks.values() for name in scores)),
        rating_judge=parameters["rating_judge"] if rated else None,
        conditions=_conditions(parameters, rated),
        rows=rows,
        samples=_samples(outputs),
    )


def _outputs(
    asked: str, parameters: Mapping[str, Any], inputs: Mapping[str, Path]
) -> dict[str, list[Generation]]:
    """Every model's responses to a set; those of two turns are not shown."""
    folders = {
        entry["model"]: inputs[role]
        for entry in parameters["models"]
        if (role := f"outputs {asked} {entry['model']}") in inputs
    }
    return {
        model: read_rows(path, Generation)
        for model, folder in folders.items()
        for path in folder.rglob(OUTPUTS)
    }


def _column(judge: str, asked: Mapping[str, Any], sets: list[dict[str, Any]]) -> str:
    """The name of a judge's column: with the set, where there are several."""
    return judge if len(sets) == 1 else f"{judge} on {asked['name']}"


def _references(parameters: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(one["reference"] for one in parameters["sets"] if one["reference"]))


def _judge_scores(
    judge: str,
    asked: Mapping[str, Any],
    models: list[dict[str, Any]],
    inputs: Mapping[str, Path],
) -> dict[str, JudgeScore]:
    """One judge's scores by model; length control is fitted to the models that share their baseline."""
    by_baseline: dict[str, dict[str, Annotations]] = {}
    for entry in models:
        role = f"verdicts {judge} {asked['name']} {entry['model']}"
        if role in inputs:
            baseline = asked["reference"] or entry["baseline"]
            table = read_annotations(
                found(inputs[role], ANNOTATIONS), generator=entry["model"], baseline=baseline
            )
            by_baseline.setdefault(baseline, {})[entry["model"]] = table
    scores = {}
    for tables in by_baseline.values():
        try:
            controlled = joint_lc_win_rates(tables)
        except ConvergenceError:  # lengths that do not vary, say: unknown then, like any other
            controlled = {}
        scores |= {
            model: _judge_score(table, controlled.get(model)) for model, table in tables.items()
        }
    return scores


def _judge_score(table: Annotations, controlled: LcScore | None) -> JudgeScore:
    rate = win_rate(table.preference, table.instruction)
    lc = None
    if controlled is not None:
        lc = Rate(
            known(controlled.win_rate),
            known(controlled.interval.low),
            known(controlled.interval.high),
        )
    return JudgeScore(
        win_rate=Rate(
            known(rate.win_rate),
            known(rate.interval.low),
            known(rate.interval.high),
            known(rate.standard_error),
        ),
        lc_win_rate=lc,
        n_wins=rate.n_wins,
        n_losses=rate.n_wins_base,
        n_draws=rate.n_draws,
        n_unparsed=rate.n_unparsed,
    )


def _correct(rows: list[Generation]) -> Rate:
    """How many answers are right, by the world's own answer key."""
    right = np.array([world.check(row.instruction, row.output) for row in rows], dtype=np.float64)
    mean, error, n = clustered_mean(right)
    interval = rate_interval(mean, error, n)
    return Rate(known(mean), known(interval.low), known(interval.high), known(error))


def _benchmarks(
    model: str, parameters: Mapping[str, Any], inputs: Mapping[str, Path]
) -> dict[str, Rate]:
    rates: dict[str, Rate] = {}
    for suite in parameters["suites"]:
        role = f"lm-eval {suite['name']} {model}"
        if role not in inputs:
            continue
        scores = json.loads((inputs[role] / SCORES).read_text(encoding="utf-8"))
        own = {}
        for wanted in suite["benchmarks"]:
            score = scores[wanted["task"]][wanted["metric"]]
            name = f"{wanted['task']} {wanted['metric'].removesuffix(',none')}"
            own[name] = Rate(score["value"], None, None, score["standard_error"])
        rates |= own
        if suite["average"] == MEAN:
            rates[f"{suite['name']} {MEAN}"] = _mean(own)
    return rates


def _mean(benchmarks: Mapping[str, Rate]) -> Rate:
    """The unweighted mean, with the standard error of independent tasks; None where one of them is unknown."""
    values = [rate.value for rate in benchmarks.values()]
    errors = [rate.standard_error for rate in benchmarks.values()]
    value = (
        None
        if None in values or not values
        else sum(v for v in values if v is not None) / len(values)
    )
    error = None
    if value is not None and None not in errors:
        error = sum(e * e for e in errors if e is not None) ** 0.5 / len(errors)
    return Rate(value, None, None, error)


def _rated(inputs: Mapping[str, Path]) -> RatingTable | None:
    if "pairwise" not in inputs:
        return None
    return msgspec.json.decode((inputs["pairwise"] / RATINGS).read_bytes(), type=RatingTable)


def _samples(outputs: Mapping[str, list[Generation]]) -> list[Sample]:
    """The first prompts with every model's answer."""
    texts = {
        model: {row.instruction: row.output for row in rows} for model, rows in outputs.items()
    }
    first = next(iter(texts.values()), {})
    return [
        Sample(
            instruction,
            {model: own[instruction] for model, own in texts.items() if instruction in own},
        )
        for instruction in list(first)[:_N_SAMPLES]
    ]


_AGAINST_METHOD = "the model of method {baseline} on the same base"
_JUDGED = """\
Win rates are against {baseline}; 95 % intervals are for new prompts drawn like \
these, with the models and the judge held fixed.
Every column of a judge is named after it; judges are not averaged.
LC: length-controlled, with the difficulties of the prompts fitted jointly to the models of one base.
Models answer the same prompts: whether two of them differ is for a paired test to say, not for the overlap of their \
intervals."""
_RATED = """\
Ratings are from a round robin of all models on {n_prompts} of the prompts, judged by {judge} (comparisons without a \
verdict: {n_without}); their intervals are for new prompts as well."""
_PLAIN = "{suite} is asked in plain text, without the models' chat templates."
_QUANTISED = """\
Trained on the base model in {bits} bits, and evaluated on it unquantised, in its own precision: {models}."""
_KEYED = "Correct: the share of answers that a program found right."


def _conditions(parameters: Mapping[str, Any], rated: RatingTable | None) -> list[str]:
    said = (
        _JUDGED.format(baseline=_against(parameters)).splitlines() if parameters["judges"] else []
    )
    if rated is not None:
        said.append(
            _RATED.format(
                n_prompts=rated.n_prompts,
                judge=parameters["rating_judge"],
                n_without=rated.n_without_verdict,
            )
        )
        said += [rated.note] if rated.note else []
    said += [
        _PLAIN.format(suite=s["name"]) for s in parameters["suites"] if not s["apply_chat_template"]
    ]
    by_bits: dict[int, list[str]] = {}
    for entry in parameters["models"]:
        if entry["trained_in_bits"] is not None:
            by_bits.setdefault(entry["trained_in_bits"], []).append(entry["model"])
    said += [
        _QUANTISED.format(bits=bits, models=", ".join(models)) for bits, models in by_bits.items()
    ]
    keyed = any(one["answer_key"] for one in parameters["sets"][:1])
    return [*said, _KEYED] if keyed else said


def _against(parameters: Mapping[str, Any]) -> str:
    """What models are compared with, set by set where that differs."""
    own, names = parameters["baseline"], {entry["model"] for entry in parameters["models"]}
    inside = own if own in names else _AGAINST_METHOD.format(baseline=own)
    parts = [
        (one["reference"] or inside) + (f" on {one['name']}" if len(parameters["sets"]) > 1 else "")
        for one in parameters["sets"]
    ]
    return " and ".join(parts)
