"""The executors that a run can name, and how a run uses the machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Final

from alignboard.errors import InputError
from alignboard.pipeline.executors.work import Executor, Settings
from alignboard.registry import lookup, register
from alignboard.training.launch import Launch
from alignboard.training.sections import LauncherName

_HERE: Final = "alignboard.pipeline.executors"
register("executor", "in-process", f"{_HERE}.in_process:InProcess")
register("executor", "processes", f"{_HERE}.processes:Processes")


@dataclass(frozen=True)
class Machine:
    """What a run may use of the machine."""

    n_workers: int | None = None
    """at a time; None: one per device, else what suits the plan"""
    devices: tuple[str, ...] = ()
    """GPUs, one per worker, as CUDA_VISIBLE_DEVICES names them; none: every worker sees all"""
    executor: str = "processes"
    """``in-process``, ``processes``, or one that a package registers"""
    helpers: tuple[str, ...] = ()
    """GPUs of further processes that share the requests of a job, in-process; ``""``: one without its own"""
    launcher: LauncherName = "auto"
    """of a training: auto is one GPU for each of several, and ddp over all GPUs for a single one"""
    processes: int = 1
    """of a training; set by `for_trainings`"""

    def __post_init__(self) -> None:
        every = [*self.devices, *filter(None, self.helpers)]
        twice = next((one for one in every if every.count(one) > 1), None)
        if twice is not None:
            raise InputError(
                f"--gpus names GPU {twice} twice; each worker has a device of its own."
            )
        if self.n_workers is not None and self.n_workers < 1:
            raise InputError(f"A run needs one worker at least, not {self.n_workers}.")
        if self.devices and self.n_workers not in {None, len(self.devices)}:
            raise InputError(
                f"--gpus names {len(self.devices)} devices, and each has one worker: leave --workers "
                f"{self.n_workers} out."
            )

    def for_trainings(self, n: int, n_models: int) -> Machine:
        """With what a plan of ``n`` trainings on ``n_models`` models gets of the GPUs, and each training of those."""
        if n == 0 or self.launcher == "none":
            return self
        gpus = self.devices or visible_gpus()
        if self.launcher == "auto":
            if len(gpus) < 2 or self.n_workers not in {None, len(gpus)}:
                return self
            if n > 1 or n_models > 1:
                return replace(self, devices=gpus)
        if not gpus and self.launcher == "fsdp2":  # accelerate would make ddp of it, without a word
            raise InputError(
                "--launcher fsdp2 shards over GPUs, and this machine shows none; take --launcher ddp."
            )
        if self.launcher.startswith("zero") and find_spec("deepspeed") is None:
            raise InputError(
                f"--launcher {self.launcher} needs the package deepspeed, which is not installed: pip install "
                "deepspeed, or take --launcher fsdp2, which shards without it."
            )
        count = len(gpus) or self.n_workers
        if count is None:
            raise InputError(
                f"--launcher {self.launcher} has one process per GPU, and this machine shows none; say with --workers "
                "how many processes share its processors."
            )
        together = (",".join(gpus),) if gpus else ()
        launcher = "ddp" if self.launcher == "auto" else self.launcher
        return replace(self, n_workers=1, devices=together, launcher=launcher, processes=count)

    def with_default(self, *, only_light: bool) -> Machine:
        """With a number of workers: a large model fills the machine, of jobs that are light every core does one."""
        default = len(self.devices) or (_n_cpus() if only_light else 1)
        if self.executor == "in-process":
            default = 1
        return replace(self, n_workers=self.n_workers or default)

    def open(self, environment: dict[str, str]) -> Executor:
        """The executor, whose workers have the variables of ``environment``."""
        environment |= Launch(self.launcher, self.processes).environment()
        settings = Settings(
            self.n_workers or 1, self.devices, self.helpers, environment=environment
        )
        return lookup("executor", self.executor)(settings)


def visible_gpus() -> tuple[str, ...]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return tuple(one for one in named.split(",") if one and one != "-1")
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    listed = subprocess.run([program, "-L"], capture_output=True, text=True, check=False)  # noqa: S603 - NVIDIA's
    return tuple(
        str(n)
        for n, _ in enumerate(one for one in listed.stdout.splitlines() if one.startswith("GPU"))
    )


def _n_cpus() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
