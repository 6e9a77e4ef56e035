"""The work of one run: which job a worker does next, what became of each, and what an executor is.

An executor takes jobs with `Work.take`, has a `alignboard.pipeline.executors.doing.Doer` do each, and reports with
`Work.report`. It is registered by one line, ``register("executor", "mine", "my_package:Mine")``; the target is called
with `Settings`.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from alignboard.errors import AlignboardError, InputError
from alignboard.pipeline.graph import Job
from alignboard.pipeline.locks import is_being_made
from alignboard.pipeline.store import WorkspacePaths, done_row, export
from alignboard.results.journal import Journal

PAUSE: Final = 0.2
"""seconds between two looks at whether another run has done a job"""
_LEADING: Final = frozenset({"checkpoint", "data", "pairs", "tokens", "reference", "train"})
"""kinds of jobs that are done for others: not started where all of those have lost what they need"""


class RunFailedError(AlignboardError):
    """Jobs that could not be done; the message names each with its reason."""

    only_incomplete = False
    """whether every one of them was stopped by `IncompleteError`"""


class IncompleteError(AlignboardError):
    """A job that did its work and found that some of it is missing, such as responses that an endpoint refused.

    It is not done; the next run asks for what is missing.
    """

    def __init__(self, message: str, report: Mapping[str, Any]) -> None:
        """``report`` is what the job came to, as `Done` has it."""
        super().__init__(message)
        self.report = report


@dataclass(frozen=True)
class Event:
    """Something that happened in a run, for whoever shows it."""

    kind: str
    """``waiting`` (another run does the job), ``start``, ``progress``, ``done``, ``failed``"""
    job: Job
    worker: int
    done: int = 0
    total: int = 0
    """of ``progress``: how far the job is"""
    seconds: float = 0.0
    """of ``done``"""
    message: str = ""
    """of ``failed``; of ``progress``: what the job tells of itself"""
    report: Mapping[str, Any] = field(default_factory=dict)
    """of ``done``, and of ``failed`` where a part is missing: what the job came to"""


@dataclass(frozen=True)
class Timing:
    """What one job cost in this run. Kept apart from everything that a board is made of."""

    job: Job
    seconds: float
    cpu_seconds: float
    import_seconds: float
    """of ``seconds``: loading libraries that the process had not loaded before"""
    worker: int
    peak_mib: float
    """of the worker's memory so far"""


@dataclass(frozen=True)
class Settings:
    """How a run uses the machine."""

    n_workers: int
    devices: tuple[str, ...] = ()
    """one per worker, as CUDA_VISIBLE_DEVICES names them; empty: every worker sees what this process sees"""
    helpers: tuple[str, ...] = ()
    """of processes that share a job with its worker; see `alignboard.pipeline.executors.doing.JobTask`"""
    modules: tuple[str, ...] = ()
    """imported by every worker: modules that register kinds of jobs and are no installed plug-in"""
    environment: Mapping[str, str] = field(default_factory=dict)
    """of every worker, set before it imports anything heavy"""

    def environment_of(self, worker: int) -> dict[str, str]:
        """The variables of one worker."""
        if not self.devices:
            return dict(self.environment)
        own = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": self.devices[worker]}
        return {**self.environment, **own}


@dataclass(frozen=True)
class Assignment:
    """A job for a worker."""

    job: Job
    inputs: Mapping[str, str]
    """role -> folder in the store"""
    open_groups: tuple[str, ...]
    """what the worker holds for any other group can go"""


@dataclass(frozen=True)
class Done:
    """What a job that was done exports and cost."""

    exports: Mapping[str, str]
    """path in the workspace -> path in the job's folder"""
    costs: Mapping[str, float]
    """``seconds``, ``cpu_seconds``, ``import_seconds``"""
    peak_mib: float
    done_here: bool = True
    """False where another run did it meanwhile"""
    report: Mapping[str, Any] = field(default_factory=dict)
    """JSON: what a command tells of it"""


@dataclass(frozen=True)
class Failed:
    """Why a job could not be done."""

    reason: str
    is_defect: bool = False
    """whether the log has a traceback"""
    report: Mapping[str, Any] | None = None
    """of `IncompleteError`"""


class Executor(Protocol):
    """Whoever does the jobs of a run, in one place or in many."""

    def run(self, work: Work) -> None:
        """Do every job that can be done; return when none is left. Raise only what ends the run."""
        ...


