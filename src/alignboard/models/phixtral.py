"""Phixtral: Phi whose feed-forward layers are each a mixture of several Phi's.

What this module promises
    `PhixtralForCausalLM` is transformers' own Phi (attention, cache, generation) with `Mixture` in place of every
    ``mlp``. For a token x with gate scores s = W_g x, let T be the k largest of s; then
    y = sum over e in T of softmax(s restricted to T)_e * MLP_e(x), which equals softmax over all scores, the k largest,
    renormalised to sum to one.

Source: ``modeling_phi.py`` of mlabonne/phixtral-4x2_8, class ``MoE`` (top k of the scores, then softmax), after
Mixtral (Jiang et al. 2024, arXiv 2401.04088, section 2.1); mlx-lm's ``phixtral.py`` has the same.
Differs from it: the softmax is taken in float32 whatever the weights are; an expert computes only its own tokens.

Importing this module loads torch and transformers.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn
from transformers import PhiConfig, PhiForCausalLM
from transformers.models.phi.modeling_phi import PhiMLP


class Mixture(nn.Module):
    """A gate and its experts; ``config`` is a ``PhiConfig`` with ``num_local_experts`` and ``num_experts_per_tok``."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.per_token = int(config.num_experts_per_tok)
        self.gate = nn.Linear(config.hidden_size, config.num_local_experts, bias=False)
        self.experts = nn.ModuleList(PhiMLP(config) for _ in range(config.num_local_experts))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(..., hidden) in, the same shape out."""
        tokens = hidden_states.reshape(-1, hidden_states.shape[-1])  # (tokens, hidden)
        scores, chosen = self.gate(tokens).topk(self.per_token, dim=-1)  # both (tokens, k)
        weights = scores.float().softmax(dim=-1).to(tokens.dtype)
        mixed = torch.zeros_like(tokens)
        for number, expert in enumerate(self.experts):
            token, place = (chosen == number).nonzero(as_tuple=True)
            if len(token):
                mixed.index_add_(0, token, expert(tokens[token]) * weights[token, place, None])
        return mixed.view_as(hidden_states)


class PhixtralForCausalLM(PhiForCausalLM):
    """Phi with a `Mixture` in every layer."""

    unquantized: ClassVar = ("gate", "lm_head")
    """Modules that stay as they are where the rest is quantised: a gate's rounding would choose other experts."""

    def __init__(self, config: PhiConfig) -> None:
        super().__init__(config)
        for layer in self.model.layers:
            layer.mlp = Mixture(config)
