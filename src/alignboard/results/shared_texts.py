"""Columns of texts that a folder's files share, instructions and the baseline's outputs: decoded and hashed once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from alignboard.records import TextId, text_id

_STRING: Final = msgspec.json.Decoder(str)


class SharedTexts(NamedTuple):
    """A column of texts, and what tables hold of it; the arrays are for reading only."""

    written: list[msgspec.Raw | str]
    """as a file has them: JSON, or decoded"""
    texts: list[str]
    ids: TextId
    length: NDArray[np.int32]
    """(n,) characters"""


_RECENT: Final[deque[SharedTexts]] = deque(maxlen=6)
"""the last first"""
_KEPT: Final = 10_000
"""rows of the longest column that is kept"""


def shared_texts(written: list[msgspec.Raw | str]) -> SharedTexts:
    """The texts of a column; raises what msgspec does where one of them is JSON, but no string."""
    for place, known in enumerate(_RECENT):
        if known.written == written:
            del _RECENT[place]
            _RECENT.appendleft(known)
            return known
    # A copy of the JSON, which would keep the bytes of its whole file otherwise.
    kept = [one.copy() if isinstance(one, msgspec.Raw) else one for one in written]
    texts = [_STRING.decode(one) if isinstance(one, msgspec.Raw) else one for one in kept]
    length = np.array([len(text) for text in texts], dtype=np.int32)
    found = SharedTexts(kept, texts, text_ids(texts), length)
    if len(texts) <= _KEPT:
        _RECENT.appendleft(found)
    return found


def text_ids(texts: Iterable[str]) -> TextId:
    """(n,) the identity of each text."""
    return np.fromiter(map(text_id, texts), dtype=np.uint64)
