"""How a run shows itself: bars on a terminal, plain lines in a pipe, and at the end where the time went."""

from __future__ import annotations

import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self, TextIO

from alignboard.pipeline.executors.work import Event, Timing
from alignboard.pipeline.graph import Job

if TYPE_CHECKING:
    from alignboard.pipeline.costs import KindCost, Total
from alignboard.text import count, shown, table

EVERY: Final = 30.0
"""seconds between two lines of a job at work, in a pipe"""
_WHAT = {
    "waiting": "waits for another run:",
    "start": "start ",
    "done": "done  ",
    "failed": "FAILED",
}


@contextmanager
def showing(
    n_jobs: int, stream: TextIO | None = None, *, n_before: int = 0
) -> Iterator[Callable[[Event], None]]:
    """A listener for `run_plan`'s events that shows them on ``stream`` (None: standard error).

    ``n_before`` of the jobs had been done before and are counted.
    """
    target: TextIO = sys.stderr if stream is None else stream
    if target.isatty():
        with _bars(n_jobs, target, n_before) as listener:
            yield listener
    else:
        with _Lines(n_jobs, target, n_before) as lines:
            yield lines


@contextmanager
def _bars(n_jobs: int, stream: TextIO, n_done: int) -> Iterator[Callable[[Event], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[count]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[said]}", markup=False),
    )
    running: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(file=stream), transient=True) as bars:
        whole = bars.add_task(
            "all jobs", total=n_jobs, completed=n_done, count=f"{n_done}/{n_jobs}", said=""
        )

        def listener(event: Event) -> None:
            nonlocal n_done
            name = event.job.name
            if event.kind == "waiting":
                bars.console.print(f"waiting for another run: {shown(name)}", markup=False)
            elif event.kind == "start":
                running[name] = bars.add_task(f"  {shown(name)}", total=None, count="", said="")
            elif event.kind == "progress":
                bars.update(
                    running[name],
                    total=event.total,
                    completed=event.done,
                    count=f"{event.done}/{event.total}",
                    said=shown(event.message),
                )
            else:
                bars.remove_task(running.pop(name))
                n_done += event.kind == "done"
                bars.update(whole, completed=n_done, count=f"{n_done}/{n_jobs}")
                if event.kind == "failed":
                    bars.console.print(f"failed: {shown(name)}", markup=False)

        yield listener


@dataclass
class _Running:
    """A job that is at work, as its last report has it."""

    first: Event | None = None
    """the first report of this total"""
    since: float = 0.0
    last: Event | None = None

    def take(self, event: Event) -> None:
        """Note a report; a job that counts something else begins anew."""
        if self.last is None or event.total != self.last.total or event.done < self.last.done:
            self.first, self.since = event, time.monotonic()
        self.last = event

    def __str__(self) -> str:
        if self.first is None or self.last is None:
            return ""
        told = f" {self.last.done}/{self.last.total}"
        more = f", {shown(self.last.message)}" if self.last.message else ""
        passed = time.monotonic() - self.since
        new = self.last.done - self.first.done
        if new <= 0 or passed <= 0:
            return told + more
        left = (self.last.total - self.last.done) * passed / new
        return f"{told}, {new / passed:.3g}/s, {left:.0f} s left{more}"


class _Lines:
    """Lines for a pipe: one an event, and one for every job at work each `EVERY` seconds."""

    def __init__(self, n_jobs: int, stream: TextIO, n_done: int) -> None:
        self._n_jobs, self._stream, self._n_done = n_jobs, stream, n_done
        self._started = time.monotonic()
        self._running: dict[str, _Running] = {}
        self._lock, self._over = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._tell, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def __call__(self, event: Event) -> None:
        name = event.job.name
        with self._lock:
            if event.kind == "progress":
                self._running[name].take(event)
                return
            if event.kind == "start":
                self._running[name] = _Running()
            elif event.kind != "waiting":
                self._running.pop(name, None)
            self._n_done += event.kind == "done"
            took = f" in {event.seconds:.1f} s" if event.kind == "done" else ""
            self._print(f"{_WHAT[event.kind]} {shown(name)}{took}")

    def _tell(self) -> None:
        while not self._over.wait(EVERY):
            with self._lock:
                for name, running in self._running.items():
                    self._print(f"at work {shown(name)}{running}")

    def _print(self, text: str) -> None:
        passed = time.monotonic() - self._started
        line = f"[{passed:6.1f} s] {self._n_done}/{self._n_jobs} {text}"
        print(line, file=self._stream, flush=True)


