"""Forms whose verdicts are spelled out in the judge's file: a key's value, a phrase, a ranking."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from alignboard.errors import InputError
from alignboard.judges.parsing.reply_forms import Found, ReplyForm, register_forms
from alignboard.judges.parsing.responses import excerpt
from alignboard.judges.parsing.values import objects, values

EQUAL_RANKS: Final = "equal ranks"

LEAD: Final = r"[\s*_`\"':(\[]*"
"""what may stand between a phrase and its verdict"""


class SpelledForm(ReplyForm, frozen=True):
    """A form that says what means either side in ``first`` and ``second``: one spelling each, or a list of them."""

    def respelled(self, spell: Callable[[str], str]) -> ReplyForm:
        """See `ReplyForm`."""
        sides = {name: getattr(self, name) for name in ("first", "second")}
        spelled = {
            name: spell(one) if isinstance(one, str) else [spell(spelling) for spelling in one]
            for name, one in sides.items()
        }
        return msgspec.structs.replace(self, **spelled)


class JsonRule(SpelledForm, frozen=True, tag="json"):
    """The value of a key of a JSON object (or of a tool's arguments)."""

    key: str
    first: list[str]
    second: list[str]
    tie: list[str] = msgspec.field(default_factory=list)

    def check(self, path: Path) -> None:
        """See `ReplyForm`."""
        check_spellings(path, self.first, self.second, self.tie)

    def is_complete(self, last: Found, text: str) -> bool:  # noqa: ARG002 - the text's end says it
        """See `ReplyForm`."""
        return _ends_literal(text)

    def find(self, text: str) -> list[Found]:
        """See `ReplyForm.find`."""
        spelled = spellings_of(self.first, self.second, self.tie)
        held = [
            one[self.key] for value in values(text) for one in objects(value) if self.key in one
        ]
        if not held:
            quoted = rf"""["']{re.escape(self.key)}["']\s*:\s*["']?([^"'\n,}}\]]*)"""
            held = [match[1] for match in re.finditer(quoted, text)]
        # Values have no place of their own: what is shown is where the key was last written.
        index = max(text.rfind(self.key), 0)
        found = []
        for value in held:
            side = side_of(_as_text(value), spelled)
            wrong = None if side is not None else f"{self.key} is {excerpt(_as_text(value))!r}"
            found.append(Found(str(side), index, index + len(self.key), side, wrong=wrong))
        return found


class PhraseRule(SpelledForm, frozen=True, tag="phrase"):
    """A verdict after a phrase, as Auto-J's ``final decision is Response 1``."""

    phrase: str
    first: list[str]
    second: list[str]
    tie: list[str] = msgspec.field(default_factory=list)

    def check(self, path: Path) -> None:
        """See `ReplyForm`."""
        check_spellings(path, self.first, self.second, self.tie)
        if not self.phrase.strip():
            raise InputError(f"{path}: verdict.phrase is empty.")

    def find(self, text: str) -> list[Found]:
        """See `ReplyForm.find`."""
        spelled = spellings_of(self.first, self.second, self.tie)
        words = "|".join(re.escape(word) for word in sorted(spelled, key=len, reverse=True))
        phrase = r"\s+".join(map(re.escape, self.phrase.split()))
        pattern = rf"(?i:{phrase}){LEAD}((?i:{words}))(?!\w)"
        found = []
        for match in re.finditer(pattern, text):
            side = side_of(match[1], spelled)
            if side is not None:
                found.append(Found.at(match, side))
        return found


_ENTRY = re.compile(
    r"""\{\s*["']?(?:
        model["']?\s*:\s*["']?(?P<a>[^"'{},]{1,80}?)["']?\s*,\s*["']?rank["']?\s*:\s*["']?(?P<i>\d+(?:\.0+)?)
      | rank["']?\s*:\s*["']?(?P<j>\d+(?:\.0+)?)["']?\s*,\s*["']?model["']?\s*:\s*["']?(?P<b>[^"'{},]{1,80}?)
    )["']?\s*\}""",
    re.VERBOSE,
)


class RankingRule(SpelledForm, frozen=True, tag="ranking"):
    """A list of {'model': name, 'rank': 1 or 2}, in Python's or JSON's notation, or under a key of an object."""

    first: str = "model_1"
    second: str = "model_2"
    key: str | None = None

    def is_complete(self, last: Found, text: str) -> bool:  # noqa: ARG002 - the text's end says it
        """See `ReplyForm`."""
        return _ends_literal(text)

    def find(self, text: str) -> list[Found]:
        """Every list that ranks both names; names may lack their quotes, and keys may come in either order."""
        spelled = spellings_of([self.first], [self.second], [])
        text_of_key = 0 if self.key is None else max(text.rfind(self.key), 0)
        entries = list(_ENTRY.finditer(text, text_of_key))
        found: list[Found] = []
        ranks: dict[float, float] = {}
        start = 0
        for match in entries:
            side = side_of(match["a"] or match["b"], spelled)
            if side is None or side in ranks:
                ranks = {}
            if side is None:
                continue
            start = start if ranks else match.start()
            ranks[side] = float(match["i"] or match["j"])
            if len(ranks) == 2:
                found.append(_ranked(ranks, start, match.end()))
                ranks = {}
        if entries and not found:
            why = f"not both of {self.first!r} and {self.second!r} are ranked"
            return [Found("wrong", entries[0].start(), entries[-1].end(), wrong=why)]
        return found


def check_spellings(
    path: Path, first: Sequence[str], second: Sequence[str], tie: Sequence[str]
) -> None:
    """Raise `InputError` where a side has no spelling, or two have the same."""
    lists = {"first": first, "second": second, "tie": tie}
    for name in ("first", "second"):
        if not any(spelling.strip() for spelling in lists[name]):
            raise InputError(f"{path}: verdict.{name} needs at least one spelling.")
    meanings: dict[str, str] = {}
    for name, spellings in lists.items():
        for spelling in map(str.strip, spellings):
            if meanings.setdefault(spelling, name) != name:
                raise InputError(
                    f"{path}: verdict.{name} and verdict.{meanings[spelling]} both have {spelling!r}."
                )


def spellings_of(
    first: Iterable[str], second: Iterable[str], tie: Iterable[str]
) -> dict[str, float]:
    """What every spelling means; regardless of case where that leaves no two meanings for one spelling."""
    sides = ((first, 1.0), (second, 2.0), (tie, 1.5))
    exact = {
        word: side
        for spellings, side in sides
        for spelling in spellings
        if (word := spelling.strip())
    }
    folded: dict[str, set[float]] = {}
    for spelling, side in exact.items():
        folded.setdefault(spelling.casefold(), set()).add(side)
    return {key: side for key, (side, *others) in folded.items() if not others} | exact


def side_of(text: str, spelled: Mapping[str, float]) -> float | None:
    """What a text means, regardless of white space and marks of emphasis around it."""
    word = " ".join(text.strip().strip("*_`\"'").split())
    return spelled.get(word, spelled.get(word.casefold()))


def _ends_literal(text: str) -> bool:
    return text.rstrip().rstrip("`").rstrip().endswith(("}", "]"))


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else f"{value:g}" if _finite(value) else repr(value)


def _finite(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _ranked(ranks: dict[float, float], start: int, end: int) -> Found:
    """The verdict of two ranks; equal ones are a draw that the judge has declared."""
    if ranks[1.0] == ranks[2.0]:
        return Found("equal", start, end, 1.5, flags=(EQUAL_RANKS,))
    if sorted(ranks.values()) != [1, 2]:
        return Found("wrong", start, end, wrong="the ranks are not 1 and 2")
    side = min(ranks, key=lambda one: ranks[one])
    return Found(str(side), start, end, side)


register_forms(JsonRule, PhraseRule, RankingRule)
