"""Tokenizers of GGUF files, with the token ids of llama.cpp.

What this module promises
    Vocabulary, merges or scores, special tokens, chat template, add_bos and add_eos are the file's own. Byte-level BPE
    (``gpt2``) splits words by the rule that the file names; SentencePiece's BPE (``llama``) keeps every space.
What it refuses
    Another kind of vocabulary, and a rule that is not in the table below: the entry's ``tokenizer:`` then names the
    tokenizer. A byte-level BPE vocabulary is not whole without the rule that splits a text into words
    (``tokenizer.ggml.pre``): digits in threes, one by one or in runs give other tokens for the same text, and nothing
    fails.

References: ``llama-vocab.cpp`` of llama.cpp (the names, and which of them begin a text with BOS or look words up
whole); the patterns are those of the models' own tokenizer.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from alignboard.errors import InputError, nearest
from alignboard.models.gguf.file import GgufHeader
from alignboard.models.sentencepiece import (
    CONTROL,
    NORMAL,
    UNKNOWN,
    USER_DEFINED,
    HandedOver,
    Pieces,
    pieces_backend,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

_NAMED: Final = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
_ROLE_TOKENS_KEEP: Final = frozenset({"<unk>", "<s>", "<|endoftext|>"})
"""The special tokens of Phi-3 that do not swallow the spaces behind them."""
_OVERRULE: Final = (
    "say tokenizer: in the model's entry, a folder or repository with the tokenizer of the model "
    "it was made from."
)


def build_tokenizer(header: GgufHeader) -> PreTrainedTokenizerFast:
    """Build the tokenizer of a GGUF checkpoint.

    Raises
    ------
    InputError
        For a vocabulary that cannot be had as llama.cpp has it; it names what overrules.
    """
    from transformers import PreTrainedTokenizerFast

    backend, named = _backend(header)
    return PreTrainedTokenizerFast(
        tokenizer_object=HandedOver(backend),
        clean_up_tokenization_spaces=False,
        chat_template=header.metadata.get("tokenizer.chat_template"),
        **named,
    )


@lru_cache(maxsize=2)
def _backend(header: GgufHeader) -> tuple[Tokenizer, Mapping[str, str]]:
    """The tokenizer proper, and the names of its special tokens: what is checked and what is loaded share one."""
    kind = header.required("tokenizer.ggml.model")
    tokens: list[str] = header.required("tokenizer.ggml.tokens")
    types = header.of_tokenizer("token_type") or [NORMAL] * len(tokens)
    if len(types) != len(tokens):
        raise InputError(f"{header.file} has {len(tokens)} tokens, but {len(types)} token types.")
    if kind == "gpt2":
        rule = pre_tokenizer_of(header)
        backend, add_bos = _byte_level(header, tokens, rule), rule.add_bos
    elif kind == "llama":
        backend, add_bos = _sentencepiece(header, tokens, types), True
    else:
        raise InputError(
            f"{header.file} has a vocabulary of the kind {kind!r}, where gpt2 and llama are read; {_OVERRULE}"
        )
    _add_tokens(backend, header, tokens, types)
    named = {
        f"{short}_token": tokens[number]
        for short, long in _NAMED.items()
        if (number := header.of_tokenizer(f"{long}_token_id")) is not None
        and 0 <= number < len(tokens)
    }
    _add_ends(backend, header, named, add_bos=add_bos)
    return backend, named


def pre_tokenizer_of(header: GgufHeader) -> PreTokenizer:
    """The rule that splits words; raises `InputError` where the file names none, or one that is not known."""
    name = header.of_tokenizer("pre") or WITHOUT_NAME.get(header.architecture)
    if name is None:
        raise InputError(
            f"{header.file} has no tokenizer.ggml.pre, so how its vocabulary splits words is not known; {_OVERRULE}"
        )
    if name not in PRE_TOKENIZERS:
        hint = nearest(str(name), PRE_TOKENIZERS) or ","
        raise InputError(
            f"{header.file} says tokenizer.ggml.pre {name!r}, a rule to split words that is not known here"
            f"{hint.rstrip('.?')}; {_OVERRULE}"
        )
    return PRE_TOKENIZERS[name]


def _byte_level(header: GgufHeader, tokens: list[str], rule: PreTokenizer) -> Tokenizer:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    lines: list[str] = header.required("tokenizer.ggml.merges")
    merges = [pair for line in lines if len(pair := _halves(line)) == 2]
    known = {token: number for number, token in enumerate(tokens)}
    merges = [(a, b) for a, b in merges if a in known and b in known and a + b in known]
    backend = Tokenizer(models.BPE(known, merges, ignore_merges=rule.whole_words))
    splits = [
        pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in rule.patterns
    ]
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([*splits, last])
    backend.decoder = decoders.ByteLevel()
    return backend


def _halves(line: str) -> tuple[str, ...]:
    """The two sides of a merge: the first space parts them, unless it begins the line."""
    at = line.find(" ", 1)
    return (line[:at], line[at + 1 :]) if at > 0 else (line,)


def _sentencepiece(header: GgufHeader, tokens: list[str], types: list[int]) -> Tokenizer:
    return pieces_backend(
        Pieces(
            tokens,
            types,
            scores=header.required("tokenizer.ggml.scores"),
            unknown=header.of_tokenizer("unknown_token_id"),
            prefix=header.of_tokenizer("add_space_prefix") is not False,
        )
    )


def _add_tokens(
    backend: Tokenizer, header: GgufHeader, tokens: list[str], types: list[int]
) -> None:
    """Tokens that are read whole, wherever they stand; the special ones are left out when a reply is decoded."""
    from tokenizers import AddedToken

    roles = header.architecture == "phi3" and header.of_tokenizer("model") == "llama"
    found = [
        AddedToken(
            token,
            special=kind != USER_DEFINED,
            normalized=False,
            rstrip=roles and kind != USER_DEFINED and token not in _ROLE_TOKENS_KEEP,
        )
        for token, kind in zip(tokens, types, strict=True)
        if kind in {UNKNOWN, CONTROL, USER_DEFINED} and token
    ]
    backend.add_tokens(found)


def _add_ends(
    backend: Tokenizer, header: GgufHeader, named: dict[str, str], *, add_bos: bool
) -> None:
    """BOS before a text and EOS behind it, where the file says so; ``add_bos`` is for one that does not say."""
    from tokenizers.processors import TemplateProcessing

    first = _end(header, named, "bos", otherwise=add_bos)
    last = _end(header, named, "eos", otherwise=False)
    used = [token for token in (first, last) if token is not None]
    if not used:
        return
    before, after = [f"{first}:0"] if first else [], [f"{last}:0"] if last else []
    backend.post_processor = TemplateProcessing(
        single=[*before, "$A:0", *after],
        pair=[*before, "$A:0", "$B:0", *after],
        special_tokens=[(token, backend.token_to_id(token)) for token in dict.fromkeys(used)],
    )


def _end(header: GgufHeader, named: dict[str, str], name: str, *, otherwise: bool) -> str | None:
    """BOS or EOS, where texts get it; ``otherwise`` is for a file that does not say.

    Raises `InputError` where they get one and the file names no token of its vocabulary: llama.cpp then takes a number
    of its own.
    """
    asked = header.of_tokenizer(f"add_{name}_token")
    if not isinstance(asked, bool | int | None):
        raise InputError(
            f"{header.file} says tokenizer.ggml.add_{name}_token {asked!r}, neither true nor false; {_OVERRULE}"
        )
    if not (otherwise if asked is None else asked):
        return None
    if f"{name}_token" not in named:
        stated = header.of_tokenizer(f"{name}_token_id")
        raise InputError(
            f"{header.file} puts {name.upper()} to every text, and its {name}_token_id is {stated}, no token of its "
            f"vocabulary; {_OVERRULE}"
        )
    return named[f"{name}_token"]


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
