"""Forms with a notation of their own: brackets, results, ratings, scores and choices, or the file's expressions.

The patterns are written so that hostile text costs time in proportion to its length: no two neighbours that can take
the same characters, and numbers of bounded length.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

from alignboard.errors import InputError, require_within
from alignboard.judges.parsing.reply_forms import Found, ReplyForm, register_forms
from alignboard.judges.parsing.spelled_forms import LEAD

BACKUP: Final = "single brackets"
NO_BRACKETS: Final = "no brackets"

_ASIDE: Final = r"[\s*_`\"']*"
"""what may stand around a verdict: white space, marks of emphasis, quotes"""
_BEFORE: Final = r"[ \t*_`\"']{0,40}"
"""the same, on one line"""
_NUMBER: Final = r"[-+]?\d{1,6}(?:\.\d{1,12})?"
_OPEN: Final = "(?:\\\\?\\[|\u3010|\uff3b)"
_CLOSE: Final = "(?:\\\\?\\]|\u3011|\uff3d)"
"""a bracket, also as Markdown escapes it or as a Chinese reply writes it"""
_OUTPUT: Final = r"(?:(?:assistant|model|response|answer|output|option|candidate)\s{1,4})?"


def _doubled(inner: str) -> str:
    """An expression for something in double brackets."""
    return rf"{_OPEN}{_OPEN}{_ASIDE}{inner}{_ASIDE}{_CLOSE}{_CLOSE}"


_PAIR_VERDICT = re.compile(
    _doubled(rf"(?:(?:final\s)?verdict[\s:]{{1,4}})?{_OUTPUT}([AB]|C|tie|tied|draw|equal)"),
    re.IGNORECASE,
)
_VERDICT_CUE: Final = r"\b(?:verdict|rating|decision|judge?ment)\b[^\[\]\n]{0,40}?[:\s]"
_LINE_END = re.compile(r"[^\w\n]*(?:\n|\Z)")
_CUED_PAIR = re.compile(
    rf"(?i){_VERDICT_CUE}{_BEFORE}(?:{_OPEN}{_ASIDE}{_OUTPUT}([ABC]|tie|draw){_ASIDE}{_CLOSE})"
)


class BracketRule(ReplyForm, frozen=True, tag="bracket"):
    """MT-bench's ``[[A]]``, ``[[B]]``, ``[[C]]``."""

    def find(self, text: str) -> list[Found]:
        """Double brackets; only where there are none, single ones after "verdict" that end a line."""
        meanings = {"A": 1.0, "B": 2.0}
        found = [
            Found.at(match, meanings.get(match[1].upper(), 1.5))
            for match in _PAIR_VERDICT.finditer(text)
        ]
        return found or [
            Found.at(match, meanings.get(match[1].upper(), 1.5), flags=(BACKUP,))
            for match in _CUED_PAIR.finditer(text)
            if _LINE_END.match(text, match.end())
        ]


_FIVE = (
    rf"{_OUTPUT}([AB])\s*"
    r"(>>|<<|>|<|==?|\u2248|~|\u226b|\u226a|\\>\\?>?|\\<\\?<?|(?:&gt;){1,2}|(?:&lt;){1,2})"
    rf"\s*{_OUTPUT}([AB])"
)
_CUED_FIVE = re.compile(
    rf"(?im)(?:{_VERDICT_CUE}|^){_BEFORE}(?:{_OPEN}{_ASIDE}{_FIVE}{_ASIDE}{_CLOSE}|\*\*{_FIVE}\*\*)"
)


_SIGNS: Final = {"&gt;": ">", "&lt;": "<", "\u226b": ">>", "\u226a": "<<"}


