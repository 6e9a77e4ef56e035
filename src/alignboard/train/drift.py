"""How far a trained model is from the one that it started from, on its own replies.

Heavy: imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch

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