def job_table(
    jobs: Sequence[Job], done: set[str], expected: Mapping[str, float | None], n_workers: int
) -> str:
    """Every job, whether it is done, and what it is expected to cost: what ``--dry-run`` prints."""
    rows = [[job.name, "done" if job.name in done else _cost(expected[job.name])] for job in jobs]
    lines = [table(("job", "cost"), rows, left=(0,))]
    to_do = [expected[job.name] for job in jobs if job.name not in done]
    known = [seconds for seconds in to_do if seconds is not None]
    if not to_do:
        return "\n".join([*lines, f"{count(len(jobs), 'job')}, nothing to do."])
    said = []
    if known:
        left = sum(known)
        said += [
            f"about {left:.0f} s of one core, {left / n_workers:.0f} s or more with {n_workers} at a time"
        ]
    if len(known) < len(to_do):
        unknown = f"no estimate for {len(to_do) - len(known)} of them (never run on this machine)"
        said = [unknown, *(f"the rest {one}" for one in said)]
    return "\n".join([*lines, f"{count(len(jobs), 'job')}, {len(to_do)} to do: {'; '.join(said)}."])


def cost_table(costs: Sequence[KindCost]) -> str:
    """What is to be paid, by kind of job; what is not known comes first. Empty where nothing is to be done."""
    if not costs:
        return ""
    unknown = [f"  {reason}" for one in costs for reason in one.unknown]
    header = ("kind", "jobs", "calls", "prompt tokens", "new tokens at most", "US dollars", "s")
    rows = [
        [
            one.kind,
            str(one.n_jobs),
            *(_sum(total, ",.0f") for total in (one.n_calls, one.n_prompt, one.n_new)),
            _sum(one.price, ",.2f"),
            _sum(one.seconds, ",.0f"),
        ]
        for one in costs
    ]
    return "\n".join(
        [*(["Not known:", *unknown] if unknown else []), table(header, rows, left=(0,))]
    )


def _sum(total: Total, form: str) -> str:
    """A sum, as far as it is known."""
    if not total.n_unknown:
        return format(total.known, form)
    return f"{total.known:{form}} + unknown" if total.known else "unknown"


def _cost(seconds: float | None) -> str:
    return "not known yet" if seconds is None else f"{seconds:.1f} s"


def time_table(timings: Sequence[Timing], seconds: float) -> str:
    """Where the time of a run went, by kind of job, and how much memory its processes took."""
    if not timings:
        return "Everything had been done before."
    by_kind: dict[str, list[Timing]] = defaultdict(list)
    for timing in timings:
        by_kind[timing.job.kind].append(timing)
    rows = [
        (kind, len(some), sum(t.seconds - t.import_seconds for t in some))
        for kind, some in by_kind.items()
    ]
    rows.append(
        ("imports", len({t.worker for t in timings}), sum(t.import_seconds for t in timings))
    )
    rows.sort(key=lambda row: -row[2])
    peaks: dict[int, float] = defaultdict(float)
    for timing in timings:
        peaks[timing.worker] = max(peaks[timing.worker], timing.peak_mib)
    lines = [f"{kind:<12} {n:4d} x {total:8.1f} s" for kind, n, total in rows if n]
    cpu = sum(t.cpu_seconds for t in timings)
    memory = sum(peaks.values())
    lines.append(
        f"{seconds:.1f} s in all, {cpu:.1f} s of CPU, {_processes(len(peaks))}, {memory:.0f} MiB at most."
    )
    return "\n".join(lines)


def versions_text(other_versions: Mapping[str, str], n_older: int) -> str:
    """Which finished jobs other versions made, and how many are of an older scheme; empty where none are."""
    lines = [
        f"{kind}: {sentence}; --redo {kind} does them again."
        for kind, sentence in other_versions.items()
    ]
    if n_older:
        lines.append(
            f"In the store there {'is' if n_older == 1 else 'are'} {count(n_older, 'finished job')} of an older scheme "
            "of keys; what this plan needs of them is done anew."
        )
    return "\n".join(lines)


def _processes(n: int) -> str:
    return "1 process" if n == 1 else f"{n} processes"
