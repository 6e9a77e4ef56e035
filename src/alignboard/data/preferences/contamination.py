"""Which training rows hold what models are evaluated on: the same instruction, or 13 words in a row of one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

NGRAM: Final = 13
"""words, as in the GPT-3 paper's check (arXiv 2005.14165, appendix C)"""
_WORD: Final = re.compile(r"\w+")


@dataclass(frozen=True)
class Contamination:
    """What rows share with an instruction set."""

    name: str
    exact: int
    """rows with a message that is one of the set's instructions, letter case and punctuation apart"""
    overlapping: int
    """other rows with 13 words in a row of one"""
    first: tuple[int, str] | None
    """(row, from 1, the instruction that it shares)"""

    def __str__(self) -> str:
        if self.first is None:
            return f"no row shares an instruction, or {NGRAM} words of one, with {self.name}."
        row, text = self.first
        return (
            f"{self.exact} rows hold an instruction of {self.name}, {self.overlapping} more share {NGRAM} words in a "
            f"row with one (first: row {row}, {text[:60]!r})."
        )


def contamination(rows: Iterable[Any], instructions: Iterable[str], name: str) -> Contamination:
    """Compare every message of ``rows`` with the ``instructions`` of the set called ``name``."""
    whole: dict[tuple[str, ...], str] = {}
    parts: dict[int, str] = {}
    for text in instructions:
        words = _words(text)
        whole[tuple(words)] = text
        parts |= dict.fromkeys(_ngrams(words), text)
    exact = overlapping = 0
    first = None
    for number, row in enumerate(rows, start=1):
        messages = [_words(text) for text in _texts(row)]
        same = next((whole[key] for words in messages if (key := tuple(words)) in whole), None)
        near = same or next(
            (parts[key] for words in messages for key in _ngrams(words) if key in parts), None
        )
        exact += same is not None
        overlapping += same is None and near is not None
        if near is not None and first is None:
            first = number, near
    return Contamination(name, exact, overlapping, first)


def _texts(row: Mapping[str, Any]) -> Iterator[str]:
    for value in row.values():
        if isinstance(value, list):
            yield from (message["content"] for message in value)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _ngrams(words: list[str]) -> Iterator[int]:
    return (hash(tuple(words[n : n + NGRAM])) for n in range(len(words) - NGRAM + 1))
