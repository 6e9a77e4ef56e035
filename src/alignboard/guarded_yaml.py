"""YAML of unknown origin: safe types only, and limits on what a small file can grow into.

Limits: nesting, values after aliases are followed, tags, digits, one value a key, no NaN and no infinity. They are
checked on the parser's events, which need neither recursion nor memory, before anything is built.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from alignboard.errors import InputError
from alignboard.text import storable


class _SafeLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc] - chosen at run time
    """libyaml's safe loader where PyYAML was built with it (the same result, ten times as fast); `5e-7` is a number."""


# YAML 1.1, as PyYAML reads it, wants a point in 5.0e-7. The sign is asked for, so that no commit becomes a number.
_SafeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+][0-9]+$"), list("-+0123456789")
)
SAFE_LOADER: Final[Any] = _SafeLoader

DEEPEST: Final = 60
MOST_VALUES: Final = 200_000
"""values in a file, each alias counted as all that it stands for"""
MOST_DIGITS: Final = 60
_NUMBER: Final = re.compile(r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|[0-9][0-9_:.]*(?:[eE][-+]?[0-9]+)?)")
_NOT_FINITE: Final = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


def parse_yaml(text: str, loader: Any = SAFE_LOADER, tags: Collection[str] = ()) -> Any:
    """The value of a YAML document; ``tags`` are those that ``loader`` knows beyond the standard ones.

    Raises
    ------
    InputError
        The text is no YAML, or passes a limit; the message is a part of a sentence and names the line.
    """
    try:
        _check(text, tags)
        content = yaml.load(text, Loader=loader)  # noqa: S506 - safe, or a kind of it
    except yaml.YAMLError as error:
        raise InputError(" ".join(str(error).split())) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        # A scalar that has the form of a date or a number and is none, such as 2001-99-99.
        raise InputError(f"a value is not what it looks like ({error})") from error
    return storable(content)


def to_yaml(content: Any) -> str:
    """Plain values as YAML, in their order."""
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110)


@dataclass
class _Open:
    """A list or mapping that has begun."""

    line: int
    anchor: str | None
    is_mapping: bool
    size: int = 1
    keys: set[str] = field(default_factory=set)
    expects_key: bool = True


class _Checker:
    def __init__(self, tags: Collection[str]) -> None:
        self._tags = tags
        self._open: list[_Open] = []
        self._sizes: dict[str, int] = {}
        self.size = 0

    def take(self, event: Any) -> None:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.CollectionStartEvent):
            self._check_tag(event.tag, line)
            self._key(None, line)
            if len(self._open) >= DEEPEST:
                raise InputError(f"line {line} is nested more than {DEEPEST} deep")
            mapping = isinstance(event, yaml.MappingStartEvent)
            self._open.append(_Open(line, event.anchor, mapping))
        elif isinstance(event, yaml.CollectionEndEvent):
            self._close()
        elif isinstance(event, yaml.ScalarEvent):
            self._check_tag(event.tag, line)
            self._check_scalar(event, line)
            self._key(event.value, line)
            self._add(1, line)
            if event.anchor is not None:
                self._sizes[event.anchor] = 1
        elif isinstance(event, yaml.AliasEvent):
            if any(one.anchor == event.anchor for one in self._open):
                raise InputError(f"line {line}: *{event.anchor} stands for what it is a part of")
            self._key(None, line)
            self._add(self._sizes.get(event.anchor, 1), line)

    def _close(self) -> None:
        closed = self._open.pop()
        if closed.anchor is not None:
            self._sizes[closed.anchor] = closed.size
        self._add(closed.size, closed.line)

    def _add(self, size: int, line: int) -> None:
        if self._open:
            self._open[-1].size += size
            size = self._open[-1].size
        if size > MOST_VALUES:
            raise InputError(f"line {line} stands for more than {MOST_VALUES} values")

    def _key(self, value: str | None, line: int) -> None:
        """A value begins, which in a mapping is a key every other time."""
        if not self._open or not self._open[-1].is_mapping:
            return
        top = self._open[-1]
        if top.expects_key and value is not None:
            if value in top.keys:
                raise InputError(f"line {line}: the key {value!r} is there twice")
            top.keys.add(value)
        top.expects_key = not top.expects_key

    def _check_tag(self, tag: str | None, line: int) -> None:
        known = tag is None or tag == "!" or any(tag.startswith(one) for one in self._tags)
        if not known:
            raise InputError(f"line {line}: the tag {tag!r} is not read; leave it out")

    @staticmethod
    def _check_scalar(event: Any, line: int) -> None:
        if event.style not in {None, ""}:
            return
        value: str = event.value
        if _NOT_FINITE.fullmatch(value):
            raise InputError(f"line {line}: {value} is no number that can be used here")
        if len(value) > MOST_DIGITS and _NUMBER.fullmatch(value):
            raise InputError(
                f"line {line}: a number has {len(value)} digits; quote it to make it a text"
            )


def _check(text: str, tags: Collection[str]) -> None:
    checker = _Checker(tags)
    for event in yaml.parse(text, Loader=SAFE_LOADER):
        checker.take(event)
