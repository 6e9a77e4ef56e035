"""Pre-tokenizers of GGUF vocabularies, by llama.cpp's names of them (``tokenizer.ggml.pre``).

A byte-level BPE vocabulary is not whole without the rule that splits a text into words: digits in threes, one by one
or in runs give other tokens for the same text, and nothing fails. A name that is not in the table is refused.

References: ``llama-vocab.cpp`` of llama.cpp (the names, and which of them begin a text with BOS or look words up
whole); the patterns are those of the models' own tokenizer.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_GPT2: Final = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
_CONTRACTIONS: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_END: Final = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3: Final = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_END}"
_QWEN2: Final = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_END}"
_UPPER: Final = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER: Final = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_SLASH_END: Final = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_TEKKEN: Final = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|"
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*|\p{{N}}|{_SLASH_END}"
)
_GPT4O: Final = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_CONTRACTIONS}?|"
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_CONTRACTIONS}?|\p{{N}}{{1,3}}|{_SLASH_END}"
)
_DEEPSEEK3: Final = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class PreTokenizer:
    """How a vocabulary splits a text before its merges."""

    patterns: tuple[str, ...]
    """each splits the pieces of the one before; what no pattern matches is a piece as well"""
    add_bos: bool = False
    """whether a text begins with BOS where the file does not say"""
    whole_words: bool = False
    """whether a piece that is a token is that token, whatever the merges say"""


_BY_RULE: Final[Mapping[PreTokenizer, tuple[str, ...]]] = {
    PreTokenizer(
        (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"),
    ): ("default",),
    PreTokenizer((_LLAMA3,), add_bos=True, whole_words=True): (
        "llama3",
        "llama-v3",
        "llama-bpe",
        "falcon3",
    ),
    PreTokenizer((_LLAMA3,)): ("dbrx", "smaug-bpe", "glm4", "chatglm-bpe"),
    PreTokenizer((_QWEN2,)): (
        "qwen2",
        "deepseek-r1-qwen",
        "stablelm2",
        "megrez",
    ),
    PreTokenizer((_GPT2,)): ("gpt-2", "phi-2", "mpt", "olmo", "jais", "granite-docling"),
    PreTokenizer((r"\p{N}", _GPT2)): (
        "smollm",
        "starcoder",
        "refact",
        "command-r",
        "codeshell",
        "exaone",
        "minerva-7b",
    ),
    PreTokenizer(
        (
            r"[\r\n]",
            r"\s?\p{L}+",
            r"\s?\p{P}+",
            "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+",
            r"\p{N}",
        )
    ): ("deepseek-coder",),
    PreTokenizer((r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+", _DEEPSEEK3)): (
        "deepseek-v3",
    ),
    PreTokenizer((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, r"[0-9][0-9][0-9]")): ("falcon",),
    PreTokenizer((_TEKKEN,), add_bos=True, whole_words=True): ("tekken",),
    PreTokenizer((_GPT4O,)): ("gpt-4o", "llama4"),
}
PRE_TOKENIZERS: Final[Mapping[str, PreTokenizer]] = {
    name: rule for rule, names in _BY_RULE.items() for name in names
}
"""Each rule under llama.cpp's name of it."""

WITHOUT_NAME: Final[Mapping[str, str]] = {"phi2": "phi-2", "gpt2": "gpt-2"}
"""The rule of an architecture that has one vocabulary, for files from before there were names (April 2024)."""
