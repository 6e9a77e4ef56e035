"""The demo's instruction set and jobs: tiny checkpoints, the judge's model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, cast

from alignboard.demo import world
from alignboard.demo.simulated import rule_score
from alignboard.errors import InputError, nearest
from alignboard.pipeline.executors.doing import JobTask
from alignboard.pipeline.jobs.weights import CHECKPOINT


class _World:
    """The demo world as a generated set (`alignboard.data.generated.GeneratedSet`)."""

    splits: tuple[str, ...] = world.SPLITS

    def prompts(self, split: str, n: int, seed: int) -> list[str]:
        return world.prompts(cast("world.Split", split), n, seed)

    def check(self, instruction: str, output: str) -> bool:
        return world.check(instruction, output)

    def score(self, instruction: str, output: str) -> float:
        return rule_score(instruction, output)

    def demonstrations(self, n: int, seed: int) -> list[dict[str, Any]]:
        return [dict(row) for row in world.chat_rows(world.sft_examples(n, seed))]


WORLD: Final = _World()


def build_checkpoint(
    family: str,
    path: Path,
    *,
    seed: int,
    settings: Mapping[str, Any],
    on_step: Callable[[int, int, float], None],
) -> Path:
    """Pretrain a tiny checkpoint; ``settings`` are fields of `PretrainConfig`."""
    from alignboard.demo.tiny import PretrainConfig, build

    config = _overridden(PretrainConfig, "pretraining", settings)
    return build(family, path, seed=seed, config=config, on_step=on_step)


def judge_model(task: JobTask) -> dict[str, str]:
    """The tiny judge, trained from a tiny checkpoint."""
    from alignboard.demo.judge_training import JudgeTraining, train_judge

    train_judge(
        task.inputs["base"] / CHECKPOINT,
        task.folder / CHECKPOINT,
        seed=task.job.parameters["seed"],
        config=_overridden(JudgeTraining, "judge_model_training", task.job.parameters["training"]),
        on_step=lambda step, total, _loss: task.progress(step, total),
    )
    return {}


def _overridden(config: type, field: str, changes: Mapping[str, Any]) -> Any:
    try:
        return config(**changes)
    except TypeError as error:
        known = [one.name for one in fields(config)]
        wrong = next((key for key in changes if key not in known), None)
        hint = f"it has no {wrong!r}{nearest(wrong, known) or '.'}" if wrong else f"{error}."
        raise InputError(f"overrides.{field}: {hint}") from error