class Work:
    """The jobs of one run. Used from one thread.

    Jobs of one group go to one worker, one after another, so that a base model is loaded once. A worker goes on with
    its own groups before it takes a new one. Nothing is trained before the files of all trainings are read.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        done: set[str],
        paths: WorkspacePaths,
        journal: Journal,
        on_event: Callable[[Event], None],
        *,
        replace: bool = False,
    ) -> None:
        """``replace`` as in `alignboard.pipeline.store.export`."""
        self.paths = paths
        self.timings: list[Timing] = []
        self.is_waiting = False
        """whether the last `take` found only jobs that another run is doing: try again after `PAUSE`"""
        self._jobs = {job.name: job for job in jobs}
        self._pending = [job for job in jobs if job.name not in done]
        self._done = set(done)
        self._journal = journal
        self._on_event, self._replace = on_event, replace
        self._running: dict[int, Job] = {}
        self._groups: dict[int, set[str]] = {}
        self._told_waiting: set[str] = set()
        self._failed: dict[str, str] = {}
        self._stopped: set[str] = set()
        """jobs that failed, that need one that did, or that only lead to such"""
        self._incomplete: set[str] = set()

    def take(self, worker: int) -> Assignment | None:
        """The next job for ``worker``, which has none; None where there is none now."""
        job = self._next(worker)
        if job is None:
            return None
        self._pending.remove(job)
        self._running[worker] = job
        still_open = {job.group, *(one.group for one in self._pending)}
        self._groups[worker] = (self._groups.get(worker, set()) | {job.group}) & still_open
        self._on_event(Event("start", job, worker))
        inputs = {role: self._jobs[name].folder for role, name in job.needs.items()}
        return Assignment(job, inputs, tuple(sorted(self._groups[worker])))

    def _next(self, worker: int) -> Job | None:
        """The first job that can be done now and whose group is no other worker's; own groups come first."""
        others = {
            group for other, groups in self._groups.items() if other != worker for group in groups
        }
        own, reading = self._groups.get(worker, set()), self._is_reading()
        ready = [
            job
            for job in self._pending
            if job.group not in others
            and self._done.issuperset(job.needs.values())
            and job.name not in self._stopped
            and not (reading and job.kind == "train")
        ]
        ready.sort(key=lambda job: job.group not in own)
        free = next((job for job in ready if not self._is_elsewhere(job, worker)), None)
        self.is_waiting = free is None and bool(ready)
        return free

    def _is_reading(self) -> bool:
        """Whether rows of a file or of the hub are still to be read."""
        return any(
            job.kind == "data" and "pairs" not in job.needs and job.name not in self._stopped
            for job in (*self._pending, *self._running.values())
        )

    def _stop(self, failed: str) -> None:
        self._stopped.add(failed)
        for job in self._jobs.values():
            if self._stopped.intersection(job.needs.values()):
                self._stopped.add(job.name)
        users = defaultdict[str, list[str]](list)
        for job in self._jobs.values():
            for name in job.needs.values():
                users[name].append(job.name)
        for job in reversed(self._jobs.values()):
            if (
                job.kind in _LEADING
                and users[job.name]
                and self._stopped.issuperset(users[job.name])
            ):
                self._stopped.add(job.name)

    def _is_elsewhere(self, job: Job, worker: int) -> bool:
        if not is_being_made(self.paths, job.folder):
            return False
        if job.name not in self._told_waiting:
            self._told_waiting.add(job.name)
            self._on_event(Event("waiting", job, worker))
        return True

    @property
    def is_running(self) -> bool:
        """Whether any worker has a job."""
        return bool(self._running)

    def has_job(self, worker: int) -> bool:
        """Whether ``worker`` has a job."""
        return worker in self._running

    def progress(self, worker: int, done: int, total: int, said: str = "") -> None:
        """Report how far the worker's job is, and what it tells of itself."""
        self._on_event(Event("progress", self._running[worker], worker, done, total, message=said))

    def report(self, worker: int, outcome: Done | Failed) -> None:
        """Report what became of the worker's job; it is recorded and exported before this returns."""
        job = self._running.pop(worker)
        if isinstance(outcome, Failed):
            self._failed[job.name] = outcome.reason
            self._stop(job.name)
            if outcome.report is not None:
                self._incomplete.add(job.name)
            report = outcome.report or {}
            self._on_event(Event("failed", job, worker, message=outcome.reason, report=report))
            return
        try:
            export(job, outcome.exports, self.paths, replace=self._replace)
        except InputError as error:
            self._failed[job.name] = str(error)
            self._stop(job.name)
            self._on_event(Event("failed", job, worker, message=str(error)))
            return
        if job.is_kept:
            row = done_row(job, outcome.exports, outcome.costs, outcome.report)
            self._journal.forget([row.key])  # a job is done again where its folder was gone
            self._journal.add([row])
        self._done.add(job.name)
        seconds = 0.0
        if outcome.done_here:
            self.timings.append(
                Timing(job, **outcome.costs, worker=worker, peak_mib=outcome.peak_mib)
            )
            seconds = outcome.costs["seconds"]
        self._on_event(Event("done", job, worker, seconds=seconds, report=outcome.report))

    def lost(self, worker: int, reason: str) -> None:
        """Report that a worker is gone with all that it held; its job, if it had one, failed for ``reason``."""
        self._groups.pop(worker, None)
        if self.has_job(worker):
            self.report(worker, Failed(reason))

    def require_done(self) -> None:
        """Raise `RunFailedError` where a job could not be done."""
        if not self._failed:
            return
        skipped = len(self._pending)
        lines = [f"{name}: {reason.rstrip('.')}." for name, reason in self._failed.items()]
        more = (
            f" {skipped} jobs that depend on it, or only lead there, were not started."
            if skipped
            else ""
        )
        error = RunFailedError("Not everything could be done. " + " ".join(lines) + more)
        error.only_incomplete = self._incomplete == set(self._failed)
        raise error


def pause() -> None:
    """Wait until another run may have done a job."""
    time.sleep(PAUSE)


def silent(event: Event) -> None:
    """Show nothing."""
