"""Calls and replies of judges in OpenAI's chat format: tools, schemas and log-probabilities included. Pure."""

from __future__ import annotations

import math
from typing import Any

from alignboard.engines.openai.format import (
    UnreadableError,
    Usage,
    read_body,
    read_choice,
    shortened,
)
from alignboard.judges.rows import ROUNDING, Call, Reply, Token
from alignboard.judges.spec import PromptedSpec


def request_body(spec: PromptedSpec, call: Call) -> dict[str, Any]:
    """The body of one request; `settings` and the messages."""
    body = settings(spec)
    if spec.sampling.temperature > 0:
        body["seed"] = spec.sampling.seed + call.sample
    messages = [{"role": one.role, "content": one.content} for one in call.messages]
    body = {name: body[name] for name in body if name not in spec.endpoint.omit}
    return body | {"messages": messages} | spec.endpoint.extra


def settings(spec: PromptedSpec) -> dict[str, Any]:
    """What every request of a judge says, apart from the prompt and the seed."""
    sampling = spec.sampling
    body: dict[str, Any] = {
        "model": spec.model,
        spec.endpoint.limit_field: sampling.max_new_tokens,
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
    return {name: body[name] for name in body if name not in spec.endpoint.omit}


def read_judge_reply(content: bytes) -> Reply:
    """The reply in a body; raises `UnreadableError`, whose message is half a sentence."""
    return reply_of(read_body(content))


def reply_of(body: dict[str, Any]) -> Reply:
    """The reply in a decoded body, as `read_judge_reply`."""
    reply, choice = read_choice(body)
    usage, model = reply.usage, body.get("model")
    return Reply(
        text=reply.text,
        tokens=() if reply.finish == "refused" else _tokens(choice.get("logprobs")),
        finish=reply.finish,
        reason=reply.reason,
        reasoning=reply.reasoning,
        n_prompt=usage.n_prompt,
        n_answer=usage.n_answer,
        served=model if isinstance(model, str) else None,
    )


def used(reply: Reply) -> Usage:
    """Tokens as the endpoint counts them."""
    return Usage(reply.n_prompt, reply.n_answer)


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
    if any(one > ROUNDING for token in found for one in (token.logprob, *dict(token.top).values())):
        raise UnreadableError("the answer holds a log-probability above 0")
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
