"""Verdict tokens: which tokens of a vocabulary spell a verdict, and from logits to what a judge said at a place."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from alignboard.errors import InputError
from alignboard.judges.parsing.probability_forms import LogprobRule
from alignboard.judges.prompting.hardened import LETTERS, binds
from alignboard.judges.rows import Token
from alignboard.judges.spec import PromptedSpec
from alignboard.models.loading import LoadedModel

if TYPE_CHECKING:
    import torch


class Vocabulary:
    """The texts of single tokens."""

    def __init__(self, model: LoadedModel) -> None:
        self._tokenizer: Any = model.tokenizer
        self._source = model.path
        self._texts: dict[int, str] = {}

    def text(self, token: int) -> str:
        """What one token spells; nothing for a number that no token has (embeddings may be padded)."""
        if token not in self._texts:
            known = token < len(self._tokenizer)
            self._texts[token] = str(self._tokenizer.decode([token])) if known else ""
        return self._texts[token]

    def verdicts(self, spec: PromptedSpec, rule: LogprobRule) -> list[int]:
        """Every token that spells a verdict, with or without white space around it (`` m`` beside ``m``).

        Raises `InputError` for a spelling that no single token has, and for one that means two things.
        """
        if binds(rule):  # any letter may be drawn to name an output
            rule = LogprobRule(list(LETTERS), [], rule.tie)
        sides = [{one.strip() for one in side} for side in (rule.first, rule.second, rule.tie)]
        wanted = set().union(*sides)
        for spelling in sorted(wanted):
            if sum(spelling in side for side in sides) > 1:
                raise InputError(
                    f"Judge {spec.name}: the verdict {spelling!r} stands for more than one side."
                )
        found = {token: spelling for token, spelling in self._stripped() if spelling in wanted}
        for spelling in sorted(wanted - set(found.values())):
            pieces = len(self._tokenizer.encode(spelling, add_special_tokens=False))
            raise InputError(
                f"Judge {spec.name}: the verdict {spelling!r} is not one token of {self._source}, "
                f"which reads it as {pieces}; choose another spelling, or another rule than logprob."
            )
        return sorted(found)

    def _stripped(self) -> Iterable[tuple[int, str]]:
        special = set(self._tokenizer.all_special_ids)
        tokens = [token for token in range(len(self._tokenizer)) if token not in special]
        texts = self._tokenizer.batch_decode([[token] for token in tokens])
        return ((token, text.strip()) for token, text in zip(tokens, texts, strict=True))

    def tokens_at(
        self, logits: torch.Tensor, verdicts: Sequence[int], n_top: int, chosen: Sequence[int] = ()
    ) -> list[Token | None]:
        """What was said at every place of ``logits`` (places, vocabulary), with the likeliest and all verdict tokens.

        The token is that of ``chosen``, or the likeliest. None where the numbers are not finite.
        """
        import torch

        found: list[Token | None] = []
        # In double precision; 64 places at a time, because vocabularies are large.
        for start in range(0, len(logits), 64):
            logprobs = torch.log_softmax(logits[start : start + 64].double(), dim=1)
            values, best = logprobs.topk(min(max(1, n_top), logprobs.shape[1]), dim=1)
            drawn = torch.tensor(
                list(chosen[start : start + 64]) or best[:, 0].tolist(), device=logits.device
            )
            others = torch.tensor(verdicts, dtype=torch.long, device=logits.device)
            tokens = torch.cat(
                [drawn[:, None], best, others[None].expand(len(best), -1)], dim=1
            ).tolist()
            logprob = torch.cat(
                [logprobs.gather(1, drawn[:, None]), values, logprobs[:, others]], dim=1
            ).tolist()
            found += [self._token(ids, lp) for ids, lp in zip(tokens, logprob, strict=True)]
        return found

    def _token(self, tokens: Sequence[int], logprobs: Sequence[float]) -> Token | None:
        """The first of ``tokens`` as the one that was said, all of them as the likeliest.

        Tokens that spell the same (a byte and a letter, in some vocabularies) are one: their probabilities are added.
        """
        if not all(map(math.isfinite, logprobs)):
            return None
        spelled: dict[str, dict[int, float]] = {}
        for token, logprob in zip(tokens, logprobs, strict=True):
            spelled.setdefault(self.text(token), {})[token] = logprob
        top = {text: _log_sum(list(same.values())) for text, same in spelled.items()}
        text = self.text(tokens[0])
        return Token(text, top[text], tuple(sorted(top.items(), key=lambda one: -one[1])))


def _log_sum(logprobs: Sequence[float]) -> float:
    """The logarithm of a sum of probabilities; of one, itself."""
    most = max(logprobs)
    return most + math.log(math.fsum(math.exp(one - most) for one in logprobs))
