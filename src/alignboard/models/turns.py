"""What a chat template writes of a turn: the instruction, what begins a reply, and what ends it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from alignboard.errors import InputError
from alignboard.models.prompting import control_tokens, conversation_text
from alignboard.models.templates import CLOCK

_MARK = re.compile(
    r"<[|\uff5c][^<>|\uff5c\s]{1,40}[|\uff5c]>|<(?:start|end)_of_turn>|\[/?[A-Z][A-Z_]{2,30}\]"
)
"""how released templates spell a token that parts turns"""
_REPLY: Final = "Paris"
_SHOWN: Final = 60
"""characters of a prompt that a message shows"""
_TURNS: Final = (("user", "What is the capital of France?"), ("assistant", _REPLY))


def end_of_turn(tokenizer: Any, template: str) -> int | None:
    """The control token that ``template`` writes right after a reply; None where it writes text, or nothing."""
    after = _after_reply(tokenizer, template)
    ids = tokenizer.encode(after, add_special_tokens=False)
    control = tokenizer.convert_tokens_to_ids(sorted(control_tokens(tokenizer, template)))
    return int(ids[0]) if ids and ids[0] in control else None


def unread_marks(tokenizer: Any, template: str) -> list[str]:
    """The marks that ``template`` writes for a token, and the tokenizer reads as letters."""
    text = _conversation(tokenizer, template)
    return [mark for mark in dict.fromkeys(_MARK.findall(text)) if not _is_token(tokenizer, mark)]


def _after_reply(tokenizer: Any, template: str) -> str:
    """What ``template`` writes behind a reply."""
    return _conversation(tokenizer, template).rpartition(_REPLY)[2].strip()


def _conversation(tokenizer: Any, template: str) -> str:
    """One exchange; empty for a text of one instruction."""
    try:
        return conversation_text(tokenizer, template, _TURNS, source="")
    except InputError:
        return ""


def _is_token(tokenizer: Any, mark: str) -> bool:
    return len(tokenizer.encode(mark, add_special_tokens=False)) == 1


def reads_the_clock(tokenizer: Any, template: str) -> bool:
    """Whether a prompt of ``template`` depends on when it is rendered, in its text or in what decides that."""
    mark = "alignboard-clock"
    called = f"{{% macro {CLOCK}(format) %}}{{{{ raise_exception('{mark}') }}}}{{% endmacro %}}\n"
    for turns in (_TURNS[:1], (*_TURNS, _TURNS[0])):
        try:
            conversation_text(tokenizer, called + template, turns, source="")
        except InputError as error:
            if mark in str(error):
                return True
    return False


def instruction_fault(tokenizer: Any, template: str) -> str | None:
    """What is wrong where a prompt does not hold the instruction: the model would be asked something else."""
    (_, asked), *_ = _TURNS
    text = conversation_text(
        tokenizer, template, _TURNS[:1], generation_prompt=True, source="the prompt"
    )
    if asked in text:
        return None
    return (
        f"the chat template does not write an instruction as it is: its prompt for {asked!r} is {text[:_SHOWN]!r}; "
        "give the template that the model was trained with, as prompt: {template: ...}."
    )


def start_fault(tokenizer: Any, template: str) -> str | None:
    """What is wrong where a reply begins with what the prompt should end with: the model would write that itself."""
    try:
        prompts = {
            conversation_text(
                tokenizer, template, _TURNS[:1], generation_prompt=asked, source="the prompt"
            )
            for asked in (True, False)
        }
    except InputError:
        return None  # a text for one instruction
    prompt, whole = prompts.pop(), _conversation(tokenizer, template)
    between = whole.removeprefix(prompt).rpartition(_REPLY)[0].strip()
    if prompts or not whole.startswith(prompt) or not between:
        return None
    return (
        f"the template writes {between!r} before a reply, and no prompt ends with it: it does not heed "
        "add_generation_prompt, so the model writes that itself."
    )


def turn_fault(tokenizer: Any, template: str, ends: Iterable[int]) -> str | None:
    """What is wrong where the template's end of turn does not end a reply: replies would run on to their limit."""
    token = end_of_turn(tokenizer, template)
    if token is None:
        mark = _MARK.match(_after_reply(tokenizer, template))
        if mark is None or _is_token(tokenizer, mark[0]):
            return None
        return (
            f"the template ends a turn with {mark[0]!r}, which the tokenizer reads as letters; give the tokenizer that "
            f"belongs to the template, or say stop: [{mark[0]!r}], or end_of_turn: allow."
        )
    if token in set(ends):
        return None
    return (
        f"the template ends a turn with {tokenizer.convert_ids_to_tokens(token)!r}, which does not end a reply here; "
        "add it to stop_tokens, or say end_of_turn: allow."
    )


def taught_spellings(tokenizer: Any) -> tuple[str, ...]:
    """What a training under the tokenizer's own template teaches as the end of a reply, besides EOS."""
    template = tokenizer.chat_template
    token = end_of_turn(tokenizer, template) if isinstance(template, str) else None
    if token is None or token == tokenizer.eos_token_id:
        return ()
    return (str(tokenizer.convert_ids_to_tokens(token)),)
