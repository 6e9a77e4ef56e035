"""The rows that everything reads and writes, and the columns that the statistics take.

Rows (`Generation`, `Judgment`) are what one line of a published file says. Tables (`Outputs`, `Annotations`) are
the same content as arrays, without the texts: what a board needs of a file of several megabytes fits in a few
kilobytes, which is what the cache keeps.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray

Preference: TypeAlias = NDArray[np.float64]
"""(n,) 1 = the baseline's output is preferred, 2 = the model's, 1.5 = a draw, between = how sure the judge is;
NaN = the judge's answer could not be parsed."""

TextId: TypeAlias = NDArray[np.uint64]
"""(n,) the 64-bit XXH3 digest of a text: its identity in joins."""


class Generation(msgspec.Struct, gc=False, omit_defaults=True):
    """One answer of one model, as in AlpacaEval's ``model_outputs.json``."""

    instruction: str
    output: str
    generator: str
    dataset: str | None = None
    finish: Any = "stop"
    """``length``: the limit of new tokens ended it; ``unknown``: the endpoint did not say. A column of ours"""


class Judgment(msgspec.Struct, gc=False, omit_defaults=True):
    """One verdict on one pair, as in AlpacaEval's ``annotations.json``; ``output_1`` is the baseline's."""

    instruction: str
    output_1: str
    generator_1: str
    output_2: str
    generator_2: str
    preference: float | str | None
    """between 1 (baseline) and 2 (model); a number may be written as text (AlpacaEval 1 does); null = unparsed"""
    annotator: str | None = None
    dataset: str | None = None
    balanced_preference: float | None = None
    """where second orders were drawn: whose mean is the order-balanced win rate, 1 added; may leave [1, 2]"""


@dataclass(frozen=True)
class Outputs:
    """One model's answers as columns, in the order of the file; every array is (n,)."""

    path: str
    generator: str
    instruction: TextId
    output: TextId
    length: NDArray[np.int32]
    """characters"""
    blank: NDArray[np.bool_]
    """whether the answer is empty or only white space"""
    cut: NDArray[np.bool_]
    """whether the limit of new tokens ended the answer, where the file says"""

    def __len__(self) -> int:
        return len(self.instruction)


@dataclass(frozen=True)
class Annotations:
    """One annotator's verdicts on one model against one baseline as columns, in the order of the file."""

    path: str
    annotator: str
    generator: str
    """the model, as the rows name it (``generator_2``)"""
    baseline: str
    """``generator_1``"""
    digest: str
    """BLAKE2b of instructions, outputs and preferences, hexadecimal: equal where two files say the same"""
    instruction: TextId
    output_1: TextId
    output_2: TextId
    preference: Preference
    balanced: Preference
    """whose mean is the win rate: ``preference``, or its order-balanced estimate where second orders were drawn, of
    which single values may leave [1, 2]"""
    length_1: NDArray[np.int32]
    length_2: NDArray[np.int32]
    switched: NDArray[np.bool_]
    """whether the judge was shown the model's output first (upstream's seeded coin; see `order.is_switched`)"""

    def __len__(self) -> int:
        return len(self.instruction)

    @property
    def n_unparsed(self) -> int:
        """Rows whose verdict could not be parsed: neither a win, nor a loss, nor a draw."""
        return int(np.isnan(self.preference).sum())


def text_id(text: str) -> int:
    """The identity of a text in `TextId` columns; a lone surrogate is hashed as it is.

    XXH3 instead of a cryptographic hash because a cold board hashes 100,000 texts; nothing is trusted on its word.
    """
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"))


@lru_cache(maxsize=65_536)
def is_switched(instruction: str) -> bool:
    """Whether the model's output (``output_2``) was shown to the judge first.

    AlpacaEval draws the order from a generator seeded by the instruction alone, so every model of a board is shown
    in one and the same order, and the order can be recomputed although no file records it. Upstream:
    ``processors.py`` (RandomSwitchTwoColumnsProcessor), ``utils.py`` (`random_seeded_choice`), seed 0.
    """
    rng = random.Random(f"is_switched_outputs{instruction}0".encode("utf-8", "surrogatepass"))
    return rng.choices([False, True], k=1)[0]
