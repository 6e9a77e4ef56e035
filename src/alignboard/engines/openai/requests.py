"""One request to an endpoint, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

AnyReply = TypeVar("AnyReply")


@dataclass(frozen=True)
class Request:
    """One body to be posted."""

    key: str
    body: dict[str, Any]
    n_tokens: int
    """at most, prompt and answer together, as far as that is known beforehand"""


@dataclass(frozen=True)
class FailedRequest:
    """No reply after so many tries."""

    reason: str
    tries: int
    refused: bool = False
    """whether the endpoint said that this request will not be answered"""


@dataclass(frozen=True)
class TimedReply(Generic[AnyReply]):
    """A reply, and the seconds from its last request to it."""

    reply: AnyReply
    seconds: float
