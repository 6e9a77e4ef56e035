"""What a verdict is shown by: lines that a terminal or a page can print, whatever the judge wrote."""

from __future__ import annotations

import math
from typing import Final

from alignboard.judges.rows import Token

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
