"""Jobs that compare responses: verdicts against the baseline, the round robin, and ratings."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from alignboard.boards.columns import Rating, RatingTable, known
from alignboard.judges.annotations import Summary
from alignboard.judges.load import decode_judge
from alignboard.judges.opening import Access
from alignboard.judges.round_robin import rate as rate_models
from alignboard.judges.round_robin import round_robin
from alignboard.judges.runner import Counts
from alignboard.judges.spec import JudgeSpec
from alignboard.models.spec import ModelSpec
from alignboard.pipeline.answering import OUTPUTS
from alignboard.pipeline.conversations import (
    compare_conversations,
    load_questions,
    shared_conversations,
)
from alignboard.pipeline.evaluation import Evaluation, hardening_secret
from alignboard.pipeline.executors.doing import JobTask
from alignboard.pipeline.executors.work import IncompleteError
from alignboard.pipeline.graph import Job
from alignboard.pipeline.jobs.board import RATINGS, found
from alignboard.pipeline.jobs.generate import exported, models_of
from alignboard.pipeline.jobs.weights import CHECKPOINT
from alignboard.pipeline.judged_outputs import Answers, PairedOutputs, compare, shared_rows
from alignboard.pipeline.judges import Judges
from alignboard.pipeline.judging import SUMMARY, JournalReplies
from alignboard.pipeline.locks import held
from alignboard.pipeline.plans.plan import access_of
from alignboard.pipeline.plans.schema import PlanJudge
from alignboard.pipeline.single_ratings import SUMMARY as RATING
from alignboard.pipeline.single_ratings import RatingSummary
from alignboard.records import Generation
from alignboard.results.conversations import CONVERSATIONS, read_conversations
from alignboard.results.files import write_json
from alignboard.results.formats import read_rows
from alignboard.results.outputs_paths import RECORD, outputs_place, set_place
from alignboard.results.verdict_paths import judge_folder
from alignboard.suites import Instructions

_T = TypeVar("_T")
SHOWN = 5
"""pairs without a verdict that a report names; the file has all of them"""


def judge(task: JobTask) -> dict[str, str]:
    """One judge's verdicts on one model against its baseline."""
    declared = declared_of(task)
    if "pairs" in task.job.hints:
        return _judge_beside(task, declared)
    judges = judges_of(task, declared).repeated(task.job.parameters.get("repeat", 0))
    evaluation = Evaluation(judges, task.journal, root=task.folder)
    file = CONVERSATIONS if task.job.parameters["two_turns"] else OUTPUTS
    given, against = (
        read_responses(found(task.inputs[role], file)) for role in ("outputs", "baseline")
    )
    pairs = compared(task.job, given, against, task.paths.workspace, _place(task))
    with _on_shared_base(task, declared, judges):
        summary, judged = evaluation.judge(declared, pairs, _shown(task))
    failed = [one.reason for one in judged if one.status == "failed"]
    _require_asked(declared, failed, len(judged), summary.model)
    return exported(task.folder)


def _judge_beside(task: JobTask, declared: JudgeSpec) -> dict[str, str]:
    """The same of a command: its pairs come with the job, and its files go beside the outputs, whole or not."""
    compared = _given(task, "pairs", PairedOutputs)
    with _evaluating(task, declared, compared.place, compared.baseline) as (evaluation, ask):
        summary, judged = evaluation.judge(declared, compared, _shown(task), ask=ask)
    found = [(one.pair.asked, one.status, one.reason) for one in judged]
    return _beside(task, declared, summary, found, Path(summary.annotations), SUMMARY)


def rate(task: JobTask) -> dict[str, str]:
    """One judge's ratings of one model's outputs by themselves, beside them."""
    declared = declared_of(task)
    answers = _given(task, "outputs", Answers)
    with _evaluating(task, declared, answers.place, None) as (evaluation, ask):
        summary, rated = evaluation.rate(declared, answers, _shown(task), ask=ask)
    found = [(one.question.asked, one.verdict.status, one.verdict.evidence) for one in rated]
    return _beside(task, declared, summary, found, Path(summary.ratings), RATING)


def _beside(
    task: JobTask,
    declared: JudgeSpec,
    summary: Summary | RatingSummary,
    found: Sequence[tuple[str, str, str]],
    written: Path,
    name: str,
) -> dict[str, str]:
    """Report what was ``found`` of each row, and keep copies of the files: one that is lost is put back from there.

    ``written`` is the file of the rows, and ``name`` that of the summary beside it.
    """
    unscored = [(asked, reason) for asked, status, reason in found if status != "scored"]
    task.report |= {"summary": msgspec.to_builtins(summary), "unscored": unscored[:SHOWN]}
    if not task.job.is_kept:
        return {}
    failed = [reason for _, status, reason in found if status == "failed"]
    _require_asked(declared, failed, summary.n, summary.model, task.report)
    files = [written, written.with_name(name)]
    for path in files:
        shutil.copy2(path, task.folder)
    return {str(path): path.name for path in files}


