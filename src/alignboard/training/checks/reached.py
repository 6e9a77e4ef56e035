"""Whether the loss depends on every matrix that is trained.

Heavy: imports torch and transformers.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from transformers import TrainerCallback

from alignboard.training.checks import preflight
from alignboard.training.launch import by_deepspeed, of_all
from alignboard.training.shards import trained

STEPS: Final = 5
"""in which every matrix has to get a gradient that is not zero"""


class Reached(TrainerCallback):
    """In the first steps, every matrix that is trained has to get a gradient.

    In the first step it may be zero: A of a fresh adapter gets no other while B is zero, nor does an expert that no
    token was sent to. In one of the first `STEPS` steps it has to differ from zero.
    """

    def __init__(self) -> None:
        self._weights: dict[str, torch.Tensor] = {}
        self._hooks: list[Any] = []
        self._now: dict[str, bool] = {}
        """which matrices got a gradient in this step, and whether it differs from zero"""
        self._reached: set[str] = set()
        """those that had one that does, in any step"""

    def on_train_begin(
        self,
        args: Any,  # noqa: ARG002 - the trainer's signature
        state: Any,
        control: Any,  # noqa: ARG002
        model: Any = None,
        **_: Any,
    ) -> None:
        """Look for what is trained; a run that goes on has been looked at."""
        if state.global_step > 0:
            return
        self._weights = trained(model)
        if by_deepspeed():  # its gradients are gone when the trainer's step comes
            self._hooks = [
                weight.register_hook(lambda gradient, name=name: self._see(name, gradient))
                for name, weight in self._weights.items()
            ]

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Raise `PreflightError` for matrices that the loss does not reach, in each process."""
        if not self._weights:
            return
        if not self._hooks:
            for name, weight in self._weights.items():
                if weight.grad is not None:
                    self._see(name, weight.grad)
        if state.global_step == 0:
            preflight.check_gradients(self._all_but(set(self._now)), 1)
        reached = {name for name, differs in self._now.items() if differs}
        self._reached |= reached
        self._now.clear()
        if state.global_step == STEPS - 1:
            missing = self._all_but(self._reached)
            # Where nothing gets a gradient any more, all is learnt, or the watch stops the run.
            if of_all(reached):
                preflight.check_gradients(missing, STEPS)
            for hook in self._hooks:
                hook.remove()
            self._weights = {}

    def _see(self, name: str, gradient: torch.Tensor) -> None:
        self._now[name] = self._now.get(name, False) or bool(gradient.any())

    def _all_but(self, names: set[str]) -> list[str]:
        found = of_all(names)
        return [name for name in self._weights if name not in found]
