"""What is watched while a run trains: numbers that are not finite, weights and losses that run away, gradients of zero.

A run that goes wrong stops. The adapter of the last good step is kept beside the output, and the error names it.
"""

from __future__ import annotations

import json
import math
import resource
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch.nn.utils import get_total_norm
from transformers import TrainerCallback

from alignboard.training.checks.preflight import PreflightError
from alignboard.training.shards import trained, whole

OnStep = Callable[[int, int, Mapping[str, float]], None]
"""(step, of steps, what the trainer logged)"""

LARGEST_WEIGHT: Final = 1e3
"""of an adapter's matrices, which begin below 1"""
RUNAWAY: Final = 5.0
"""times the loss of the first step, as the mean of `RECENT` steps"""
RECENT: Final = 10
ZERO_STEPS: Final = 5
"""steps in a row with a gradient of zero"""
NO_GRADIENT: Final = 1e-10
LEARNT: Final = 1e-6
"""of the first step's loss: what is left where a few easy rows are learnt, whose gradient is then no fault"""


class StoppedError(PreflightError):
    """A run that went wrong on its way; names the step, what was seen, and what was kept."""


class Watch(TrainerCallback):
    """Collects the log, checks every step, reports progress, holds the weights of the last good step."""

    def __init__(
        self, on_step: OnStep | None, log: Path | None = None, *, adapter: bool = True
    ) -> None:
        self.on_step = on_step
        self._adapter = adapter
        """whether an adapter is trained, whose weights are few enough to hold twice"""
        self.losses: list[float] = []
        self.last: dict[str, float] = {}
        self.held_out: dict[int, dict[str, float]] = {}
        """by step: what was measured on rows that are not trained on"""
        self.good: tuple[int, dict[str, torch.Tensor]] | None = None
        """(step, trainable weights), at most `RECENT` steps old"""
        self._zero = 0
        self._log, self._started = log, time.monotonic()
        self._weights: dict[str, torch.Tensor] = {}
        """what is trained, looked for once: a walk over all modules takes as long as a small layer"""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Take up what was logged before an interruption."""
        self.losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
        measured = [entry for entry in state.log_history if "eval_loss" in entry]
        self.held_out = {entry["step"]: _held_out(entry) for entry in measured}
        if self._log is not None and self._log.is_file():
            lines = self._log.read_text(encoding="utf-8").splitlines()[: state.global_step]
            self._log.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def on_log(
        self,
        args: Any,  # noqa: ARG002 - the trainer's signature
        state: Any,
        control: Any,  # noqa: ARG002
        logs: Any = None,
        model: Any = None,
        **_: Any,
    ) -> None:
        """Check the step that was logged."""
        if logs and "eval_loss" in logs:
            self.held_out[state.global_step] = _held_out(logs)
        if not logs or "loss" not in logs:
            return
        self.last = {k: float(v) for k, v in logs.items() if isinstance(v, int | float)}
        self.losses.append(self.last["loss"])
        self._write(state.global_step)
        if model is not None and self._adapter and not self._weights:
            self._weights = trained(model)
        with whole(self._weights) as weights:
            fault = self._fault(weights)
            if fault is not None:
                raise StoppedError(f"step {state.global_step} of {state.max_steps}: {fault}")
            if weights and (self.good is None or state.global_step - self.good[0] >= RECENT):
                copies = {name: weight.detach().cpu().clone() for name, weight in weights.items()}
                self.good = state.global_step, copies
        if self.on_step is not None:
            self.on_step(state.global_step, state.max_steps, self.last)

    def _write(self, step: int) -> None:
        """Append the step to the log, which outlives a kill."""
        if self._log is None:
            return
        passed = {"seconds": time.monotonic() - self._started, "memory_mib": memory_mib()}
        line = json.dumps({"step": step, **self.last} | passed)
        with self._log.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def _fault(self, weights: Mapping[str, torch.Tensor]) -> str | None:
        """What is wrong with the step, and what to try; None where nothing is."""
        loss, norm = self.last["loss"], self.last.get("grad_norm")
        if not math.isfinite(loss) or (norm is not None and not math.isfinite(norm)):
            return f"the loss is {loss} and its gradient {norm}; lower optimizer.learning_rate, or set precision: fp32."
        first, recent = self.losses[0], self.losses[-RECENT:]
        if len(self.losses) > RECENT and first > 0 and sum(recent) / RECENT > RUNAWAY * first:
            return (
                f"the loss has run away from {first:.4g} to {sum(recent) / RECENT:.4g} (mean of {RECENT} steps); "
                "lower optimizer.learning_rate, or raise optimizer.warmup_ratio."
            )
        largest = float(get_total_norm(list(weights.values()), math.inf)) if weights else 0.0
        if not largest < LARGEST_WEIGHT:
            return f"the largest weight of the adapter is {largest:.3g}; lower optimizer.learning_rate."
        is_learnt = abs(loss) <= LEARNT * abs(first)
        no_gradient = norm is not None and norm < NO_GRADIENT and not is_learnt
        self._zero = self._zero + 1 if no_gradient else 0
        if self._zero >= ZERO_STEPS:
            return (
                f"the gradient has been zero for {ZERO_STEPS} steps: nothing is learnt; look at the rows "
                "(alignboard data check), and at loss.beta."
            )
        return None

    def keep_good(self, model: Any, tokenizer: Any, folder: Path) -> None:
        """Write the adapter of the last good step to ``folder``, where there is one."""
        if self.good is None:
            return
        model.save_pretrained(str(folder), selected_adapters=["default"], state_dict=self.good[1])
        tokenizer.save_pretrained(str(folder))


def memory_mib() -> float:
    """The most memory that was held: on the GPU where there is one, else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _held_out(logs: Mapping[str, Any]) -> dict[str, float]:
    """Loss, accuracy and the like of held-out rows, without how long they took."""
    kept = {name.removeprefix("eval_"): v for name, v in logs.items() if name.startswith("eval_")}
    timed = {name for name in kept if name == "runtime" or name.endswith("_per_second")}
    return {name: float(v) for name, v in kept.items() if name not in timed}
