"""Reward models as judges: a scalar for an instruction and an output, by a sequence classifier with one label.

What this module promises
    The conversation, of one turn or two, goes through the model's own chat template, as model cards ask for it. Texts
    are read one at a time, so a score depends on the text alone, to the last bit, and equals that of plain transformers
    code; each distinct text is read once. Nothing is truncated.
What it refuses
    A checkpoint without the head, or with more labels than one, and a model without a chat template.

Importing this module loads neither torch nor transformers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence

from alignboard.errors import InputError
from alignboard.judges.backends.classifiers import Classifier, open_classifier
from alignboard.judges.rows import Call, FailedCall, Question, Reply
from alignboard.judges.spec import RewardSpec
from alignboard.models.prompting import (
    BosPolicy,
    bos_fault,
    conversation_text,
    defused,
    encode,
)
from alignboard.models.spec import ModelSpec


class RewardJudge:
    """The judge that ``spec`` declares; ``entry`` says how the conversation is written."""

    def __init__(self, spec: RewardSpec, found: Classifier, entry: ModelSpec) -> None:
        labels = found.model.config.num_labels
        if labels != 1:
            raise InputError(
                f"Judge {spec.name}: {found.path} has {labels} labels; a reward model has one."
            )
        self.spec, self._found = spec, found
        own = found.tokenizer.chat_template
        self._template = entry.prompt.jinja(own if isinstance(own, str) else None, entry.base)
        self._bos: BosPolicy = entry.bos
        self._context = min(found.context, entry.context or found.context)
        template = hashlib.sha256(self._template.encode()).hexdigest()
        self.identity = found.identity("reward-1", template=template, bos=entry.bos)
        """all that determines a score except the texts"""

    def ids(self, question: Question) -> list[int]:
        """The conversation of a question and its first output, as the model reads it."""
        source = f"Judge {self.spec.name} on {self._found.path}"
        tokenizer = self._found.tokenizer
        more = dict(question.fields)
        turns = [("user", question.instruction), ("assistant", question.first)]
        if "instruction_2" in more:
            turns += [("user", more["instruction_2"]), ("assistant", more["first_2"])]
        text = conversation_text(
            tokenizer,
            self._template,
            [(role, defused(tokenizer, text, self._template)) for role, text in turns],
            source=source,
        )
        ids = encode(tokenizer, text, self._bos)
        fault = bos_fault(tokenizer, ids, self._bos)
        if fault is not None:
            raise InputError(f"{source}: {fault}")
        return ids

    def ask(self, calls: Sequence[Call]) -> Iterator[tuple[Call, Reply | FailedCall]]:
        """The score of the output of every call's question."""
        known: dict[tuple[int, ...], float] = {}
        for call in calls:
            (question,) = call.questions
            ids = tuple(self.ids(question))
            reason = self._reason(question, len(ids))
            if reason is None and ids not in known:
                known[ids] = float(self._found.logits(ids)[0])
            if reason is None and not math.isfinite(known[ids]):
                reason = "the reward is not finite"
            if reason is not None:
                yield call, FailedCall(call.key, reason)
            else:
                yield call, Reply(scores=(known[ids],), n_prompt=len(ids))

    def _reason(self, question: Question, n_tokens: int) -> str | None:
        """Why an output cannot be scored, if it cannot."""
        if question.second is not None:
            return "a reward model scores one output at a time"
        if n_tokens > self._context:
            return f"the conversation has {n_tokens} tokens, the judge takes {self._context}"
        return None


def open_reward(spec: RewardSpec, entry: ModelSpec, *, device: str = "auto") -> RewardJudge:
    """The judge that ``spec`` declares, its model loaded."""
    from transformers import AutoModelForSequenceClassification

    # An adapter of a language model brings the head, whose size the base does not know.
    labels = {"num_labels": 1} if entry.adapter is not None else {}
    found = open_classifier(entry, AutoModelForSequenceClassification, device=device, **labels)
    return RewardJudge(spec, found, entry)
