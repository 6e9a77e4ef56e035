"""Text that others wrote, on its way into a file of ours: shown as it is, and never as anything that acts.

Names of models come from folders and from published files; flags and disagreements may quote them.
"""

from __future__ import annotations

import math
import re
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


def csv_cell(value: Cell | list[str]) -> Cell:
    """A cell that says the same in every spreadsheet: a text that would run as a formula gets an apostrophe.

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
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) else text


def json_value(value: Any) -> Any:
    """``value`` as JSON has it: None for NaN and infinity, escapes for the lone surrogates of undecodable names."""
    if isinstance(value, dict):
        return {json_value(key): json_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [json_value(item) for item in value]
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return None if isinstance(value, float) and not math.isfinite(value) else value
