"""Processes that share the requests of lm-eval jobs: each loads the model itself, and its results are journal rows.

Run as ``python -m alignboard.benchmarks.shards JOURNAL NUMBER``. Parts of a call of lm-eval come as JSON lines on
the standard input; a line on the standard output says that a part is done, or why it is not. When the input ends, the
process that started this one is gone, and so is this one, at once.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import traceback
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from alignboard.benchmarks.harness import calm
from alignboard.benchmarks.request_rows import ANSWERS, RequestRows
from alignboard.benchmarks.run import request_identity
from alignboard.models.spec import ModelSpec
from alignboard.parallel import lines_of_standard_input
from alignboard.results.journal import Journal
from alignboard.startup import prepare

if TYPE_CHECKING:
    from alignboard.models.asked import HeldBase

_PAUSE: Final = 2.0
"""seconds between two looks at what the others have done"""


class Part(msgspec.Struct):
    """Requests of one call of lm-eval, and who is asked."""

    spec: ModelSpec
    apply_chat_template: bool
    kind: str
    is_chat: bool
    requests: list[tuple[list[Any], str, int]]
    """arguments, task, number of the document"""


@dataclass
class _Process:
    number: int
    popen: subprocess.Popen[bytes]
    log: Path


class Shards:
    """Processes beside this one, started with their first part, and ended with this object."""

    def __init__(self, journal: Path, logs: Path, devices: Sequence[str]) -> None:
        """``devices`` are their GPUs, one each; ``""`` for a process that sees what this one sees."""
        self._journal, self._logs, self._devices = journal, logs, devices
        self._processes: dict[int, _Process] = {}
        self._running: dict[int, _Process] = {}
        weakref.finalize(self, _end, self._processes)
        if not any(devices):
            self._use_threads()

    def of(self, spec: ModelSpec, *, apply_chat_template: bool) -> SharedModel:
        """``spec`` as it is asked here and in every process."""
        return SharedModel(self, spec, apply_chat_template)

    @property
    def n(self) -> int:
        """How many processes share requests, this one included."""
        return 1 + len(self._devices)

    def send(self, number: int, part: Part) -> None:
        """Give a part to a process."""
        if number in self._running:  # with a part of a call that failed here or elsewhere
            _end({number: self._processes.pop(number)})
        if number not in self._processes:
            self._processes[number] = self._started(number)
        one = self._running[number] = self._processes[number]
        assert one.popen.stdin is not None  # noqa: S101 (it was asked for)
        # JSON of ASCII: texts may hold halves of surrogate pairs.
        one.popen.stdin.write(json.dumps(msgspec.to_builtins(part)).encode() + b"\n")
        one.popen.stdin.flush()

    def wait(self, on_pause: Callable[[], None]) -> None:
        """Return when every part is done; raises what went wrong in one."""
        with selectors.DefaultSelector() as selector:
            for one in self._running.values():
                assert one.popen.stdout is not None  # noqa: S101
                selector.register(one.popen.stdout, selectors.EVENT_READ, one)
            while self._running:
                for key, _ in selector.select(_PAUSE):
                    self._finish(key.data)
                    selector.unregister(key.fileobj)
                on_pause()

    def _finish(self, one: _Process) -> None:
        del self._running[one.number]
        assert one.popen.stdout is not None  # noqa: S101
        line = one.popen.stdout.readline()
        if not line:
            del self._processes[one.number]
            code = one.popen.wait()
            raise RuntimeError(
                f"a process that shares requests ended with code {code}; its log is {one.log}"
            )
        failed = json.loads(line)["failed"]
        if failed is not None:
            raise RuntimeError(f"in a process that shares requests (log: {one.log}): {failed}")

    def _started(self, number: int) -> _Process:
        device = self._devices[number - 1]
        own = {"CUDA_VISIBLE_DEVICES": device} if device else {"OMP_NUM_THREADS": self._threads()}
        self._logs.mkdir(parents=True, exist_ok=True)
        path = self._logs / f"shard-{number}.log"
        with path.open("ab") as log:
            popen = subprocess.Popen(  # noqa: S603 (this Python, this package)
                [sys.executable, "-m", __name__, str(self._journal), str(number)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **own},
            )
        return _Process(number, popen, path)

    def _threads(self) -> str:
        return str(max(1, len(os.sched_getaffinity(0)) // self.n))

    def _use_threads(self) -> None:
        """Leave the other processes their cores."""
        import torch

        torch.set_num_threads(min(torch.get_num_threads(), int(self._threads())))


@dataclass(frozen=True)
class SharedModel:
    """One model whose requests are shared; see `alignboard.benchmarks.request_rows.Sharing`."""

    shards: Shards
    spec: ModelSpec
    apply_chat_template: bool

    def give(self, kind: str, requests: Sequence[Any], *, is_chat: bool) -> list[int]:
        """Give every other process its part; returns the numbers of what is left for this one."""
        own, *others = parts(requests, self.shards.n)
        for number, numbers in enumerate(others, start=1):
            if numbers:
                given = [requests[k] for k in numbers]
                some = [(list(one.args), one.task_name, one.doc_id) for one in given]
                part = Part(self.spec, self.apply_chat_template, kind, is_chat, some)
                self.shards.send(number, part)
        return own

    def wait(self, on_pause: Callable[[], None]) -> None:
        """See `Shards.wait`."""
        self.shards.wait(on_pause)


def parts(requests: Sequence[Any], n: int) -> list[list[int]]:
    """The numbers of requests in ``n`` parts, by document: of every task each has neighbours, which share contexts."""
    places: dict[str, dict[int, int]] = {}
    for one in requests:
        own = places.setdefault(one.task_name, {})
        own.setdefault(one.doc_id, len(own))
    found: list[list[int]] = [[] for _ in range(n)]
    for number, one in enumerate(requests):
        own = places[one.task_name]
        found[own[one.doc_id] * n // len(own)].append(number)
    return found


def _end(processes: dict[int, _Process]) -> None:
    for one in processes.values():
        one.popen.kill()
        one.popen.wait()
        for pipe in (one.popen.stdin, one.popen.stdout):
            if pipe is not None:
                pipe.close()


def main(journal: str, number: str) -> None:
    """Serve until the input ends."""
    commands = lines_of_standard_input()
    prepare()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one decides
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    from alignboard.models.asked import HeldBase

    base = HeldBase(remote_code=True)  # agreed to where the job was made
    rows = Journal(Path(journal), f"worker-{number}")
    while True:
        failed = None
        try:
            _compute(msgspec.convert(json.loads(commands.get()), Part), base, rows)
        except Exception as error:  # noqa: BLE001 (the boundary: it is reported by the job)
            print(traceback.format_exc(), file=sys.stderr, flush=True)  # noqa: T201 (the log)
            failed = f"{type(error).__name__}: {error}"
        replies.write(json.dumps({"failed": failed}).encode() + b"\n")
        replies.flush()


def _compute(part: Part, base: HeldBase, journal: Journal) -> None:
    with base.open(part.spec) as model, calm():
        from lm_eval.api.instance import Instance

        from alignboard.benchmarks.lm import BenchmarkedModel

        subject = BenchmarkedModel(model)
        identity = request_identity(subject, apply_chat_template=part.apply_chat_template)
        lm = subject.lm(RequestRows(identity, journal, lambda _done, _total: None))
        lm.is_chat = part.is_chat
        method: Any = "generate_until" if part.kind == ANSWERS else part.kind
        requests = [
            Instance(method, {}, tuple(arguments), number, (task, document, 1))
            for number, (arguments, task, document) in enumerate(part.requests)
        ]
        getattr(lm, method)(requests)


if __name__ == "__main__":
    main(*sys.argv[1:])
