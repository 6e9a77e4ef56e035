"""A worker process: does the jobs it is told to, one after another, and keeps what it has loaded.

Run by `alignboard.pipeline.executors.processes` as ``python -m alignboard.pipeline.executors.worker``. Commands come
as JSON lines on the standard input, replies go as JSON lines to the standard output; what libraries print goes to a
log. When the input ends, the run that started this process is gone, and so is this process, at once: work in flight
is lost by design, committed rows are not.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import resource
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, TextIO

from alignboard.errors import AlignboardError
from alignboard.pipeline.graph import Job
from alignboard.pipeline.kinds import job_kind
from alignboard.pipeline.store import Places, commit_folder, made_by
from alignboard.results.journal import Journal

_PROGRESS_SECONDS = 0.1


@dataclass
class JobTask:
    """What an implementation is given to do one job with."""

    job: Job
    places: Places
    folder: Path
    """to be filled; becomes the job's folder in the store"""
    journal: Journal
    inputs: Mapping[str, Path]
    """role -> folder of the job that is needed"""
    held: dict[str, Any]
    """what this process keeps for the jobs of this group, such as a loaded base model; dropped with the group"""
    progress: Callable[[int, int], None] = field(default=lambda _done, _total: None)
    """to be called now and then with (done, of)"""


Implementation = Callable[[JobTask], dict[str, str]]
"""does a job; returns what it exports: path in the workspace -> path in its folder"""


def job_to_json(job: Job, needed: Mapping[str, Job]) -> dict[str, Any]:
    """A job as a command says it, with the folders of what it needs."""
    return {
        "name": job.name,
        "kind": job.kind,
        "group": job.group,
        "key": job.key,
        "parameters": job.parameters,
        "needs": dict(job.needs),
        "hints": job.hints,
        "inputs": {role: needed[name].folder for role, name in job.needs.items()},
    }


class _Replies:
    """The way back to the run; progress is thinned out."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last = 0.0

    def send(self, **content: Any) -> None:
        self._stream.write(json.dumps(content) + "\n")
        self._stream.flush()

    def progress(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last > _PROGRESS_SECONDS:
            self._last = now
            self.send(event="progress", done=done, total=total)


class _Worker:
    def __init__(self, places: Places, name: str, replies: _Replies) -> None:
        self._places = places
        self._name = name
        self._replies = replies
        self._journal = Journal(places.journal, f"worker-{name}")
        self._held: dict[str, dict[str, Any]] = {}

    def close(self) -> None:
        """Leave a journal of one file, without a log beside it."""
        self._journal.close()

    def do(self, command: dict[str, Any]) -> None:
        for group in set(self._held) - set(command["open_groups"]):
            del self._held[group]
        content = command["job"]
        folders = content.pop("inputs")
        job = Job(**content)
        final = self._places.folder(job)
        temporary = self._places.store / f".tmp-{job.folder}-{os.getpid()}"
        started, cpu = time.monotonic(), time.process_time()
        temporary.mkdir(parents=True)
        try:
            kind = job_kind(job.kind)
            for library in kind.imports:
                importlib.import_module(library)
            run: Implementation = resolve_name(kind.run)
            imported = time.monotonic()
            task = JobTask(
                job=job,
                places=self._places,
                folder=temporary,
                journal=self._journal,
                inputs={role: self._places.store / folder for role, folder in folders.items()},
                held=self._held.setdefault(job.group, {}),
                progress=self._replies.progress,
            )
            exports = run(task)
            costs = {
                "seconds": time.monotonic() - started,
                "cpu_seconds": time.process_time() - cpu,
                "import_seconds": imported - started,
            }
            commit_folder(temporary, final, exports, costs, made_by(job))
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        self._replies.send(
            event="done",
            exports=exports,
            **costs,
            peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        )


def _read_commands(stream: TextIO, commands: queue.SimpleQueue[str]) -> None:
    for line in stream:
        commands.put(line)
    os._exit(1)


def main(workspace: str, name: str, *modules: str) -> None:
    """Serve until the input ends; ``modules`` are imported first, for the kinds of jobs that they register."""
    for module in modules:
        importlib.import_module(module)
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the whole group; the run decides what it means
    replies = _Replies(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)
    commands: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read_commands, args=(sys.stdin, commands), daemon=True).start()
    worker = _Worker(Places(Path(workspace)), name, replies)
    while True:
        command = json.loads(commands.get())
        if "quit" in command:
            worker.close()
            os._exit(0)  # nothing is left to do, and taking torch apart takes a while
        try:
            worker.do(command)
        except AlignboardError as error:
            replies.send(event="failed", error=str(error), trace=None)
        except Exception as error:  # noqa: BLE001 (the boundary: whatever a job raises is reported by the run)
            trace = traceback.format_exc()
            print(trace, file=sys.stderr, flush=True)  # noqa: T201 (the log)
            replies.send(event="failed", error=f"{type(error).__name__}: {error}", trace=trace)


if __name__ == "__main__":
    main(*sys.argv[1:])
