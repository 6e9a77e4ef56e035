"""Requests and answers in OpenAI's format: chat completions and completions, as vLLM, SGLang, llama.cpp's server,
`transformers serve` and hosted APIs speak them.

Pure: from values to a JSON body and back. What an answer must have is checked here; whatever is missing is an
`UnreadableError` (try again), never an empty answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

import msgspec

from alignboard.engines.rows import Decoding, Prompt
from alignboard.errors import InputError
from alignboard.text import storable

Api = Literal["chat", "completions"]
Sends = Literal["ids", "text"]

_STOP = frozenset(
    {"stop", "eos", "eos_token", "end_turn", "stop_sequence", "complete", "completed", "finished",
     "tool_calls", "function_call"}
)  # fmt: skip
_WORD = re.compile(r"[a-z_ -]{1,60}")
_LENGTH = re.compile(
    r"length|limit|truncat|window|max_?(?:output_|new_|completion_)?(?:tokens|reached)"
)
_REFUSED = re.compile(r"filter|safety|sensitive|guardrail|refus|recitation|block|prohibited|spii")
_BROKEN = frozenset(
    {"abort", "aborted", "cancelled", "error", "insufficient_system_resource", "network_error"}
)
"""words for a reply that the server itself gave up"""
_REASONING = (
    "reasoning_content", "reasoning", "thinking", "reasoning_details", "thinking_blocks",
)  # fmt: skip
"""where servers put what was thought, each under a name of its own"""
_MOST_TOKENS = 2**40
"""a count that is larger is no count"""
Finish = Literal["stop", "length", "refused", "unknown"]
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
    omit: tuple[str, ...] = ()
    """fields of the body that the server does not take, such as ``temperature``"""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """more fields of the body, such as ``{"add_special_tokens": False}`` for text with a BOS of its own"""

    def identity(self) -> dict[str, Any]:
        """All of it, as keys of answers hold it; ``omit`` is named where there is something to name."""
        found = asdict(self)
        del found["omit"]
        rest = sorted(set(self.omit) - {"seed"})
        return found | {"sends_seed": "seed" not in self.omit} | ({"omit": rest} if rest else {})

    def body(self, prompt: Prompt, decoding: Decoding) -> dict[str, Any]:
        """The request for one prompt."""
        found: dict[str, Any] = {"model": self.model, **self._prompt(prompt)}
        found[self.limit_field] = prompt.limit(decoding)
        found["temperature"] = decoding.temperature
        if decoding.temperature > 0:
            if decoding.top_p < 1:
                found["top_p"] = decoding.top_p
            found["seed"] = decoding.seed
        if decoding.stop:
            found["stop"] = list(decoding.stop)
        if decoding.stop_tokens:
            found["stop_token_ids"] = list(decoding.stop_tokens)
        return {name: found[name] for name in found if name not in self.omit} | dict(self.extra)

    def _prompt(self, prompt: Prompt) -> dict[str, Any]:
        """The messages, the token ids or the text."""
        if self.api == "chat":
            turns = [] if self.system is None else [("system", self.system)]
            for user, answered in prompt.history:
                turns += [("user", user), ("assistant", answered)]
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


class Usage(msgspec.Struct, frozen=True):
    """Tokens as the endpoint counts (and bills) them; None = it does not say."""

    n_prompt: int | None
    n_answer: int | None


class EndpointReply(msgspec.Struct, frozen=True):
    """What one good body says."""

    text: str
    finish: Finish
    """``unknown``: the server does not say, or in a word that is not known"""
    usage: Usage
    reasoning: str = ""
    """what was thought, where the server keeps it apart"""
    reason: str | None = None
    """why it was refused, where the server says"""


def read_reply(content: bytes, api: Api) -> EndpointReply:
    """The reply in a body; raises `UnreadableError`, whose message is half a sentence."""
    return read_choice(read_body(content), api)[0]


def read_choice(body: Mapping[str, Any], api: Api = "chat") -> tuple[EndpointReply, dict[str, Any]]:
    """The reply in a decoded body, and the choice that holds it; raises `UnreadableError`.

    A text that came is kept, whatever the server says of its end: it was paid for. What has neither text nor reasoning
    nor a known end is no reply.
    """
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise UnreadableError(f"the answer has no choices: {shortened(str(body))}")
    choice, usage = choices[0], read_usage(body.get("usage"))
    holder = choice.get("message") if api == "chat" else choice
    if not isinstance(holder, dict):
        raise UnreadableError("the answer has no message")
    ended = choice.get("finish_reason") or choice.get("native_finish_reason")
    if _word(ended) in _BROKEN:
        raise UnreadableError(f"the answer ended with finish_reason {shortened(repr(ended))}")
    finish = read_finish(ended)
    refusal = holder.get("refusal") or _refusal(holder.get("content"))
    if finish == "refused" or refusal:
        why = refusal or "the endpoint's content filter took the answer away"
        return EndpointReply("", "refused", usage, reason=str(why)), choice
    text, thought = _texts(holder.get("content" if api == "chat" else "text"))
    apart = (_texts(holder.get(name)) for name in _REASONING)
    thought = next((one for said, held in apart if (one := said or held)), thought)
    if tool := _arguments(holder):
        text = tool
    if text is None and (thought or finish == "length"):
        text = ""  # a model that thought until the limit said nothing
    if text is None or (not text and not thought and finish == "unknown"):
        raise UnreadableError(f"the answer has no text (finish_reason {shortened(repr(ended))})")
    return EndpointReply(text, finish, usage, thought or ""), choice


def read_finish(reason: Any) -> Finish:
    """What a ``finish_reason`` means, in whatever case.

    >>> read_finish("STOP"), read_finish("model_length"), read_finish(None)
    ('stop', 'length', 'unknown')
    """
    word = _word(reason)
    if word in _STOP:
        return "stop"
    if _LENGTH.search(word):
        return "length"
    return "refused" if _REFUSED.search(word) else "unknown"


def _word(reason: Any) -> str:
    """The word of a ``finish_reason``, also of an enumeration (``FinishReason.STOP``), an object or a list."""
    if isinstance(reason, list) and reason:
        reason = reason[0]
    if isinstance(reason, dict):
        reason = reason.get("type", reason.get("reason"))
    word = reason.strip().lower().rpartition(".")[2] if isinstance(reason, str) else ""
    return word if _WORD.fullmatch(word) else ""


def _refusal(content: Any) -> str | None:
    """The words of a part that is a refusal."""
    parts = content if isinstance(content, list) else []
    found = (part for part in parts if isinstance(part, dict) and part.get("type") == "refusal")
    return next((str(part.get("refusal")) for part in found), None)


def _texts(content: Any) -> tuple[str | None, str]:
    """The text and the reasoning of a message's content: a text, or a list of parts."""
    if isinstance(content, str):
        return content, ""
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list):
        return None, ""
    text, thought, known = "", "", False
    for part in content:
        if isinstance(part, str):
            part = {"type": "text", "text": part}  # noqa: PLW2901
        if not isinstance(part, dict):
            continue
        kind = part.get("type", "text")
        if kind in ("text", "output_text") and isinstance(part.get("text"), str):
            text, known = text + part["text"], True
        elif isinstance(kind, str) and kind.startswith(("thinking", "reasoning")):
            names = ("thinking", "reasoning", "text", "summary")
            held = next((part[name] for name in names if part.get(name)), None)
            thought += _texts(held)[0] or ""
    return (text if known else None), thought


