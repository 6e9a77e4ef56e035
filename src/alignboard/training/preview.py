"""A look at a training before any weights are read: its rows, their tokens, steps and memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from alignboard.models.checks.opened import Opened, open_small
from alignboard.models.spec import ModelSpec
from alignboard.training.checks import preflight
from alignboard.training.encoding import encoded
from alignboard.training.recipe import Recipe
from alignboard.training.sections import LoraSpec
from alignboard.training.tokens import (
    TokenLengths,
    before_reply,
    filled_prompts,
    spread,
    token_lengths,
    training_tokenizer,
)

if TYPE_CHECKING:
    from datasets import Dataset

_SHOWN = 2
"""rows that are shown as tokens"""


@dataclass(frozen=True)
class TrainingPreview:
    """What a run would train on, and for how long."""

    rows: int
    steps: int
    lengths: Sequence[TokenLengths]
    tokens: int
    """that the run reads, padding apart; estimated from the rows that were counted"""
    samples: Sequence[str]
    """rows as tokens, the trained part in brackets"""
    memory_gib: float | None
    """of one device; None where the base is of a form that transformers does not know"""

    def lines(self) -> list[str]:
        """What a person reads."""
        memory = "" if self.memory_gib is None else f", about {self.memory_gib:.1f} GiB of memory"
        first = f"{self.steps} steps over {self.rows} rows, about {self.tokens:,} tokens{memory}"
        return [first, *map(str, self.lengths), *(f"[row] {text}" for text in self.samples)]

    def to_json(self) -> dict[str, Any]:
        """The preview as a mapping."""
        return asdict(self)


def open_for_training(recipe: Recipe, model: ModelSpec) -> Opened:
    """The small files of ``model``, its tokenizer with the recipe's template; `InputError` where they are not there."""
    opened = open_small(model)
    training_tokenizer(opened.tokenizer, recipe.chat_template, None, model.base)
    return opened


def preview(recipe: Recipe, opened: Opened, rows: Dataset) -> TrainingPreview:
    """Look at ``rows`` as ``recipe`` would train on them.

    Raises `PreflightError` for rows on which training would mean nothing: no end token that is trained, a wrong BOS.
    """
    tokenizer = opened.tokenizer
    whole = recipe.train_on == "all"
    sequences = encoded(tokenizer, spread(rows), whole=whole)
    lengths = token_lengths(sequences, recipe.max_length)
    kept = [one for one in sequences if not _filled(one, recipe.max_length)]
    if not kept:
        raise filled_prompts(recipe, 0, [before_reply(one) for one, *_ in sequences])
    cut = [row.cut(recipe.max_length) for one in kept for row in one]
    preflight.check_rows(cut, preflight.token_facts(tokenizer))
    usable = round(len(rows) * len(kept) / len(sequences))
    per_epoch = math.ceil(usable / recipe.batch.global_)
    steps = recipe.duration.steps or math.ceil(per_epoch * (recipe.duration.epochs or 1.0))
    per_row = sum(len(row.ids) for row in cut) / len(kept)
    return TrainingPreview(
        rows=usable,
        steps=steps,
        lengths=lengths,
        tokens=round(per_row * min(usable, recipe.batch.global_) * steps),
        samples=[preflight.show_row(row, tokenizer) for row in cut[:_SHOWN]],
        memory_gib=_memory(recipe, opened),
    )


def _filled(sequences: Sequence[preflight.TokenRow], max_length: int) -> bool:
    return not any(any(one.trained[:max_length]) for one in sequences)


def _memory(recipe: Recipe, opened: Opened) -> float | None:
    import torch

    half = recipe.precision == "bf16" or (
        recipe.precision == "auto" and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    )
    model = _of_config(opened.checkpoint.config)
    return None if model is None else _estimate(recipe, model, half=half).gib


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


def _estimate(recipe: Recipe, model: Any, *, half: bool) -> MemoryEstimate:
    """What training ``recipe`` on ``model`` takes; ``half``: it computes in bfloat16.

    An upper figure for batches of which each row fills max_length; kernels and fragments of the allocator are left out.
    """
    config = model.config
    linear = _linear(model)
    total = sum(p.numel() for p in model.parameters())
    trained = _n_trained(recipe, model)
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


def _of_config(config: Mapping[str, Any]) -> Any:
    """The model without weights; None for a configuration that is no language model of transformers' own."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    except (TypeError, ValueError):
        return None


def _linear(model: Any) -> dict[str, Any]:
    import torch

    return {name: one for name, one in model.named_modules() if isinstance(one, torch.nn.Linear)}


def _n_trained(recipe: Recipe, model: Any) -> int:
    if not isinstance(recipe.lora, LoraSpec):
        return sum(p.numel() for p in model.parameters())
    targets = recipe.lora.modules_for(model.config.model_type)
    wide = [one for name, one in _linear(model).items() if _adapted(name, targets)]
    return recipe.lora.r * sum(one.in_features + one.out_features for one in wide)


def trained_numbers(recipe: Recipe, config: Mapping[str, Any]) -> int | None:
    """How many numbers ``recipe`` trains; None for a configuration that is no language model of transformers' own.

    Raises `PreflightError` where its adapter names layers that are not there.
    """
    model = _of_config(config)
    if model is None:
        return None
    if isinstance(recipe.lora, LoraSpec):
        targets = recipe.lora.modules_for(model.config.model_type)
        if targets != "all-linear":
            preflight.check_targets(model, targets)
    return _n_trained(recipe, model)


def _adapted(name: str, targets: Sequence[str] | str) -> bool:
    last = name.rsplit(".", 1)[-1]
    return last != "lm_head" if targets == "all-linear" else last in targets
