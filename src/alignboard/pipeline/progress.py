"""How a run shows itself: bars on a terminal, plain lines in a pipe, and at the end where the time went."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from alignboard.pipeline.executors.work import Event, Timing
from alignboard.pipeline.graph import Job

if TYPE_CHECKING:
    from alignboard.pipeline.costs import KindCost, Total
from alignboard.text import count, table

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
        yield _lines(n_jobs, target, n_before)


@contextmanager
def _bars(n_jobs: int, stream: TextIO, n_done: int) -> Iterator[Callable[[Event], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[count]}"),
        TimeElapsedColumn(),
    )
    running: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(file=stream), transient=True) as bars:
        whole = bars.add_task(
            "all jobs", total=n_jobs, completed=n_done, count=f"{n_done}/{n_jobs}"
        )

        def listener(event: Event) -> None:
            nonlocal n_done
            name = event.job.name
            if event.kind == "waiting":
                bars.console.print(f"waiting for another run: {name}", markup=False)
            elif event.kind == "start":
                running[name] = bars.add_task(f"  {name}", total=None, count="")
            elif event.kind == "progress":
                bars.update(
                    running[name],
                    total=event.total,
                    completed=event.done,
                    count=f"{event.done}/{event.total}",
                )
            else:
                bars.remove_task(running.pop(name))
                n_done += event.kind == "done"
                bars.update(whole, completed=n_done, count=f"{n_done}/{n_jobs}")
                if event.kind == "failed":
                    bars.console.print(f"failed: {name}", markup=False)

        yield listener


def _lines(n_jobs: int, stream: TextIO, n_done: int) -> Callable[[Event], None]:
    started = time.monotonic()

    def listener(event: Event) -> None:
        nonlocal n_done
        if event.kind == "progress":
            return
        n_done += event.kind == "done"
        passed = time.monotonic() - started
        what = _WHAT[event.kind]
        took = f" in {event.seconds:.1f} s" if event.kind == "done" else ""
        print(
            f"[{passed:6.1f} s] {n_done}/{n_jobs} {what} {event.job.name}{took}",
            file=stream,
            flush=True,
        )

    return listener


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
