"""Blocks of a page: every byte comes back, and no character can end an element or a string."""

from hypothesis import given
from hypothesis import strategies as st

from alignboard.boards.page_data import to_text

ALPHABET = [chr(code) for code in range(0x21, 0x7F) if chr(code) not in '<"\\']


def read(text: str) -> bytes:
    """Written anew from the description: 13 bits in two characters, 6 in one that is left."""
    bits = ""
    for k in range(0, len(text) - 1, 2):
        bits += f"{91 * ALPHABET.index(text[k]) + ALPHABET.index(text[k + 1]):013b}"
    if len(text) % 2:
        bits += f"{ALPHABET.index(text[-1]):06b}"
    return bytes(int(bits[k : k + 8], 2) for k in range(0, len(bits) - 7, 8))


@given(st.binary(max_size=80))
def test_every_byte_comes_back(content):
    text = to_text(content)
    assert read(text) == content
    assert set(text) <= set(ALPHABET)
    assert len(text) <= 16 * len(content) / 13 + 2
