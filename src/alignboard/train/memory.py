"""An estimate of the memory that a run takes, from the configuration of its base: no weights are read.

Heavy: imports torch and transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from alignboard.train.recipe import Recipe
from alignboard.train.sections import LoraSpec

_ADAM: Final = 4 + 4 + 8
"""bytes of a trained number: itself, its gradient and Adam's two moments, in float32"""
_QUANTISED: Final = {4: 0.53, 8: 1.02}
"""bytes of a number in a quantised layer, scales included"""
_LAYER: Final = 16
"""numbers of the hidden size that a layer keeps for its backward pass, per token; 1 with gradient checkpointing"""
_BILLION: Final = 1_000_000_000


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of one device, by what they hold."""

    parameters: int
    trained: int
    weights: float
    training: float
    """gradients and optimiser state of what is trained"""
    activations: float

    @property
    def gib(self) -> float:
        """All of it."""
        return (self.weights + self.training + self.activations) / 2**30


def estimate_memory(recipe: Recipe, folder: Path, *, half: bool) -> MemoryEstimate:
    """What training ``recipe`` on the checkpoint in ``folder`` takes; ``half``: it computes in bfloat16.

    An upper figure for batches of which each row fills max_length; kernels and fragments of the allocator are left out.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    linear = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    total = sum(p.numel() for p in model.parameters())
    trained = total
    if isinstance(recipe.lora, LoraSpec):
        targets = recipe.lora.modules_for(config.model_type)
        wide = [one for name, one in linear.items() if _adapted(name, targets)]
        trained = recipe.lora.r * sum(one.in_features + one.out_features for one in wide)
    size = 2 if half else 4
    quantised = 0
    if recipe.quantization is not None:
        quantised = sum(one.weight.numel() for name, one in linear.items() if "lm_head" not in name)
    per_number = _QUANTISED[recipe.quantization.bits] if recipe.quantization else 0.0
    text = config.get_text_config()
    checkpointing = recipe.gradient_checkpointing
    if checkpointing == "auto":
        checkpointing = half and total >= _BILLION
    tokens = (
        recipe.batch.per_device * recipe.max_length * (1 if recipe.kind == "demonstration" else 2)
    )
    kept = text.num_hidden_layers * (1 if checkpointing else _LAYER) + (
        _LAYER if checkpointing else 0
    )
    return MemoryEstimate(
        parameters=total,
        trained=trained,
        weights=(total - quantised) * size + quantised * per_number,
        training=trained * _ADAM,
        activations=tokens * text.hidden_size * kept * size,
    )


def _adapted(name: str, targets: Sequence[str] | str) -> bool:
    last = name.rsplit(".", 1)[-1]
    return last != "lm_head" if targets == "all-linear" else last in targets
