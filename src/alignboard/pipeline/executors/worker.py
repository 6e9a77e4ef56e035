"""A worker process: does the jobs it is told to, one after another, and keeps what it has loaded.

Run by `alignboard.pipeline.executors.processes` as ``python -m alignboard.pipeline.executors.worker``. Commands come
as JSON lines on the standard input, replies go as JSON lines to the standard output; what libraries print goes to a
log. When the input ends, the run that started this process is gone, and so is this process, at once: work in flight
is lost by design, committed rows are not.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from alignboard.parallel import lines_of_standard_input
from alignboard.pipeline.executors.doing import Doer
from alignboard.pipeline.executors.work import Assignment, Done, Failed
from alignboard.pipeline.locks import in_use
from alignboard.pipeline.store import WorkspacePaths
from alignboard.startup import prepare

_PROGRESS_SECONDS: Final = 0.1


class WorkerCommand(msgspec.Struct):
    """What a worker is told; without a job it is to leave."""

    assigned: Assignment | None = None


class WorkerReply(msgspec.Struct):
    """What a worker says of its job: how far it is, or what became of it."""

    progress: tuple[int, int, str] | None = None
    done: Done | None = None
    failed: Failed | None = None


class _Replies:
    """The way back to the run; progress is thinned out."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._last = 0.0

    def send(self, reply: WorkerReply) -> None:
        self._stream.write(msgspec.json.encode(reply) + b"\n")
        self._stream.flush()

    def progress(self, done: int, total: int, said: str = "") -> None:
        now = time.monotonic()
        if now - self._last > _PROGRESS_SECONDS:
            self._last = now
            self.send(WorkerReply(progress=(done, total, said)))


def main(workspace: str, number: str, device: str, *modules: str) -> None:
    """Serve until the input ends; ``modules`` are imported first, for the kinds of jobs that they register."""
    commands = lines_of_standard_input()
    prepare()
    for module in modules:
        importlib.import_module(module)
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the whole group; the run decides what it means
    replies = _Replies(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)
    paths = WorkspacePaths(Path(workspace))
    doer = Doer(paths, f"worker-{number}", device or None)
    with in_use(paths):
        while (
            assigned := msgspec.json.decode(commands.get(), type=WorkerCommand).assigned
        ) is not None:
            outcome = doer.do(assigned, replies.progress)
            failed = isinstance(outcome, Failed)
            replies.send(WorkerReply(failed=outcome) if failed else WorkerReply(done=outcome))
        doer.close()
        os._exit(0)  # nothing is left to do, and taking torch apart takes a while


if __name__ == "__main__":
    main(*sys.argv[1:])
