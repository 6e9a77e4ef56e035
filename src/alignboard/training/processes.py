"""One training in this process or in several, and what each of several does.

Run by `launched` through accelerate's launcher as ``python -m alignboard.training.processes``. The first process tells
its progress as lines of the standard output, each what made it fail.

Light: torch and trl are imported by `perform`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from alignboard.errors import AlignboardError
from alignboard.models.hub import Which
from alignboard.startup import prepare
from alignboard.training.launch import HELD_OUT, TRAINED, Launch
from alignboard.training.recipe import Recipe

_FILES: Final[Mapping[str, str]] = {
    "ddp": "multi_gpu",
    "fsdp2": "fsdp2",
    "zero2": "zero2",
    "zero3": "zero3",
}
"""TRL's configuration file of each launcher"""
_PROGRESS: Final = "alignboard-progress "
_FAILED: Final = "alignboard-failed "

Progress = Callable[[int, int, str], None]
_SHOWN: Final = {
    "loss": "loss",
    "rewards/margins": "margin",
    "rewards/accuracies": "accuracy",
    "mean_token_accuracy": "token accuracy",
}
"""what of the log is shown at every step, and its name"""


class TrainingCall(msgspec.Struct, frozen=True, kw_only=True):
    """One training: everything that its processes are told."""

    recipe: Recipe
    model: str
    rows: dict[str, str]
    """folders of data sets, by split"""
    out: str
    adapter: str | None
    """what training starts from"""
    data: dict[str, Any] | None
    last_good: str
    work: str
    seed: int
    name: str
    """what trackers call it"""
    which: Which = {}
    """the model's commit or GGUF file"""


def perform(call: TrainingCall, progress: Progress) -> None:
    """Train in this process, which may be one of several."""
    import datasets

    from alignboard.training.trainer import train

    rows: dict[str, Any] = {
        name: datasets.load_from_disk(place) for name, place in call.rows.items()
    }
    train(
        call.recipe,
        call.model,
        rows[TRAINED],
        call.out,
        held_out=rows.get(HELD_OUT),
        data=call.data,
        last_good=call.last_good,
        adapter=call.adapter,
        work=call.work,
        seed=call.seed,
        name=call.name,
        on_step=lambda step, total, log: progress(step, total, said_of(log)),
        **call.which,
    )


def said_of(log: Mapping[str, float]) -> str:
    """What a step's log tells on a terminal.

    >>> said_of({"loss": 0.61234, "rewards/margins": 0.2, "learning_rate": 1e-5})
    'loss 0.612, margin 0.2'
    """
    return ", ".join(f"{name} {log[key]:.3g}" for key, name in _SHOWN.items() if key in log)


def launched(call: TrainingCall, launch: Launch, progress: Progress) -> None:
    """Train in several processes; raises what made them fail."""
    asked = Path(f"{call.out}.call.json")
    asked.write_bytes(msgspec.json.encode(call))
    process = subprocess.Popen(  # noqa: S603 - this Python, accelerate's launcher, this package
        [
            *accelerate_command(call.recipe, launch),
            "-m",
            "alignboard.training.processes",
            str(asked),
        ],
        stdin=subprocess.PIPE,  # its end tells the processes that this one is gone
        stdout=subprocess.PIPE,
        text=True,
    )
    failed = list[str]()
    try:
        for line in process.stdout or []:
            if line.startswith(_PROGRESS):
                step, total, said = line.removeprefix(_PROGRESS).rstrip("\n").split(" ", 2)
                progress(int(step), int(total), said)
            elif line.startswith(_FAILED):
                failed.append(line.removeprefix(_FAILED).strip())
            else:
                print(line, end="", file=sys.stderr)  # noqa: T201 - the worker's log
    finally:
        if process.stdin is not None:
            process.stdin.close()
        code = process.wait()
        asked.unlink(missing_ok=True)
    if failed:
        raise AlignboardError(failed[0])
    if code != 0:
        raise AlignboardError(
            f"the {launch.processes} processes of the training ended with exit code {code}; the worker's log has why"
        )


def accelerate_command(recipe: Recipe, launch: Launch) -> list[str]:
    """accelerate's launcher with TRL's configuration file, before what it launches."""
    import trl

    files = Path(trl.__file__).parent / "accelerate_configs"
    settings = {
        "config_file": files / f"{_FILES[launch.launcher]}.yaml",
        "num_processes": launch.processes,
        "mixed_precision": "no",  # the recipe's precision is set by TRL's arguments
        "gradient_accumulation_steps": recipe.batch.on(launch.processes).accumulation(
            launch.processes
        ),
        "main_process_port": 0,
    }
    given = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    return [sys.executable, "-m", "accelerate.commands.launch", *given]


def _leave_with_parent() -> None:
    """End this process when the one that launched it is gone."""
    while os.read(0, 1):
        pass
    os._exit(1)


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(asked: str) -> None:
    """Be one process of a training."""
    prepare()
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    call = msgspec.json.decode(Path(asked).read_bytes(), type=TrainingCall)
    try:
        perform(call, lambda step, total, said: _tell(f"{_PROGRESS}{step} {total} {said}"))
    except AlignboardError as error:
        _tell(_FAILED + " ".join(str(error).split()))
        os._exit(1)
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
