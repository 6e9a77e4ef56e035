"""Bytes as text that can stand in a page: 13 bits in two characters, a quarter longer than the bytes.

Base64 makes them a third longer. The 91 characters are those of ASCII that are printed, without ``<``, which could end
an element of HTML, and without the quotation mark and the backslash, which could end a string of CSS.
"""

from __future__ import annotations

import numpy as np

_ALPHABET = np.array(
    [code for code in range(0x21, 0x7F) if chr(code) not in '<"\\'], dtype=np.uint8
)
_BITS = 13
_LAST = 6
"""bits that fit into one character"""


def to_text(content: bytes) -> str:
    """``content`` as text; ``bytesOf`` in ``page_parts/state.js`` reads it.

    >>> to_text(b"hi")
    'Ge*'
    """
    bits = np.unpackbits(np.frombuffer(content, dtype=np.uint8))
    rest = len(bits) % _BITS
    single = 0 < rest <= _LAST
    missing = 0 if rest == 0 else (_LAST if single else _BITS) - rest
    bits = np.concatenate([bits, np.zeros(missing, dtype=np.uint8)]).astype(np.int32)
    whole = bits[: len(bits) - (_LAST if single else 0)].reshape(-1, _BITS)
    values = whole @ (1 << np.arange(_BITS - 1, -1, -1))
    pairs = np.stack(np.divmod(values, len(_ALPHABET)), axis=1).ravel()
    if single:
        last = bits[-_LAST:] @ (1 << np.arange(_LAST - 1, -1, -1))
        pairs = np.append(pairs, last)
    return _ALPHABET[pairs].tobytes().decode("ascii")
