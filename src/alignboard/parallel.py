"""Work in several processes: many pieces on all cores, and lines that another process sends."""

from __future__ import annotations

import os
import queue
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
_inherited: list[Callable[[Any], Any]] = []
"""what the processes of the last fork call"""


def fork_map(
    function: Callable[[Item], Result], items: Sequence[Item], *, least: int
) -> list[Result]:
    """``[function(item) for item in items]``, in forked processes where there are at least ``least`` items.

    A fork shares what is imported and starts in milliseconds, but copies only the calling thread: with other threads
    running, or torch loaded, the work is done here. An exception of ``function`` is raised as it is. The processes
    inherit ``function`` with all that it holds; items and results go between them.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    if len(items) < least or cores < 2 or threading.active_count() > 1 or "torch" in sys.modules:
        return [function(item) for item in items]
    import multiprocessing  # noqa: PLC0415 - most runs need no process

    if multiprocessing.current_process().daemon:  # within another's piece of work
        return [function(item) for item in items]
    with warnings.catch_warnings():
        # Python 3.12 counts the idle threads of numpy's BLAS, which takes care of forks itself.
        warnings.simplefilter("ignore", DeprecationWarning)
        _inherited.append(function)
        try:
            with multiprocessing.get_context("fork").Pool(cores) as pool:
                return pool.map(_call, items, chunksize=max(1, len(items) // (4 * cores)))
        finally:
            _inherited.pop()


def _call(item: Any) -> Any:
    return _inherited[-1](item)


def lines_of_standard_input() -> queue.SimpleQueue[bytes]:
    """The lines that this process is sent, as they come; it ends, at once, where the input does."""
    found: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin.buffer:
            found.put(line)
        os._exit(1)

    threading.Thread(target=read, daemon=True).start()
    return found
