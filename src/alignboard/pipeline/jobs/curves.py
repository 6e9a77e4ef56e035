"""Jobs of learning curves: how far a checkpoint has drifted, and the board of all checkpoints on the way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from alignboard.boards.board import Board
from alignboard.boards.columns import Column, Row, Score
from alignboard.boards.drift import KL, KL_COLUMN, STEP, STEP_COLUMN, kl_score
from alignboard.boards.files import write_board
from alignboard.boards.scoring import (
    judged_columns,
    length_column,
    mean_length,
    rate_score,
)
from alignboard.pipeline.answering import OUTPUTS
from alignboard.pipeline.executors.doing import JobTask
from alignboard.pipeline.jobs.board import DRIFT, found
from alignboard.pipeline.jobs.generate import models_of, spec_of
from alignboard.pipeline.jobs.training_data import start_of
from alignboard.pipeline.jobs.weights import ADAPTER, CHECKPOINTS
from alignboard.pipeline.judging import ANNOTATIONS
from alignboard.records import Generation
from alignboard.results.formats import read_annotations, read_rows
from alignboard.stats.win_rate import win_rate

RUNAWAY: Final = 2.0
"""times the baseline's mean length"""
LOSS, ACCURACY, UNFINISHED = ("held_out/loss", "held_out/accuracy", "unfinished")
_COLUMNS: Final = {
    STEP: STEP_COLUMN,
    KL: KL_COLUMN,
    LOSS: Column(
        key=LOSS, name="held-out loss", kind="diagnostic", source="training", better="low", digits=3
    ),
    ACCURACY: Column(
        key=ACCURACY,
        name="held-out reward accuracy",
        kind="diagnostic",
        unit="%",
        source="training",
    ),
    UNFINISHED: Column(
        key=UNFINISHED,
        name="unfinished",
        kind="diagnostic",
        unit="%",
        source="responses",
        better="low",
    ),
}


def drift(task: JobTask) -> dict[str, str]:
    """log pi - log pi_ref of each of a model's own replies, in nats; null for an empty one."""
    from alignboard.models.prompting import render
    from alignboard.models.turns import end_of_turn
    from alignboard.training.checks.probe import reply_logps

    rows = read_rows(found(task.inputs["outputs"], OUTPUTS), Generation)
    policy, start = spec_of(task), start_of(task)
    parent = msgspec.structs.replace(policy, adapter=None if start is None else str(start))
    with models_of(task).open(policy) as model:
        words: Any = model.loaded.tokenizer
        prompts = [render(model.loaded, row.instruction) for row in rows]
        end = end_of_turn(words, words.chat_template) if words.chat_template else None
        end = words.eos_token_id if end is None else end
        replies = [
            [
                *words(row.output, add_special_tokens=False)["input_ids"],
                *([] if row.finish == "length" else [end]),
            ]
            for row in rows
        ]
        kept = [n for n, reply in enumerate(replies) if reply]
        given = [prompts[n] for n in kept], [replies[n] for n in kept]
        ours = reply_logps(model.loaded.model, *given)
    with models_of(task).open(parent) as model:
        theirs = reply_logps(model.loaded.model, *given)
    ratios: list[float | None] = [None] * len(rows)
    for n, own, other in zip(kept, ours, theirs, strict=True):
        ratios[n] = own - other
    (task.folder / DRIFT).write_text(json.dumps(ratios) + "\n", encoding="utf-8")
    return {}


def curves(task: JobTask) -> dict[str, str]:
    """The files of `write_board` in ``leaderboards/``: one row per checkpoint."""
    paths = write_board(curves_of(task.job.parameters, task.inputs), task.folder)
    return {f"leaderboards/{path.name}": path.name for path in paths}


