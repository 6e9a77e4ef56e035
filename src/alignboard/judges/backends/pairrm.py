"""PairRM: a DeBERTa encoder that reads an instruction and two outputs, and a head that scores each output.

The layout is that of ``llm-blender/PairRM-hf``: the encoder under ``pretrained_model``, the head under ``head_layer``.
The states at the three prefix tokens are what the head reads: source and candidate side by side.

Heavy: imports torch and transformers.

References: Jiang et al. 2023, LLM-Blender, arXiv 2306.02561.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import DebertaV2Config, DebertaV2Model, DebertaV2PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

PREFIXES = {
    "source_prefix_id": "<|source|>",
    "cand1_prefix_id": "<|candidate1|>",
    "cand2_prefix_id": "<|candidate2|>",
}
"""the configuration's names for the prefix tokens, and their spellings"""


class DebertaV2PairRM(DebertaV2PreTrainedModel):
    """The model; see the module."""

    def __init__(self, config: DebertaV2Config) -> None:
        super().__init__(config)
        settings: Any = config  # which holds more than its class knows
        size = config.hidden_size
        self.pretrained_model = DebertaV2Model(config)
        self.head_layer = nn.Sequential(
            nn.Dropout(settings.drop_out),
            nn.Linear(2 * size, size),
            nn.Tanh(),
            nn.Dropout(settings.drop_out),
            nn.Linear(size, settings.n_tasks),
        )
        self.post_init()

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> SequenceClassifierOutput:
        """Logits (rows, 1): by how much the first candidate is the better, the mean over the tasks."""
        states = self.pretrained_model(input_ids, attention_mask).last_hidden_state
        source, first, second = (
            states[input_ids == getattr(self.config, prefix)] for prefix in PREFIXES
        )
        scores = [self.head_layer(torch.cat([source, one], dim=-1)) for one in (first, second)]
        logits: Any = (scores[0] - scores[1]).mean(dim=-1, keepdim=True)
        return SequenceClassifierOutput(logits=logits)
