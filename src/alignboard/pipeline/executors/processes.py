"""The executor that does jobs in worker processes: at most so many at a time, one per device where devices are named.

A process takes the next group when it has finished one, so that imports are paid once per process and not per group.
Nothing here is needed to resume: a run that is killed leaves committed rows and complete folders, and the next run
does what is missing.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from alignboard.pipeline.executors.logs import end_text, open_log, with_log
from alignboard.pipeline.executors.work import PAUSE, Settings, Work
from alignboard.pipeline.executors.worker import WorkerCommand, WorkerReply

_PATIENCE: Final = 5.0
"""seconds that a process may take to close what it has open"""


@dataclass
class _Process:
    number: int
    popen: subprocess.Popen[bytes]
    log: Path
    unread: bytes = b""


class Processes:
    """Starts a process for every worker that has something to do, and ends them all when it returns. One use."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._processes: dict[int, _Process] = {}
        self._selector = selectors.DefaultSelector()

    def run(self, work: Work) -> None:
        """See `Executor`."""
        try:
            while True:
                waiting = self._give_out(work)
                if not work.is_running and not waiting:
                    break
                for key, _ in self._selector.select(PAUSE if waiting else None):
                    self._read(key.data, work)
            self._dismiss()
        finally:
            self._stop()

    def _give_out(self, work: Work) -> bool:
        """Give jobs to workers that are free, those that run already first; returns whether jobs wait for others."""
        numbers = range(self._settings.n_workers)
        waiting = False
        for number in sorted(numbers, key=lambda number: number not in self._processes):
            if work.has_job(number):
                continue
            assigned = work.take(number)
            waiting |= work.is_waiting
            if assigned is not None:
                if number not in self._processes:
                    self._start(number, work)
                _send(self._processes[number], WorkerCommand(assigned))
        return waiting

    def _start(self, number: int, work: Work) -> None:
        paths, settings = work.paths, self._settings
        device = settings.devices[number] if settings.devices else ""
        arguments = [str(paths.workspace), str(number), device, *settings.modules]
        with open_log(paths.logs, number) as log:
            popen = subprocess.Popen(  # noqa: S603 (this Python, this package)
                [sys.executable, "-m", "alignboard.pipeline.executors.worker", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **settings.environment_of(number)},
                cwd=paths.workspace,  # relative paths in declarations are the workspace's
            )
        process = self._processes[number] = _Process(number, popen, Path(log.name))
        assert popen.stdout is not None  # noqa: S101 (it was asked for)
        self._selector.register(popen.stdout, selectors.EVENT_READ, process)

    def _read(self, process: _Process, work: Work) -> None:
        assert process.popen.stdout is not None  # noqa: S101
        chunk = os.read(process.popen.stdout.fileno(), 65536)
        if not chunk:
            self._ended(process, work)
            return
        *lines, process.unread = (process.unread + chunk).split(b"\n")
        for line in lines:
            reply = msgspec.json.decode(line, type=WorkerReply)
            if reply.progress is not None:
                work.progress(process.number, *reply.progress)
            elif (outcome := reply.done or reply.failed) is not None:
                work.report(process.number, with_log(outcome, process.log))

    def _ended(self, process: _Process, work: Work) -> None:
        """A worker is gone, which it never is by itself."""
        code = process.popen.wait()
        assert process.popen.stdout is not None  # noqa: S101
        self._selector.unregister(process.popen.stdout)
        _close(process)
        del self._processes[process.number]
        work.lost(process.number, f"its process ended {end_text(code, process.log)}")

    def _dismiss(self) -> None:
        """Let processes that have nothing left to do close what they have open."""
        for process in self._processes.values():
            _send(process, WorkerCommand())
        for process in self._processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.popen.wait(_PATIENCE)

    def _stop(self) -> None:
        """End every process. Work in flight is lost by design, so there is nothing to wait for."""
        for process in self._processes.values():
            process.popen.kill()
        for process in self._processes.values():
            process.popen.wait()
            _close(process)
        self._selector.close()
        self._processes.clear()


def _send(process: _Process, command: WorkerCommand) -> None:
    if process.popen.stdin is not None:
        with contextlib.suppress(BrokenPipeError):  # its output ends too, and says so
            process.popen.stdin.write(msgspec.json.encode(command) + b"\n")
            process.popen.stdin.flush()


def _close(process: _Process) -> None:
    for pipe in (process.popen.stdin, process.popen.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
