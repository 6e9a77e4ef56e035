"""The numbers of lm-eval's ``results_*.json``, read without lm-eval."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from alignboard.errors import InputError
from alignboard.strict_json import parse_json

_FORM: Final = {True: "in a chat template", False: "in plain text"}


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
    version: str | None = None
    """of the task; None for a group, and where the file does not state it"""
    is_chat: bool = False
    """whether the model was asked in a chat template"""


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
    versions: dict[str, str | int | float | None] = {}
    chat_template_sha: str | None = None
    model_name: str | None = None
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
        content = msgspec.convert(parse_json(path.read_bytes()), _Results)
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
                version=None if content.versions.get(task) is None else str(content.versions[task]),
                is_chat=content.chat_template_sha is not None,
            )


def model_of(path: Path) -> str:
    """The model that a ``results_*.json`` names, as lm-eval names its folder; the folder's name where it is a path."""
    try:
        name = msgspec.convert(parse_json(path.read_bytes()), _Results).model_name
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a results file of lm-eval: {error}.") from error
    if not name or Path(name).is_absolute():
        return path.resolve().parent.name
    return name.replace("/", "__")


def unlike(scores: Mapping[str, Sequence[TaskScore]]) -> list[str]:
    """Sentences on what models, by name, were not asked alike: versions of a task, its documents, the template."""
    tasks: dict[tuple[str, int], dict[str, TaskScore]] = {}
    for model, own in scores.items():
        for one in own:
            tasks.setdefault((one.task, one.n_shot), {}).setdefault(model, one)
    notes = []
    for (task, _), own in tasks.items():
        for said in (
            {model: f"version {one.version}" for model, one in own.items() if one.version},
            {model: f"{one.n_documents} documents" for model, one in own.items()},
            {model: _FORM[one.is_chat] for model, one in own.items()},
        ):
            found = {text: [m for m, t in said.items() if t == text] for text in said.values()}
            if len(found) > 1:
                each = "; ".join(f"{text}: {', '.join(names)}" for text, names in found.items())
                notes.append(f"{task} is not like for like ({each}).")
    return list(dict.fromkeys(notes))
