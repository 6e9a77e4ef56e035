"""Verdicts that are probabilities: of verdict tokens, or numbers that the judge returns itself."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Final, Literal

import msgspec

from alignboard.errors import require_within
from alignboard.judges.parsing.reply_forms import Found, ReplyForm, register_forms
from alignboard.judges.parsing.responses import known_tokens, likeliest, probability
from alignboard.judges.parsing.spelled_forms import (
    SpelledForm,
    check_spellings,
    side_of,
    spellings_of,
)
from alignboard.judges.rows import Reply, Token, Verdict

NO_PROBABILITIES: Final = "no probabilities"


class LogprobRule(SpelledForm, frozen=True, tag="logprob"):
    """The probability of the verdict tokens: P(first) = first / (first + second + tie/2 to each)."""

    first: list[str]
    """the spellings that mean that the first is better; white space around a token does not count"""
    second: list[str]
    tie: list[str] = msgspec.field(default_factory=list)
    position: Literal["first", "last"] = "first"
    """which token of the reply: the first, or the last that is a verdict (after a chain of thought)"""
    weighted: bool = True
    """whether the preference is the probability, or only which of the two is likelier"""
    min_mass: float = 0.0
    """the least probability of all verdict tokens together that counts as a verdict"""

    starts_with_verdict: ClassVar[bool] = True

    @property
    def raw_key(self) -> str:
        """See `ReplyForm`."""
        return "completions_all"

    @property
    def reads_tokens(self) -> bool:
        """See `ReplyForm`."""
        return True

    @property
    def is_one_token(self) -> bool:
        """See `ReplyForm`."""
        return self.position == "first"

    def check(self, path: Path) -> None:
        """See `ReplyForm`."""
        check_spellings(path, self.first, self.second, self.tie)
        require_within(path, {"verdict.min_mass": (self.min_mass, 0, 1)})

    def find(self, text: str) -> list[Found]:
        """The verdict token itself, of an endpoint that gave no probabilities."""
        side = side_of(text, spellings_of(self.first, self.second, self.tie))
        return (
            []
            if side is None
            else [Found(str(side), 0, len(text), side, flags=(NO_PROBABILITIES,))]
        )

    def read(self, reply: Reply, n: int, *, cut_off: bool) -> tuple[Verdict, ...]:
        """See `ReplyForm`."""
        return (
            _parse_tokens(self, reply, n)
            if reply.tokens
            else super().read(reply, n, cut_off=cut_off)
        )


class NumbersRule(ReplyForm, frozen=True, tag="numbers"):
    """The numbers that the judge itself returns: probabilities of a pair, or a scalar for one output."""

    @property
    def is_rating(self) -> None:
        """See `ReplyForm`."""

    def read(self, reply: Reply, n: int, *, cut_off: bool) -> tuple[Verdict, ...]:  # noqa: ARG002 - numbers are whole
        """See `ReplyForm`."""
        return _parse_numbers(reply, n)


def _parse_tokens(rule: LogprobRule, reply: Reply, n: int) -> tuple[Verdict, ...]:
    """P(first) = (first + tie/2) / mass, from the token that decides; of ``n`` questions from the first n tokens."""
    if n > 1:
        if rule.position == "last" or len(reply.tokens) < n:
            why = f"{len(reply.tokens)} tokens for {n} questions"
            return (Verdict("unparsed", evidence=why),) * n
        return tuple(_verdict(rule, token) for token in reply.tokens[:n])
    if rule.position == "first":
        return (_verdict(rule, reply.tokens[0]),)
    spelled = {*_stripped(rule.first), *_stripped(rule.second), *_stripped(rule.tie)}
    for index in range(len(reply.tokens) - 1, -1, -1):
        token = reply.tokens[index]
        if token.token.strip() not in spelled:
            continue
        after = "".join(one.token for one in reply.tokens[index + 1 :])
        if reply.finish == "length" and any(map(str.isalnum, after)):
            break
        return (_verdict(rule, token),)
    return (Verdict("unparsed", evidence="no token of the reply is a verdict"),)


def _verdict(rule: LogprobRule, token: Token) -> Verdict:
    known = known_tokens(token)
    first, second, tie = (
        sum(probability(lp) for name, lp in known.items() if name.strip() in spellings)
        for spellings in (_stripped(rule.first), _stripped(rule.second), _stripped(rule.tie))
    )
    mass = min(first + second + tie, 1.0)
    evidence = likeliest(token)
    if mass == 0:
        return Verdict("unparsed", mass=0.0, evidence=f"no verdict among the likeliest: {evidence}")
    if mass < rule.min_mass:
        why = f"verdicts have {mass:.2g} of the probability, {rule.min_mass:.2g} was asked for: {evidence}"
        return Verdict("unparsed", mass=mass, evidence=why)
    if rule.weighted:
        preference = 1 + (second + tie / 2) / (first + second + tie)
    else:
        best = max(first, second, tie)
        winners = [side for side, p in ((1.0, first), (2.0, second), (1.5, tie)) if p == best]
        preference = winners[0] if len(winners) == 1 else 1.5
    return Verdict("scored", preference=preference, mass=mass, evidence=evidence)


def _parse_numbers(reply: Reply, n: int) -> tuple[Verdict, ...]:
    """The numbers of a judge that returns numbers: two for each pair, or one for each output."""
    numbers = reply.scores
    if not all(map(math.isfinite, numbers)) or len(numbers) not in {n, 2 * n}:
        why = f"{len(numbers)} numbers for {n} questions, or one that is not finite"
        return (Verdict("unparsed", evidence=why),) * n
    flags = () if reply.reason is None else (reply.reason,)  # such as that a text had to be cut
    if len(numbers) == n:
        return tuple(
            Verdict("scored", score=one, evidence=f"{one:.6g}", flags=flags) for one in numbers
        )
    pairs = zip(numbers[::2], numbers[1::2], strict=True)
    return tuple(
        msgspec.structs.replace(_shared(first, second), flags=flags) for first, second in pairs
    )


def _shared(first: float, second: float) -> Verdict:
    evidence = f"{first:.6g} and {second:.6g}"
    if min(first, second) < 0 or first + second == 0:
        return Verdict("unparsed", evidence=f"no probabilities: {evidence}")
    preference = 1 + second / (first + second)
    return Verdict(
        "scored", preference=preference, mass=min(first + second, 1.0), evidence=evidence
    )


def _stripped(spellings: Iterable[str]) -> set[str]:
    return {spelling.strip() for spelling in spellings if spelling.strip()}


register_forms(LogprobRule, NumbersRule)
