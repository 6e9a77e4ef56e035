"""Which training rows hold what models are evaluated on: the same text, or 13 words in a row of one."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

NGRAM: Final = 13
"""words, as in the GPT-3 paper's check (arXiv 2005.14165, appendix C)"""
_WORD: Final = re.compile(r"\w+")
_SPACES: Final = {n: " " for n in range(128) if not _WORD.match(chr(n))}
_BATCH: Final = 200
"""rows that are looked at together; the words of more do not fit into a processor's cache"""
_EXAMPLES: Final = 3
_FACTOR: Final = np.uint64(0x9E3779B97F4A7C15)
_BITS: Final = 20
_SHIFT: Final = np.uint64(64 - _BITS)
_Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Contamination:
    """What rows share with an instruction set, or with the documents of a task."""

    name: str
    n_texts: int
    """how many instructions or documents there are"""
    shared: int
    """how many of them, of those that a row shares first"""
    exact: int
    """rows with a message that is one of the set's instructions, letter case and punctuation apart"""
    overlapping: int
    """other rows with 13 words in a row of one"""
    examples: tuple[tuple[int, str], ...]
    """(row, from 1, the instruction that it shares) of the first rows"""

    def __str__(self) -> str:
        if not self.examples:
            return f"no row shares an instruction, or {NGRAM} words of one, with {self.name}."
        row, text = self.examples[0]
        return (
            f"{self.exact} rows hold an instruction of {self.name}, {self.overlapping} more share {NGRAM} words in a "
            f"row with one (first: row {row}, {text[:60]!r})."
        )


def contamination(rows: Iterable[Any], instructions: Iterable[str], name: str) -> Contamination:
    """Compare every message of ``rows`` with the ``instructions`` of the set called ``name``."""
    texts = list(instructions)
    index = _Index(texts)
    exact = overlapping = 0
    shared: set[int] = set()
    examples: list[tuple[int, str]] = []
    iterator, first = iter(rows), 1
    while batch := list(itertools.islice(iterator, _BATCH)):
        messages = [[_words(text) for text in _texts(row)] for row in batch]
        near = index.overlaps(messages)
        for number, own in enumerate(messages):
            same = next((found for one in own if (found := index.same(one)) is not None), None)
            exact += same is not None
            overlapping += same is None and number in near
            found = near.get(number) if same is None else same
            if found is not None:
                shared.add(found)
                if len(examples) < _EXAMPLES:
                    examples.append((first + number, texts[found]))
        first += len(batch)
    return Contamination(name, len(texts), len(shared), exact, overlapping, tuple(examples))


@dataclass
class _Index:
    """The texts that are looked for: whole, and as hashes of their 13-grams."""

    texts: Sequence[str]
    whole: dict[tuple[str, ...], int] = field(default_factory=dict)
    words: dict[str, int] = field(default_factory=dict)
    """a number from 1 for every word; 0 stands for all others"""

    def __post_init__(self) -> None:
        numbered = []
        for number, text in enumerate(self.texts):
            own = _words(text)
            if own:
                self.whole.setdefault(tuple(own), number)
            numbered.append([self.words.setdefault(word, len(self.words) + 1) for word in own])
        self.lengths = {len(own) for own in self.whole}
        rng = np.random.default_rng(NGRAM)
        self.table = rng.integers(1, 2**63, len(self.words) + 1, dtype=np.uint64)
        found: dict[int, int] = {}
        for number, own in enumerate(numbered):
            ids = np.array(own, dtype=np.int64)
            for one in self._hashes(ids, np.arange(max(0, len(own) - NGRAM + 1))).tolist():
                found.setdefault(one, number)
        self.parts = np.array(sorted(found), dtype=np.uint64)
        self.owners = [found[int(one)] for one in self.parts]
        # Most hashes are told apart by their first bits, without a search.
        self.seen = np.zeros(1 << _BITS, dtype=bool)
        self.seen[self.parts >> _SHIFT] = True

    def same(self, words: Sequence[str]) -> int | None:
        """The text that these words are; None where they are none."""
        return self.whole.get(tuple(words)) if len(words) in self.lengths else None

    def overlaps(self, messages: Sequence[Sequence[Sequence[str]]]) -> dict[int, int]:
        """By row: the text of which it has 13 words in a row, where there is one."""
        if not len(self.parts):
            return {}
        apart = ("",)  # no word: no 13 words reach across two messages
        flat = list(
            itertools.chain.from_iterable(
                itertools.chain(words, apart) for own in messages for words in own
            )
        )
        ends = np.cumsum([sum(len(words) + 1 for words in own) for own in messages])
        numbers = map(self.words.get, flat, itertools.repeat(0))
        array = np.fromiter(numbers, dtype=np.int32, count=len(flat))
        unknown = np.concatenate([[0], np.cumsum(array == 0, dtype=np.int32)])
        starts = np.flatnonzero(unknown[NGRAM:] == unknown[:-NGRAM])
        hashes = self._hashes(array, starts)
        likely = np.flatnonzero(self.seen[hashes >> _SHIFT])
        starts, hashes = starts[likely], hashes[likely]
        place = np.minimum(np.searchsorted(self.parts, hashes), len(self.parts) - 1)
        hits = np.flatnonzero(self.parts[place] == hashes)
        rows = np.searchsorted(ends, starts[hits], side="right")
        found: dict[int, int] = {}
        for row, one in zip(rows.tolist(), place[hits].tolist(), strict=True):
            found.setdefault(row, self.owners[one])
        return found

    def _hashes(self, ids: NDArray[np.signedinteger], starts: NDArray[np.int64]) -> _Hashes:
        """(n,) a number for the 13 words that begin at each of ``starts``."""
        found = np.zeros(len(starts), dtype=np.uint64)
        for offset in range(NGRAM):
            found = found * _FACTOR + self.table[ids[starts + offset]]
        return found


def _texts(row: Mapping[str, Any]) -> Iterator[str]:
    for value in row.values():
        if isinstance(value, list):
            yield from (message["content"] for message in value)


def _words(text: str) -> list[str]:
    if text.isascii():  # the same words, three times as fast
        return text.lower().translate(_SPACES).split()
    return _WORD.findall(text.casefold())
