"""`run_plan`: from a plan to a board. Does only what is not done yet.

Light: a run with nothing to do imports neither torch nor anything else that is slow to load.
"""

from __future__ import annotations

import dataclasses
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import msgspec

from alignboard.errors import InputError
from alignboard.extras import require
from alignboard.models.spec import ModelSpec
from alignboard.pipeline.executors.machine import Machine
from alignboard.pipeline.executors.work import Event, Timing, Work, silent
from alignboard.pipeline.finished import jobs_to_redo, of_older_schemes, other_versions
from alignboard.pipeline.graph import Graph, Job
from alignboard.pipeline.locks import held, in_use
from alignboard.pipeline.model_names import claim
from alignboard.pipeline.plans.benchmark import BenchmarkRequest, benchmark_plan
from alignboard.pipeline.plans.build import build_graph
from alignboard.pipeline.plans.consent import Consent
from alignboard.pipeline.plans.plan import load_plan, require_code_consent
from alignboard.pipeline.plans.resolved import ResolvedPlan
from alignboard.pipeline.preflight import is_light, is_local, require_plan, required_modules
from alignboard.pipeline.store import DONE, WorkspacePaths, done_jobs, export, forget
from alignboard.pipeline.training_preflight import require_trainings
from alignboard.results.journal import Journal

if TYPE_CHECKING:
    from alignboard.pipeline.costs import KindCost

_CALM = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "PYTHONHASHSEED": "0",
    "PYTHONUNBUFFERED": "1",
}
# Tiny models are fastest on one thread, and one thread adds numbers in one order: the same board on every run.
_LIGHT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
_OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


@dataclass(frozen=True)
class RunResult:
    """What a run did, or would do."""

    plan: ResolvedPlan
    jobs: list[Job]
    done_before: set[str]
    """names of the jobs that had been done before"""
    expected: dict[str, float | None]
    """seconds by job, as measured in this workspace: of the job itself, of its kind for tiny models, or a constant
    where there is none; None for a large model's job that was never done here"""
    n_workers: int
    timings: list[Timing]
    """of the jobs done now"""
    seconds: float
    other_versions: dict[str, str]
    """by kind of job: which jobs that were done before were made by other versions, and of what, in a sentence"""
    reports: dict[str, Mapping[str, Any]]
    """by job that had been done before: what it came to"""
    n_older: int
    """finished jobs in this workspace whose keys are of an older scheme: they are kept, and never taken for today's"""
    remarks: list[str]
    """what the plan asks for and will not get, in sentences"""

    def to_json(self) -> dict[str, Any]:
        """The jobs with what was done of them, and where the board is."""
        now = {timing.job.name: timing.seconds for timing in self.timings}
        return {
            "plan": self.plan.plan.name,
            "jobs": [
                {
                    "name": job.name,
                    "kind": job.kind,
                    "done_before": job.name in self.done_before,
                    "expected_seconds": self.expected[job.name],
                    "seconds": now.get(job.name),
                }
                for job in self.jobs
            ],
            "seconds": self.seconds,
            "board": None if self.board is None else str(self.board),
        }

    def costs(self) -> list[KindCost]:
        """What the jobs that are not done would cost, by kind."""
        from alignboard.pipeline.plan_costs import plan_costs

        return plan_costs(self.plan, self.jobs, self.done_before, self.expected)

    @property
    def board(self) -> Path | None:
        """The board's json file, where the plan makes a board."""
        path = WorkspacePaths(self.plan.workspace).leaderboards / f"{self.plan.plan.name}.json"
        return path if any(job.kind == "board" for job in self.jobs) else None


def run_plan(
    plan: str | Path,
    workspace: Path | None = None,
    *,
    dry_run: bool = False,
    on_progress: Callable[[Event], None] = silent,
    machine: Machine | None = None,
    redo: Sequence[str] = (),
    consent: Consent | None = None,
) -> RunResult:
    """Do what is missing of a plan, with what ``machine`` allows. ``dry_run`` only says what that is.

    ``redo`` names kinds of jobs that are done again, with all that depends on them: after an upgrade of a library whose
    version is recorded and not part of a key. ``consent`` is to what a plan of others may not do by itself. Interrupt
    it at any moment and call it again: it goes on where it was.
    """
    resolved = load_plan(plan, workspace, consent)
    require_code_consent(resolved)
    return run_resolved(
        resolved,
        dry_run=dry_run,
        on_progress=on_progress,
        machine=machine,
        redo=redo,
    )


def benchmark_models(
    asked: BenchmarkRequest,
    workspace: Path | None = None,
    *,
    dry_run: bool = False,
    on_progress: Callable[[Event], None] = silent,
    machine: Machine | None = None,
    redo: Sequence[str] = (),
    consent: Consent | None = None,
) -> RunResult:
    """Ask lm-eval's tasks of models, and make their board: a plan of one step, with the parameters of `run_plan`."""
    return run_resolved(
        benchmark_plan(asked, (workspace or Path.cwd()).resolve(), consent),
        dry_run=dry_run,
        on_progress=on_progress,
        machine=machine,
        redo=redo,
    )


