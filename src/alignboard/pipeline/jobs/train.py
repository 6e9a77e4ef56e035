"""Jobs that make models: checkpoints and adapters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignboard.data.generated import generated_names, generated_set
from alignboard.pipeline.executors.doing import JobTask
from alignboard.pipeline.plans.made import tiny_checkpoint

if TYPE_CHECKING:
    from alignboard.train.recipe import Recipe

CHECKPOINT = "checkpoint"
ADAPTER = "adapter"
PAIRS = "pairs.json"
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
    build = tiny_checkpoint(parameters["tiny"])
    build(
        parameters["tiny"],
        task.folder / CHECKPOINT,
        seed=parameters["seed"],
        settings=parameters["pretrain"],
        on_step=lambda step, total, _loss: task.progress(step, total),
    )
    return (
        {f"results/{parameters['model']}/{CHECKPOINT}": CHECKPOINT} if parameters["model"] else {}
    )


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
    # How a batch is divided, and what is kept on the way, is no part of a recipe's identity.
    hints = dict(task.job.hints)
    content = {**content, "save_every": hints.pop("save_every")}
    content["batch"] = {**content["batch"], **hints}
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
        work=task.places.work(task.job),
        seed=parameters["seed"],
        on_step=lambda step, total, _log: task.progress(step, total),
    )
    return {f"results/{parameters['model']}/{ADAPTER}": ADAPTER}


def _rows(recipe: Recipe, task: JobTask) -> tuple[Any, dict[str, Any] | None]:
    """What the recipe trains on, and the report of the data where it was read from a source."""
    name = recipe.data.name
    if name in generated_names():
        seed = task.job.parameters["seed"]
        return generated_set(name).demonstrations(recipe.data.n or 1000, seed), None
    if name == "west-of-n":
        from alignboard.train.pairs import PreferencePair, preference_rows

        content = json.loads((task.inputs["pairs"] / PAIRS).read_text(encoding="utf-8"))
        rows: list[Any] = preference_rows([PreferencePair(**pair) for pair in content])
        return rows[: recipe.data.n], None
    from alignboard.data.preferences.read import read_rows

    kind = "pair" if recipe.is_preference else "demonstration"
    found, report = read_rows(recipe.data.source(), kind, task.job.parameters["seed"])
    return found, report.to_json()