def curves_of(parameters: Mapping[str, Any], inputs: Mapping[str, Path]) -> Board:
    """The board of the checkpoints on the way, from the folders of the jobs that it is made of."""
    judged = {judge: judged_columns(judge, None, None)[0] for judge in parameters["judges"]}
    rows, notes = [], []
    by_model: dict[str, list[Row]] = {}
    for entry in parameters["models"]:
        row = _row(entry, parameters, inputs, judged)
        rows.append(row)
        by_model.setdefault(entry["of"], []).append(row)
    for entry in parameters["models"]:
        if entry["model"] == entry["of"]:
            length = _mean_length(inputs, entry["baseline"])
            notes += words(entry["of"], by_model[entry["of"]], list(judged.values()), length)
    columns = [_COLUMNS[STEP], *judged.values(), _COLUMNS[KL], _COLUMNS[LOSS], _COLUMNS[ACCURACY]]
    columns += [length_column(), _COLUMNS[UNFINISHED]]
    used = {key for row in rows for key, score in row.scores.items() if score.value is not None}
    return Board(
        name=parameters["name"],
        title=parameters["title"],
        columns=[column for column in columns if column.key in used],
        rows=rows,
        summary=f"Checkpoints of {len(by_model)} trainings on the prompts of {parameters['set']}.",
        notes=[
            "Win rates are against each model's baseline; intervals are for new prompts drawn like these.",
            "KL: in nats per reply, from the model that training started from, with its 95 % interval.",
            *notes,
        ],
    )


def words(
    model: str, rows: list[Row], rates: list[Column], baseline_length: float | None
) -> list[str]:
    """What a training log does not show: accuracy that rises while replies lose, length that runs away."""
    first, last = rows[0].scores, rows[-1].scores
    told = []
    before, after = (scores.get(ACCURACY, Score()).value for scores in (first, last))
    for column in rates:
        rate = last.get(column.key, Score()).value
        if (
            before is not None
            and after is not None
            and rate is not None
            and after > before
            and rate < 50
        ):
            told.append(
                f"{model}: the held-out reward accuracy rises from {before:.1f} to {after:.1f} %, and the win rate by "
                f"{column.judge} is {rate:.1f} %: the training log shows progress that the replies do not have."
            )
    length = last.get("length", Score()).value
    if length is not None and baseline_length and length > RUNAWAY * baseline_length:
        told.append(
            f"{model}: the length runs away, {length:.0f} characters on average against {baseline_length:.0f} of the "
            "baseline."
        )
    return told


def _row(
    entry: Mapping[str, Any],
    parameters: Mapping[str, Any],
    inputs: Mapping[str, Path],
    judged: Mapping[str, Column],
) -> Row:
    name, folder = entry["model"], inputs[f"training {entry['of']}"]
    steps = json.loads((folder / CHECKPOINTS / "steps.json").read_text(encoding="utf-8"))
    card = json.loads((folder / ADAPTER / "training.json").read_text(encoding="utf-8"))
    step = steps.get(str(entry["number"]), card["steps"])
    measured = card["held_out"].get(str(step), {})
    outputs = read_rows(found(inputs[f"outputs {name}"], OUTPUTS), Generation)
    cut = sum(row.finish == "length" for row in outputs)
    accuracy = measured.get("rewards/accuracies")
    scores = {
        STEP: Score(step),
        KL: kl_score(json.loads((inputs[f"drift {name}"] / DRIFT).read_text(encoding="utf-8"))),
        LOSS: Score(measured.get("loss")),
        ACCURACY: Score(None if accuracy is None else 100 * accuracy),
        "length": mean_length([len(row.output) for row in outputs]),
        UNFINISHED: Score(100 * cut / len(outputs), n=len(outputs)),
    }
    for judge, column in judged.items():
        role = f"verdicts {judge} {parameters['set']} {name}"
        if role in inputs:
            table = read_annotations(
                found(inputs[role], ANNOTATIONS), generator=name, baseline=entry["baseline"]
            )
            scores[column.key] = rate_score(
                win_rate(table.preference, table.instruction, balanced=table.balanced)
            )
    return Row(f"{entry['of']}@{step}", scores, entry["family"], entry["method"])


def _mean_length(inputs: Mapping[str, Path], model: str | None) -> float | None:
    role = f"outputs {model}"
    if role not in inputs:
        return None
    rows = read_rows(found(inputs[role], OUTPUTS), Generation)
    return float(np.mean([len(row.output) for row in rows]))
