"""Which tokens end a reply: one rule for `models check`, generation, judging, benchmarks and training.

Four sources say it: the generation configuration (or the model's configuration), the tokenizer's EOS, the entry's
``stop_tokens``, and what the training of an adapter taught (``end_tokens`` of its ``training.json``).

Nothing heavy is imported: the functions take the tokenizer that somebody has loaded.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from alignboard.errors import InputError
from alignboard.models.prompting import control_tokens, conversation_text

_REPLY: Final = "Paris"
_TURNS: Final = (("user", "What is the capital of France?"), ("assistant", _REPLY))


def ends_of(
    tokenizer: Any,
    configured: Any,
    stop_tokens: Iterable[str] = (),
    taught: Iterable[str] = (),
) -> dict[int, str]:
    """The ids that end a reply, each with its source.

    Parameters
    ----------
    configured : int, list of int or None
        ``eos_token_id`` of the generation configuration, else of the model's configuration.
    stop_tokens, taught : spellings
        Those that the vocabulary lacks are left out; `prompting.stop_token_ids` refuses them by name.
    """
    found: dict[int, str] = {}
    for token in configured if isinstance(configured, list | tuple) else [configured]:
        if isinstance(token, int) and not isinstance(token, bool):
            found[token] = "configuration"
    if tokenizer.eos_token_id is not None:
        found[int(tokenizer.eos_token_id)] = "tokenizer"
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    for source, spellings in (("training", taught), ("stop_tokens", stop_tokens)):
        found |= {vocabulary[one]: source for one in spellings if one in vocabulary}
    return found


def end_of_turn(tokenizer: Any, template: str) -> int | None:
    """The control token that ``template`` writes right after a reply; None where it writes text, or nothing."""
    try:
        text = conversation_text(tokenizer, template, _TURNS, source="")
    except InputError:
        return None  # a text for one instruction
    after = tokenizer.encode(text.rpartition(_REPLY)[2].strip(), add_special_tokens=False)
    control = tokenizer.convert_tokens_to_ids(sorted(control_tokens(tokenizer, template)))
    return int(after[0]) if after and after[0] in control else None


def turn_fault(tokenizer: Any, template: str, ends: Iterable[int]) -> str | None:
    """What is wrong where the template's end of turn does not end a reply: replies would run on to their limit."""
    token = end_of_turn(tokenizer, template)
    if token is None or token in set(ends):
        return None
    return (
        f"the template ends a turn with {tokenizer.convert_ids_to_tokens(token)!r}, which does not end a reply here; "
        "add it to stop_tokens, or say end_of_turn: allow."
    )
