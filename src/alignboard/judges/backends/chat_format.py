"""Calls and replies of judges in OpenAI's chat format: tools, schemas and log-probabilities included. Pure."""

from __future__ import annotations

import json
import math
from typing import Any

from alignboard.engines.openai.format import (
    UnreadableError,
    Usage,
    read_body,
    read_usage,
    shortened,
)
from alignboard.judges.rows import Call, Said, Token
from alignboard.judges.spec import PromptedSpec

_STOP = frozenset({"stop", "eos", "eos_token", "end_turn", "stop_sequence", "tool_calls"})
_LENGTH = frozenset({"length", "max_tokens"})


def request_body(spec: PromptedSpec, call: Call) -> dict[str, Any]:
    """The body of one request; `settings` and the messages."""
    body = settings(spec)
    if spec.sampling.temperature > 0:
        body["seed"] = spec.sampling.seed + call.sample
    messages = [{"role": one.role, "content": one.content} for one in call.messages]
    return body | {"messages": messages} | spec.sampling.extra


def settings(spec: PromptedSpec) -> dict[str, Any]:
    """What every request of a judge says, apart from the prompt and the seed."""
    sampling = spec.sampling
    body: dict[str, Any] = {
        "model": spec.model,
        sampling.limit_field: sampling.max_new_tokens,
        "temperature": sampling.temperature,
    }
    if sampling.temperature > 0 and sampling.top_p < 1:
        body["top_p"] = sampling.top_p
    if sampling.top_logprobs:
        body |= {"logprobs": True, "top_logprobs": sampling.top_logprobs}
    if spec.tool is not None:
        choice = {"type": "function", "function": {"name": spec.tool["function"]["name"]}}
        body |= {"tools": [spec.tool], "tool_choice": choice}
    if spec.json_schema is not None:
        schema = {"name": "verdict", "strict": True, "schema": spec.json_schema}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def read_said(content: bytes) -> Said:
    """The reply in a body; raises `UnreadableError`, whose message is half a sentence."""
    return said_of(read_body(content))


def said_of(body: dict[str, Any]) -> Said:
    """The reply in a decoded body, as `read_said`."""
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise UnreadableError(f"the answer has no choices: {shortened(str(body))}")
    choice, usage = choices[0], read_usage(body.get("usage"))
    message, reason = choice.get("message"), choice.get("finish_reason")
    if not isinstance(message, dict):
        raise UnreadableError("the answer has no message")
    if reason == "content_filter" or message.get("refusal"):
        why = message.get("refusal") or "the endpoint's content filter took the answer away"
        return _said(usage, finish="refused", reason=str(why))
    if not isinstance(reason, str) or reason not in _STOP | _LENGTH:
        raise UnreadableError(f"the answer ended with finish_reason {shortened(repr(reason))}")
    text = _arguments(message)
    if text is None:
        text = message.get("content")
    if text is None and reason in _LENGTH:
        text = ""  # a model that thought until the limit said nothing
    if not isinstance(text, str):
        raise UnreadableError("the answer has no text")
    finish = "stop" if reason in _STOP else "length"
    return _said(usage, text=text, tokens=_tokens(choice.get("logprobs")), finish=finish)


def used(said: Said) -> Usage:
    """Tokens as the endpoint counts them."""
    return Usage(said.n_prompt, said.n_answer)


def _said(usage: Usage, **content: Any) -> Said:
    return Said(**content, n_prompt=usage.n_prompt, n_answer=usage.n_answer)


def _arguments(message: dict[str, Any]) -> str | None:
    """The arguments of the first tool that was called; None where none was."""
    calls = message.get("tool_calls")
    if not isinstance(calls, list) or not calls or not isinstance(calls[0], dict):
        return None
    function = calls[0].get("function")
    arguments = function.get("arguments") if isinstance(function, dict) else None
    return json.dumps(arguments) if isinstance(arguments, dict) else arguments


def _tokens(logprobs: Any) -> tuple[Token, ...]:
    """The tokens of ``choices[0].logprobs``; none where the endpoint gives none."""
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(content, list):
        return ()
    try:
        found = tuple(_token(one) for one in content)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        why = shortened(repr(error))
        raise UnreadableError(f"the answer's log-probabilities are malformed ({why})") from None
    if not all(math.isfinite(token.logprob) for token in found):
        raise UnreadableError("the answer holds a token whose probability is 0")
    return found


def _token(found: dict[str, Any]) -> Token:
    top = [(_text(one), float(one["logprob"])) for one in found.get("top_logprobs") or ()]
    # llama.cpp writes -inf for tokens that it masks.
    likely = tuple(one for one in top if math.isfinite(one[1]))
    return Token(_text(found), float(found["logprob"]), likely)


def _text(found: dict[str, Any]) -> str:
    """The token of an entry; raises `TypeError` for what is no text, which the journal could not read back."""
    token = found["token"]
    if not isinstance(token, str):
        raise TypeError(f"a token is {token!r}")
    return token
