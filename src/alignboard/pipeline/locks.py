"""Locks of a workspace: one per product, and a shared one that says that the workspace is in use.

What this module promises
    Whoever makes a product (the folder of a job, a model's responses to a set, a judge's verdicts on a model) holds
    its lock. Commands on different products never wait for each other. Locks are the kernel's: they end with the
    process that holds them, and no clock is read.
What it never does
    Keep anybody from reading: dry runs and boards need no lock.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from alignboard.errors import InputError
from alignboard.pipeline.store import WorkspacePaths

_PATIENCE: Final = 10.0
"""seconds; workers of a run that was killed notice it within one"""
_PAUSE: Final = 0.05
_TEMPORARY_FILE: Final = re.compile(r"\..+\.(\d+)\.tmp(-journal|-wal|-shm)?")
"""of a process; SQLite has further files beside one"""


@contextmanager
def in_use(paths: WorkspacePaths) -> Iterator[None]:
    """Mark the workspace as in use. Whoever is alone in it removes what interrupted runs left half-made."""
    paths.store.mkdir(parents=True, exist_ok=True)
    handle = os.open(paths.store / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _clean_if_alone(handle, paths)
        try:
            yield
        finally:  # workers of a run that was killed just before this one are gone by now
            _clean_if_alone(handle, paths)
    finally:
        os.close(handle)


def _clean_if_alone(handle: int, paths: WorkspacePaths) -> None:
    if _try(handle, fcntl.LOCK_EX):
        clean(paths)
    fcntl.flock(handle, fcntl.LOCK_SH)


def clean(paths: WorkspacePaths) -> None:
    """Remove what interrupted runs left half-made. Only where nobody else uses the workspace."""
    for path in [*paths.store.glob(".tmp-*"), paths.locks]:
        shutil.rmtree(path, ignore_errors=True)
    for root in (paths.results, paths.leaderboards):
        for pattern in (".*.tmp*", "*/.*.tmp*", "*/*/.*.tmp*"):
            for path in root.glob(pattern):
                made = _TEMPORARY_FILE.fullmatch(path.name)
                if made is not None and not _is_alive(int(made[1])):
                    path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    if (
        process == os.getpid()
    ):  # another process of an earlier boot, or of a container, had the same number
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def held(paths: WorkspacePaths, *products: str) -> Iterator[None]:
    """Hold the locks of ``products``; raises `InputError` where another process keeps one of them."""
    with ExitStack() as stack:
        for product in sorted(set(products)):
            handle = stack.enter_context(_opened(paths, product))
            deadline = time.monotonic() + _PATIENCE
            while not _try(handle, fcntl.LOCK_EX):
                if time.monotonic() > deadline:
                    raise InputError(
                        f"Another command is at work on {product} in {paths.workspace}; wait for it to end, or "
                        "stop it."
                    )
                time.sleep(_PAUSE)
        yield


@contextmanager
def making(paths: WorkspacePaths, product: str, needs: Iterator[str] | list[str]) -> Iterator[None]:
    """Hold the lock of ``product``, waiting for it, and keep what it ``needs`` from being removed meanwhile."""
    with ExitStack() as stack:
        for need in needs:
            fcntl.flock(stack.enter_context(_opened(paths, need)), fcntl.LOCK_SH)
        fcntl.flock(stack.enter_context(_opened(paths, product)), fcntl.LOCK_EX)
        yield


def is_being_made(paths: WorkspacePaths, product: str) -> bool:
    """Whether another process holds the lock of ``product``."""
    if not _path(paths, product).exists():
        return False
    with _opened(paths, product) as handle:
        return not _try(handle, fcntl.LOCK_SH)


@contextmanager
def _opened(paths: WorkspacePaths, product: str) -> Iterator[int]:
    paths.locks.mkdir(parents=True, exist_ok=True)
    handle = os.open(_path(paths, product), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        yield handle
    finally:
        os.close(handle)


def _path(paths: WorkspacePaths, product: str) -> Path:
    return paths.locks / hashlib.sha256(product.encode()).hexdigest()[:32]


def _try(handle: int, how: int) -> bool:
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
