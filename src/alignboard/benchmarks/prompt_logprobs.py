"""Log-probabilities of given tokens from completions endpoints: the three forms that servers have. Pure.

``prompt_logprobs``
    vLLM's own field: the log-probability and the rank of every token of the prompt.
``echo``
    OpenAI's older form, which SGLang and vLLM speak: the prompt comes back with its log-probabilities.
``next token``
    llama.cpp's server has neither. One token is generated per request and `logit_bias` forces it to be the target; the
    log-probability that the server reports is the model's own, before the bias.

What is read is checked against what was sent: another number of tokens, or another token, is an `UnreadableError`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Protocol

from alignboard.engines.openai.format import UnreadableError

_FORCE: Final = 1000
"""a bias above any difference of logits"""
LogProb = tuple[float, bool]
"""the sum over the targets of one reply, and whether each is the most likely token"""


class Form(Protocol):
    """How log-probabilities of the last ``n`` of some tokens are requested and read."""

    name: ClassVar[str]
    fields: ClassVar[tuple[str, ...]]
    """of the request, which a server may refuse"""

    def requests(self, ids: Sequence[int], n: int) -> list[dict[str, Any]]:
        """The fields of each request of a text, beside the model's name."""
        ...

    def read(self, body: Mapping[str, Any], request: Mapping[str, Any], n: int) -> LogProb:
        """What a reply says; raises `UnreadableError` where it does not hold it."""
        ...


class PromptLogprobs:
    """The form of vLLM."""

    name: ClassVar[str] = "prompt_logprobs"
    fields: ClassVar[tuple[str, ...]] = ("prompt_logprobs",)

    def requests(self, ids: Sequence[int], n: int) -> list[dict[str, Any]]:  # noqa: ARG002 - see `Form`
        """See `Form`."""
        return [{"prompt": list(ids), "max_tokens": 1, "temperature": 0, "prompt_logprobs": 1}]

    def read(self, body: Mapping[str, Any], request: Mapping[str, Any], n: int) -> LogProb:
        """See `Form`."""
        ids = request["prompt"]
        rows = _choice(body).get("prompt_logprobs")
        if not isinstance(rows, list) or len(rows) != len(ids):
            raise UnreadableError("the reply has no prompt_logprobs of these tokens")
        total, greedy = 0.0, True
        for token, row in zip(ids[-n:], rows[-n:], strict=True):
            own = row.get(str(token)) if isinstance(row, dict) else None
            if not isinstance(own, dict):
                raise UnreadableError(f"prompt_logprobs does not hold the token {token}")
            total += _number(own.get("logprob"))
            greedy &= own.get("rank") == 1
        return total, greedy


class Echo:
    """The form of OpenAI's completions."""

    name: ClassVar[str] = "echo"
    fields: ClassVar[tuple[str, ...]] = ("echo", "logprobs")

    def requests(self, ids: Sequence[int], n: int) -> list[dict[str, Any]]:  # noqa: ARG002 - see `Form`
        """See `Form`."""
        return [
            {"prompt": list(ids), "max_tokens": 1, "temperature": 0, "logprobs": 1, "echo": True}
        ]

    def read(self, body: Mapping[str, Any], request: Mapping[str, Any], n: int) -> LogProb:
        """See `Form`. The prompt is followed by what was generated, a token or none."""
        end = len(request["prompt"])
        found = _logprobs(body)
        tokens, tops = found.get("token_logprobs"), found.get("top_logprobs")
        if (
            not isinstance(tokens, list)
            or not isinstance(tops, list)
            or not end <= len(tokens) == len(tops) <= end + 1
        ):
            raise UnreadableError(f"the reply has no log-probabilities of its {end} prompt tokens")
        total, greedy = 0.0, True
        for logprob, top in zip(tokens[end - n : end], tops[end - n : end], strict=True):
            if not isinstance(top, dict) or not top:
                raise UnreadableError("the reply has no top_logprobs of a prompt token")
            total += _number(logprob)
            greedy &= _number(logprob) >= max(map(_number, top.values()))
        return total, greedy


class NextToken:
    """The form of llama.cpp's server: a request per token."""

    name: ClassVar[str] = "next token"
    fields: ClassVar[tuple[str, ...]] = ("logit_bias", "logprobs")

    def requests(self, ids: Sequence[int], n: int) -> list[dict[str, Any]]:
        """See `Form`."""
        fixed = {"max_tokens": 1, "temperature": 0, "logprobs": 1}
        return [
            {"prompt": list(ids[:end]), "logit_bias": {str(ids[end]): _FORCE}, **fixed}
            for end in range(len(ids) - n, len(ids))
        ]

    def read(self, body: Mapping[str, Any], request: Mapping[str, Any], n: int) -> LogProb:  # noqa: ARG002 - see `Form`
        """See `Form`."""
        (target,) = map(int, request["logit_bias"])
        content = _logprobs(body).get("content")
        one = content[0] if isinstance(content, list) and content else None
        if not isinstance(one, dict) or one.get("id") != target:
            raise UnreadableError("the reply does not hold the log-probability of the token")
        usage = body.get("usage")
        n_prompt = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        if n_prompt != len(request["prompt"]):
            raise UnreadableError(
                f"the server read {n_prompt} tokens of {len(request['prompt'])} that were sent"
            )
        top = one.get("top_logprobs")
        first = top[0] if isinstance(top, list) and top else None
        if not isinstance(first, dict):
            raise UnreadableError("the reply has no top_logprobs")
        return _number(one.get("logprob")), first.get("id") == target


FORMS: Final[tuple[Form, ...]] = (PromptLogprobs(), Echo(), NextToken())
"""in the order in which they are tried: by how much they say for a request"""


def _choice(body: Mapping[str, Any]) -> dict[str, Any]:
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise UnreadableError("the reply has no choices")
    return choices[0]


def _logprobs(body: Mapping[str, Any]) -> dict[str, Any]:
    found = _choice(body).get("logprobs")
    if not isinstance(found, dict):
        raise UnreadableError("the reply has no logprobs")
    return found


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise UnreadableError(f"{value!r} is no log-probability")
    return float(value)