def _arguments(message: Mapping[str, Any]) -> str | None:
    """The arguments of the first tool that was called; None where none was."""
    calls = message.get("tool_calls")
    if not isinstance(calls, list) or not calls or not isinstance(calls[0], dict):
        return None
    function = calls[0].get("function")
    arguments = function.get("arguments") if isinstance(function, dict) else None
    if isinstance(arguments, dict):
        return json.dumps(arguments)
    return arguments if isinstance(arguments, str) else None


def read_body(content: bytes) -> dict[str, Any]:
    """The JSON object in a body; raises `UnreadableError`."""
    if not content.strip():
        raise UnreadableError("the answer is empty")
    try:
        body = json.loads(content)
        if b"\\u" in content or b"\xed" in content:  # without them there is no half of a pair
            body = storable(body)
    except RecursionError:
        raise UnreadableError("the answer is nested too deeply") from None
    except ValueError:
        text = shortened(content.decode(errors="replace"))
        raise UnreadableError(f"the answer is no JSON: {text}") from None
    if not isinstance(body, dict):
        raise UnreadableError("the answer is no JSON object")
    return body


def read_usage(found: Any) -> Usage:
    """The tokens that ``usage`` of a body counts."""
    if not isinstance(found, dict):
        return Usage(None, None)
    names = (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens"))
    n_prompt, n_answer = (_count(found.get(usual, found.get(other))) for usual, other in names)
    return Usage(n_prompt, n_answer)


def _count(found: Any) -> int | None:
    """A number of tokens; None for what can be none."""
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    return int(found) if 0 <= found <= _MOST_TOKENS and found == int(found) else None


_FIELD: Final = (
    r"[`'\"\[({]{0,2}(max_tokens|max_completion_tokens|temperature|top_p|seed|stop|stop_token_ids|logprobs|top_logprobs"
    r"|tools|tool_choice|response_format)\b[`'\"\])}]{0,2}"
)
"""the fields of a request that a server may not take, with the marks that messages put around them"""
_NO: Final = r"unsupported|unknown|unrecognized|unexpected|extraneous|deprecated|not (?:supported|permitted|allowed)"
_PARAMETERS = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"(?:{_NO}|does ?n[o']t support)[\w ]*:? *{_FIELD}",
        rf"{_FIELD},?:? (?:(?:is|are|was|extra inputs are) )?(?:{_NO}|does ?n[o']t support)",
        rf"'loc': [\[(]'body', {_FIELD}, 'msg': '(?:extra|unexpected)",
    )
]
"""how servers and gateways say that they do not take a field"""


