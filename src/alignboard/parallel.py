"""Work in several processes: many pieces on all cores, and lines that another process sends."""

from __future__ import annotations

import os
import pickle
import queue
import select
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, BinaryIO, NamedTuple, TypeVar

from alignboard.errors import AlignboardError

Item = TypeVar("Item")
Result = TypeVar("Result")
_at_work = False
"""whether this process does its share of a `fork_map`, and forks no further"""


class _Share(NamedTuple):
    """What one process did: results by the number of their chunk, and what its last item raised."""

    results: dict[int, list[Any]]
    error: Exception | None = None


def fork_map(
    function: Callable[[Item], Result], items: Sequence[Item], *, least: int
) -> list[Result]:
    """``[function(item) for item in items]``, in forked processes where there are at least ``least`` items.

    A fork shares what is imported and starts in milliseconds, but copies only the calling thread: with other threads
    running, or torch loaded, the work is done here. An exception of ``function`` is raised as it is. The processes
    inherit ``function`` and ``items``; results come back through pipes. `multiprocessing.Pool` does it with three
    threads and twice the start, for tens of milliseconds more.
    """
    global _at_work  # noqa: PLW0603 - inherited by the forks
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    alone = _at_work or cores < 2 or threading.active_count() > 1 or "torch" in sys.modules
    if alone or len(items) < least:
        return [function(item) for item in items]
    size = -(-len(items) // min(255, 32 * cores))
    chunks = [items[first : first + size] for first in range(0, len(items), size)]
    numbers, end = os.pipe()
    os.write(end, bytes(range(len(chunks))))
    os.close(end)
    work = partial(_work, function, chunks, numbers, os.getpid())
    children: list[tuple[int, BinaryIO]] = []
    _at_work = True
    try:
        for _ in range(cores - 1):
            children.append(_fork(work))  # noqa: PERF401 - those begun are ended below, should a later one fail
        shares = [work(), *(_received(pipe) for _, pipe in children)]
    except BaseException:
        for child, _ in children:
            os.kill(child, signal.SIGKILL)
        raise
    finally:
        _at_work = False
        os.close(numbers)
        for child, pipe in children:
            pipe.close()
            os.waitpid(child, 0)
    error = next((share.error for share in shares if share.error is not None), None)
    if error is not None:
        raise error
    done = {number: own for share in shares for number, own in share.results.items()}
    return [result for number in range(len(chunks)) for result in done[number]]


def _work(
    function: Callable[[Any], Any], chunks: list[Sequence[Any]], numbers: int, parent: int
) -> _Share:
    """Do chunk after chunk, as their numbers come out of a pipe, until none is left or ``function`` raises.

    A fork whose parent was killed does the chunk that it has, and no other.
    """
    results: dict[int, list[Any]] = {}
    while os.getpid() == parent or os.getppid() == parent:
        if not (number := os.read(numbers, 1)):
            break
        try:
            results[number[0]] = [function(item) for item in chunks[number[0]]]
        except Exception as error:  # noqa: BLE001 - raised by the process that forked
            error.add_note("".join(traceback.format_exception(error)))
            return _Share(results, error)
    return _Share(results)


def _fork(work: Callable[[], _Share]) -> tuple[int, BinaryIO]:
    """A process that does ``work``, and where its share comes from."""
    source, target = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 counts the idle threads of numpy's BLAS, which takes care of forks itself.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child:
        os.close(target)
        return child, os.fdopen(source, "rb")
    try:
        with os.fdopen(target, "wb") as pipe:
            pickle.dump(work(), pipe)
    finally:
        os._exit(0)  # neither buffers nor exit handlers of the process that forked


def _received(pipe: BinaryIO) -> _Share:
    try:
        return pickle.load(pipe)  # noqa: S301 - of a process of ours
    except (EOFError, pickle.UnpicklingError) as error:
        raise AlignboardError(
            "A process of this command was ended before its work was done; where that was for memory, free some and "
            "start again."
        ) from error


def lines_of_standard_input() -> queue.SimpleQueue[bytes]:
    """The lines that this process is sent, as they come; it ends, at once, where the input does.

    Call it before anything else: what was sent by a process that is gone by now is not begun.
    """
    sender = select.poll()
    sender.register(sys.stdin, 0)  # whether the other end is closed, also where lines are left
    if sender.poll(0):
        os._exit(1)
    found: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin.buffer:
            found.put(line)
        os._exit(1)

    threading.Thread(target=read, daemon=True).start()
    return found
