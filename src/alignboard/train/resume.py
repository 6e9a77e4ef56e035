"""Optimiser checkpoints of a run: written on the way, found again after an interruption, removed when it is done.

What this module promises
    A checkpoint counts only when it is whole: the trainer writes it file by file, and a note of all files and sizes is
    put beside them last. A run that is killed, even while it writes one, goes on from the last whole checkpoint, with
    the same order of rows, random numbers and optimiser state, so that it ends with the same adapter.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from transformers import TrainerCallback

from alignboard.errors import InputError

_NOTE: Final = "complete.json"
_RUN: Final = "run.json"
_WRITTEN: Final = 2 * (1 + 2)
"""times the trained weights: two checkpoints, each with the weights and two moments of them"""
SECONDS: Final = 600.0
"""between checkpoints where the recipe has no save_every"""


class Checkpoints(TrainerCallback):
    """Asks the trainer for a checkpoint every ``every`` steps, else every `SECONDS`, and seals each one."""

    def __init__(self, every: int | None) -> None:
        self._every, self._last = every, time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Decide whether the step is kept; the last one is not, since the adapter follows it."""
        if self._every is not None:
            due = state.global_step % self._every == 0
        else:
            due = time.monotonic() - self._last > SECONDS
        control.should_save = due and state.global_step < state.max_steps

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Seal what the trainer has written."""
        self._last = time.monotonic()
        if state.is_world_process_zero:
            seal(Path(args.output_dir) / f"checkpoint-{state.global_step}")


def require_room(work: Path, model: Any, kept: int | None) -> None:
    """Raise `InputError` where the disk of ``work`` cannot hold what the run writes to it.

    That is two checkpoints with Adam's two moments, the adapters ``kept`` on the way, and the result.
    """
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    size = sum(weight.numel() * weight.element_size() for weight in trained)
    needed = _WRITTEN * size + (1 + (kept or 0)) * size
    free = shutil.disk_usage(work).free
    if free < needed:
        raise InputError(
            f"{work}: the disk has {free / 2**30:.2f} GiB free, and the checkpoints of this run take "
            f"{needed / 2**30:.2f} GiB; free some, or train in a workspace on another disk."
        )


def seal(checkpoint: Path) -> None:
    """Flush a checkpoint's files to the disk, then note them with their sizes."""
    for path in checkpoint.rglob("*"):
        if path.is_file():
            _flush(path)
    partial = checkpoint / f".{_NOTE}"
    partial.write_text(json.dumps(_sizes(checkpoint)), encoding="utf-8")
    _flush(partial)
    partial.replace(checkpoint / _NOTE)


def latest(work: Path) -> Path | None:
    """The newest whole checkpoint in ``work``; torn ones are removed, so that none is counted as the last."""
    whole: list[tuple[int, Path]] = []
    for checkpoint in work.glob("checkpoint-*"):
        if _is_whole(checkpoint):
            whole.append((int(checkpoint.name.rpartition("-")[2]), checkpoint))
        else:
            shutil.rmtree(checkpoint, ignore_errors=True)
    return max(whole)[1] if whole else None


def claim(work: Path, run: Mapping[str, Any]) -> None:
    """Make ``work`` the folder of this run; what another run left there is removed."""
    note = work / _RUN
    text = json.dumps(run, sort_keys=True)
    if not note.is_file() or note.read_text(encoding="utf-8") != text:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        note.write_text(text, encoding="utf-8")


def _sizes(checkpoint: Path) -> dict[str, int]:
    return {
        path.relative_to(checkpoint).as_posix(): path.stat().st_size
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file() and path.name not in {_NOTE, f".{_NOTE}"}
    }


def _is_whole(checkpoint: Path) -> bool:
    try:
        return json.loads((checkpoint / _NOTE).read_text(encoding="utf-8")) == _sizes(checkpoint)
    except (OSError, ValueError):
        return False


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
