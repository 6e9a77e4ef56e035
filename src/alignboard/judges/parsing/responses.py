"""The part of a judge's reply that may hold a verdict, whether a cut-off one ends with it, and how it is shown."""

from __future__ import annotations

import math
import re
from typing import Final

import msgspec

from alignboard.judges.rows import Reply, Token
from alignboard.models.reasoning import split

_CUE = re.compile(
    r"\b(?:verdict|rating|score|decision|judge?ment|result|choice|choose|winner|better|answer|final)\b",
    re.IGNORECASE,
)
_HYPOTHETICAL = re.compile(r"\b(?:if|either|or|would|could|should|must|have to)\b", re.IGNORECASE)
_LETTER: Final = re.compile(r"\w")


def response_of(reply: Reply) -> Reply:
    """``reply`` without its reasoning, in text and tokens; itself where there is none."""
    if not reply.text and not reply.tokens:
        return reply
    parts = split(reply.text, judging=True)
    tokens = _after_reasoning(reply.tokens)
    if not parts.reasoning and len(tokens) == len(reply.tokens):
        return reply
    thought = reply.reasoning or parts.reasoning
    return msgspec.structs.replace(reply, text=parts.response, tokens=tokens, reasoning=thought)


def _after_reasoning(tokens: tuple[Token, ...]) -> tuple[Token, ...]:
    """The tokens of the response, the first of which is no white space."""
    text = "".join(token.token for token in tokens)
    parts = split(text, judging=True)
    if not parts.reasoning:
        return tokens
    start = text.rfind(parts.response) if parts.response else len(text)
    offset, kept = 0, []
    for token in tokens:
        if offset + len(token.token) > start and (kept or token.token.strip()):
            kept.append(token)
        offset += len(token.token)
    return tuple(kept)


def is_last(text: str, start: int, end: int) -> bool:
    """Whether the place of a verdict is the last line of ``text``, which may introduce it and says nothing more.

    >>> text = "Both are right. My final verdict is: [[A]]"
    >>> is_last(text, text.index("[["), len(text)), is_last("It is [[A]] if", 6, 11)
    (True, False)
    """
    if _LETTER.search(text, end):
        return False
    before = text[:start].rpartition("\n")[2]
    if _LETTER.search(before) is None:
        return True
    clause = re.split(r"[.!?;,]\s", before)[-1]
    return _CUE.search(clause) is not None and _HYPOTHETICAL.search(clause) is None


SHOWN: Final = 120
"""characters of a reply without a place"""
_BEFORE, _AFTER = 60, 20
_MAX_LISTED = 6


def excerpt(text: str, start: int | None = None, end: int = 0) -> str:
    """A line of ``text`` around a place, or its beginning; characters that do not print become spaces."""
    if start is None:
        piece, before, after = text[: 4 * SHOWN], False, len(text) > 4 * SHOWN
    else:
        low, high = max(0, start - _BEFORE), min(len(text), end + _AFTER)
        piece, before, after = text[low:high], low > 0, high < len(text)
    line = " ".join("".join(c if c.isprintable() else " " for c in piece).split())
    if len(line) > 2 * SHOWN or (start is None and len(line) > SHOWN):
        line, after = line[:SHOWN], True
    return ("…" if before else "") + line + ("…" if after else "")


def probability(logprob: float) -> float:
    """exp(logprob) of what an endpoint may send: 0 for NaN, and never more than 1."""
    return 0.0 if math.isnan(logprob) else math.exp(min(logprob, 0.0))


def likeliest(token: Token) -> str:
    """The likeliest tokens at a place, for a reader: ``'M' 0.98, 'm' 0.02``."""
    top = sorted(known_tokens(token).items(), key=lambda one: -probability(one[1]))[:_MAX_LISTED]
    return ", ".join(f"{name!r} {probability(logprob):.2g}" for name, logprob in top)


def known_tokens(token: Token) -> dict[str, float]:
    """The log-probability of every token that is known at a place, the one that was drawn among them."""
    return {token.token: token.logprob, **dict(token.top)}
