"""The JSON and Python values inside a judge's reply: found and decoded, never evaluated."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from typing import Any, Final

from alignboard.strict_json import RepeatedKeyError, once, parse_json

MAX_LITERAL: Final = 100_000
"""characters; a longer text is no literal that a judge was asked for"""
MAX_STARTS: Final = 500
"""brackets that are tried as the beginning of a value"""
NOT_A_VALUE: Final = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError)
"""what decoding hostile text can raise (UnicodeEncodeError is a ValueError)"""
FAILURES: Final = (*NOT_A_VALUE, ArithmeticError, AttributeError, LookupError)
"""what using a decoded value as something that it is not can raise"""

_FENCE = re.compile(r"```[\w-]*[ \t]*\n?(.*?)```", re.DOTALL)
_START = re.compile(r"[\[{]")
_DECODER = json.JSONDecoder(object_pairs_hook=once)


def literal(text: str) -> Any:
    """The value of a Python literal; raises one of `NOT_A_VALUE`.

    `ast.literal_eval` itself gives up at 200 nested brackets and at the parser's depth; the length is bounded here.
    """
    if len(text) > MAX_LITERAL:
        raise ValueError(f"a literal of {len(text)} characters is not read")
    parsed = ast.parse(text.lstrip(" \t"), mode="eval")
    for node in ast.walk(parsed):
        named = node.keys if isinstance(node, ast.Dict) else []
        keys = [repr(key.value) for key in named if isinstance(key, ast.Constant)]
        if len(set(keys)) < len(keys):
            raise RepeatedKeyError(next(key for key in keys if keys.count(key) > 1))
    return ast.literal_eval(parsed)


def decode(text: str) -> Any:
    """The value of ``text`` in JSON's or Python's notation; raises one of `NOT_A_VALUE`."""
    try:
        return parse_json(text)
    except RepeatedKeyError:
        raise
    except (ValueError, RecursionError):
        return literal(text.strip())


def values(text: str) -> list[Any]:
    """The values in ``text``, in order: of the whole, else of its fenced blocks, else of every bracket that opens one.

    >>> values('Sure: {"best": "A"} or rather {"best": "B"}')
    [{'best': 'A'}, {'best': 'B'}]

    Where an object has a key twice, which of the two is meant cannot be known: there are none.
    """
    try:
        for pieces in ([text], _FENCE.findall(text)):
            found = [value for piece in pieces for value in _whole(piece)]
            if found:
                return found
        return list(_scan(text))
    except RepeatedKeyError:
        return []


def _whole(text: str) -> list[Any]:
    try:
        value = decode(text)
    except RepeatedKeyError:
        raise
    except NOT_A_VALUE:
        return []
    return [value] if isinstance(value, dict | list | tuple) else []


def _scan(text: str) -> Iterator[Any]:
    """Every outermost JSON object or list in ``text``."""
    index = 0
    for _ in range(MAX_STARTS):
        start = _START.search(text, index)
        if start is None:
            return
        try:
            value, index = _DECODER.raw_decode(text, start.start())
        except RepeatedKeyError:
            raise
        except (ValueError, RecursionError):
            index = start.end()
        else:
            yield value


def objects(value: Any) -> list[dict[Any, Any]]:
    """The objects that ``value`` is or directly holds."""
    held = value if isinstance(value, list | tuple) else [value]
    return [one for one in held if isinstance(one, dict)]
