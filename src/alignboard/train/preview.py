"""A look at a training before any weights are read: its rows, their tokens, steps and memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from alignboard.models.checks.opened import Opened, open_small
from alignboard.models.spec import ModelSpec
from alignboard.train import preflight
from alignboard.train.recipe import Recipe
from alignboard.train.tokens import (
    TokenLengths,
    encoded,
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
    """of one device; None where the base has no configuration here"""

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
    sequences = [encoded(tokenizer, row, whole=whole) for row in spread(rows)]
    lengths = token_lengths(sequences, recipe.max_length)
    kept = [one for one in sequences if not _filled(one, recipe.max_length)]
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
    if opened.checkpoint.gguf_file is not None:
        return None
    import torch

    from alignboard.train.memory import estimate_memory

    half = recipe.precision == "bf16" or (
        recipe.precision == "auto" and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    )
    return estimate_memory(recipe, opened.checkpoint.path, half=half).gib
