"""AlpacaEval's stored raw completions and what a judge said, one into the other."""

from __future__ import annotations

import json
from typing import Any

from alignboard.judges.parsing.values import FAILURES
from alignboard.judges.rows import ROUNDING, Reply, Token


def reply_of_raw(completion: str | dict[str, Any] | None) -> Reply:
    """What the judge said, from a stored ``raw_completion``; raises TypeError or ValueError where it is none.

    A string is a text, a dictionary with ``logprobs`` is a choice of OpenAI's chat API (``completions_all``), any other
    dictionary is a JSON text that upstream has already decoded.
    """
    if isinstance(completion, str):
        return Reply(completion)
    if not isinstance(completion, dict):
        raise TypeError(f"a raw completion is text or an object, not {type(completion).__name__}")
    if "logprobs" not in completion:
        return Reply(json.dumps(completion))
    try:
        content = (completion["logprobs"] or {}).get("content") or []
        tokens = tuple(
            Token(
                token=one["token"],
                logprob=float(one["logprob"]),
                top=tuple((top["token"], float(top["logprob"])) for top in one["top_logprobs"]),
            )
            for one in content
        )
        if any(one > ROUNDING for t in tokens for one in (t.logprob, *(p for _, p in t.top))):
            raise ValueError("a log-probability is above 0")
        total = completion.get("total_tokens")
        message = completion.get("message") or {}
        text = completion.get("text")
        return Reply(
            text=str(message.get("content") or "" if text is None else text),
            tokens=tokens,
            finish="length" if completion.get("finish_reason") == "length" else "stop",
            n_prompt=None if total is None else int(total) - len(tokens),
            n_answer=None if total is None else len(tokens),
        )
    except FAILURES as error:
        raise ValueError(f"not a choice of OpenAI's chat API: {error!r}") from error


def raw_completion(reply: Reply, completion_key: str = "completions") -> str | dict[str, Any]:
    """What AlpacaEval would store of a reply: its text, or for ``completions_all`` the choice as a dictionary."""
    if completion_key != "completions_all":
        return reply.text
    content = [
        {
            "token": token.token,
            "bytes": list(token.token.encode("utf-8", "surrogatepass")),
            "logprob": token.logprob,
            "top_logprobs": [
                {
                    "token": name,
                    "bytes": list(name.encode("utf-8", "surrogatepass")),
                    "logprob": logprob,
                }
                for name, logprob in token.top
            ],
        }
        for token in reply.tokens
    ]
    counts = (reply.n_prompt, reply.n_answer)
    return {
        "finish_reason": "length" if reply.finish == "length" else "stop",
        "index": 0,
        "logprobs": {"content": content} if content else None,
        "message": {
            "content": reply.text,
            "role": "assistant",
            "function_call": None,
            "tool_calls": None,
        },
        "text": reply.text,
        "total_tokens": float(sum(n or 0 for n in counts)) if any(counts) else None,
    }
