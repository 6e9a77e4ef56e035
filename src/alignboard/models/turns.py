"""The end of a turn, as a chat template writes it, and whether it ends a reply."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from alignboard.errors import InputError
from alignboard.models.prompting import control_tokens, conversation_text
from alignboard.models.templates import CLOCK, with_variables

_REPLY: Final = "Paris"
_TURNS: Final = (("user", "What is the capital of France?"), ("assistant", _REPLY))


def end_of_turn(tokenizer: Any, template: str) -> int | None:
    """The control token that ``template`` writes right after a reply; None where it writes text, or nothing."""
    try:
        text = conversation_text(tokenizer, template, _TURNS, source="")
    except InputError:
        return None  # a text for one instruction
    after = tokenizer.encode(text.rpartition(_REPLY)[2].strip(), add_special_tokens=False)
    control = tokenizer.convert_tokens_to_ids(sorted(control_tokens(tokenizer, template)))
    return int(after[0]) if after and after[0] in control else None


def reads_the_clock(tokenizer: Any, template: str) -> bool:
    """Whether a prompt of ``template`` holds the date of the day on which it is rendered."""
    mark = "alignboard-clock"
    marked = with_variables(template, {CLOCK: mark})
    try:
        return mark in conversation_text(tokenizer, marked, _TURNS[:1], source="")
    except InputError:
        return False


def turn_fault(tokenizer: Any, template: str, ends: Iterable[int]) -> str | None:
    """What is wrong where the template's end of turn does not end a reply: replies would run on to their limit."""
    token = end_of_turn(tokenizer, template)
    if token is None or token in set(ends):
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
