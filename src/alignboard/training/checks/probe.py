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
from trl.models.utils import prepare_deepspeed, prepare_fsdp

from alignboard.models.arithmetic import Arithmetic
from alignboard.models.formats import identify
from alignboard.models.weights import open_model
from alignboard.training.launch import by_deepspeed, is_sharded
from alignboard.training.preference import CHOSEN, REJECTED
from alignboard.training.shards import trained, whole

ROWS = 8
"""rows of the batch at most"""
TOKENS = 128
"""of two rows, at most, whose logits are compared: a vocabulary may have 250,000 entries"""


def first_batch(trainer: Any) -> dict[str, Any]:
    """The first rows as a batch of the trainer's own collator, on the model's device."""
    n = min(ROWS, trainer.args.per_device_train_batch_size, len(trainer.train_dataset))
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(n)])
    device = trainer.accelerator.device
    return {
        key: value.to(device) if isinstance(value, torch.Tensor) else value
        for key, value in batch.items()
    }


@torch.no_grad()
def loss_of(trainer: Any, batch: Mapping[str, Any]) -> float:
    """The trainer's loss on ``batch``, without dropout; leaves no trace in its metrics or its random numbers."""
    with _aside(trainer):
        return float(trainer.compute_loss(trainer.model_wrapped, dict(batch)))


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


@contextmanager
def whole_weights(trainer: Any) -> Iterator[Mapping[str, Any] | None]:
    """What is written of a model whose parts the processes hold, asked of each; None where each holds them all."""
    if not is_sharded():
        yield None
    elif isinstance(trainer.model, PeftModel):
        with whole(trained(trainer.model)) as weights:
            yield weights
    else:
        yield trainer.accelerator.get_state_dict(trainer.model_wrapped)


def save(model: Any, folder: Path, weights: Mapping[str, Any] | None = None) -> None:
    """Write the trained adapter, or the whole model where there is none; ``weights`` in place of the model's own."""
    # Not the reference copy: it is the start adapter, which exists already.
    chosen: dict[str, Any] = (
        {"selected_adapters": ["default"]} if isinstance(model, PeftModel) else {}
    )
    model.save_pretrained(str(folder), state_dict=weights, **chosen)


@torch.no_grad()
def logits_of_saved(
    trainer: Any, folder: Path, batch: Mapping[str, Any]
) -> tuple[torch.Tensor, torch.Tensor]:
    """(logits of the trained model, logits of what lies in ``folder``, loaded anew).

    Asked of each process where each holds a part of the model.
    """
    known = (
        "input_ids",
        "attention_mask",
        "position_ids",
    )  # packed rows have positions instead of a mask
    inputs = {key: batch[key][:2, :TOKENS] for key in known if key in batch}
    model, engine = trainer.model, trainer.model_wrapped if is_sharded() else trainer.model
    engine.eval()
    trained_logits = engine(**inputs).logits
    if not isinstance(model, PeftModel):
        return trained_logits, _opened(trainer, folder)(**inputs).logits
    model.load_adapter(str(folder), "saved", autocast_adapter_dtype=False)
    model.set_adapter("saved")
    try:
        return trained_logits, engine(**inputs).logits
    finally:
        model.set_adapter("default")
        model.delete_adapter("saved")


def _opened(trainer: Any, folder: Path) -> Any:
    """The checkpoint in ``folder``, in parts where the trained model is."""
    model = trainer.model
    if not is_sharded():
        dtype = str(model.dtype).removeprefix("torch.")
        return open_model(identify(folder), Arithmetic(dtype=dtype, device=str(model.device)))
    # Each process reads all of it, or DeepSpeed parts it as it is read: not through `open_model`, which names a device.
    saved = type(model).from_pretrained(folder, dtype=model.dtype)
    prepare = prepare_deepspeed if by_deepspeed() else prepare_fsdp
    return prepare(saved, trainer.accelerator)


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
