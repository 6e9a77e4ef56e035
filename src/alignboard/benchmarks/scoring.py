"""Log-probabilities of texts under a model in memory, each shared prefix read once.

The logits are computed where something is scored and nowhere else: over a vocabulary of 49,152 tokens they are most of
the memory of lm-eval's own scoring. Heavy: imports torch and transformers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

import torch
from torch.nn import functional
from transformers.cache_utils import DynamicCache

from alignboard.benchmarks.sharing import Pass, ScoredText, passes
from alignboard.engines.local.slots import attended, fits
from alignboard.errors import InputError

_ROWS: Final = 256
"""positions whose logits are normalised at a time"""


class Scorer:
    """Scores texts; ``budget`` is how many tokens a pass may read."""

    def __init__(self, model: Any, budget: int) -> None:
        self._model, self.budget = model, budget
        self._config = model.config.get_text_config()
        self._cache = DynamicCache()
        self._kept = 0

    def scores(self, texts: Sequence[ScoredText]) -> Iterator[tuple[int, float, bool]]:
        """(index, log-probability of the targets, whether each is the most likely token) of every text, as known."""
        sums, greedy = [0.0] * len(texts), [True] * len(texts)
        left = [len(text.targets) for text in texts]
        for one in passes(texts, self.budget):
            logprobs, best = self._targets(one)
            for wanted, logprob, is_best in zip(one.wanted, logprobs, best, strict=True):
                index = wanted.text
                sums[index] += logprob
                greedy[index] &= is_best
                left[index] -= 1
                if not left[index]:
                    yield index, sums[index], greedy[index]

    def _targets(self, one: Pass) -> tuple[list[float], list[bool]]:
        """For every wanted token its log-probability and whether it is the most likely one."""
        places = sorted({wanted.place for wanted in one.wanted})
        logits = self._forward(one, places)
        rows = {place: row for row, place in enumerate(places)}
        logprobs: list[float] = []
        best: list[bool] = []
        for start in range(0, len(one.wanted), _ROWS):
            some = one.wanted[start : start + _ROWS]
            chosen = torch.tensor([rows[wanted.place] for wanted in some], device=logits.device)
            targets = torch.tensor([wanted.target for wanted in some], device=logits.device)
            normalised = functional.log_softmax(logits[chosen], dim=-1)
            logprobs += normalised.gather(1, targets[:, None])[:, 0].tolist()
            best += (normalised.argmax(dim=1) == targets).tolist()
        if any(map(math.isnan, logprobs)):
            raise InputError(
                "the model's log-probabilities are no numbers: its weights are damaged, or overflow in their type; "
                "copy them again, or say dtype: float32 in its entry."
            )
        return logprobs, best

    def _forward(self, one: Pass, places: Sequence[int]) -> torch.Tensor:
        """Logits (places, vocabulary); what was read is in the cache."""
        device = self._model.device
        self._cache.crop(min(0, one.keep - self._kept))
        self._kept = one.keep + len(one.ids)
        depths = _depths(one)
        positions = torch.tensor(depths, device=device)
        mask = None if one.is_path and not one.keep else self._mask(one, positions)
        # No position is asked for: the last one's logits are computed and dropped.
        keep = torch.tensor(places or [len(one.ids) - 1], device=device)
        with torch.inference_mode():
            logits = self._model(
                input_ids=torch.tensor([one.ids], device=device),
                attention_mask=mask,
                position_ids=positions[None],
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=keep,
            ).logits
        return logits[0, : len(places)]

    def _mask(self, one: Pass, positions: torch.Tensor) -> Any:
        """Each token attends to the cache, to itself and to the tokens before it in its text."""
        n = len(one.ids)
        before = torch.zeros(n, n, dtype=torch.bool)
        for place, parent in enumerate(one.parents):
            if parent >= 0:
                before[place] = before[parent]
            before[place, place] = True
        seen = functional.pad(before, (one.keep, 0), value=True).to(positions.device)
        columns = torch.cat([torch.arange(one.keep, device=positions.device), positions])
        back = positions[:, None] - columns
        return attended(self._config, seen[None, None], back[None, None], self._model.dtype)


def _depths(one: Pass) -> list[int]:
    """The position of every token in its text."""
    depths: list[int] = []
    for parent in one.parents:
        depths.append(one.keep if parent < 0 else depths[parent] + 1)
    return depths


def can_share(model: Any) -> bool:
    """Whether a model takes the masks and the cache that sharing needs; prompt tuning writes into both."""
    tuned = getattr(model, "peft_config", {})
    return fits(model) and not any(one.is_prompt_learning for one in tuned.values())
