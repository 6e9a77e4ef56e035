"""Jobs that compare answers: verdicts against the baseline, the round robin, and ratings."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from alignboard.errors import InputError
from alignboard.evaluate.judge import (
    Judge,
    Judged,
    JudgeSpec,
    LogprobSpec,
    Pair,
    Reply,
    Status,
    judge_pairs,
    judgment_keys,
)
from alignboard.evaluate.model_judge import open_judge
from alignboard.evaluate.pairwise import rate, round_robin
from alignboard.leaderboards.plan_board import Rating, RatingTable, known
from alignboard.models.loading import LoadedModel
from alignboard.records import Generation
from alignboard.results.formats import read_rows, write_rows
from alignboard.results.journal import Row
from alignboard.run.jobs_answer import Commits
from alignboard.run.jobs_board import ANNOTATIONS, OUTPUTS, RATINGS
from alignboard.run.jobs_train import CHECKPOINT
from alignboard.run.worker import Task

JUDGMENT = "judgment"


class _Verdict(msgspec.Struct, frozen=True):
    """A verdict as the journal keeps it: without the names of who wrote the outputs, which are no part of its key."""

    status: Status
    preference: float | None
    switched: tuple[bool, ...]
    replies: tuple[Reply, ...]


def judge(task: Task) -> dict[str, str]:
    """One judge's verdicts on one model against its baseline."""
    baseline = read_rows(task.inputs["baseline"] / OUTPUTS, Generation)
    outputs = {
        row.instruction: row for row in read_rows(task.inputs["outputs"] / OUTPUTS, Generation)
    }
    pairs = [_pair(row, outputs[row.instruction]) for row in baseline]
    name, model = task.job.parameters["judge"], pairs[0].generator_2
    judged = _judged(task, pairs)
    rows = [one.row(name, row.dataset) for one, row in zip(judged, baseline, strict=True)]
    write_rows(task.folder / ANNOTATIONS, rows)
    return {f"results/{model}/{name}/{ANNOTATIONS}": ANNOTATIONS}


def pairwise(task: Task) -> dict[str, str]:
    """Every model against every other on some of the prompts, and ratings from it."""
    parameters = task.job.parameters
    outputs = {
        model: read_rows(task.inputs[f"outputs {model}"] / OUTPUTS, Generation)
        for model in parameters["models"]
    }
    table = rate(_judged(task, round_robin(outputs, parameters["n_prompts"], parameters["seed"])))
    ratings = {
        row.model: Rating(
            value=known(row.elo),
            low=known(row.elo_low),
            high=known(row.elo_high),
            rank_best=row.rank_best,
            rank_worst=row.rank_worst,
            n_battles=row.n_battles,
        )
        for row in table.rows
    }
    content = RatingTable(ratings, table.n_prompts, table.n_unparsed + table.n_failed, table.note)
    (task.folder / RATINGS).write_bytes(
        msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n"
    )
    return {}


def _pair(one: Generation, other: Generation) -> Pair:
    if one.instruction != other.instruction:
        raise InputError(
            f"{one.generator} and {other.generator} did not answer the same instructions."
        )
    return Pair(one.instruction, one.output, one.generator, other.output, other.generator)


def _judged(task: Task, pairs: Sequence[Pair]) -> list[Judged]:
    """The verdicts on ``pairs``; only those that the journal does not know are asked for, each once."""
    asked = _open(task)
    keys = judgment_keys(asked, pairs)
    unique = dict(zip(keys, pairs, strict=True))
    known_keys = task.journal.get([bytes.fromhex(key) for key in unique])
    missing = [pair for key, pair in unique.items() if bytes.fromhex(key) not in known_keys]
    commit = Commits(task, len(unique) - len(missing), len(unique))
    if missing:
        judge_pairs(asked, missing, on_done=lambda one: commit.add(_row(one)))
    commit.flush()
    found = task.journal.get([bytes.fromhex(key) for key in unique])
    verdicts = {key: msgspec.convert(found[bytes.fromhex(key)], _Verdict) for key in unique}
    return [
        Judged(key, pair, v.status, v.preference, v.switched, v.replies)
        for key, pair in zip(keys, pairs, strict=True)
        for v in (verdicts[key],)
    ]


def _row(one: Judged) -> Row:
    verdict = _Verdict(one.status, one.preference, one.switched, one.replies)
    return Row(bytes.fromhex(one.key), JUDGMENT, msgspec.to_builtins(verdict))


def _open(task: Task) -> Judge:
    """The judge of a job; its model, where it has one, is loaded once per process."""
    spec = msgspec.convert(task.job.parameters["declared"], JudgeSpec)
    if not isinstance(spec, LogprobSpec):
        return open_judge(spec)
    name = f"judge {spec.name}"
    if name not in task.held:
        trained = task.inputs.get("judge-model")
        task.held[name] = LoadedModel.load(trained / CHECKPOINT if trained else spec.model)
    return open_judge(spec, task.held[name])
