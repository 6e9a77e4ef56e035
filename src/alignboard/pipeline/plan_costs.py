"""What the jobs of a plan would cost that are still to be done: the numbers of the single commands' dry runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from alignboard.data.instruction_sets import InstructionSet
from alignboard.judges.load import decode_judge
from alignboard.judges.round_robin import round_robin
from alignboard.models.spec import ModelSpec
from alignboard.pipeline.answering import OUTPUTS
from alignboard.pipeline.costs import (
    GenerationCost,
    JobCost,
    KindCost,
    by_kind,
    generation_cost,
    of_generation,
    of_judging,
)
from alignboard.pipeline.evaluation import Evaluation, hardening_secret
from alignboard.pipeline.graph import Job
from alignboard.pipeline.jobs.generate import decoding_of_job, released_conversations, released_rows
from alignboard.pipeline.jobs.judge import compared
from alignboard.pipeline.judges import Judges
from alignboard.pipeline.plans.models import served_of
from alignboard.pipeline.plans.plan import access_of
from alignboard.pipeline.plans.references import hub_data
from alignboard.pipeline.plans.resolved import ResolvedPlan
from alignboard.pipeline.plans.schema import PlanJudge, PlanModel
from alignboard.pipeline.store import WorkspacePaths
from alignboard.records import Generation
from alignboard.results.conversations import (
    CONVERSATIONS,
    Choice,
    Conversation,
    read_conversations,
)
from alignboard.results.formats import read_rows
from alignboard.results.journal import Journal
from alignboard.suites import Benchmark

Responses = list[Generation] | list[Conversation]
_NAMED: Final = 6
"""data sets of the hub that are named"""


@dataclass(frozen=True)
class _Estimating:
    """A plan, and what is done of it."""

    sets: Mapping[str, InstructionSet]
    jobs: Mapping[str, Job]
    done: set[str]
    paths: WorkspacePaths
    journal: Journal

    def responses(self, name: str) -> Responses | None:
        """The responses that the job ``name`` makes; None where they are not there yet."""
        job = self.jobs[name]
        asked = self.sets[job.parameters["set"]["name"]]
        if name not in self.done:
            if job.kind != "outputs":
                return None
            several = asked.n_turns > 1
            return released_conversations(job, asked) if several else released_rows(job, asked)
        file = CONVERSATIONS if asked.n_turns > 1 else OUTPUTS
        (path,) = self.paths.folder(job).rglob(file)
        return read_conversations(path) if asked.n_turns > 1 else read_rows(path, Generation)

    def evaluation(self, job: Job) -> Evaluation:
        """The judge of a job, asked as the plan says."""
        journal = self.paths.journal
        access = access_of(msgspec.convert(job.hints["access"], PlanJudge), journal)
        # Without a secret no reply of a hardened judge can be there.
        known = (journal / "hardened-secret").exists()
        secret = hardening_secret(journal) if known else ""
        judges = Judges(access, self.paths.workspace, secret=secret)
        return Evaluation(judges.repeated(job.parameters.get("repeat", 0)), self.journal)


def plan_costs(
    resolved: ResolvedPlan,
    jobs: Sequence[Job],
    done: set[str],
    seconds: Mapping[str, float | None],
) -> list[KindCost]:
    """The costs of the jobs that are not ``done``, by kind; ``seconds`` are expected of each job."""
    with _estimating(resolved, jobs, done) as plan:
        return by_kind(
            (job.kind, _COSTS.get(job.kind, _free)(job, plan), seconds[job.name])
            for job in jobs
            if job.name not in done
        )


@contextlib.contextmanager
def _estimating(
    resolved: ResolvedPlan, jobs: Sequence[Job], done: set[str]
) -> Iterator[_Estimating]:
    paths = WorkspacePaths(resolved.workspace)
    with Journal(paths.journal) as journal, contextlib.chdir(resolved.workspace):
        sets = {one.name: one.asked for one in resolved.sets}
        yield _Estimating(sets, {job.name: job for job in jobs}, done, paths, journal)


def _free(_job: Job, _plan: _Estimating) -> JobCost:
    """Of a job that asks no model for text."""
    return JobCost()


def generation_costs(
    resolved: ResolvedPlan, jobs: Sequence[Job], done: set[str]
) -> list[GenerationCost]:
    """The costs of every model's responses, those of jobs that are ``done`` included."""
    with _estimating(resolved, jobs, done) as plan:
        return [_generation(job, plan) for job in jobs if job.kind == "generate"]


