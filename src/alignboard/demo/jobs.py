"""The demo's instruction set and jobs: tiny checkpoints, preference pairs by its rule, the judge's model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from alignboard.demo import world
from alignboard.errors import InputError, nearest
from alignboard.pipeline.executors.doing import JobTask
from alignboard.pipeline.jobs.training_data import PAIRS
from alignboard.pipeline.jobs.weights import CHECKPOINT, adapter_path, model_path


class _World:
    """The demo world as a generated set (`alignboard.data.generated.GeneratedSet`)."""

    splits: tuple[str, ...] = world.SPLITS

    def prompts(self, split: str, n: int, seed: int) -> list[str]:
        return world.prompts(cast("world.Split", split), n, seed)

    def check(self, instruction: str, output: str) -> bool:
        return world.check(instruction, output)

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


def pairs(task: JobTask) -> dict[str, str]:
    """Preference pairs from a model's own samples on the demo world, the better by the world's rule."""
    from alignboard.demo.simulated import rule_score
    from alignboard.train.pairs import build_pairs
    from alignboard.train.sections import PairSpec

    spec = msgspec.convert(task.job.parameters["pairs"], PairSpec)
    seed = task.job.parameters["seed"]
    found = build_pairs(
        spec,
        model_path(task.inputs),
        adapter_path(task.inputs),
        world.prompts("preference", spec.prompts, seed),
        rule_score,
        seed,
    )
    if not found:
        raise InputError(
            f"{task.job.name}: the samples for each of {spec.prompts} prompts all score the same, so there is no "
            "pair to learn from; train the model that they come from longer, or raise pairs.n or pairs.temperature."
        )
    text = json.dumps([asdict(pair) for pair in found], indent=1)
    (task.folder / PAIRS).write_text(text + "\n", encoding="utf-8")
    return {}


def _overridden(config: type, field: str, changes: Mapping[str, Any]) -> Any:
    try:
        return config(**changes)
    except TypeError as error:
        known = [one.name for one in fields(config)]
        wrong = next((key for key in changes if key not in known), None)
        hint = f"it has no {wrong!r}{nearest(wrong, known) or '.'}" if wrong else f"{error}."
        raise InputError(f"overrides.{field}: {hint}") from error
