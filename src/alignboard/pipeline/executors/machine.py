"""The executors that a run can name, and how a run uses the machine."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Final

from alignboard.errors import InputError
from alignboard.pipeline.executors.work import Executor, Settings
from alignboard.registry import lookup, register

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

    def with_default(self, *, only_light: bool) -> Machine:
        """With a number of workers: a large model fills the machine, of jobs that are light every core does one."""
        default = len(self.devices) or (_n_cpus() if only_light else 1)
        if self.executor == "in-process":
            default = 1
        return replace(self, n_workers=self.n_workers or default)

    def open(self, environment: dict[str, str]) -> Executor:
        """The executor, whose workers have the variables of ``environment``."""
        settings = Settings(
            self.n_workers or 1, self.devices, self.helpers, environment=environment
        )
        return lookup("executor", self.executor)(settings)


def _n_cpus() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
