"""Checkpoints of a run: the optimiser's, from which an interrupted run goes on, and adapters for learning curves.

What this module promises
    A checkpoint counts only when it is whole: the trainer writes it file by file, and a note of all files and sizes is
    put beside them last. A run that is killed, even while it writes one, goes on from the last whole checkpoint, with
    the same order of rows, random numbers and optimiser state, so that it ends with the same adapter.

    Adapters that are kept on the way, evenly spaced, lie in the run's work folder, each whole or not there, so that an
    interrupted run keeps those it has; `gather` moves them beside the result. Rows that are held out are measured at
    the same steps.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from transformers import TrainerCallback

from alignboard.errors import InputError
from alignboard.results.files import flush
from alignboard.training.shards import trained, whole

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
    """Raise `InputError` where the disk of ``work`` cannot hold what the run writes to it."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    size = sum(weight.numel() * weight.element_size() for weight in trained)
    require_free(work, sum(disk_use(size, kept)), "the checkpoints of this run take")


def disk_use(size: int, kept: int | None) -> tuple[int, int]:
    """Bytes on disk of a run that trains ``size`` bytes of weights: while it runs, and for good.

    The former are two checkpoints with Adam's two moments, the latter the adapters ``kept`` on the way and the result.
    """
    return _WRITTEN * size, (1 + (kept or 0)) * size


def require_free(folder: Path, needed: int, what: str) -> None:
    """Raise `InputError` where the disk of ``folder`` has less than ``needed`` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{folder}: the disk has {free / 2**30:.2f} GiB free, and {what} {needed / 2**30:.2f} GiB; free some, or "
            "train in a workspace on another disk."
        )


def seal(checkpoint: Path) -> None:
    """Flush a checkpoint's files to the disk, then note them with their sizes."""
    for path in checkpoint.rglob("*"):
        if path.is_file():
            flush(path)
    partial = checkpoint / f".{_NOTE}"
    partial.write_text(json.dumps(_sizes(checkpoint)), encoding="utf-8")
    flush(partial)
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


_FOLDER: Final = "kept"
STEPS: Final = "steps.json"
"""the step of each kept adapter, by its number from 1; the result is the last"""


class KeptAdapters(TrainerCallback):
    """Writes the adapter at ``n`` - 1 points on the way."""

    def __init__(self, n: int, work: Path, tokenizer: Any, *, measure: bool) -> None:
        self._n, self._folder = n, work / _FOLDER
        self._tokenizer, self._measure = tokenizer, measure
        """``measure``: whether there are held-out rows"""

    @classmethod
    def of(cls, n: int | None, work: Path, tokenizer: Any, measure: bool) -> list[KeptAdapters]:  # noqa: FBT001 - named where it is used
        """The callback, where ``n`` is given."""
        return [] if n is None else [cls(n, work, tokenizer, measure=measure)]

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:  # noqa: ARG002
        """Keep the step where it is one of the points."""
        number = points(self._n, state.max_steps).get(state.global_step)
        if number is None:
            return
        control.should_evaluate = self._measure
        if number == self._n:
            return
        with whole(trained(model)) as weights:
            if state.is_world_process_zero:
                self._write(model, weights, number)

    def _write(self, model: Any, weights: Mapping[str, Any], number: int) -> None:
        partial, final = self._folder / f".{number}", self._folder / str(number)
        shutil.rmtree(partial, ignore_errors=True)
        model.save_pretrained(str(partial), selected_adapters=["default"], state_dict=weights)
        self._tokenizer.save_pretrained(str(partial))
        shutil.rmtree(final, ignore_errors=True)
        partial.replace(final)


def points(n: int, steps: int) -> dict[int, int]:
    """The number of the point by its step; of points that fall on one step the last.

    >>> points(3, 12)
    {4: 1, 8: 2, 12: 3}
    """
    return {max(1, round(steps * number / n)): number for number in range(1, n + 1)}


def gather(n: int | None, steps: int, work: Path, to: Path) -> None:
    """Move the adapters that were kept to ``to``, and note their steps; nothing where ``n`` is None."""
    if n is None:
        return
    found = points(n, steps)
    to.mkdir(parents=True)
    for number in found.values():
        if number < n:
            (work / _FOLDER / str(number)).replace(to / str(number))
    note = {str(number): step for step, number in found.items()}
    (to / STEPS).write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
