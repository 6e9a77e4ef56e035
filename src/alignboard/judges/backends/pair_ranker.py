"""PairRM as judge: P(the first is better) is the sigmoid of the difference of two scores.

What this module promises
    Texts are cut where upstream cuts them (the instruction at ``source_tokens``; each output at half of what the
    instruction leaves of ``source_tokens + 2 candidate_tokens``), and a reply of which a text was cut says so. Texts
    cannot spell the prefix tokens, by which the model finds what it compares. Pairs are read one at a time, so a reply
    depends on the pair alone, to the last bit. The model is not symmetric: ask both orders.

Importing this module loads neither torch nor transformers.

References: Jiang et al. 2023, LLM-Blender, arXiv 2306.02561; ``tokenize_pair`` on the page of llm-blender/PairRM-hf.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from alignboard.errors import InputError
from alignboard.judges.backends.classifiers import Classifier, open_classifier
from alignboard.judges.rows import Call, FailedCall, Question, Reply
from alignboard.judges.spec import PairRankerSpec
from alignboard.models.prompting import defused
from alignboard.models.spec import ModelSpec
from alignboard.stats.logistic import expit


class PairRanker:
    """The judge that ``spec`` declares; ``prefixes`` are `pairrm.PREFIXES`."""

    def __init__(self, spec: PairRankerSpec, found: Classifier, prefixes: dict[str, str]) -> None:
        self.spec, self._found = spec, found
        self._prefixes = tuple(prefixes.values())
        for name, spelling in prefixes.items():
            own = found.tokenizer.convert_tokens_to_ids(spelling)
            if own is None or own != getattr(found.model.config, name, None):
                raise InputError(
                    f"Judge {spec.name}: {found.path} has {name} "
                    f"{getattr(found.model.config, name, None)} and the token {spelling} {own}; "
                    "a checkpoint such as llm-blender/PairRM-hf has the same twice."
                )
        limits = [spec.source_tokens, spec.candidate_tokens]
        self.identity = found.identity("pair-ranker-1", limits=limits)
        """all that determines a reply except the texts"""

    def ids(self, question: Question) -> tuple[list[int], str | None]:
        """What the model reads of a pair, and what was cut off, if anything."""
        room = self.spec.source_tokens + 2 * self.spec.candidate_tokens
        source, first, second = self._prefixes
        ids, cut = self._part(source, question.instruction, self.spec.source_tokens)
        found, limit = [("the instruction", cut, self.spec.source_tokens)], (room - len(ids)) // 2
        for name, prefix, text in (
            ("the first output", first, question.first),
            ("the second output", second, question.second or ""),
        ):
            part, cut = self._part(prefix, text, limit)
            ids += part
            found.append((name, cut, limit))
        cuts = [f"{limit} of {name}'s {whole} tokens" for name, whole, limit in found if whole]
        return ids, f"truncated: read {', '.join(cuts)}" if cuts else None

    def _part(self, prefix: str, text: str, limit: int) -> tuple[list[int], int]:
        """The ids of a text behind its prefix, and how many there would be where they are more than ``limit``."""
        tokenizer = self._found.tokenizer
        whole = prefix + defused(tokenizer, text, " ".join(self._prefixes))
        n_tokens = len(tokenizer.encode(whole, verbose=False))
        ids: list[int] = tokenizer.encode(whole, max_length=limit, truncation=True)
        return ids, n_tokens if n_tokens > limit else 0

    def ask(self, calls: Sequence[Call]) -> Iterator[tuple[Call, Reply | FailedCall]]:
        """(P(first), P(second)) of every call's question; the same pair is read once."""
        known: dict[tuple[int, ...], float] = {}
        for call in calls:
            (question,) = call.questions
            if question.second is None:
                yield (
                    call,
                    FailedCall(call.key, "a pair ranker compares two outputs, and there is one"),
                )
                continue
            read, cut = self.ids(question)
            ids = tuple(read)
            if ids not in known:
                known[ids] = float(self._found.logits(ids)[0])
            if not math.isfinite(known[ids]):
                yield call, FailedCall(call.key, "the logits are not finite")
                continue
            scores = (expit(known[ids]), expit(-known[ids]))
            yield call, Reply(scores=scores, reason=cut, n_prompt=len(ids))


def open_pair_ranker(spec: PairRankerSpec, entry: ModelSpec, *, device: str = "auto") -> PairRanker:
    """The judge that ``spec`` declares, its model loaded."""
    from alignboard.judges.backends.pairrm import PREFIXES, DebertaV2PairRM

    return PairRanker(spec, open_classifier(entry, DebertaV2PairRM, device=device), PREFIXES)
