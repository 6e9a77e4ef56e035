"""Logits as a model's own generation configuration wants them, by transformers' own processors.

Each row has processors of its own, which see its tokens alone: a reply depends neither on padding nor on other rows.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from alignboard.engines.local.batch import RunningSequence
from alignboard.errors import InputError
from alignboard.models.loading import LoadedModel

if TYPE_CHECKING:
    from transformers import LogitsProcessorList


def shape_by(model: LoadedModel, rows: Sequence[RunningSequence], ends: Collection[int]) -> None:
    """Give each row its processors, where the model's configuration asks for any; ``ends`` end a reply.

    Raises `InputError` for a field that transformers cannot follow.
    """
    import torch

    fields = model.own_decoding.shaping
    if not fields:
        return
    try:
        for row in rows:
            row.processors = _processors(model, row.prompt.ids, ends)
        # What is no token of the vocabulary is noticed at the first call.
        ids = torch.tensor([rows[0].ids], device=model.model.device)
        size = model.model.config.get_text_config().vocab_size
        rows[0].processors(ids, torch.zeros(1, size, device=ids.device))
    except (ValueError, TypeError, IndexError, RuntimeError) as error:
        raise InputError(
            f"{model.path}: its generation configuration cannot be followed ({' '.join(str(error).split())}); correct "
            f"or remove the field, one of {', '.join(fields)}."
        ) from error


def _processors(
    model: LoadedModel, prompt: Sequence[int], ends: Collection[int]
) -> LogitsProcessorList:
    import torch
    from transformers import GenerationConfig

    inner: Any = model.model
    base = inner.get_base_model() if model.adapters else inner
    config: Any = GenerationConfig(**model.own_decoding.shaping)
    # As `generate` fills it in.
    config._eos_token_tensor = torch.tensor(sorted(ends), device=inner.device) if ends else None  # noqa: SLF001
    return base._get_logits_processor(  # noqa: SLF001 - the one place that knows the processors and their order
        config,
        input_ids_seq_length=len(prompt),
        encoder_input_ids=torch.tensor([list(prompt)], device=inner.device),
        device=str(inner.device),
    )
