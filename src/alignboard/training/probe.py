"""What a model computes on one fixed batch, before and after training, and how far it is from where it started.

Heavy: imports torch, transformers and peft.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from peft import PeftModel

from alignboard.models.arithmetic import Arithmetic
from alignboard.models.formats import identify
from alignboard.models.weights import open_model
from alignboard.training.launch import is_sharded
from alignboard.training.preference import CHOSEN, REJECTED

ROWS = 8
"""rows of the batch at most"""
TOKENS = 128
"""of two rows, at most, whose logits are compared: a vocabulary may have 250,000 entries"""


def first_batch(trainer: Any) -> dict[str, Any]:
    """The first rows as a batch of the trainer's own collator, on the model's device."""
    n = min(ROWS, trainer.args.per_device_train_batch_size, len(trainer.train_dataset))
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(n)])
    device = trainer.model.device
    return {
        key: value.to(device) if isinstance(value, torch.Tensor) else value
        for key, value in batch.items()
    }


@torch.no_grad()
def loss_of(trainer: Any, batch: Mapping[str, Any]) -> float:
    """The trainer's loss on ``batch``, without dropout; leaves no trace in its metrics or its random numbers."""
    with _aside(trainer):
        return float(trainer.compute_loss(trainer.model, dict(batch)))


def unreached(trainer: Any, batch: Mapping[str, Any]) -> list[str]:
    """The trainable matrices that the loss on ``batch`` does not depend on; as `loss_of`, it leaves no trace."""
    model = trainer.model
    try:
        with _aside(trainer):
            trainer.compute_loss(model, dict(batch)).backward()
        return [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    finally:
        model.zero_grad(set_to_none=True)


@contextmanager
def _aside(trainer: Any) -> Iterator[None]:
    """The model evaluates, and is afterwards as it was."""
    was_training = trainer.model.training
    trainer.model.eval()
    try:
        with trainer.compute_loss_context_manager():
            yield
    finally:
        trainer.model.train(was_training)
        trainer._metrics["eval"].clear()  # noqa: SLF001 - TRL's trainers collect them there


def reference_of(trainer: Any, batch: Mapping[str, Any]) -> list[tuple[float, float]]:
    """The reference's log-probabilities of ``batch``: those in its rows, and computed anew; none where none are in."""
    if CHOSEN not in batch:
        return []
    won, lost = trainer.compute_ref_log_probs(trainer.ref_model or trainer.model, dict(batch))
    known = [*batch[CHOSEN].tolist(), *batch[REJECTED].tolist()]
    return list(zip(known, [*won.tolist(), *lost.tolist()], strict=True))


def whole_weights(trainer: Any) -> dict[str, Any] | None:
    """The weights of all processes together, asked of each; None where each process holds them all."""
    return trainer.accelerator.get_state_dict(trainer.model_wrapped) if is_sharded() else None


def save(model: Any, folder: Path, weights: Mapping[str, Any] | None = None) -> None:
    """Write the trained adapter, or the whole model where there is none; ``weights`` in place of the model's own."""
    # Not the reference copy: it is the start adapter, which exists already.
    chosen: dict[str, Any] = (
        {"selected_adapters": ["default"]} if isinstance(model, PeftModel) else {}
    )
    model.save_pretrained(str(folder), state_dict=weights, **chosen)


@torch.no_grad()
def logits_of_saved(
    model: Any, folder: Path, batch: Mapping[str, Any]
) -> tuple[torch.Tensor, torch.Tensor]:
    """(logits of the trained model, logits of what lies in ``folder``, loaded anew)."""
    known = (
        "input_ids",
        "attention_mask",
        "position_ids",
    )  # packed rows have positions instead of a mask
    inputs = {key: batch[key][:2, :TOKENS] for key in known if key in batch}
    model.eval()
    trained = model(**inputs).logits
    if not isinstance(model, PeftModel):
        how = Arithmetic(dtype=str(model.dtype).removeprefix("torch."), device=str(model.device))
        return trained, open_model(identify(folder), how)(**inputs).logits
    model.load_adapter(str(folder), "saved", autocast_adapter_dtype=False)
    model.set_adapter("saved")
    try:
        return trained, model(**inputs).logits
    finally:
        model.set_adapter("default")
        model.delete_adapter("saved")


_NUMBERS: Final = 50_000_000
"""logits that are held at once, at most"""


@torch.inference_mode()
def reply_logps(
    model: Any, prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]]
) -> list[float]:
    """The log-probability of each reply after its prompt, in nats, summed over its tokens."""
    model.eval()
    vocabulary = int(model.config.get_text_config().vocab_size)
    found = [0.0] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]) + len(replies[i]))
    while order:
        longest = len(prompts[order[-1]]) + len(replies[order[-1]])
        batch = order[-max(1, min(32, _NUMBERS // (vocabulary * longest))) :]
        del order[-len(batch) :]
        ids = torch.zeros(len(batch), longest, dtype=torch.long, device=model.device)
        mask = torch.zeros_like(ids)
        for row, i in enumerate(batch):
            whole = torch.tensor([*prompts[i], *replies[i]], device=model.device)
            ids[row, : len(whole)], mask[row, : len(whole)] = whole, 1
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        for row, i in enumerate(batch):
            start, end = len(prompts[i]), len(prompts[i]) + len(replies[i])
            logps = logits[row, start - 1 : end - 1].float().log_softmax(-1)
            found[i] = float(logps.gather(-1, ids[row, start:end, None]).double().sum())
    return found
