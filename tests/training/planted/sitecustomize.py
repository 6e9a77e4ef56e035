"""Run by Python as it starts, where PYTHONPATH says so: plants a fault in each process of a training in several.

`PLANTED` names the fault. Without one, accelerate still learns to shard on processors (fsdp2), which it does on GPUs
alone.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final


def shard_on_processors() -> None:
    """What `AcceleratorState` does for GPUs, for processes with gloo, too."""
    from accelerate import state

    plain = state.AcceleratorState.__init__

    def initialised(self: Any, *args: Any, fsdp_plugin: Any = None, **rest: Any) -> None:
        plain(self, *args, fsdp_plugin=fsdp_plugin, **rest)
        if fsdp_plugin is not None and self.distributed_type == state.DistributedType.MULTI_CPU:
            self.distributed_type = state.DistributedType.FSDP
            state.PartialState._shared_state["distributed_type"] = self.distributed_type
            if self._mixed_precision != "no":
                fsdp_plugin.set_mixed_precision(self._mixed_precision)
            self.fsdp_plugin = fsdp_plugin

    state.AcceleratorState.__init__ = initialised


def another_reference() -> None:
    """Log-probabilities of the reference that are off by 3."""
    from alignboard.training import preference

    plain = preference.PreferenceTrainer.compute_ref_log_probs

    def other(self: Any, *arguments: Any) -> Any:
        won, lost = plain(self, *arguments)
        return won + 3.0, lost

    setattr(preference.PreferenceTrainer, plain.__name__, other)


def _with_model(change: Callable[[Any], None]) -> None:
    from alignboard.training import trainer

    plain = trainer.trainable

    def changed(*arguments: Any) -> Any:
        model = plain(*arguments)
        change(model)
        return model

    trainer.trainable = changed


def idle_matrix() -> None:
    """A trainable matrix that no loss depends on."""
    import torch

    def add(model: Any) -> None:
        weight = torch.nn.Parameter(torch.zeros(2))
        model.get_base_model().lm_head.register_parameter("idle", weight)

    _with_model(add)


def zero_gradient() -> None:
    """Matrices whose input is always zero, and so their gradient."""

    def mute(model: Any) -> None:
        name = next(name for name, _ in model.named_parameters() if "k_proj.lora_A" in name)
        layer = model.get_submodule(name.removesuffix(".weight"))
        layer.register_forward_pre_hook(lambda _, inputs: tuple(x * 0 for x in inputs))

    _with_model(mute)


def written_wrong() -> None:
    """Files that hold half of what was trained."""
    from safetensors.torch import load_file, save_file

    from alignboard.training.checks import probe

    plain = probe.save

    def halved(model: Any, folder: Path, weights: Mapping[str, Any] | None = None) -> None:
        plain(model, folder, weights)
        for file in folder.glob("*.safetensors"):
            kept = {
                name: w * (0.5 if "q_proj" in name else 1.0) for name, w in load_file(file).items()
            }
            save_file(kept, file, metadata={"format": "pt"})

    probe.save = halved


def no_number() -> None:
    """A loss that is not a number from the third step on."""
    from alignboard.training import losses

    plain, calls = losses.dpo, 0

    def broken(logps: Any, **settings: Any) -> Any:
        nonlocal calls
        calls += 1  # one batch before any step
        return plain(logps, **settings) * (float("nan") if calls > 3 else 1.0)

    losses.dpo = broken


def killed() -> None:
    """A process that is killed after its fourth step, once."""
    from alignboard.training.checks.reached import Reached

    def on_step_end(self: Any, args: Any, state: Any, control: Any, **_: Any) -> None:
        here = Path(args.output_dir).parent / "killed"
        if state.global_step == 4 and state.is_world_process_zero and not here.exists():
            here.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    Reached.on_step_end = on_step_end


FAULTS: Final = {
    fault.__name__: fault
    for fault in (
        another_reference,
        idle_matrix,
        killed,
        no_number,
        written_wrong,
        zero_gradient,
    )
}

if "RANK" in os.environ:
    from alignboard.startup import prepare

    prepare()
    shard_on_processors()
    if (name := os.environ.get("PLANTED")) is not None:
        FAULTS[name]()
