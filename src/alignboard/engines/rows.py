"""What every engine takes and gives: prompts, how to decode, answers, failures. Light: no framework is imported."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import msgspec

from alignboard.errors import InputError
from alignboard.models.reasoning import split
from alignboard.records import Generation


@dataclass(frozen=True)
class Decoding:
    """How the next token is chosen, and where an answer ends. Temperature 0 is greedy: then the seed has no meaning."""

    max_new_tokens: int = 512
    temperature: float = 0.0
    seed: int = 0
    top_p: float = 1.0
    """sample among the most likely tokens whose probabilities first sum to this (nucleus sampling, arXiv 1904.09751)"""
    stop: tuple[str, ...] = ()
    """texts that end an answer and are no part of it"""
    stop_tokens: tuple[int, ...] = ()
    """tokens that end an answer, besides those that the model's files name"""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise InputError(f"max_new_tokens is {self.max_new_tokens}; at least 1 is needed.")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}; expected a number above 0 and at most 1.")
        if any(not text for text in self.stop):
            raise InputError("A stop text is empty; it would end every answer before it begins.")

    def identity(self) -> dict[str, object]:
        """All of it that determines an answer. What has its default is left out where older keys did not know it."""
        content: dict[str, object] = {
            "max_new_tokens": self.max_new_tokens,
            "temperature": self.temperature,
            "seed": self.seed if self.temperature > 0 else None,
        }
        if self.temperature > 0 and self.top_p < 1:
            content["top_p"] = self.top_p
        if self.stop:
            content["stop"] = sorted(self.stop)
        return content


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """One finished answer, as the journal keeps it."""

    key: str
    instruction: str
    output: str
    """the response: without reasoning, end token, what stopped it and white space around it"""
    n_prompt_tokens: int | None
    """None where an endpoint does not say"""
    n_tokens: int | None
    """the end token included; None where an endpoint does not say"""
    finish: Literal["stop", "length", "unknown"]
    """whether the model ended it, or the limit did, or the endpoint does not say"""
    price: float | None = None
    """US dollars, where the caller gave a price table"""
    reasoning: str = ""
    """what was thought before the response; with an empty ``output``, thought that never came to one"""

    def row(self, generator: str, dataset: str | None = None) -> Generation:
        """The row of ``model_outputs.json``."""
        return Generation(self.instruction, self.output, generator, dataset)


def read_answer(row: object) -> Answer:
    """An answer as the journal holds it; one from before reasoning was kept apart is divided here."""
    answer = msgspec.convert(row, Answer)
    if answer.reasoning:
        return answer
    parts = split(answer.output)
    return msgspec.structs.replace(answer, output=parts.response, reasoning=parts.reasoning)


class Failure(msgspec.Struct, frozen=True):
    """A prompt that has no answer after all tries; asking again is the next command's."""

    key: str
    instruction: str
    kind: Literal["error", "refused"]
    """the endpoint did not answer, or it (or its content filter) will not answer this prompt"""
    reason: str
    tries: int


@dataclass(frozen=True)
class Prompt:
    """An instruction as the model reads it. Endpoints that render templates themselves are given no ``ids``."""

    instruction: str
    ids: tuple[int, ...]
    key: str
    text: str | None = None
    """what the ids spell, for endpoints that take no ids"""
    max_new_tokens: int | None = None
    """a limit of its own, where it has one; the key has to name it then"""
    history: tuple[tuple[str, str], ...] = ()
    """(user, answer) of the turns before, for endpoints that render templates themselves"""
    opens_reasoning: bool = False
    """whether it ends inside a block of reasoning that its template has opened"""
    sample: int = 0
    """which of several responses to the same prompt"""

    def limit(self, decoding: Decoding) -> int:
        """The most tokens its answer may have."""
        return decoding.max_new_tokens if self.max_new_tokens is None else self.max_new_tokens

    def draw(self, seed: int) -> str:
        """What its random numbers follow from; not the token limit: a longer response begins as a shorter one."""
        return f"{seed} {' '.join(map(str, self.ids))} {self.sample}"


OnAnswer = Callable[[Answer], None]


class Engine(Protocol):
    """Whatever answers prompts."""

    def answers(self, asked: Sequence[Prompt], decoding: Decoding) -> Iterator[Answer | Failure]:
        """An answer or a failure for every prompt, as soon as it is there, in any order: commit each before the next.

        Stop iterating (or close the iterator) and what is under way is given up. Raises `AlignboardError` where going
        on makes no sense.
        """
        ...


def uniform(draw: str, step: int) -> float:
    """A number in [0, 1) that belongs to one token of one answer, whatever else is drawn before or beside it.

    >>> uniform("0 17 0", 0) == uniform("0 17 0", 0) != uniform("0 17 0", 1)
    True
    """
    digest = hashlib.blake2b(f"{draw} {step}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) * 2.0**-53
