"""Jobs that make models: checkpoints and adapters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignboard.data.generated import generated_names, generated_set
from alignboard.models.hub import locate_adapter
from alignboard.pipeline.executors.doing import JobTask
from alignboard.pipeline.plans.made import tiny_checkpoint
from alignboard.train.sections import WEST_OF_N

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


def model_path(inputs: Mapping[str, Path], role: str = "adapter") -> str:
    """Where the base model of a job is: a folder, or an id on the hub; what came out where every weight was trained."""
    if role in inputs and (inputs[role] / CHECKPOINT).is_dir():
        return str(inputs[role] / CHECKPOINT)
    folder = inputs["base"]
    note = folder / _SOURCE
    if note.is_file():
        return json.loads(note.read_text(encoding="utf-8"))["path"]
    return str(folder / CHECKPOINT)


def adapter_path(inputs: Mapping[str, Path], role: str = "adapter") -> Path | None:
    """Where the adapter of a job is, if it has one."""
    found = inputs[role] / ADAPTER if role in inputs else None
    return found if found is not None and found.is_dir() else None


def train(task: JobTask) -> dict[str, str]:
    """An adapter, or a checkpoint where every weight is trained."""
    from alignboard.train.recipe import parse_recipe
    from alignboard.train.trainer import train as train_adapter

    parameters, hints = task.job.parameters, task.job.hints
    content = parameters["recipe"]
    # How a batch is divided, and what is kept on the way, is no part of a recipe's identity.
    content = {**content, "save_every": hints["save_every"]}
    content["batch"] = {**content["batch"], "per_device": hints["per_device"]}
    recipe = parse_recipe(content, task.job.name)
    start = adapter_path(task.inputs, "start")
    if "start" in hints:
        # An adapter that is not there is noticed before data are fetched.
        start = locate_adapter(hints["start"])
    rows, held_out, report = _rows(recipe, task)
    made = CHECKPOINT if recipe.is_full else ADAPTER
    train_adapter(
        recipe,
        model_path(task.inputs, "start"),
        rows,
        task.folder / made,
        held_out=held_out,
        data=report,
        last_good=task.places.results / parameters["model"] / "adapter-last-good",
        adapter=start,
        work=task.places.work(task.job),
        seed=parameters["seed"],
        on_step=lambda step, total, _log: task.progress(step, total),
    )
    return {f"results/{parameters['model']}/{made}": made}


def _rows(recipe: Recipe, task: JobTask) -> tuple[Any, Any, dict[str, Any] | None]:
    """(what the recipe trains on, its held-out rows, the report of the data where it was read from a source)."""
    from alignboard.data.preferences.read import read_all, split

    seed, report = task.job.parameters["seed"], None
    if recipe.sole_data is None or not made_here(recipe.sole_data):
        rows, found = read_all([one.source() for one in recipe.data_sets], recipe.kind, seed)
        whole = [one.to_json() for one in found]
        report = whole[0] if len(whole) == 1 else {"sources": whole}
    else:
        rows = _made_rows(recipe, task)
    if recipe.held_out is None:
        return rows, None, report
    if recipe.held_out.data is not None:
        return rows, read_all([recipe.held_out.data.source()], recipe.kind, seed)[0], report
    return *split(rows, recipe.held_out.count(len(rows)), seed), report


def made_here(name: str) -> bool:
    """Whether jobs or registered programs make a data set, so that there is no source to read."""
    return name == WEST_OF_N or name in generated_names()


def _made_rows(recipe: Recipe, task: JobTask) -> Any:
    data = recipe.data_sets[0]
    if data.name == WEST_OF_N:
        from alignboard.train.pairs import PreferencePair, preference_rows

        content = json.loads((task.inputs["pairs"] / PAIRS).read_text(encoding="utf-8"))
        return preference_rows([PreferencePair(**pair) for pair in content])[: data.n]
    return generated_set(data.name).demonstrations(data.n or 1000, task.job.parameters["seed"])
