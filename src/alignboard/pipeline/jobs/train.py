"""Jobs that make models: checkpoints and adapters."""

from __future__ import annotations

import json

from alignboard.pipeline.executors.doing import JobTask
from alignboard.pipeline.jobs.training_data import (
    naming_recipe,
    places_of,
    recipe_of,
    report_of,
    start_of,
)
from alignboard.pipeline.jobs.weights import (
    ADAPTER,
    CHECKPOINT,
    SOURCE,
    model_path,
    which_files,
)
from alignboard.pipeline.plans.made import tiny_checkpoint
from alignboard.pipeline.store import without_roots
from alignboard.training.launch import Launch
from alignboard.training.processes import TrainingCall, launched, perform

_NAMING = ("adapter_config.json", "config.json", "training.json", "README.md")
"""files of a trained model that name the base's folder"""


def checkpoint(task: JobTask) -> dict[str, str]:
    """A base model: pretrained on the spot, or a note of where it is."""
    parameters = task.job.parameters
    if "source" in parameters:
        from alignboard.models.hub import locate

        hints = task.job.hints
        content = {name: value for name, value in hints.items() if value is not None}
        # A base that is not there is noticed before data are fetched.
        locate(hints["path"], revision=hints["revision"], gguf_file=hints["gguf_file"])
        (task.folder / SOURCE).write_text(json.dumps(content), encoding="utf-8")
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


def train(task: JobTask) -> dict[str, str]:
    """An adapter, or a checkpoint where every weight is trained."""
    parameters, recipe = task.job.parameters, recipe_of(task.job)
    made, start = CHECKPOINT if recipe.is_full else ADAPTER, start_of(task)
    call = TrainingCall(
        recipe=recipe,
        model=str(model_path(task.inputs, "start")),
        which=which_files(task.inputs, "start"),
        rows=places_of(task),
        out=str(task.folder / made),
        adapter=None if start is None else str(start),
        data=report_of(task),
        last_good=str(task.paths.results / parameters["model"] / "adapter-last-good"),
        work=str(task.paths.work(task.job)),
        seed=parameters["seed"],
        name=parameters["model"],
    )
    launch = Launch.from_environment()
    with naming_recipe(task.job):
        if launch.processes > 1:
            launched(call, launch, task.progress)
        else:
            perform(call, task.progress)
    named = (task.folder / made / name for name in _NAMING)
    without_roots((path for path in named if path.is_file()), task.paths.workspace)
    return {f"results/{parameters['model']}/{made}": made}
