"""Messages of a conversation, from the forms in which data sets write them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

Message = dict[str, str]
"""{role, content}, role one of system, user and assistant"""

ROLES: Final[Mapping[str, str]] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
}


class FaultyError(Exception):
    """A value that cannot be read at all: the column and what is wrong with it."""

    def __init__(self, column: str, reason: str) -> None:
        super().__init__(column, reason)
        self.column, self.reason = column, reason


class DroppedError(Exception):
    """A row that is readable and of no use to training; the reason is counted."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def text_of(value: Any, column: str) -> str:
    """A string; `FaultyError` for anything else."""
    if value is None:
        raise FaultyError(column, "is null")
    if not isinstance(value, str):
        raise FaultyError(column, f"is {type(value).__name__}, where text was expected")
    return value


def user(text: str, system: str | None = None) -> list[Message]:
    """A prompt of one user message, after a system message where there is one."""
    first = [{"role": "system", "content": system}] if system else []
    return [*first, {"role": "user", "content": text}]


def reply(text: str) -> list[Message]:
    """A reply of the assistant."""
    return [{"role": "assistant", "content": text}]


def messages_of(value: Any, column: str) -> list[Message]:
    """Messages as {role, content} from OpenAI's or ShareGPT's form; one message may stand for a list of one."""
    if value is None:
        raise FaultyError(column, "is null")
    if isinstance(value, Mapping):
        value = [value]
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise FaultyError(column, "holds no messages")
    return [_message(one, f"{column}[{n}]") for n, one in enumerate(value)]


def _message(value: Any, where: str) -> Message:
    if not isinstance(value, Mapping):
        raise FaultyError(where, "is no message; {role, content} or {from, value} was expected")
    role = value.get("role") or value.get("from")
    if not isinstance(role, str) or role not in ROLES:
        raise FaultyError(
            where, f"has the role {role!r}; training reads {', '.join(sorted(ROLES))}"
        )
    content = value.get("content") if value.get("content") is not None else value.get("value")
    return {"role": ROLES[role], "content": text_of(content, where)}


def split_reply(messages: list[Message], column: str) -> tuple[list[Message], list[Message]]:
    """The conversation up to the last reply, and that reply."""
    if messages[-1]["role"] != "assistant":
        raise FaultyError(column, "ends with a message that is not the assistant's")
    if len(messages) == 1:
        raise FaultyError(
            column, "holds a reply and no prompt; give the prompt in a column of its own"
        )
    return messages[:-1], messages[-1:]


def same_prompt(
    chosen: list[Message], rejected: list[Message]
) -> tuple[list[Message], list[Message], list[Message]]:
    """(prompt, chosen, rejected) of two conversations that share all but the last reply."""
    prompt, won = split_reply(chosen, "chosen")
    other, lost = split_reply(rejected, "rejected")
    if prompt != other:
        raise DroppedError("chosen and rejected have different prompts")
    return prompt, won, lost


_TURN: Final = re.compile(r"\n\n(Human|Assistant):[ ]?")


def is_transcript(value: Any) -> bool:
    """Whether a text is a transcript as in HH-RLHF."""
    return isinstance(value, str) and _TURN.match(value) is not None


def transcript_of(value: Any, column: str) -> list[Message]:
    r"""The messages of a HH-RLHF transcript.

    >>> transcript_of("\n\nHuman: hi\n\nAssistant: ho", "chosen")
    [{'role': 'user', 'content': 'hi'}, {'role': 'assistant', 'content': 'ho'}]
    """
    parts = _TURN.split(text_of(value, column))
    if parts[0].strip() or len(parts) < 3:
        raise FaultyError(column, r"is no transcript that begins with '\n\nHuman: '")
    turns = [
        {"role": "user" if who == "Human" else "assistant", "content": text.strip()}
        for who, text in zip(parts[1::2], parts[2::2], strict=True)
    ]
    if any(a["role"] == b["role"] for a, b in pairwise(turns)):
        raise DroppedError("the turns of the transcript do not alternate")
    return turns
