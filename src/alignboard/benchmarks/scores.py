"""The numbers of lm-eval's ``results_*.json``, read without lm-eval."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from alignboard.errors import InputError


@dataclass(frozen=True)
class TaskScore:
    """One number of one task, as ``results_*.json`` has it."""

    task: str
    metric: str
    filter: str
    value: float
    standard_error: float
    """NaN where lm-eval gives none"""
    n_documents: int
    n_shot: int
    higher_is_better: bool
    chance: float | None = None
    """what guessing gives, where our own file says it"""


class _Counts(msgspec.Struct):
    effective: int


class _Stamp(msgspec.Struct):
    """What is read of our own provenance."""

    chance: dict[str, float] = {}


class _Results(
    msgspec.Struct, rename={"samples": "n-samples", "shots": "n-shot", "stamp": "alignboard"}
):
    """The parts of lm-eval's file that are read."""

    results: dict[str, dict[str, Any]]
    samples: dict[str, _Counts | int | float | None] = {}
    shots: dict[str, int | float | None] = {}
    higher_is_better: dict[str, Any] = {}
    group_subtasks: dict[str, list[str] | None] = {}
    stamp: _Stamp = msgspec.field(default_factory=_Stamp)

    def better_when_higher(self, task: str, metric: str) -> bool:
        """What the file says of a metric; True where it says nothing."""
        own = self.higher_is_better.get(task)
        return bool(own.get(metric, True)) if isinstance(own, dict) else True

    def tasks_of(self, name: str, above: tuple[str, ...] = ()) -> list[str]:
        """A task itself, or the tasks of a group; a group inside itself counts once."""
        members = None if name in above else self.group_subtasks.get(name)
        if not members:
            return [name]
        return [task for member in members for task in self.tasks_of(member, (*above, name))]

    def n_documents(self, name: str) -> int:
        """The number of documents of a task, or of all tasks of a group."""
        found = (self.samples.get(task) for task in self.tasks_of(name))
        return sum(int(one.effective if isinstance(one, _Counts) else one) for one in found if one)

    def chance(self, name: str, metric: str) -> float | None:
        """What guessing gives in a multiple choice, on average over the documents of a group; None = unknown."""
        tasks = self.tasks_of(name)
        if metric not in {"acc", "acc_norm"} or any(one not in self.stamp.chance for one in tasks):
            return None
        n = [self.n_documents(one) for one in tasks]
        weighted = sum(k * self.stamp.chance[one] for k, one in zip(n, tasks, strict=True))
        return weighted / sum(n) if sum(n) else None

    def n_shot(self, name: str) -> int:
        """The number of examples of a task, or the largest of a group."""
        return max(int(self.shots.get(task) or 0) for task in self.tasks_of(name))


def read_scores(path: Path) -> list[TaskScore]:
    """The numbers of a ``results_*.json``, ours or anybody's."""
    try:
        content = msgspec.convert(json.loads(path.read_bytes()), _Results)
        return list(_scores(content))
    except (
        *(OSError, ValueError, OverflowError, RecursionError),
        msgspec.ValidationError,
    ) as error:
        raise InputError(f"{path} is not a results file of lm-eval: {error}.") from error


def _scores(content: _Results) -> Iterator[TaskScore]:
    for task, numbers in content.results.items():
        for key, value in numbers.items():
            metric, comma, filter_name = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = numbers.get(f"{metric}_stderr,{filter_name}")
            yield TaskScore(
                task=task,
                metric=metric,
                filter=filter_name,
                value=float(value),
                standard_error=float(error) if isinstance(error, int | float) else math.nan,
                n_documents=content.n_documents(task),
                n_shot=content.n_shot(task),
                higher_is_better=content.better_when_higher(task, metric),
                chance=content.chance(task, metric),
            )
