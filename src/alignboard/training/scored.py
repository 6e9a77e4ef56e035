"""The output layer on the tokens that are trained on, and on no others.

TRL's fused head leaves out what has no label where it has Triton. Elsewhere it scores every token of prompts and
padding, too; on a CPU that is up to a third of a step, since a small model's vocabulary holds a fifth of its weights.

No torch at import: it works on what it is given.
"""

from __future__ import annotations

import functools
import types
from typing import Any, Final

PER_TOKEN: Final = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1")
"""fields of TRL's `FusedCausalLMOutput`"""


def score_labelled(model: Any) -> None:
    """Let ``model``, which has TRL's fused head, compute it for labelled tokens only; its output stays the same.

    The body's states of these tokens are gathered into one row, which TRL scores as it is (``shift_labels``).
    """
    fused = model.forward

    @functools.wraps(type(model).forward)
    def forward(self: Any, *args: Any, labels: Any = None, **kwargs: Any) -> Any:
        if labels is None or not kwargs.get("fused_lm_head"):
            return fused(*args, labels=labels, **kwargs)
        labels = labels[:, 1:]
        mask = labels != -100

        def gather(_body: Any, _inputs: Any, states: Any) -> Any:
            states.last_hidden_state = states.last_hidden_state[:, :-1][mask].unsqueeze(0)
            return states

        hook = self.base_model.register_forward_hook(gather)
        try:
            found = fused(*args, shift_labels=labels[mask].unsqueeze(0), **kwargs)
        finally:
            hook.remove()
        for name in PER_TOKEN:
            if name in found:
                found[name] = found[name].new_zeros(mask.shape).masked_scatter(mask, found[name])
        found["label_mask"] = mask
        return found

    model.forward = types.MethodType(forward, model)
