"""One request to an endpoint, and what comes of it."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

AnyReply = TypeVar("AnyReply")


class Request(msgspec.Struct, frozen=True):
    """One body to be posted."""

    key: str
    body: dict[str, Any]
    n_tokens: int
    """at most, prompt and answer together, as far as that is known beforehand"""


class FailedRequest(msgspec.Struct, frozen=True):
    """No reply after so many tries."""

    reason: str
    tries: int
    refused: bool = False
    """whether the endpoint said that this request will not be answered"""


class TimedReply(msgspec.Struct, Generic[AnyReply], frozen=True):
    """A reply, and the seconds from its last request to it."""

    reply: AnyReply
    seconds: float
