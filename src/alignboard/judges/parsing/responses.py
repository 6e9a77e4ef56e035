"""The part of a judge's reply that may hold a verdict, and whether a cut-off one ends with it."""

from __future__ import annotations

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
