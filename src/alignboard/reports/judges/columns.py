"""Columns of names: texts that repeat, kept as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Names:
    """(n,) texts of which there are few.

    >>> names = Names.of(["b", "a", "b"])
    >>> names.tolist(), names.equal("b").tolist(), names.present()
    (['b', 'a', 'b'], [True, False, True], ['a', 'b'])
    """

    code: NDArray[np.int32]
    """(n,) the place of each text in `texts`"""
    texts: tuple[str, ...]

    @classmethod
    def of(cls, values: Sequence[str]) -> Names:
        """The column of ``values``."""
        known: dict[str, int] = {}
        code = [known.setdefault(value, len(known)) for value in values]
        return cls(np.array(code, dtype=np.int32), tuple(known))

    @classmethod
    def joined(cls, parts: Sequence[Names]) -> Names:
        """One column of several."""
        known: dict[str, int] = {}
        codes = [
            np.array([known.setdefault(text, len(known)) for text in part.texts], np.int32)[
                part.code
            ]
            for part in parts
        ]
        return cls(np.concatenate(codes) if codes else np.zeros(0, np.int32), tuple(known))

    def __len__(self) -> int:
        return len(self.code)

    def __getitem__(self, rows: NDArray) -> Names:
        return Names(self.code[rows], self.texts)

    def equal(self, text: str) -> NDArray[np.bool_]:
        """(n,) which rows are ``text``."""
        known = [k for k, one in enumerate(self.texts) if one == text]
        return self.code == known[0] if known else np.zeros(len(self.code), dtype=np.bool_)

    def tolist(self) -> list[str]:
        """The texts as they are."""
        return [self.texts[code] for code in self.code.tolist()]

    def present(self) -> list[str]:
        """Each text that a row has, in alphabetical order."""
        return sorted(self.texts[code] for code in np.unique(self.code).tolist())
