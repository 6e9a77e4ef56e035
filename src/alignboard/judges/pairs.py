"""Pairs of answers, the orders in which they are shown, and the verdict on a pair."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import msgspec

from alignboard.judges.rows import Call, FailedCall, Question, Reply, Status, Verdict
from alignboard.records import is_switched

_TURNED = {"first_2": "second_2", "second_2": "first_2"}


class Pair(msgspec.Struct, frozen=True):
    """Two answers to one instruction; ``output_1`` is the baseline's, where there is one."""

    instruction: str
    output_1: str
    generator_1: str
    output_2: str
    generator_2: str
    fields: tuple[tuple[str, str], ...] = ()
    """more that a prompt may show, by name, such as ``reference``; ``first_2`` is output_1's answer to a second turn"""

    @property
    def asked(self) -> str:
        """All that the user says, by which a pair is known."""
        return Question(self.instruction, self.output_1, fields=self.fields).asked

    @property
    def turns(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The outputs of the baseline and of the model, turn by turn."""
        more = dict(self.fields)
        first = (self.output_1, more["first_2"]) if "first_2" in more else (self.output_1,)
        second = (self.output_2, more["second_2"]) if "second_2" in more else (self.output_2,)
        return first, second

    @property
    def identical(self) -> bool:
        """Whether there is nothing to choose between, in any turn."""
        first, second = self.turns
        return first == second


class Judged(msgspec.Struct, frozen=True):
    """The verdict on a pair, and every verdict under it."""

    pair: Pair
    status: Status
    preference: float | None
    """1 = output_1, 2 = output_2, 1.5 = a draw, between = how sure"""
    switched: tuple[bool, ...] = ()
    """for each verdict, whether output_2 was shown first; empty where the outputs were identical or rated"""
    verdicts: tuple[Verdict, ...] = ()
    """as shown: 1 means the first. Of outputs that were rated: that of output_1, then that of output_2"""
    replies: tuple[Reply, ...] = ()
    """the replies under the verdicts, each once"""
    inclusion: float | None = None
    """where the second order was a matter of chance: how probable it was that it would be asked"""
    marks: tuple[str, ...] = ()
    """what the detectors of attacks found in the outputs"""

    @property
    def order_preferences(self) -> tuple[float | None, ...]:
        """The preference of each order, turned to (output_1, output_2)."""
        return tuple(
            None
            if verdict.preference is None
            else (3 - verdict.preference if turned else verdict.preference)
            for turned, verdict in zip(self.switched, self.verdicts, strict=False)
        )

    @property
    def reason(self) -> str:
        """Why there is no verdict; empty where there is one."""
        if self.status == "scored":
            return ""
        return next((one.evidence for one in self.verdicts if one.status == self.status), "")


class Rated(msgspec.Struct, frozen=True):
    """The rating of one output by itself."""

    question: Question
    verdict: Verdict
    replies: tuple[Reply, ...] = ()
    """the replies under it; several where they are sampled"""
    marks: tuple[str, ...] = ()
    """what the detectors of attacks found in the output"""


class Backend(Protocol):
    """Whoever is asked: a model here, an endpoint, a rule."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """All that determines a reply except the prompt: two askers that can reply differently differ here."""
        ...

    def ask(self, calls: Sequence[Call]) -> Iterator[tuple[Call, Reply | FailedCall]]:
        """A reply, or why there is none, for every call, in any order: keep each before the next."""
        ...


@runtime_checkable
class Settling(Protocol):
    """A backend that can give its last replies once more, for as long as they may not be kept yet."""

    def settle(self) -> None:
        """Let go of the replies that were given so far: all of them are kept."""
        ...


def first_orders(order: str, pair: Pair) -> tuple[bool, ...]:
    """Whether output_2 is shown first, for every time that is asked without knowing a verdict; see `spec.Order`."""
    if pair.identical:
        return ()
    if order == "both":
        return (False, True)
    return (False,) if order == "given" else (is_switched(pair.asked),)


def rated(instruction: str, output: str, fields: tuple[tuple[str, str], ...] = ()) -> Question:
    """One output as it is rated; ``first_2`` is its answer to a second turn."""
    held = tuple((name, encodable(text)) for name, text in fields)
    return Question(encodable(instruction), encodable(output), None, held)


def shown(pair: Pair, *, switched: bool) -> Question:
    """The pair in an order."""
    outputs = (pair.output_2, pair.output_1) if switched else (pair.output_1, pair.output_2)
    instruction, first, second = map(encodable, (pair.instruction, *outputs))
    fields = tuple(
        (_TURNED.get(name, name) if switched else name, encodable(text))
        for name, text in pair.fields
    )
    return Question(instruction, first, second, fields)


def conversations(pairs: Sequence[Pair]) -> list[int]:
    """(n,) a number for every pair, which the turns of one conversation share: they are not independent."""
    numbers: dict[str, int] = {}
    return [numbers.setdefault(pair.instruction, len(numbers)) for pair in pairs]


def encodable(text: str) -> str:
    r"""``text`` with U+FFFD in place of lone surrogates, which neither UTF-8 nor a tokenizer can spell.

    >>> encodable("a\ud800b") == "a\ufffdb"
    True
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def uniform(*parts: str) -> float:
    """A number in [0, 1) that belongs to ``parts``, whatever else is drawn."""
    lengths = " ".join(str(len(part)) for part in parts)
    text = "\x00".join((lengths, *parts)).encode("utf-8", "surrogatepass")
    return (int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) >> 11) * 2.0**-53
