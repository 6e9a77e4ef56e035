"""Adapters that are kept on the way, evenly spaced, for learning curves.

What this module promises
    They lie in the run's work folder, each whole or not there, so that an interrupted run keeps those it has; `gather`
    moves them beside the result. Rows that are held out are measured at the same steps.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Final

from transformers import TrainerCallback

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
        if not state.is_world_process_zero or number == self._n:
            return
        partial, final = self._folder / f".{number}", self._folder / str(number)
        shutil.rmtree(partial, ignore_errors=True)
        model.save_pretrained(str(partial), selected_adapters=["default"])
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