def _generation(job: Job, plan: _Estimating) -> GenerationCost:
    spec = msgspec.convert(job.hints["spec"], ModelSpec)
    asked = plan.sets[job.parameters["set"]["name"]]
    if job.name in plan.done:
        n = sum(len(row.turns) for row in asked.rows)
        return GenerationCost(spec.name, 0, n, 0, 0, 0, 0.0)
    entry = job.hints.get("entry")
    served = None if entry is None else served_of(msgspec.convert(entry, PlanModel))
    decoding = decoding_of_job(job, spec)
    return generation_cost(spec, decoding, asked, served, plan.journal)


def _generate(job: Job, plan: _Estimating) -> JobCost:
    spec = msgspec.convert(job.hints["spec"], ModelSpec)
    asked = plan.sets[job.parameters["set"]["name"]]
    decoding = decoding_of_job(job, spec)
    trained = any(plan.jobs[name].kind == "train" for name in job.needs.values())
    # The prompt is the base's, but its checkpoint is made first.
    if "entry" not in job.hints and (trained or not spec.base):
        n = sum(len(row.turns) for row in asked.rows)
        reason = f"prompt tokens of {spec.name}: it is not trained yet"
        return JobCost(n, None, n * decoding.max_new_tokens, 0.0, (reason,))
    return of_generation(_generation(job, plan))


def _benchmark(job: Job, plan: _Estimating) -> JobCost:
    reason = "requests of lm-eval tasks, whose documents only a run reads"
    asked = msgspec.convert(job.parameters["tasks"], list[Benchmark])
    names = [] if job.hints["data_root"] else hub_data(asked, plan.paths.workspace)
    if names:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        reason += f", from the hub or a mirror (--data-root DIR): {', '.join(names[:_NAMED])}{more}"
    return JobCost(None, None, None, 0.0, (reason,))


def _judge(job: Job, plan: _Estimating) -> JobCost:
    given, against = (plan.responses(job.needs[role]) for role in ("outputs", "baseline"))
    model = job.parameters["model"]
    lengths_known = against is not None
    if against is None:
        against = _placeholders(plan.sets[job.parameters["set"]], "baseline")
    if given is None:  # as long as the baseline's, as `alignboard evaluate --dry-run` has it
        given = [_as_long(row, model) for row in against]
    comparison = compared(job, given, against, plan.paths.workspace, Path())
    costs = plan.evaluation(job).costs(decode_judge(job.parameters["declared"]), comparison)
    what = f"{job.parameters['judge']} on {model}"
    return of_judging(costs, what, lengths_known=lengths_known)


def _pairwise(job: Job, plan: _Estimating) -> JobCost:
    asked, known = plan.sets[job.parameters["set"]], True
    outputs: dict[str, list[Generation]] = {}
    for model in job.parameters["models"]:
        found: Any = plan.responses(job.needs[f"outputs {model}"])
        known = known and found is not None
        outputs[model] = _placeholders(asked, model) if found is None else found
    pairs = round_robin(outputs, job.parameters["n_prompts"], job.parameters["seed"])
    declared = decode_judge(job.parameters["declared"])
    costs = plan.evaluation(job).pair_costs(declared, pairs)
    return of_judging(costs, "the round robin", lengths_known=known)


def _placeholders(asked: InstructionSet, model: str) -> Any:
    """Responses to ``asked`` of which only the number is right."""
    if asked.n_turns == 1:
        return [Generation(row.turns[0], model, model) for row in asked.rows]
    return [
        Conversation(
            question_id=number if row.question_id is None else row.question_id,
            model_id=model,
            choices=[Choice(turns=[model] * len(row.turns))],
        )
        for number, row in enumerate(asked.rows, start=1)
    ]


def _as_long(row: Any, model: str) -> Any:
    """Another response of about the same length."""
    if isinstance(row, Generation):
        return Generation(row.instruction, f"{row.output} ", model)
    turns = [f"{turn} " for turn in row.answers]
    return msgspec.structs.replace(row, model_id=model, choices=[Choice(turns=[*turns])])


_COSTS: Final[Mapping[str, Callable[[Job, _Estimating], JobCost]]] = {
    "generate": _generate,
    "lm-eval": _benchmark,
    "judge": _judge,
    "pairwise": _pairwise,
}
