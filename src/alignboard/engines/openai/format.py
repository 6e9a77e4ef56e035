"""Requests and answers in OpenAI's format: chat completions and completions, as vLLM, SGLang, llama.cpp's server,
`transformers serve` and hosted APIs speak them.

Pure: from values to a JSON body and back. What an answer must have is checked here; whatever is missing is an
`UnreadableError` (try again), never an empty answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from alignboard.engines.rows import Decoding, Prompt
from alignboard.errors import InputError
from alignboard.records import storable

Api = Literal["chat", "completions"]
Sends = Literal["ids", "text"]

_STOP = frozenset({"stop", "eos", "eos_token", "end_turn", "stop_sequence"})
_LENGTH = frozenset({"length", "max_tokens"})
_LONGEST_REASON = 200


class UnreadableError(Exception):
    """A body that is no answer."""


@dataclass(frozen=True)
class Dialect:
    """What is asked of an endpoint, and how; all of it is part of an answer's key."""

    model: str
    """the name under which the server knows it"""
    api: Api = "chat"
    sends: Sends = "ids"
    """to ``completions``: token ids (vLLM, SGLang and llama.cpp take them; no template or BOS is added), or text"""
    system: str | None = None
    """to ``chat``: what the system turn says; None = there is none"""
    limit_field: str = "max_tokens"
    """newer OpenAI models want ``max_completion_tokens``"""
    sends_seed: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)
    """more fields of the body, such as ``{"add_special_tokens": False}`` for text with a BOS of its own"""

    def body(self, prompt: Prompt, decoding: Decoding) -> dict[str, Any]:
        """The request for one prompt."""
        found: dict[str, Any] = {"model": self.model, **self._prompt(prompt)}
        found[self.limit_field] = prompt.limit(decoding)
        found["temperature"] = decoding.temperature
        if decoding.temperature > 0:
            if decoding.top_p < 1:
                found["top_p"] = decoding.top_p
            if self.sends_seed:
                found["seed"] = decoding.seed
        if decoding.stop:
            found["stop"] = list(decoding.stop)
        if decoding.stop_tokens:
            found["stop_token_ids"] = list(decoding.stop_tokens)
        return found | dict(self.extra)

    def _prompt(self, prompt: Prompt) -> dict[str, Any]:
        """The messages, the token ids or the text."""
        if self.api == "chat":
            turns = [] if self.system is None else [("system", self.system)]
            for said, answered in prompt.history:
                turns += [("user", said), ("assistant", answered)]
            turns.append(("user", prompt.instruction))
            return {"messages": [{"role": role, "content": content} for role, content in turns]}
        if self.sends == "ids":
            if not prompt.ids:
                raise InputError(
                    f"{self.model} is to be sent token ids, but a prompt has none; render it, or send text."
                )
            return {"prompt": list(prompt.ids)}
        if prompt.text is None and prompt.history:
            raise InputError(
                f"{self.model} is to be sent text, but a conversation has to be rendered first."
            )
        return {"prompt": prompt.instruction if prompt.text is None else prompt.text}


@dataclass(frozen=True)
class Usage:
    """Tokens as the endpoint counts (and bills) them; None = it does not say."""

    n_prompt: int | None
    n_answer: int | None


@dataclass(frozen=True)
class Reply:
    """What one good body says."""

    text: str
    finish: Literal["stop", "length", "refused"]
    usage: Usage


def read_reply(content: bytes, api: Api) -> Reply:
    """The reply in a body; raises `UnreadableError`, whose message is half a sentence."""
    body = read_body(content)
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise UnreadableError(f"the answer has no choices: {shortened(str(body))}")
    choice = choices[0]
    holder = choice.get("message") if api == "chat" else choice
    if not isinstance(holder, dict):
        raise UnreadableError("the answer has no message")
    text, reason = holder.get("content" if api == "chat" else "text"), choice.get("finish_reason")
    usage = read_usage(body.get("usage"))
    if reason == "content_filter" or holder.get("refusal"):
        return Reply("", "refused", usage)
    if reason not in _STOP | _LENGTH:
        raise UnreadableError(f"the answer ended with finish_reason {reason!r}")
    finish = "stop" if reason in _STOP else "length"
    if text is None and finish == "length":
        text = ""  # a model that thought until the limit said nothing
    if not isinstance(text, str):
        raise UnreadableError("the answer has no text")
    return Reply(text, finish, usage)


def read_body(content: bytes) -> dict[str, Any]:
    """The JSON object in a body; raises `UnreadableError`."""
    if not content.strip():
        raise UnreadableError("the answer is empty")
    try:
        body = json.loads(content)
    except ValueError:
        text = shortened(content.decode(errors="replace"))
        raise UnreadableError(f"the answer is no JSON: {text}") from None
    if not isinstance(body, dict):
        raise UnreadableError("the answer is no JSON object")
    return storable(body)


def read_usage(found: Any) -> Usage:
    """The tokens that ``usage`` of a body counts."""
    if not isinstance(found, dict):
        return Usage(None, None)
    counts = [found.get(name) for name in ("prompt_tokens", "completion_tokens")]
    n_prompt, n_answer = (count if isinstance(count, int) else None for count in counts)
    return Usage(n_prompt, n_answer)


def error_message(content: bytes) -> tuple[str, str | None]:
    """What an error's body says, on one line, and its code."""
    try:
        body = json.loads(content)
    except ValueError:
        return shortened(content.decode(errors="replace")), None
    error = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(error, dict):
        return shortened(str(error)), None
    code = error.get("code")
    text = str(error.get("message") or error.get("detail") or "")
    return shortened(text), code if isinstance(code, str) else None


def shortened(text: str) -> str:
    """``text`` on one line, its start if it is long."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_REASON else line[: _LONGEST_REASON - 1] + "…"
