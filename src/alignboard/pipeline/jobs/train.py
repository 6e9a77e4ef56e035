"""Jobs that make models: checkpoints, adapters, preference pairs, the judge's model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from alignboard.data import world
from alignboard.errors import InputError, nearest
from alignboard.pipeline.executors.doing import JobTask

if TYPE_CHECKING:
    from alignboard.train.recipe import Recipe

CHECKPOINT = "checkpoint"
ADAPTER = "adapter"
_PAIRS = "pairs.json"
_SOURCE = "source.json"


def checkpoint(task: JobTask) -> dict[str, str]:
    """A base model: pretrained on the spot, or a note of where it is."""
    parameters = task.job.parameters
    if "source" in parameters:
        from alignboard.models.hub import locate

        hints = task.job.hints
        content = {"path": hints["path"]}
        # A base that is not there is noticed before data are fetched.
        locate(hints["path"], revision=hints["revision"], gguf_file=hints["gguf_file"])
        (task.folder / _SOURCE).write_text(json.dumps(content), encoding="utf-8")
        return {}
    from alignboard.models.tiny import PretrainConfig, build

    build(
        parameters["tiny"],
        task.folder / CHECKPOINT,
        seed=parameters["seed"],
        config=_overridden(PretrainConfig, "pretrain", parameters["pretrain"]),
        on_step=lambda step, total, _loss: task.progress(step, total),
    )
    return (
        {f"results/{parameters['model']}/{CHECKPOINT}": CHECKPOINT} if parameters["model"] else {}
    )


def judge_model(task: JobTask) -> dict[str, str]:
    """The tiny judge, trained from a tiny checkpoint."""
    from alignboard.judges.demo.judge_training import JudgeTraining, train_judge

    train_judge(
        task.inputs["base"] / CHECKPOINT,
        task.folder / CHECKPOINT,
        seed=task.job.parameters["seed"],
        config=_overridden(JudgeTraining, "judge_training", task.job.parameters["training"]),
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


def model_path(inputs: Mapping[str, Path]) -> str:
    """Where the base model of a job is: a folder, or an id on the hub."""
    folder = inputs["base"]
    note = folder / _SOURCE
    if note.is_file():
        return json.loads(note.read_text(encoding="utf-8"))["path"]
    return str(folder / CHECKPOINT)


def adapter_path(inputs: Mapping[str, Path], role: str = "adapter") -> Path | None:
    """Where the adapter of a job is, if it has one."""
    return inputs[role] / ADAPTER if role in inputs else None


def train(task: JobTask) -> dict[str, str]:
    """An adapter."""
    from alignboard.train.recipe import parse_recipe
    from alignboard.train.trainer import train as train_adapter

    parameters = task.job.parameters
    content = parameters["recipe"]
    # How a batch is divided is no part of a recipe's identity.
    content = {**content, "batch": {**content["batch"], **task.job.hints}}
    recipe = parse_recipe(content, task.job.name)
    rows, report = _rows(recipe, task)
    train_adapter(
        recipe,
        model_path(task.inputs),
        rows,
        task.folder / ADAPTER,
        data=report,
        last_good=task.places.results / parameters["model"] / "adapter-last-good",
        adapter=adapter_path(task.inputs, "start"),
        seed=parameters["seed"],
        on_step=lambda step, total, _log: task.progress(step, total),
    )
    return {f"results/{parameters['model']}/{ADAPTER}": ADAPTER}


def _rows(recipe: Recipe, task: JobTask) -> tuple[Any, dict[str, Any] | None]:
    """What the recipe trains on, and the report of the data where it was read from a source."""
    name = recipe.data.name
    if name == "demo-world":
        examples = world.sft_examples(recipe.data.n or 1000, task.job.parameters["seed"])
        return world.chat_rows(examples), None
    if name == "west-of-n":
        from alignboard.train.pairs import PreferencePair, preference_rows

        content = json.loads((task.inputs["pairs"] / _PAIRS).read_text(encoding="utf-8"))
        rows: list[Any] = preference_rows([PreferencePair(**pair) for pair in content])
        return rows[: recipe.data.n], None
    from alignboard.data.preferences.read import read_rows

    kind = "pair" if recipe.is_preference else "demonstration"
    found, report = read_rows(recipe.data.source(), kind, task.job.parameters["seed"])
    return found, report.to_json()


def pairs(task: JobTask) -> dict[str, str]:
    """Preference pairs from a model's own samples."""
    from alignboard.judges.demo.simulated import rule_score
    from alignboard.train.pairs import build_pairs
    from alignboard.train.recipe import PairSpec

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
    (task.folder / _PAIRS).write_text(text + "\n", encoding="utf-8")
    return {}
