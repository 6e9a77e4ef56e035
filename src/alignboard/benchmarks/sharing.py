"""Plans of passes over texts to score: every shared prefix is read once, whoever shares it.

A multiple-choice question is several texts with one context; the questions of a task with fixed examples share those,
too. Sorted, the texts are a tree of tokens, and a plan walks it: a long prefix is read once and kept (`Pass.keep` of
the passes below it), and what branches off is packed into one pass, where a token attends to the tokens before it in
its own text (`Pass.parents`). The number of tokens read is that of the tree, but for prefixes that are so short that
reading them twice is cheaper than another pass.

Importing this module loads no framework.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Final

_WORTH: Final = 32
"""tokens whose reading costs about as much as one more pass"""


@dataclass(frozen=True)
class ScoredText:
    """A text to score: the tokens that are read, and those that are to follow its last positions."""

    ids: tuple[int, ...]
    targets: tuple[int, ...]

    @property
    def start(self) -> int:
        """The first position that is scored."""
        return len(self.ids) - len(self.targets)


@dataclass(frozen=True)
class Wanted:
    """One token whose log-probability is asked for."""

    text: int
    """index of the text"""
    place: int
    """position in the pass whose logits say it"""
    target: int


@dataclass
class Pass:
    """One forward pass over a cache of ``keep`` tokens: ``ids`` in an order where each comes after its parent."""

    keep: int
    ids: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    """the place of the token before each in its text; -1: the last token of the cache"""
    wanted: list[Wanted] = field(default_factory=list)

    @property
    def is_path(self) -> bool:
        """Whether every token follows the one before it, as in plain text."""
        return all(parent == place - 1 for place, parent in enumerate(self.parents))


def passes(texts: Sequence[ScoredText], budget: int) -> Iterator[Pass]:
    """The passes that score every one of ``texts``, at most ``budget`` tokens in each."""
    order = sorted(range(len(texts)), key=lambda index: texts[index].ids)
    walk = _Walk([texts[index] for index in order], order, budget)
    yield from walk.below(0, len(order), 0)


class _Walk:
    """A walk over sorted texts; a range of them is a subtree."""

    def __init__(self, texts: Sequence[ScoredText], names: Sequence[int], budget: int) -> None:
        self._texts, self._names, self._budget = texts, names, budget
        self._shared = [0, *(_common(a.ids, b.ids) for a, b in pairwise(texts))]
        """tokens that a text shares with the one before it"""
        own = (len(text.ids) - shared for text, shared in zip(texts, self._shared, strict=True))
        self._own = [0, *accumulate(own)]

    def _size(self, first: int, last: int, depth: int) -> int:
        """The tokens of the subtree below ``depth``."""
        return self._own[last] - self._own[first] + self._shared[first] - depth

    def below(self, first: int, last: int, depth: int) -> Iterator[Pass]:
        """The passes of texts ``first`` to ``last``, which share ``depth`` tokens that are in the cache."""
        if first == last:
            return
        if self._size(first, last, depth) <= self._budget:
            yield from self._packed(first, last, depth)
            return
        common = min(self._shared[first + 1 : last], default=len(self._texts[first].ids))
        branches = [
            first,
            *(k for k in range(first + 1, last) if self._shared[k] == common),
            last,
        ]
        is_one = last - first == 1
        if is_one or (common - depth) * (len(branches) - 2) >= _WORTH:
            yield from self._read(first, last, depth, common)
            depth = common
        if not is_one:
            yield from self._children(branches, depth)

    def _children(self, branches: Sequence[int], depth: int) -> Iterator[Pass]:
        """Subtrees one after another; small neighbours go into one pass."""
        start = branches[0]
        for first, last in pairwise(branches):
            if self._size(start, last, depth) <= self._budget:
                continue
            yield from self._packed(start, first, depth)
            start = first
            if self._size(first, last, depth) > self._budget:
                yield from self.below(first, last, depth)
                start = last
        yield from self._packed(start, branches[-1], depth)

    def _read(self, first: int, last: int, depth: int, end: int) -> Iterator[Pass]:
        """Passes over the tokens ``depth`` to ``end`` that all texts share, which stay in the cache."""
        ids = self._texts[first].ids
        for start in range(depth, end, self._budget):
            stop = min(start + self._budget, end)
            one = Pass(start, list(ids[start:stop]), list(range(-1, stop - start - 1)))
            for k in range(first, last):
                text = self._texts[k]
                for position in range(max(start, text.start), min(stop, len(text.ids))):
                    one.wanted.append(self._wanted(k, position, position - start))
            yield one

    def _packed(self, first: int, last: int, depth: int) -> Iterator[Pass]:
        """One pass over all that a range has below ``depth``."""
        one, path = Pass(depth), list[int]()
        for k in range(first, last):
            text = self._texts[k]
            del path[max(0, self._shared[k] - depth) if k > first else 0 :]
            for token in text.ids[depth + len(path) :]:
                one.parents.append(path[-1] if path else -1)
                path.append(len(one.ids))
                one.ids.append(token)
            for position in range(max(depth, text.start), len(text.ids)):
                one.wanted.append(self._wanted(k, position, path[position - depth]))
        if one.ids:
            yield one

    def _wanted(self, k: int, position: int, place: int) -> Wanted:
        text = self._texts[k]
        return Wanted(self._names[k], place, text.targets[position - text.start])


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two texts begin with alike."""
    least, most = 0, min(len(first), len(second))
    while least < most:
        middle = (least + most + 1) // 2
        if first[least:middle] == second[least:middle]:
            least = middle
        else:
            most = middle - 1
    return least
