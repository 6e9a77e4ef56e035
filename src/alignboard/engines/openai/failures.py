"""What the failures of an endpoint mean, and the key kept out of their words."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from http import HTTPStatus

from alignboard.engines.openai.format import (
    error_message,
    error_words,
    field_advice,
    refused_field,
)
from alignboard.fetch.http import FinalError, Head, transient_status

_REFUSED = frozenset({400, 413, 422})
"""statuses that speak of the request, not of the server"""
_SECRET_LENGTH = 16
"""characters of the shortest key that is taken out of replies"""


_OF_THE_PROMPT = re.compile(
    r"content[ _-]?(?:filter|polic|management)|responsible ?ai|moderation|flagged|(?:safety|usage) (?:system|polic)"
    r"|(?:inappropriate|sensitive|unsafe|prohibited|harmful)[ _-]?(?:content|word)|data_inspection"
    r"|content exists risk|high[ -]risk"
    r"|\u654f\u611f|\u8fdd\u89c4|\u4e0d\u5b89\u5168"
    r"|context[ _-]?(?:length|size|window|limit)|exceed_context|string_above_max|invalid_prompt"
    r"|(?:prompt|input|request|messages?|payload|entity)\b.{0,40}\btoo (?:long|large)|too many (?:input )?tokens"
    r"|\b(?:prompt|input) contains|\b(?:content|messages?)\b.{0,40}\b(?:non-?empty|not be empty|is empty)"
    # Not "Input should be less than 2", which pydantic says of a setting.
    r"|\b(?:inputs?(?! validation| should)|prompt|token count)\b[^.]{0,60}"
    r"(?:exceed|longer than|less than|no more than|at most|<=|maxLength)",
    re.IGNORECASE,
)
"""codes and words of refusals that speak of one prompt, whoever else meets the same"""


class RefusedError(FinalError):
    """What this request met, and perhaps no other."""

    of_the_prompt = False
    """whether the server says that this prompt is the reason"""


def without(key: str | None, text: str) -> str:
    """``text`` without the key."""
    return text.replace(key, "***") if key else text


def without_key(key: str | None, content: bytes) -> bytes:
    """A body without the key, which some gateways repeat. Short ones (EMPTY) are words that a model may write."""
    if key is None or len(key) < _SECRET_LENGTH:
        return content
    for form in {key, json.dumps(key)[1:-1]}:
        content = content.replace(form.encode(), b"***")
    escaped = b"\\u" in content or b"\\/" in content
    return _escaped(key).sub(b"***", content) if escaped else content


@lru_cache(maxsize=8)
def _escaped(key: str) -> re.Pattern[bytes]:
    """The key with any of its characters escaped, as JSON writers of gateways do it with ``/``, ``+`` and ``=``."""
    marks = [re.escape(mark) if mark.isalnum() else rf"\\?{re.escape(mark)}" for mark in key]
    forms = [
        rf"(?:{plain}|(?i:\\u{ord(mark):04x}))" for plain, mark in zip(marks, key, strict=True)
    ]
    return re.compile("".join(forms).encode())


def require_success(
    head: Head, content: bytes, url: str, key_env: str | None, key: str | None
) -> None:
    """Raises `TransientError`, `RefusedError` or `FinalError`, a whole sentence, for an answer that is not 200; without
    the key.
    """
    if head.status == HTTPStatus.OK:
        return
    message, code = error_message(content)
    message = without(key, message)
    phrase = without(key, f"{head.status} {head.phrase}".strip())
    failure = transient_status(head, f"{phrase}: {message}" if message else phrase)
    if failure is not None and code != "insufficient_quota":
        raise failure
    speaks = head.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE or (
        head.status in {*_REFUSED, HTTPStatus.FORBIDDEN} and _speaks_of_the_prompt(content)
    )
    if head.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN} and not speaks:
        given = f"the key in {key_env}" if key_env else "a request without a key (set api_key_env)"
        raise FinalError(f"{url} refuses {given}: {phrase}.")
    answer = f"{url} answers {phrase}{f': {message}' if message else ''}".rstrip(".")
    field = refused_field(content)
    # A field that the server does not take is in every request.
    if field is not None and not speaks:
        raise FinalError(f"{answer}; {field_advice(field)}.")
    if head.status not in _REFUSED and not speaks:
        raise FinalError(f"{answer}.")
    error = RefusedError(f"{answer}.")
    error.of_the_prompt = speaks
    raise error


def _speaks_of_the_prompt(content: bytes) -> bool:
    """Whether an error's body says, in a code, a type or its words, that it is about this prompt."""
    return any(_OF_THE_PROMPT.search(one) for one in error_words(content))
