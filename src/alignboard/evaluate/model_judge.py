"""A language model as judge: one forward pass per prompt, the last position's logits, two verdict tokens.

What this module promises
    P(first) = the probability of the tokens that mean the first over that of all verdict tokens, as AlpacaEval's
    weighted judge computes it from m and M. What is asked of the model alone decides the number, to the last bit: every
    prompt is computed in a batch of one fixed shape (rows that are missing are filled up), because the rounding of a
    matrix product depends on its shape. So a run that was interrupted continues with the numbers it would have had.
    Outputs are hostile text: they cannot spell a special token, and what they hold is never read as part of the
    template.

References: AlpacaEval ``weighted_alpaca_eval_gpt4_turbo``; Dubois et al. 2024, arXiv 2404.04475.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from alignboard.errors import InputError
from alignboard.evaluate.generate import library_versions
from alignboard.evaluate.judge import (
    Judge,
    JudgeSpec,
    LogprobSpec,
    Question,
    Reply,
    spec_digest,
)
from alignboard.evaluate.simulated_judge import SimulatedJudge
from alignboard.models.loading import LoadedModel
from alignboard.models.prompting import defused

if TYPE_CHECKING:
    import torch

_STRIDE = 8
"""Prompts are padded to a multiple of so many tokens."""


class LogprobJudge:
    """The judge that ``spec`` declares, on a loaded model."""

    def __init__(self, spec: LogprobSpec, model: LoadedModel, *, batch_size: int = 32) -> None:
        """``batch_size`` is part of the arithmetic, so it is the same for every batch and part of the digest.

        On a CPU 32 is right for a tiny model; with models above some millions of parameters padding costs more than
        batching saves, and 1 is faster.
        """
        self.spec = spec
        self._model = model
        self._batch_size = batch_size
        self._verdicts = (self._tokens(spec.verdicts.first), self._tokens(spec.verdicts.second))
        both = set(self._verdicts[0]) & set(self._verdicts[1])
        if both:
            raise InputError(f"Judge {spec.name}: {sorted(both)} are verdicts for both sides.")

    @property
    def digest(self) -> str:
        """Of prompt, verdicts, weights, arithmetic and libraries."""
        model = self._model
        return spec_digest(
            self.spec,
            scheme=f"logprob-1 {_STRIDE} {self._batch_size}",
            weights=model.fingerprint,
            adapter=model.adapter_fingerprint,
            template=model.template_hash if self.spec.chat else None,
            arithmetic=[model.dtype, model.quantization, model.model.device.type],
            libraries=library_versions("torch", "transformers"),
        )

    def ask(self, questions: Sequence[Question]) -> Iterator[tuple[int, Reply]]:
        """Replies in order of length, a batch at a time."""
        buckets: dict[int, list[int]] = defaultdict(list)
        prompts = [self.render(question) for question in questions]
        for place, ids in enumerate(prompts):
            if len(ids) > self._model.context:
                reason = f"the prompt has {len(ids)} tokens, the judge takes {self._model.context}"
                yield place, Reply("failed", reason=reason)
            else:
                buckets[-(-len(ids) // _STRIDE) * _STRIDE].append(place)
        for length in sorted(buckets):
            for start in range(0, len(buckets[length]), self._batch_size):
                places = buckets[length][start : start + self._batch_size]
                logits = self._last_logits([prompts[place] for place in places], length)
                yield from zip(places, self._replies(logits), strict=True)

    def render(self, question: Question) -> list[int]:
        """The token ids of the prompt; the texts are put in at once, so that none is searched for another's place."""
        tokenizer: Any = self._model.tokenizer
        texts = {
            "{instruction}": question.instruction,
            "{first}": question.first,
            "{second}": question.second,
        }
        filled = re.sub(
            "|".join(map(re.escape, texts)),
            lambda slot: defused(tokenizer, texts[slot[0]]),
            self.spec.prompt,
        )
        if not self.spec.chat:
            return list(tokenizer.encode(filled))
        rendered = tokenizer.apply_chat_template(
            [{"role": "user", "content": filled}],
            chat_template=self._model.chat_template,
            add_generation_prompt=True,
            tokenize=False,
        )
        ids: list[int] = tokenizer.encode(rendered, add_special_tokens=False)
        bos = tokenizer.bos_token_id
        if ids[:1] != [bos] and tokenizer("a")["input_ids"][:1] == [bos]:
            ids = [bos, *ids]
        return ids

    def _last_logits(self, rows: Sequence[Sequence[int]], length: int) -> torch.Tensor:
        """(rows, vocabulary) in float32, from a batch of the fixed shape (batch_size, length)."""
        import torch

        filled = [*rows, *([rows[0]] * (self._batch_size - len(rows)))]
        pad = self._model.tokenizer.pad_token_id
        ids = [[pad] * (length - len(row)) + list(row) for row in filled]
        mask = [[0] * (length - len(row)) + [1] * len(row) for row in filled]
        device = self._model.model.device
        attention = torch.tensor(mask, device=device)
        with torch.inference_mode():
            output = self._model.model(
                input_ids=torch.tensor(ids, device=device),
                attention_mask=attention,
                position_ids=(attention.cumsum(1) - 1).clamp(min=0),
                use_cache=False,
                logits_to_keep=1,
            )
        return output.logits[: len(rows), -1].float()

    def _replies(self, logits: torch.Tensor) -> list[Reply]:
        import torch

        probabilities = torch.log_softmax(logits, dim=1).exp().double()
        first = probabilities[:, self._verdicts[0]].sum(dim=1).tolist()
        second = probabilities[:, self._verdicts[1]].sum(dim=1).tolist()
        return [self._reply(a, b) for a, b in zip(first, second, strict=True)]

    def _reply(self, first: float, second: float) -> Reply:
        mass = first + second
        if not math.isfinite(mass):
            return Reply("failed", reason="the judge's logits are not finite")
        if mass < self.spec.min_mass or mass == 0:
            return Reply(
                "unparsed",
                mass=mass,
                reason=f"the verdict tokens have {mass:.3f} of the probability",
            )
        return Reply("scored", first / mass, mass)

    def _tokens(self, spellings: Sequence[str]) -> list[int]:
        found = []
        for spelling in spellings:
            ids = self._model.tokenizer.encode(spelling, add_special_tokens=False)
            if len(ids) != 1 or ids[0] == self._model.tokenizer.unk_token_id:
                raise InputError(
                    f"Judge {self.spec.name}: the verdict {spelling!r} is not one token of {self._model.path}."
                )
            found.append(int(ids[0]))
        return found


def open_judge(spec: JudgeSpec, model: LoadedModel | None = None) -> Judge:
    """The judge that ``spec`` declares; a ``logprob`` judge needs its model loaded."""
    if not isinstance(spec, LogprobSpec):
        return SimulatedJudge(spec)
    if model is None:
        raise InputError(f"Judge {spec.name} needs its model {spec.model!r}.")
    return LogprobJudge(spec, model)
