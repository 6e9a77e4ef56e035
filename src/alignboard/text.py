"""Text for terminals and files: escaping of what others wrote, tables, counts.

Names of models come from folders and from published files; flags and disagreements may quote them.
"""

from __future__ import annotations

import math
import re
import shutil
import textwrap
from collections.abc import Collection, Sequence
from typing import Any, Final, TypeAlias

Cell: TypeAlias = str | int | float | None


def shown(text: str) -> str:
    r"""``text`` in visible characters: controls, bidirectional marks and lone surrogates become escapes.

    >>> shown("a\nb\u202ec")
    'a\\nb\\u202ec'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def without_secrets(address: str) -> str:
    """An address with what stands for secrets there masked: a user's name and password, and what is asked for.

    >>> without_secrets("http://user:word@host/v1?k=v"), without_secrets("http://host/v1")
    ('http://***@host/v1?***', 'http://host/v1')
    """
    named = re.sub(r"//[^/?#]*@", "//***@", address)
    return re.sub(r"([?#]).*", r"\1***", named, flags=re.DOTALL)


def printable(text: str) -> str:
    """Text from a file, without the control characters that a terminal would obey."""
    return "".join(mark if mark.isprintable() else "?" for mark in text)


def storable(value: Any) -> Any:
    r"""``value`` of JSON with every half of a surrogate pair replaced, which JSON can write and UTF-8 cannot.

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


Heading: TypeAlias = str | tuple[str, str]
"""the name of a column, or (what several columns share, name)"""

_GAP: Final = 2
_LEAST_ROOM: Final = 12
_ROOM_TO_WRAP: Final = 24
"""characters below which a last column is not wrapped but goes to a block of its own"""


def table(
    columns: Sequence[Heading],
    rows: Sequence[Sequence[str]],
    left: Collection[int] = (0,),
    width: int | None = None,
) -> str:
    """Aligned columns; those in ``left`` are no numbers, and wrap where they end a line.

    ``width`` is that of the terminal (None: asked for; a pipe gets whole lines). What does not fit beside the rest
    goes to further blocks of lines, each of which begins with the first column. (rich's tables take 0.2 s more, a
    third of a whole run of `alignboard reproduce`.)

    >>> print(table(["model", "wins", "flags"], [["a", "3", "short"]], left=(0, 2)))
    model  wins  flags
    a         3  short
    """
    room = width or shutil.get_terminal_size((100_000, 24)).columns
    names = [column if isinstance(column, str) else column[1] for column in columns]
    groups = ["" if isinstance(column, str) else column[0] for column in columns]
    widths = [max(map(len, cells)) for cells in zip(names, *rows, strict=True)]
    blocks = _blocks(widths, room, wraps=len(columns) - 1 in left)
    return "\n\n".join(
        "\n".join(_block(chosen, groups, [names, *rows], widths, left, room)) for chosen in blocks
    )


def _blocks(widths: Sequence[int], room: int, *, wraps: bool) -> list[list[int]]:
    """Which columns stand beside each other."""
    blocks, used = [[0]], widths[0]
    for column in range(1, len(widths)):
        wanted = widths[column]
        if wraps and column == len(widths) - 1:
            wanted = min(wanted, _ROOM_TO_WRAP)
        if used + _GAP + wanted > room and len(blocks[-1]) > 1:
            blocks.append([0])
            used = widths[0]
        blocks[-1].append(column)
        used += _GAP + wanted
    return blocks


def _block(
    chosen: Sequence[int],
    groups: Sequence[str],
    rows: Sequence[Sequence[str]],
    widths: Sequence[int],
    left: Collection[int],
    room: int,
) -> list[str]:
    """The lines of some columns: groups where there are any, names, rows."""
    lines = []
    heading = _groups(chosen, groups, widths)
    if heading:
        lines.append(heading)
    *before, last = chosen
    indent = sum(widths[column] + _GAP for column in before)
    wraps = last in left
    for row in rows:
        cells = [
            row[column].ljust(widths[column])
            if column in left
            else row[column].rjust(widths[column])
            for column in before
        ]
        text = row[last] if last in left else row[last].rjust(widths[last])
        own = max(room - indent, _LEAST_ROOM)
        first, *more = (textwrap.wrap(text, own) or [""]) if wraps else [text]
        lines.append((" " * _GAP).join([*cells, first]).rstrip())
        lines += [" " * indent + line for line in more]
    return lines


def _groups(chosen: Sequence[int], groups: Sequence[str], widths: Sequence[int]) -> str:
    """The line above the names: every group ends where its last column does, as the names below it do."""
    line, end = "", 0
    for n, column in enumerate(chosen):
        end += widths[column] + (_GAP if n else 0)
        group = groups[column]
        if group and (n + 1 == len(chosen) or groups[chosen[n + 1]] != group):
            line += f"  {group}".rjust(end - len(line))
    return line.rstrip()
