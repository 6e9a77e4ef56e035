"""What registered programs make for a plan: tiny checkpoints, judge models, documents of lm-eval tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from alignboard.data.generated import generated_names
from alignboard.judges.spec import JudgeSpec
from alignboard.registry import lookup, names
from alignboard.training.sections import WEST_OF_N


class TinyCheckpoint(Protocol):
    """Pretrains a checkpoint on the spot: ``register("tiny checkpoint", FAMILY, "my_package:build")``."""

    def __call__(
        self,
        family: str,
        path: Path,
        *,
        seed: int,
        settings: Mapping[str, Any],
        on_step: Callable[[int, int, float], None],
    ) -> Path:
        """Write the checkpoint of ``family`` to the new folder ``path``; ``settings`` are ``overrides.pretraining``."""
        ...


@dataclass(frozen=True)
class JudgeModel:
    """A judge's model that a plan trains: ``register("judge model", NAME, JudgeModel(...))``.

    A judge whose declaration has ``model: NAME`` is judged with by what the job makes.
    """

    job: str
    """the kind of the job that trains it (`alignboard.pipeline.kinds`), from the checkpoint in the role ``base``"""
    family: str
    """the tiny checkpoint that it is trained from"""


class GeneratedTask(Protocol):
    """Writes lm-eval tasks and their documents: ``register("generated task", TASK, "my_package:write")``."""

    def __call__(
        self,
        folder: Path,
        tasks: Sequence[str],
        *,
        seed: int,
        n: int,
        workspace: Path,
        found_at: Path,
    ) -> None:
        """Write ``tasks`` with ``n`` documents each; their declarations name the data by its place in ``found_at``."""
        ...


def tiny_families() -> tuple[str, ...]:
    """The families of tiny checkpoints."""
    return names("tiny checkpoint")


def tiny_checkpoint(family: str) -> TinyCheckpoint:
    """What pretrains the tiny checkpoint of ``family``."""
    return lookup("tiny checkpoint", family)


def judge_model(name: str | None) -> JudgeModel | None:
    """The judge's model called ``name`` that a plan trains; None where no plan does."""
    return lookup("judge model", name) if name in names("judge model") else None


def generated_tasks() -> tuple[str, ...]:
    """The lm-eval tasks whose documents are generated here."""
    return names("generated task")


def write_tasks(
    folder: Path, tasks: Sequence[str], *, seed: int, n: int, workspace: Path, found_at: Path
) -> None:
    """Write the generated ``tasks`` with ``n`` documents each to ``folder``."""
    by_writer: dict[GeneratedTask, list[str]] = {}
    for task in tasks:
        by_writer.setdefault(lookup("generated task", task), []).append(task)
    for write, own in by_writer.items():
        write(folder, own, seed=seed, n=n, workspace=workspace, found_at=found_at)


def judge_trained_here(declared: JudgeSpec) -> JudgeModel | None:
    """The judge's model that the plan trains; None for judges that are there already."""
    return None if declared.prompted is None else judge_model(declared.prompted.model)


def made_here(name: str) -> bool:
    """Whether jobs or registered programs make a data set, so that there is no source to read."""
    return name == WEST_OF_N or name in generated_names()