def run_resolved(
    resolved: ResolvedPlan,
    *,
    dry_run: bool = False,
    on_progress: Callable[[Event], None] = silent,
    machine: Machine | None = None,
    redo: Sequence[str] = (),
) -> RunResult:
    """As `run_plan`, for a plan that is read already."""
    started = time.monotonic()
    paths = WorkspacePaths(resolved.workspace)
    graph = build_graph(resolved)
    # Files are read first: what is wrong with one is known before a model is trained.
    jobs = sorted(graph, key=lambda job: job.kind != "data" or bool(job.needs))
    again = jobs_to_redo(graph, redo)
    light = is_light(resolved)
    n_trainings = sum(job.kind == "train" for job in jobs)
    machine = (machine or Machine()).for_trainings(n_trainings, len(resolved.entries))
    machine = machine.with_default(only_light=light)
    if len(machine.devices) > 1:  # one base's trainings share no weights in memory: each has a GPU
        jobs = [
            dataclasses.replace(job, group=job.name) if job.kind == "train" else job for job in jobs
        ]
    environment = (
        _CALM | (_LIGHT if light else {}) | (_OFFLINE if light and is_local(resolved) else {})
    )
    executor = machine.open(environment)
    timings: list[Timing] = []
    replace = resolved.consent.replace
    with Journal(paths.journal, "run") as journal:
        records = done_jobs(jobs, paths, journal)
        older = of_older_schemes(journal)
        others = other_versions([job for job in jobs if job.name not in again], records)
        records = {name: record for name, record in records.items() if name not in again}
        expected = _expected(jobs, journal)
        if not dry_run:
            _require_resolved(jobs)
        if not dry_run and (
            len(records) < len(jobs) or _export(jobs, records, paths, only_check=True)
        ):
            missing = [job for job in jobs if job.name not in records]
            require(*required_modules(resolved, missing))
            require_plan(resolved, missing)
            require_trainings(resolved, missing)
            with in_use(paths):
                claim(paths.workspace, _claimed(resolved))
                work = _begun(jobs, again, paths, journal, on_progress, replace=replace)
                timings = work.timings
                records = done_jobs(jobs, paths, journal)
                executor.run(work)
                work.require_done()
                journal.settle()
        elif not dry_run:
            claim(paths.workspace, _claimed(resolved))  # of another model that is its copy
    return RunResult(
        resolved,
        jobs,
        set(records),
        expected,
        machine.n_workers or 1,
        timings,
        time.monotonic() - started,
        others,
        {name: record.get("report", {}) for name, record in records.items()},
        older,
        graph.remarks,
    )


def _begun(
    jobs: Sequence[Job],
    again: Collection[str],
    paths: WorkspacePaths,
    journal: Journal,
    on_progress: Callable[[Event], None],
    *,
    replace: bool,
) -> Work:
    """What is to be done of ``jobs``: those to do ``again`` are forgotten, and files of the others put back."""
    with held(paths, *(job.folder for job in jobs if job.name in again)):
        forget([job for job in jobs if job.name in again], paths, journal)
    records = done_jobs(jobs, paths, journal)  # another run may have done some meanwhile
    _export(jobs, records, paths, replace=replace)
    return Work(jobs, set(records), paths, journal, on_progress, replace=replace)


def run_graph(
    graph: Graph,
    workspace: Path,
    on_progress: Callable[[Event], None],
    *,
    redo: Sequence[str] = (),
    replace: bool = False,
) -> None:
    """Do what is missing of a command's jobs, in this process; what they come to is told by the events.

    Raises `RunFailedError` where a job could not be done, or lacks a part.
    """
    paths = WorkspacePaths(workspace)
    executor = Machine(1, executor="in-process").open(_CALM)
    with in_use(paths), Journal(paths.journal, "run") as journal:
        again = jobs_to_redo(graph, redo)
        work = _begun(list(graph), again, paths, journal, on_progress, replace=replace)
        executor.run(work)
        work.require_done()


def _claimed(resolved: ResolvedPlan) -> list[ModelSpec]:
    """The models that names of a plan stand for, as commands record them; what is made here has no other source."""
    return [
        msgspec.structs.replace(entry.spec, name=entry.name)
        for entry in resolved.entries.values()
        if entry.spec is not None and resolved.suites
    ]


def _require_resolved(jobs: Sequence[Job]) -> None:
    """A repository of the hub is known by its commit before anything runs; raises `InputError` where it is not."""
    for job in jobs:
        parameters = job.parameters
        sources = [parameters.get("source", {}), *parameters.get("sources", {}).values()]
        for part in (one for source in sources for one in source.values()):
            if isinstance(part, dict) and "id" in part and part["commit"] is None:
                raise InputError(
                    f"{job.name}: which commit of {part['id']} is meant cannot be found out (no network, or no such "
                    "repository); name one as revision:, or give a folder."
                )


def _export(
    jobs: Sequence[Job],
    records: Mapping[str, Mapping[str, Any]],
    paths: WorkspacePaths,
    *,
    only_check: bool = False,
    replace: bool = False,
) -> list[str]:
    """Copy what done jobs export to its place again, where it is not there; returns what was not."""
    return [
        name
        for job in jobs
        if job.name in records
        for name in export(
            job, records[job.name]["exports"], paths, only_check=only_check, replace=replace
        )
    ]


def _expected(jobs: list[Job], journal: Journal) -> dict[str, float | None]:
    """By job: what it, or its kind, has cost here so far, without imports."""
    of_kind: dict[str, list[float]] = defaultdict(list)
    of_job: dict[str, list[float]] = defaultdict(list)
    for row in journal.rows(DONE):
        seconds = row.payload["seconds"] - row.payload["import_seconds"]
        if row.payload.get("typical", True):
            of_kind[row.payload["kind"]].append(seconds)
        else:
            of_job[row.payload["job"]].append(seconds)
    expected: dict[str, float | None] = {}
    for job in jobs:
        measured = of_job[job.name] if job.seconds is None else of_kind[job.kind]
        expected[job.name] = fmean(measured) if measured else job.seconds
    return expected
