"""Does jobs in processes: at most so many at a time, each job when what it needs is done.

Jobs of one group go to one process, so that a base model is loaded once, and a process takes the next group when it
has finished one, so that imports are paid once per process and not per group. Nothing here is needed to resume: a run
that is killed leaves committed rows and complete folders, and the next run does what is missing.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignboard.errors import AlignboardError, InputError
from alignboard.pipeline.executors.worker import job_to_json
from alignboard.pipeline.graph import Job
from alignboard.pipeline.store import Places, done_row, export
from alignboard.results.journal import Journal

_PATIENCE = 5.0
"""seconds that a process may take to close what it has open"""


class RunFailedError(AlignboardError):
    """Jobs that could not be done; the message names each with its reason."""


@dataclass(frozen=True)
class Event:
    """Something that happened in a run, for whoever shows it."""

    kind: str
    """``start``, ``progress``, ``done``, ``failed``"""
    job: Job
    worker: int
    done: int = 0
    total: int = 0
    """of ``progress``: how far the job is"""
    seconds: float = 0.0
    """of ``done``"""
    message: str = ""
    """of ``failed``"""


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


@dataclass
class _Process:
    number: int
    popen: subprocess.Popen[bytes]
    log: Path
    groups: set[str] = field(default_factory=set)
    job: Job | None = None
    unread: bytes = b""


@dataclass(frozen=True)
class Settings:
    """How a run uses the machine."""

    n_workers: int
    modules: tuple[str, ...] = ()
    """imported by every worker: modules that register kinds of jobs and are no installed plug-in"""
    environment: Mapping[str, str] = field(default_factory=dict)


class Executor:
    """Does the jobs that are missing. One use."""

    def __init__(
        self,
        jobs: Sequence[Job],
        done: set[str],
        places: Places,
        journal: Journal,
        settings: Settings,
        on_event: Callable[[Event], None],
    ) -> None:
        self._jobs = {job.name: job for job in jobs}
        self._pending = [job for job in jobs if job.name not in done]
        self._done = set(done)
        self._places = places
        self._journal = journal
        self._settings = settings
        self._on_event = on_event
        self._processes: list[_Process] = []
        self._selector = selectors.DefaultSelector()
        self._failed: dict[str, str] = {}
        self.timings: list[Timing] = []

    def run(self, lock: int) -> None:
        """Do every job that can be done; raises `RunFailedError` at the end where one could not."""
        try:
            while True:
                self._give_out(lock)
                if not any(process.job for process in self._processes):
                    break
                for key, _ in self._selector.select():
                    self._read(key.data)
            self._dismiss()
        finally:
            self._stop()
        if self._failed:
            skipped = len(self._pending)
            lines = [f"{name}: {reason}" for name, reason in self._failed.items()]
            more = f" {skipped} jobs that depend on it were not started." if skipped else ""
            raise RunFailedError("Not everything could be done. " + " ".join(lines) + more)

    def _give_out(self, lock: int) -> None:
        """Give jobs to processes that are free, starting processes where there are too few."""
        while self._pending:
            free = [process for process in self._processes if process.job is None]
            choices = [
                (process, job) for process in free if (job := self._next(process)) is not None
            ]
            if choices:
                # A process goes on with its own groups before any takes a new one.
                process, job = min(
                    choices, key=lambda choice: choice[1].group not in choice[0].groups
                )
            elif not free and len(self._processes) < self._settings.n_workers and self._next(None):
                process = self._start_process(lock)
                job = self._next(process)
                if job is None:
                    return
            else:
                return
            self._give(process, job)

    def _next(self, process: _Process | None) -> Job | None:
        """The first job that can be done now and whose group is no other process's; own groups come first."""
        others = {
            group for other in self._processes if other is not process for group in other.groups
        }
        ready = [
            job
            for job in self._pending
            if job.group not in others and self._done.issuperset(job.needs.values())
        ]
        own = [job for job in ready if process is not None and job.group in process.groups]
        return next(iter(own or ready), None)

    def _give(self, process: _Process, job: Job) -> None:
        self._pending.remove(job)
        process.job = job
        open_groups = {job.group, *(one.group for one in self._pending)}
        process.groups = (process.groups | {job.group}) & open_groups
        command = {"job": job_to_json(job, self._jobs), "open_groups": sorted(process.groups)}
        self._on_event(Event("start", job, process.number))
        _send(process, command)

    def _start_process(self, lock: int) -> _Process:
        used = {process.number for process in self._processes}
        number = next(n for n in range(len(used) + 1) if n not in used)
        self._places.logs.mkdir(parents=True, exist_ok=True)
        log = self._places.logs / f"worker-{number}.log"
        arguments = [str(self._places.workspace), str(number), *self._settings.modules]
        with log.open("ab") as file:
            popen = subprocess.Popen(  # noqa: S603 (this Python, this package)
                [sys.executable, "-m", "alignboard.pipeline.executors.worker", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                pass_fds=[lock],
                env={**os.environ, **self._settings.environment},
                cwd=self._places.workspace,  # relative paths in declarations are the workspace's
            )
        process = _Process(number, popen, log)
        self._processes.append(process)
        assert popen.stdout is not None  # noqa: S101 (it was asked for)
        self._selector.register(popen.stdout, selectors.EVENT_READ, process)
        return process

    def _read(self, process: _Process) -> None:
        assert process.popen.stdout is not None  # noqa: S101
        chunk = os.read(process.popen.stdout.fileno(), 65536)
        if not chunk:
            self._ended(process)
            return
        *lines, process.unread = (process.unread + chunk).split(b"\n")
        for line in lines:
            self._handle(process, json.loads(line))

    def _handle(self, process: _Process, reply: dict[str, Any]) -> None:
        job = process.job
        if job is None:
            return
        if reply["event"] == "progress":
            self._on_event(Event("progress", job, process.number, reply["done"], reply["total"]))
            return
        process.job = None
        if reply["event"] == "failed":
            self._fail(
                process, job, reply["error"] + (f" (see {process.log})" if reply["trace"] else "")
            )
            return
        costs = {name: reply[name] for name in ("seconds", "cpu_seconds", "import_seconds")}
        try:
            export(job, reply["exports"], self._places)
        except InputError as error:
            self._fail(process, job, str(error))
            return
        row = done_row(job, reply["exports"], costs)
        self._journal.forget([row.key])  # a job is done again where its folder was gone
        self._journal.add([row])
        self._done.add(job.name)
        self.timings.append(Timing(job, **costs, worker=process.number, peak_mib=reply["peak_mib"]))
        self._on_event(Event("done", job, process.number, seconds=reply["seconds"]))

    def _fail(self, process: _Process, job: Job, reason: str) -> None:
        self._failed[job.name] = reason
        self._on_event(Event("failed", job, process.number, message=reason))

    def _ended(self, process: _Process) -> None:
        """A worker is gone, which it never is by itself."""
        code = process.popen.wait()
        assert process.popen.stdout is not None  # noqa: S101
        self._selector.unregister(process.popen.stdout)
        _close(process)
        process.groups = set()
        job, process.job = process.job, None
        self._processes.remove(process)
        if job is not None:
            self._fail(process, job, f"its process ended {_how(code, process.log)}")

    def _dismiss(self) -> None:
        """Let processes that have nothing left to do close what they have open."""
        for process in self._processes:
            _send(process, {"quit": True})
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.popen.wait(_PATIENCE)

    def _stop(self) -> None:
        """End every process. Work in flight is lost by design, so there is nothing to wait for."""
        for process in self._processes:
            process.popen.kill()
        for process in self._processes:
            process.popen.wait()
            _close(process)
        self._selector.close()
        self._processes.clear()


def _how(code: int, log: Path) -> str:
    """How a worker ended; one that was killed had no last words, so that none are taken from its log."""
    if code < 0:
        return f"by signal {-code} (was there enough memory?); its log is {log}"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    last = next((line for line in reversed(lines) if line.strip()), "")
    return f"with exit code {code}; the last line of {log}: {last}"


def _send(process: _Process, command: dict[str, Any]) -> None:
    if process.popen.stdin is not None:
        with contextlib.suppress(BrokenPipeError):  # its output ends too, and says so
            process.popen.stdin.write(json.dumps(command).encode() + b"\n")
            process.popen.stdin.flush()


def _close(process: _Process) -> None:
    for pipe in (process.popen.stdin, process.popen.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def silent(event: Event) -> None:
    """Show nothing."""