class FiveWayRule(ReplyForm, frozen=True, tag="five-way"):
    """Arena-Hard's ``[[A>>B]]``, ``[[A>B]]``, ``[[A=B]]``, ``[[B>A]]``, ``[[B>>A]]``."""

    slight: float = 0.75
    """P(first) of ``A>B``; ``A>>B`` is 1"""
    strong_weight: float = 1.0
    """how often ``A>>B`` and ``B>>A`` count; 3 in Arena-Hard, which counts ``A>B`` as a whole win (``slight: 1``)"""

    def check(self, path: Path) -> None:
        """See `ReplyForm`."""
        limits = {
            "verdict.slight": (self.slight, 0.5, 1.0),
            "verdict.strong_weight": (self.strong_weight, 1.0, float("inf")),
        }
        require_within(path, limits)

    def find(self, text: str) -> list[Found]:
        """Double brackets; only where there are none, single ones or bold type after "verdict" or alone on a line."""
        matches = re.finditer(_doubled(_FIVE), text, re.IGNORECASE)
        found = [one for match in matches if (one := self._strength(match, match.groups()))]
        if found:
            return found
        return [
            one
            for match in _CUED_FIVE.finditer(text)
            if _LINE_END.match(text, match.end())
            and (one := self._strength(match, [g for g in match.groups() if g], (BACKUP,)))
        ]

    def _strength(
        self, match: re.Match[str], groups: Sequence[str], flags: tuple[str, ...] = ()
    ) -> Found | None:
        left, right = groups[0].upper(), groups[2].upper()
        sign = groups[1].replace("\\", "").replace("==", "=")
        for written, meant in _SIGNS.items():
            sign = sign.replace(written, meant)
        if left == right:
            return None
        if sign in "=≈~":
            return Found.at(match, 1.5, flags=flags)
        strong = len(sign) == 2
        gain = 1.0 if strong else self.slight
        p_first = gain if (left if ">" in sign else right) == "A" else 1 - gain
        weight = self.strong_weight if strong else 1.0
        return Found.at(match, 2 - p_first, weight=weight, flags=flags)


class ResultRule(ReplyForm, frozen=True, tag="result"):
    """Prometheus 2's ``[RESULT] A``, or ``[RESULT] 4`` for one output."""

    rates: bool = False
    """whether a number is asked for, of one output"""
    lowest: float = 1
    highest: float = 5

    @property
    def is_rating(self) -> bool:
        """See `ReplyForm`."""
        return self.rates

    @property
    def scale(self) -> tuple[float, float]:
        """See `ReplyForm`."""
        return self.lowest, self.highest

    def check(self, path: Path) -> None:
        """See `ReplyForm`."""
        _check_range(path, self.lowest, self.highest)

    def find(self, text: str) -> list[Found]:
        """See `ReplyForm.find`."""
        mark = rf"\[{_ASIDE}(?i:result){_ASIDE}\]{LEAD}"
        if self.rates:
            matches = re.finditer(rf"{mark}({_NUMBER})(?![\d.]*\d)", text)
            return [_rating(match, self.lowest, self.highest) for match in matches]
        return [
            Found.at(match, 1.0 if match[1] == "A" else 2.0)
            for match in re.finditer(rf"{mark}([AB])\b", text)
        ]


class RatingRule(ReplyForm, frozen=True, tag="rating"):
    """MT-bench's ``[[7]]`` for one output."""

    lowest: float = 1
    highest: float = 10

    @property
    def is_rating(self) -> bool:
        """See `ReplyForm`."""
        return True

    @property
    def scale(self) -> tuple[float, float]:
        """See `ReplyForm`."""
        return self.lowest, self.highest

    def check(self, path: Path) -> None:
        """See `ReplyForm`."""
        _check_range(path, self.lowest, self.highest)

    def find(self, text: str) -> list[Found]:
        """Double brackets; where there are none, single ones after "rating" or alone on a line; else "Rating: 7"."""
        number = rf"({_NUMBER}|\d{{1,6}},\d{{1,2}})(?:\s*(?:/|out of)\s*{re.escape(f'{self.highest:g}')})?"
        single = rf"{_OPEN}{_ASIDE}{number}{_ASIDE}{_CLOSE}"
        named = r"\b(?:rating|score)\b"
        forms = (
            (_doubled(rf"(?:(?:rating|score)[\s:]{{1,4}})?{number}"), ()),
            (rf"{named}[^\[\]\w\n]*(?:(?:is|of)\b[^\[\]\w\n]*)?{single}(?!\d)", (BACKUP,)),
            (rf"^{_BEFORE}{single}(?=[^\w\n]*$)", (BACKUP,)),
            (rf"{named}[*_\"' \t]*:[*_\"' \t]*{number}(?=[^\w\n]*$)", (NO_BRACKETS,)),
        )
        for pattern, flags in forms:
            found = [
                _rating(match, self.lowest, self.highest)._replace(flags=flags)
                for match in re.finditer(pattern, text, re.IGNORECASE | re.MULTILINE)
            ]
            if BACKUP in flags and len({one.meaning for one in found}) > 1:
                return []  # the numbers of a list of sources
            if found:
                return found
        return []


