"""Which tokens end a reply: one rule for `models check`, generation, judging, benchmarks and training.

Four sources say it: the generation configuration (or the model's configuration), the tokenizer's EOS, the entry's
``stop_tokens``, and what the training of an adapter taught (``end_tokens`` of its ``training.json``).

Nothing heavy is imported: the functions take the tokenizer that somebody has loaded.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

_IDS: Final = 2**31
"""more than any vocabulary has; tokenizers counts in 32 bits, and fails on larger numbers"""


def ends_of(
    tokenizer: Any,
    configured: Any,
    stop_tokens: Collection[str] = (),
    taught: Collection[str] = (),
) -> dict[int, str]:
    """The ids that end a reply, each with its source.

    Parameters
    ----------
    configured : int, list of int or None
        ``eos_token_id`` of the generation configuration, else of the model's configuration; -1 stands for none, and so
        does what no vocabulary has.
    stop_tokens, taught : spellings
        Those that the vocabulary lacks are left out; `prompting.stop_token_ids` refuses them by name.
    """
    found: dict[int, str] = {}
    for token in configured if isinstance(configured, list | tuple) else [configured]:
        if isinstance(token, int) and not isinstance(token, bool) and 0 <= token < _IDS:
            found[token] = "configuration"
    if tokenizer.eos_token_id is not None:
        found[int(tokenizer.eos_token_id)] = "tokenizer"
    if not (taught or stop_tokens):
        return found
    vocabulary: dict[str, int] = tokenizer.get_vocab()  # a copy of 262,144 entries, of Gemma's
    for source, spellings in (("training", taught), ("stop_tokens", stop_tokens)):
        found |= {vocabulary[one]: source for one in spellings if one in vocabulary}
    return found