def _given(task: JobTask, name: str, kind: type[_T]) -> _T:
    """What a command gave its job to judge."""
    return msgspec.convert(task.job.hints[name], kind, dec_hook=lambda of, value: of(value))


@contextmanager
def _evaluating(
    task: JobTask, declared: JudgeSpec, place: Path, baseline: str | None
) -> Iterator[tuple[Evaluation, bool]]:
    """Judging beside outputs, and whether anybody is asked; then the folder of the verdicts is locked."""
    hints = task.job.hints
    ask: bool = hints["ask"]
    folder = str(place / judge_folder(declared.name, baseline))
    with held(task.paths, folder) if ask else nullcontext():
        judges = judges_of(task, declared, ask=ask)
        yield Evaluation(judges, task.journal, replace=hints["replace"]), ask


def read_responses(path: Path) -> Any:
    """The rows of a model's file of responses: of one turn, or of two."""
    return read_conversations(path) if path.name == CONVERSATIONS else read_rows(path, Generation)


def _place(task: JobTask) -> Path:
    """Where the responses that are judged lie; released ones have no decoding."""
    model, asked = task.job.parameters["model"], task.job.parameters["set"]
    record = next(task.inputs["outputs"].rglob(RECORD), None)
    if record is None:
        return set_place(model, asked)
    return outputs_place(task.paths.workspace, model, asked, json.loads(record.read_bytes()))


def compared(job: Job, given: Any, against: Any, workspace: Path, place: Path) -> PairedOutputs:
    """What a job judges: the instructions that both have responses to."""
    if job.parameters["two_turns"]:
        limit = msgspec.convert(job.hints["instructions"], Instructions).limit
        questions = load_questions(job.hints["set"], workspace, limit)
        return compare_conversations(*shared_conversations(questions, given, against), place)
    # Verdicts on one response share it, each under the name of its own run.
    named = [msgspec.structs.replace(row, generator=job.parameters["model"]) for row in given]
    return compare(*shared_rows(named, against), place)


def _require_asked(
    declared: JudgeSpec,
    failed: Sequence[str],
    n: int,
    model: str,
    report: Mapping[str, Any] | None = None,
) -> None:
    """Raise `IncompleteError` where the judge ``failed``, for these reasons, to reply on some of ``n`` rows."""
    if failed:
        raise IncompleteError(
            f"Judge {declared.name} gave no reply on {len(failed)} of {n} rows of {model}; the first: "
            f"{failed[0]}. Run it again to ask for those.",
            report or {},
        )


def pairwise(task: JobTask) -> dict[str, str]:
    """Every model against every other on some of the prompts, and ratings from it."""
    parameters = task.job.parameters
    outputs = {
        model: read_rows(found(task.inputs[f"outputs {model}"], OUTPUTS), Generation)
        for model in parameters["models"]
    }
    pairs = round_robin(outputs, parameters["n_prompts"], parameters["seed"])
    declared = declared_of(task)
    judges = judges_of(task, declared)
    judged = judges.judge(declared, pairs, JournalReplies(task.journal), _shown(task))
    failed = [one.reason for one in judged if one.status == "failed"]
    _require_asked(declared, failed, len(judged), "the round robin")
    table = rate_models(judged)
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
    write_json(task.folder / RATINGS, content)
    return {}


def declared_of(task: JobTask) -> JudgeSpec:
    """The judge of a job; one that is trained here with the model that an earlier job made."""
    declared: dict[str, Any] = task.job.parameters["declared"]
    read = decode_judge(declared)
    trained = task.inputs.get("judge-model")
    if trained is None or read.prompted is None:
        return read
    return msgspec.structs.replace(read.prompted, model=str(trained / CHECKPOINT))


def judges_of(task: JobTask, declared: JudgeSpec, *, ask: bool = True) -> Judges:
    """Whoever is asked, as the plan says; each model is loaded once, and each address has one queue."""
    given = msgspec.convert(task.job.hints["access"], PlanJudge)
    journal = task.paths.journal
    access = access_of(given, journal)
    opened: dict[Access, Judges] = task.held.setdefault("judges", {})
    if access not in opened:
        secret = hardening_secret(journal)
        opened[access] = Judges(access, task.paths.workspace, secret=secret)
    models = msgspec.convert(task.job.hints.get("judge_models", {}), dict[str, ModelSpec])
    opened[access].models.update(models)
    opened[access].require_supported(declared, dt.datetime.now(dt.UTC).date() if ask else None)
    return opened[access]


@contextmanager
def _on_shared_base(task: JobTask, declared: JudgeSpec, judges: Judges) -> Iterator[None]:
    """The judge on the base that its group's models are asked on, where it is the same: one load serves both."""
    if not task.job.hints.get("shares_base"):
        yield
        return
    judges.base = models_of(task).base
    with judges.base.open(judges.models[declared.name]):
        yield


def _shown(task: JobTask) -> Callable[[Counts], None]:
    return lambda now: task.progress(now.known + now.asked, now.total)
