"""Which of many texts hold one of a few literals, in whatever case: the quick look before a regular expression.

All texts are looked through at once, as bytes. A literal that begins with one of `_RARE` is looked for wherever that
byte is. The others are found by their first seven: one of the first four begins at a multiple of four, so it is enough
to look up the four bytes at each of these among those at the four first places of every literal.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Words: TypeAlias = NDArray[np.uint32]
"""four bytes of a text each"""

_RARE: Final = b'"[<'
_LIKE_ASCII: Final = (("\u0130", "i"), ("\u0131", "i"), ("\u017f", "s"), ("\u212a", "k"))
"""what else a regular expression without case takes for an ASCII letter"""
_GOLDEN: Final = np.uint32(2654435761)
"""2^32 over the golden ratio: Knuth's multiplicative hash"""
_SHIFT: Final = np.uint32(16)


class Literals:
    """ASCII literals in small letters, of seven characters or more unless they begin with one of `_RARE`, by name."""

    def __init__(self, literals: Mapping[str, Sequence[str]]) -> None:
        self._names: dict[bytes, list[str]] = {}
        for name, own in literals.items():
            for literal in own:
                self._names.setdefault(literal.encode("ascii"), []).append(name)
        self._rare = {
            first: tuple(literal for literal in self._names if literal[0] == first)
            for first in _RARE
        }
        begun: dict[tuple[int, int], list[bytes]] = {}
        for literal in self._names:
            for before in range(4 if literal[0] not in _RARE else 0):
                (word,) = _words(literal[before : before + 4]).tolist()
                begun.setdefault((word, before), []).append(literal)
        self._begun: dict[int, list[tuple[int, tuple[bytes, ...]]]] = {}
        """by four bytes: how far they are from the beginning of the literals that hold them"""
        for (word, before), some in begun.items():
            self._begun.setdefault(word, []).append((before, tuple(some)))
        self._table = np.zeros(1 << 16, np.bool_)
        self._table[_slots(np.array(list(self._begun), np.uint32))] = True

    def rows(self, texts: Sequence[str]) -> dict[str, set[int]]:
        """By name, the numbers of the texts that hold one of its literals; a name of which none does is absent."""
        encoded = [text.encode() if text.isascii() else _encoded(text) for text in texts]
        starts: list[int] = []
        found: dict[str, set[int]] = {}
        for place, literal in self._places(b"\0".join(encoded).lower()):
            starts = starts or list(accumulate((len(one) + 1 for one in encoded), initial=0))
            for name in self._names[literal]:
                found.setdefault(name, set()).add(bisect_right(starts, place) - 1)
        return found

    def _places(self, content: bytes) -> Iterator[tuple[int, bytes]]:
        """Where in ``content``, in small letters, is which literal."""
        find, holds = content.find, content.startswith
        for first, literals in self._rare.items():
            place = find(first)
            while place >= 0:
                if holds(literals, place):
                    yield from ((place, one) for one in literals if holds(one, place))
                place = find(first, place + 1)
        words = _words(content)
        at = np.flatnonzero(self._table.take(_slots(words)))
        for word_at, word in zip((at * 4).tolist(), words[at].tolist(), strict=True):
            for before, literals in self._begun.get(word, ()):
                # A place before the first is near the end, where none has room.
                place = word_at - before
                if holds(literals, place):
                    yield from ((place, one) for one in literals if holds(one, place))


def _words(content: bytes) -> Words:
    return np.frombuffer(content, np.uint32, len(content) // 4)


def _slots(words: Words) -> NDArray[np.intp]:
    return ((words * _GOLDEN) >> _SHIFT).astype(np.intp)


def _encoded(text: str) -> bytes:
    """A text in UTF-8, whose ASCII letters are those that a regular expression without case finds."""
    for char, letter in _LIKE_ASCII:
        text = text.replace(char, letter)
    return text.encode("utf-8", "surrogatepass")