class ScorePairRule(ReplyForm, frozen=True, tag="score-pair"):
    """Two numbers on the first line, as LMSYS and JudgeLM write them: ``8 7``."""

    tie_within: float = 0.0

    starts_with_verdict: ClassVar[bool] = True

    def check(self, path: Path) -> None:
        """See `ReplyForm`."""
        require_within(path, {"verdict.tie_within": (self.tie_within, 0, float("inf"))})

    def find(self, text: str) -> list[Found]:
        """Two numbers on each line from the first on that is not blank, up to the first that is something else."""
        found = []
        for match in re.finditer(r"\S[^\n]*", text):
            pair = re.fullmatch(rf"({_NUMBER})(?:\s*[,;]\s*|\s+)({_NUMBER})\s*", match[0])
            if pair is None:
                break
            first, second = float(pair[1]), float(pair[2])
            preference = 1.5 if abs(first - second) <= self.tie_within else 1.0 + (second > first)
            found.append(Found.at(match, preference))
        return found


class ChoiceRule(ReplyForm, frozen=True, tag="choice"):
    """PandaLM's first line: ``1``, ``2`` or ``Tie``."""

    starts_with_verdict: ClassVar[bool] = True

    def find(self, text: str) -> list[Found]:
        """See `ReplyForm.find`."""
        meanings = {"1": 1.0, "2": 2.0, "tie": 1.5}
        line = re.search(r"\S[^\n]*", text)
        if line is None or (word := line[0].strip(" \t\r.*_`\"':").casefold()) not in meanings:
            return []
        return [Found.at(line, meanings[word])]


class RegexRule(ReplyForm, frozen=True, tag="regex"):
    """Expressions that mean the first, the second, a draw; in a prompt of several pairs one match for each."""

    first: str
    second: str
    tie: str | None = None

    def check(self, path: Path) -> None:
        """See `ReplyForm`."""
        for name in ("first", "second", "tie"):
            pattern = getattr(self, name)
            if pattern is None:
                continue
            try:
                empty = re.compile(pattern).match("") is not None
            except re.error as error:
                raise InputError(
                    f"{path}: verdict.{name} is no regular expression ({error}): {pattern!r}."
                ) from error
            if empty:
                raise InputError(f"{path}: verdict.{name} matches nothing at all: {pattern!r}.")

    def find(self, text: str) -> list[Found]:
        """The matches of all expressions in order; one that begins inside another does not count."""
        sides = [(self.first, 1.0), (self.second, 2.0)] + ([(self.tie, 1.5)] if self.tie else [])
        matches = sorted(
            (
                Found.at(match, preference)
                for pattern, preference in sides
                for match in re.finditer(pattern, text)
                if match.end() > match.start()
            ),
            key=lambda found: (found.start, -found.end),
        )
        found: list[Found] = []
        for one in matches:
            if not found or one.start >= found[-1].end:
                found.append(one)
        return found


def _check_range(path: Path, lowest: float, highest: float) -> None:
    if not lowest < highest:
        raise InputError(
            f"{path}: verdict.lowest is {lowest:g}, which is not below verdict.highest, {highest:g}."
        )


def _rating(match: re.Match[str], lowest: float, highest: float) -> Found:
    score = float(match[1].replace(",", "."))
    inside = lowest <= score <= highest
    return Found(
        meaning=f"{score:g}",
        start=match.start(),
        end=match.end(),
        score=score if inside else None,
        wrong=None if inside else f"{score:g} is not between {lowest:g} and {highest:g}",
    )


register_forms(
    BracketRule, FiveWayRule, ResultRule, RatingRule, ScorePairRule, ChoiceRule, RegexRule
)
