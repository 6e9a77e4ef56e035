"""Logs of workers: what the libraries of their jobs print, and a worker's last words."""

from __future__ import annotations

import fcntl
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Final, TextIO

from alignboard.pipeline.executors.work import Done, Failed

_LOG_LINES: Final = 15


def open_log(folder: Path, worker: int) -> TextIO:
    """The log of a worker, to append to. It is its own for as long as it, or a child that inherits it, is open."""
    folder.mkdir(parents=True, exist_ok=True)
    for other in count():
        suffix = f"-{other}" if other else ""
        log = (folder / f"worker-{worker}{suffix}.log").open("a", encoding="utf-8")
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # a worker of another run
            log.close()
            continue
        return log
    raise AssertionError  # pragma: no cover


def end_text(code: int, log: Path) -> str:
    """How a worker ended, with its last words; one that was killed had none, whatever its log ends with."""
    if code < 0:
        return f"by signal {-code} (was there enough memory?); its log is {log}"
    tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
    last = next((line for line in reversed(tail) if line.strip()), "")
    return f"with exit code {code}; the last line of {log}: {last}"


def with_log(outcome: Done | Failed, log: str | Path) -> Done | Failed:
    """``outcome``; of a defect with the name of the log that holds its traceback."""
    if isinstance(outcome, Done) or not outcome.is_defect:
        return outcome
    return replace(outcome, reason=f"{outcome.reason} (see {log})")
