"""Text for terminals and files: escaping of what others wrote, tables, counts.

Names of models come from folders and from published files; flags and disagreements may quote them.
"""

from __future__ import annotations

import math
import re
import shutil
import textwrap
from collections.abc import Sequence
from typing import Any, TypeAlias

Cell: TypeAlias = str | int | float | None


def shown(text: str) -> str:
    r"""``text`` in visible characters: controls, bidirectional marks and lone surrogates become escapes.

    >>> shown("a\nb\u202ec")
    'a\\nb\\u202ec'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def storable(value: Any) -> Any:
    """``value`` of JSON with every half of a surrogate pair replaced, which JSON can write and UTF-8 cannot.

    >>> storable(["half \ud83d", "whole \ud83d\ude00"])
    ['half �', 'whole 😀']
    """
    if isinstance(value, str):
        if value.isascii():
            return value
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, dict):
        return {storable(key): storable(one) for key, one in value.items()}
    return [storable(one) for one in value] if isinstance(value, list) else value


def markdown_text(text: str) -> str:
    r"""``text`` as it reads, whatever it holds: no markup, no HTML, no link, no mention, no new line or cell.

    >>> markdown_text("gpt4_1106 |<b>*x*")
    'gpt4_1106 \\|&lt;b&gt;\\*x\\*'
    """
    escaped = shown(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    escaped = re.sub(r"([\\`*{}\[\]|$~!])", r"\\\1", escaped)
    escaped = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", escaped)
    escaped = re.sub(r"://", "&#58;//", escaped)
    return re.sub(r"(?i)\bwww\.", "www&#46;", escaped).replace("@", "&#64;")


_FORMULA = re.compile(r"(?:^|;)\s*[=+\-@]")


def csv_cell(value: Cell | list[str]) -> Cell:
    """A cell that says the same in every spreadsheet: a text that would run as a formula gets an apostrophe.

    Spreadsheets that split at semicolons see a formula behind one as well.

    Lists are joined by ``; ``; numbers stay numbers, whatever their sign.

    >>> csv_cell("=1+1"), csv_cell(-0.5), csv_cell(["a", "b"])
    ("'=1+1", -0.5, 'a; b')
    """
    if isinstance(value, list):
        value = "; ".join(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if not isinstance(value, str):
        return value
    text = shown(value)
    return f"'{text}" if _FORMULA.search(text) else text


def json_value(value: Any) -> Any:
    """``value`` as JSON has it: None for NaN and infinity, escapes for the lone surrogates of undecodable names."""
    if isinstance(value, dict):
        return {json_value(key): json_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [json_value(item) for item in value]
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def count(n: int, thing: str) -> str:
    """A number with its noun.

    >>> count(1, "row"), count(2, "row")
    ('1 row', '2 rows')
    """
    return f"{n} {thing}{'' if n == 1 else 's'}"


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int]) -> str:
    """Aligned columns; ``left`` are the ones that are not numbers, and the last column wraps.

    A terminal gets lines of its own width, a pipe whole lines. (rich's tables take 0.2 s more, a third of a whole
    run of `alignboard reproduce`.)
    """
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    indent = sum(widths[:-1]) + 2 * (len(widths) - 1)
    room = max(shutil.get_terminal_size((100_000, 24)).columns - indent, 30)
    lines = []
    for row in (header, *rows):
        cells = [
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row[:-1], widths, strict=False))
        ]
        first, *more = textwrap.wrap(row[-1], room) or [""]
        lines.append("  ".join([*cells, first]).rstrip())
        lines += [" " * indent + line for line in more]
    return "\n".join(lines)
