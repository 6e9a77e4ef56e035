"""The trackers, each a function that takes the points of a board; registered as ``tracker``.

One of another package is one registration: ``register("tracker", "mine", "my_package:write")``.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from alignboard.boards.tracking.points import PREFIX, Point, by_model
from alignboard.extras import require
from alignboard.registry import register

_AXIS = f"{PREFIX}/step"


def to_wandb(points: Sequence[Point], project: str, folder: Path | None) -> str:
    """Runs of W&B, named after the models. WANDB_MODE=offline keeps them on disk.

    A run of that name in the project is continued: the numbers stand beside its training's, on an axis of their own.
    """
    require("wandb")
    import wandb

    for model, own in by_model(points).items():
        run = wandb.init(
            project=project,
            id=_identity(model),
            name=model,
            config=own[0].settings,
            dir=folder,
            resume="allow",
            settings=wandb.Settings(silent=True),
        )
        run.define_metric(_AXIS, hidden=True)
        run.define_metric(f"{PREFIX}/*", step_metric=_AXIS)
        for point in own:
            run.log({_AXIS: point.step, **point.metrics})
        run.finish()
    return f"the W&B project {project}"


def to_trackio(points: Sequence[Point], project: str, folder: Path | None) -> str:
    """Runs of Trackio, named after the models; it keeps them in its own place (TRACKIO_DIR)."""
    require("trackio")
    trackio = import_module("trackio")

    _refuse(folder, "trackio", "the environment variable TRACKIO_DIR")
    for model, own in by_model(points).items():
        trackio.init(project=project, name=model, config=own[0].settings, resume="allow")
        for point in own:
            trackio.log({_AXIS: point.step, **point.metrics})
        trackio.finish()
    return f"the Trackio project {project}"


def to_mlflow(points: Sequence[Point], project: str, folder: Path | None) -> str:
    """Runs of the MLflow experiment ``project``, kept where MLFLOW_TRACKING_URI says."""
    require("mlflow")
    from mlflow import MlflowClient

    _refuse(folder, "mlflow", "the environment variable MLFLOW_TRACKING_URI")
    client = MlflowClient()
    experiment = client.get_experiment_by_name(project)
    number = client.create_experiment(project) if experiment is None else experiment.experiment_id
    for model, own in by_model(points).items():
        run = client.create_run(number, run_name=model, tags=own[0].settings).info.run_id
        for point in own:
            for name, value in point.metrics.items():
                client.log_metric(run, name, value, step=point.step)
        client.set_terminated(run)
    return f"the MLflow experiment {project}"


def to_tensorboard(points: Sequence[Point], project: str, folder: Path | None) -> str:
    """Event files, a folder per model, in ``folder``, by default ``runs/<project>``."""
    require("tensorboard")
    from tensorboard.summary import Writer

    place = folder or Path("runs", project)
    for model, own in by_model(points).items():
        writer = Writer(str(place / model))
        for point in own:
            for name, value in point.metrics.items():
                writer.add_scalar(name, value, point.step)
        writer.close()
    return str(place)


def _refuse(folder: Path | None, tracker: str, instead: str) -> None:
    from alignboard.errors import InputError

    if folder is not None:
        raise InputError(f"--dir is not for {tracker}, which keeps its files where {instead} says.")


def _identity(model: str) -> str:
    """A run's identity: the model's name, in the characters that it may have."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in model)


for _name, _write in {
    "wandb": to_wandb,
    "trackio": to_trackio,
    "mlflow": to_mlflow,
    "tensorboard": to_tensorboard,
}.items():
    register("tracker", _name, _write)
