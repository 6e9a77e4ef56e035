"""What is asked of a judge: questions about pairs, and the calls that hold them.

A call's key names all that determines its reply: who is asked and how, and the prompt, or the question of judges that
have no prompt. Nothing else is in it, so two runs that would send the same share a reply.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from alignboard.judges.pairs import Backend, Pair, first_orders, shown
from alignboard.judges.prompting.hardened import draw_nonce, harden
from alignboard.judges.prompting.prompts import render, slots
from alignboard.judges.rows import Call, Message, Question
from alignboard.judges.spec import JudgeSpec


@dataclass(frozen=True)
class Prompter:
    """How a declared judge is asked, whoever answers."""

    spec: JudgeSpec
    identity: Mapping[str, Any]
    """who answers, as far as the keys of calls name it"""
    secret: str = ""
    """what hardened prompts draw their marks from; without it their authors could guess them"""
    repeat: int = 0
    """which of several askings, each with replies of its own"""


@dataclass
class Trial:
    """Whether a judge has given any verdict so far."""

    n_hopeless: int | None = 0
    """replies so far, as long as none holds a verdict"""
    last: str = ""
    """what the last of them holds instead"""


@dataclass(frozen=True)
class Judge:
    """A declared judge, and who is asked."""

    spec: JudgeSpec
    backend: Backend
    secret: str = ""
    """as `Prompter.secret`"""
    trial: Trial = field(default_factory=Trial)
    """shared by all runs of this judge"""
    repeat: int = 0
    """as `Prompter.repeat`"""

    @property
    def prompter(self) -> Prompter:
        """How it is asked."""
        return Prompter(self.spec, self.backend.identity, self.secret, self.repeat)


@dataclass(frozen=True)
class PairQuestion:
    """One question about a pair."""

    index: int
    """of the pair"""
    switched: bool
    """whether output_2 is shown first, or is the one that is rated"""
    question: Question


@dataclass(frozen=True)
class View:
    """One question, and the calls that hold it: several where replies are sampled."""

    question: PairQuestion
    calls: tuple[tuple[Call, int], ...]
    """(call, the question's index in it)"""


def first_questions(spec: JudgeSpec, pairs: Sequence[Pair]) -> list[PairQuestion]:
    """Everything that is asked whatever the verdicts are."""
    order = "both" if spec.is_rating else spec.shown_order
    orders = (
        (index, switched)
        for index, pair in enumerate(pairs)
        for switched in first_orders(order, pair)
    )
    return questions(spec, pairs, orders)


def questions(
    spec: JudgeSpec, pairs: Sequence[Pair], wanted: Iterable[tuple[int, bool]]
) -> list[PairQuestion]:
    """The questions (place of the pair, switched)."""
    return [
        PairQuestion(index, switched, _question(spec, pairs[index], switched=switched))
        for index, switched in wanted
    ]


def single_questions(outputs: Sequence[Question]) -> list[PairQuestion]:
    """Of outputs that are rated on their own."""
    return [PairQuestion(index, switched=False, question=one) for index, one in enumerate(outputs)]


def _question(spec: JudgeSpec, pair: Pair, *, switched: bool) -> Question:
    question = shown(pair, switched=switched)
    if not spec.is_rating:
        return question
    fields = tuple(field for field in question.fields if field[0] != "second_2")
    return msgspec.structs.replace(question, second=None, fields=fields)


def shows_second_turns(spec: JudgeSpec) -> bool:
    """Whether a judge sees what was said after the first answer."""
    if spec.prompted is None:
        return spec.sees_second_turns
    return {"instruction_2", "first_2"} <= slots(spec.prompted.prompt).keys()


def views(prompter: Prompter, asked: Sequence[PairQuestion]) -> list[View]:
    """The calls that ask these questions."""
    spec, size = prompter.spec, batch_size(prompter.spec)
    samples = 1 if spec.prompted is None else spec.prompted.sampling.samples
    found = []
    for start in range(0, len(asked), size):
        part = asked[start : start + size]
        numbers = range(prompter.repeat * samples, (prompter.repeat + 1) * samples)
        calls = [_call(prompter, [one.question for one in part], k) for k in numbers]
        found += [View(one, tuple((call, k) for call in calls)) for k, one in enumerate(part)]
    return found


def batch_size(spec: JudgeSpec) -> int:
    """How many questions a prompt shows."""
    return 1 if spec.prompted is None else spec.prompted.prompt.batch


def _call(prompter: Prompter, shown_questions: Sequence[Question], sample: int) -> Call:
    spec, identity = prompter.spec.prompted, prompter.identity
    messages: tuple[Message, ...] = ()
    named: tuple[str, ...] = ()
    if spec is not None and spec.hardened:
        digest = _key(identity, (), ())
        nonce = draw_nonce(prompter.secret, digest, shown_questions[0])
        messages, named = harden(spec.prompt, shown_questions[0], nonce)
    elif spec is not None:
        messages = render(spec.prompt, shown_questions)
    key = _key(identity, shown_questions, messages, sample)
    return Call(key, tuple(shown_questions), messages, sample, named)


def _key(
    identity: Mapping[str, Any],
    shown_questions: Sequence[Question],
    messages: Sequence[Message],
    sample: int = 0,
) -> str:
    texts = messages or shown_questions
    content = [identity, [msgspec.to_builtins(one) for one in texts], sample]
    text = json.dumps(["judging-1", content], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
