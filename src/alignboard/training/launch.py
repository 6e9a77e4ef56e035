"""Processes of one training, through accelerate's launcher and the configuration files that TRL ships.

What this module promises
    A training in several processes gives the losses of one in one process: the global batch is divided, and the rows
    of a step are the same. Logs, checkpoints and the result are written by the first process. The processes end with
    the one that launched them.

References of pairs are computed before, in one process (`alignboard.training.reference`).

Light: no torch.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

import msgspec

from alignboard.training.sections import LauncherName

VARIABLE: Final = "ALIGNBOARD_LAUNCH"
"""of a worker's environment: how its trainings are launched"""
TRAINED: Final = "train"
HELD_OUT: Final = "held_out"


@dataclass(frozen=True)
class Launch:
    """How many processes a training has, and what accelerate makes of them."""

    launcher: LauncherName = "none"
    processes: int = 1

    def environment(self) -> dict[str, str]:
        """What tells it to a worker."""
        return {VARIABLE: f"{self.launcher} {self.processes}"} if self.processes > 1 else {}

    @classmethod
    def from_environment(cls) -> Launch:
        """What this worker was told."""
        launcher, _, processes = os.environ.get(VARIABLE, "none 1").partition(" ")
        return msgspec.convert({"launcher": launcher, "processes": int(processes)}, cls)


def is_main() -> bool:
    """Whether this process is the first of its training, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def n_processes() -> int:
    """Of this training."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_sharded() -> bool:
    """Whether each process holds a part of the weights alone."""
    return any(
        os.environ.get(f"ACCELERATE_USE_{name}", "false").lower() == "true"
        for name in ("FSDP", "DEEPSPEED")
    )


def meet() -> None:
    """Wait for the other processes of this training."""
    if n_processes() > 1:
        import torch

        torch.distributed.barrier()
