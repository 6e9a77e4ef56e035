"""Which columns of a question are a part of it: an instruction set drops none of them without a word.

Columns that formats define are merged or refused by `alignboard.results.raw_rows`. Here are all others: a column whose
name says that it is material of the question (``starter_code``, ``sentence1``) is one where it holds any text, and a
column of another name where it holds prose. Answers, notes and what describes a question (an id, a licence, a tag) are
none, nor is a text that the instruction holds already.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from alignboard.errors import InputError
from alignboard.results.raw_rows import is_held


def _singular(words: Iterable[str]) -> frozenset[str]:
    return frozenset(word.removesuffix("s") if len(word) > 3 else word for word in words)


_MATERIAL: Final = _singular(
    {
        *("abstract", "article", "attachment", "audio", "background", "body", "choice", "code"),
        *("constraint", "context", "conversation", "dialog", "dialogue", "document", "draft"),
        *("email", "evidence", "example", "fact", "hint", "history", "hypothesis", "image"),
        *("input", "message", "option", "paragraph", "passage", "persona", "premise", "prompt"),
        *("query", "question", "schema", "sentence", "snippet", "story", "system", "table"),
        *("text", "tool", "transcript", "video"),
    }
)
"""words of names of what a question is about"""
_ABOUT: Final = _singular(
    {
        *("canonical", "category", "count", "country", "dataset", "error", "format", "has", "hash"),
        *("id", "index", "is", "key", "lang", "language", "len", "length", "n", "name", "num"),
        *("path", "ref", "reference", "size", "solution", "source", "status", "style", "subset"),
        *("test", "time", "token", "type", "uid", "url", "zip"),
    }
)
"""words that make such a name say something about the question, or its answer: ``code_language``, ``image_id``"""
_OTHER: Final = _singular(
    {
        *("annotation", "annotator", "answer", "author", "checklist", "chosen", "citation"),
        *("comment", "completion", "cost", "creator", "criteria", "criterion", "date"),
        *("difficulty", "explanation", "feedback", "generation", "generator", "gold", "hash"),
        *("id", "intent", "judge", "kwargs", "label", "licence", "license", "link", "log"),
        *("logprob", "meta", "metadata", "model", "motivation", "note", "output", "preference"),
        *("price", "rating", "rationale", "reasoning", "ref", "reference", "rejected"),
        *("response", "rubric", "score", "solution", "tag", "target", "test", "thinking"),
        *("timestamp", "topic", "truth", "uid", "url", "usage", "verdict", "version"),
    }
)
"""words of names of answers, of judgments and of what describes a question"""
_PROSE: Final = 6
"""words from which a text may be a part of the question"""
_PROSE_WITHOUT_SPACES: Final = 12
"""characters of scripts that write none between words"""
_NO_SPACES: Final = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]")
_ANSWERING: Final = frozenset({"assistant", "gpt", "model", "chatgpt", "bing", "bard", "bot"})
_DEEPEST: Final = 8


def require_whole(
    path: Path,
    number: int,
    row: Mapping[str, Any],
    instruction: str,
    known: Collection[str],
) -> None:
    """Raise `InputError` that names a column which may be a part of the question and is not in ``instruction``.

    ``known`` are the columns that are read, or that the set's declaration leaves out.
    """
    for name, value in row.items():
        if name not in known and isinstance(name, str) and _is_part(name, value, instruction):
            raise InputError(
                f"{path}, row {number}: the column {name[:60]!r} may be a part of the question, which the instruction "
                f"lacks; write it there, or remove it (or declare the set, with ignore: [{name[:60]}])."
            )


def _is_part(name: str, value: Any, instruction: str) -> bool:
    material = _is_material(name)
    if not value or (not material and not _words(name).isdisjoint(_OTHER)):
        return False
    return any(
        (inner or material or _is_prose(text)) and not is_held(text, instruction)
        for text, inner in _texts(value)
    )


def _texts(value: Any, depth: int = 0, *, named: bool = False) -> Iterator[tuple[str, bool]]:
    """The texts in a value, but for the answers; each with whether a key in it names it as material."""
    if isinstance(value, str):
        if value.strip():
            yield value.strip(), named
    elif depth >= _DEEPEST:
        return
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one, depth + 1, named=named)
    elif isinstance(value, Mapping):
        if str(value.get("role", value.get("from", ""))).lower() in _ANSWERING:
            return
        for key, one in value.items():
            material = _is_material(str(key))
            if material or _words(str(key)).isdisjoint(_OTHER | {"role", "from"}):
                yield from _texts(one, depth + 1, named=named or material)


@lru_cache(maxsize=4096)
def _is_material(name: str) -> bool:
    """Whether a name says that it is material of the question."""
    words = _words(name)
    return bool(words & _MATERIAL) and not words & _ABOUT


@lru_cache(maxsize=4096)
def _words(name: str) -> frozenset[str]:
    """The words of a name, in the singular.

    >>> sorted(_words("answerChoices"))
    ['answer', 'choice']
    """
    parted = re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower()
    return _singular(re.findall(r"[a-z]+", parted))


def _is_prose(text: str) -> bool:
    if len(text.split()) >= _PROSE or "\n" in text:
        return True
    return len(_NO_SPACES.findall(text)) >= _PROSE_WITHOUT_SPACES