def refused_field(content: bytes) -> str | None:
    """The field of the request that an error's body says the server does not take; None where it names none."""
    error = _error_of(content)
    named = None
    for text in map(str, (error.get("message"), error.get("detail"))):
        found = (pattern.search(text) for pattern in _PARAMETERS)
        named = named or next((one[1] for one in found if one is not None), None)
    if str(error.get("code")).startswith(("unsupported", "unknown")) and error.get("param"):
        named = str(error["param"])
    return None if named in {"model", "messages", "prompt"} else named


def error_words(content: bytes) -> Iterator[str]:
    """Every code, type and text of an error's body: where it speaks of one prompt, it is in one of them."""
    error = _error_of(content)
    inner = error.get("innererror")
    for one in (error, inner if isinstance(inner, dict) else {}):
        yield from (
            one[name]
            for name in ("code", "type", "message", "detail")
            if isinstance(one.get(name), str)
        )
    passed_on = error.get("metadata")  # a gateway's (OpenRouter): the body that it was given
    if isinstance(passed_on, dict) and isinstance(passed_on.get("raw"), str):
        yield passed_on["raw"]
    if not error:
        yield content[:_LONGEST_REASON].decode(errors="replace")


def _error_of(content: bytes) -> dict[str, Any]:
    """The error that a body holds; empty for a body without one. A list of errors (Gemini) is its first."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    if isinstance(body, list) and body:
        body = body[0]
    error = body.get("error", body) if isinstance(body, dict) else {}
    return error if isinstance(error, dict) else {"message": str(error)}


def field_advice(field: str) -> str:
    """The line of a model's entry, or of a judge's, that mends a request with a refused field."""
    if field == "max_tokens":
        return "write `endpoint: {limit_field: max_completion_tokens}` in the model's entry, or the judge's"
    return f"write `endpoint: {{omit: [{field}]}}` in the model's entry, or the judge's"


def error_message(content: bytes) -> tuple[str, str | None]:
    """What an error's body says, on one line, and its code."""
    error = _error_of(content)
    if not error:
        return shortened(content.decode(errors="replace")), None
    code = error.get("code")
    text = str(error.get("message") or error.get("detail") or "")
    return shortened(text), code if isinstance(code, str) else None


def shortened(text: str) -> str:
    """``text`` on one line, its start if it is long."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_REASON else line[: _LONGEST_REASON - 1] + "…"
