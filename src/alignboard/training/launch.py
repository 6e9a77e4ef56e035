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


def by_deepspeed() -> bool:
    """Whether DeepSpeed trains: it takes its step within the backward pass, and keeps gradients to itself."""
    return _is_on("ACCELERATE_USE_DEEPSPEED")


def is_sharded() -> bool:
    """Whether each process holds a part of the weights alone, from the moment that its engine has the model."""
    parted = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE") == "3"
    return _is_on("ACCELERATE_USE_FSDP") or (by_deepspeed() and parted)


def _is_on(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() == "true"


def meet() -> None:
    """Wait for the other processes of this training."""
    if n_processes() > 1:
        import torch

        torch.distributed.barrier()


def of_all(names: set[str]) -> set[str]:
    """The ``names`` of all processes of this training together; each has to ask."""
    if n_processes() == 1:
        return names
    import torch

    found: list[set[str]] = [set()] * n_processes()
    torch.distributed.all_gather_object(found, names)
    return set[str]().union(*found)


def of_main(text: str) -> str:
    """What the first process of this training says; each has to ask."""
    if n_processes() == 1:
        return text
    import torch

    said = [text]
    torch.distributed.broadcast_object_list(said, src=0)
    return said[0]
