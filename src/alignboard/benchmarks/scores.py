"""The numbers of lm-eval's ``results_*.json``, read without lm-eval."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


def read_scores(path: Path) -> list[TaskScore]:
    """The numbers of a ``results_*.json``, ours or anybody's."""
    try:
        return _scores(json.loads(path.read_bytes()))
    except (
        *(OSError, ValueError, KeyError, TypeError, AttributeError),
        *(OverflowError, RecursionError),
    ) as error:
        raise InputError(f"{path} is not a results file of lm-eval: {error}.") from error


def _scores(content: Mapping[str, Any]) -> list[TaskScore]:
    found = []
    results: dict[str, dict[str, Any]] = content["results"]
    for task, numbers in results.items():
        for key, value in numbers.items():
            metric, comma, filter_name = key.partition(",")
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not comma or metric.endswith("_stderr") or not is_number:
                continue
            error = numbers.get(f"{metric}_stderr,{filter_name}")
            found.append(
                TaskScore(
                    task=task,
                    metric=metric,
                    filter=filter_name,
                    value=float(value),
                    standard_error=float(error) if isinstance(error, int | float) else math.nan,
                    n_documents=sum(_of_members(content, "n-samples", task)),
                    n_shot=max(_of_members(content, "n-shot", task), default=0),
                    higher_is_better=bool(
                        content.get("higher_is_better", {}).get(task, {}).get(metric, True)
                    ),
                )
            )
    return found


def _of_members(content: Mapping[str, Any], key: str, task: str) -> list[int]:
    """The number of examples or of documents of a task, or of each task of a group."""
    members = content.get("group_subtasks", {}).get(task)
    if members:
        return [number for member in members for number in _of_members(content, key, member)]
    found = content.get(key, {}).get(task, 0)
    return [int(found["effective"] if isinstance(found, dict) else found)]
