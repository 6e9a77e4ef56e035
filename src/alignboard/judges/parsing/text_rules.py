"""The rules that read text: each finds its verdicts, in the order of the text, and judges none of them.

The patterns are written so that hostile text costs time in proportion to its length: no two neighbours that can take
the same characters, and numbers of bounded length.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

from alignboard.judges.parsing.evidence import excerpt
from alignboard.judges.parsing.values import objects, values
from alignboard.judges.parsing.verdicts import (
    BracketRule,
    ChoiceRule,
    FiveWayRule,
    JsonRule,
    LogprobRule,
    PhraseRule,
    RankingRule,
    RatingRule,
    RegexRule,
    ResultRule,
    ScorePairRule,
)

BACKUP: Final = "single brackets"
NO_BRACKETS: Final = "no brackets"
NO_PROBABILITIES: Final = "no probabilities"
EQUAL_RANKS: Final = "equal ranks"

_ASIDE: Final = r"[\s*_`\"']*"
"""what may stand around a verdict: white space, marks of emphasis, quotes"""
_BEFORE: Final = r"[ \t*_`\"']{0,40}"
"""the same, on one line"""
_LEAD: Final = r"[\s*_`\"':(\[]*"
"""what may stand between a phrase and its verdict"""
_NUMBER: Final = r"[-+]?\d{1,6}(?:\.\d{1,12})?"


class Found(NamedTuple):
    """A verdict and its place in the reply."""

    meaning: str
    """what is compared to see whether two verdicts differ"""
    start: int
    end: int
    preference: float | None = None
    score: float | None = None
    weight: float = 1.0
    flags: tuple[str, ...] = ()
    wrong: str | None = None
    """why it does not count, for one that is out of range"""


_OPEN: Final = "(?:\\\\?\\[|\u3010|\uff3b)"
_CLOSE: Final = "(?:\\\\?\\]|\u3011|\uff3d)"
"""a bracket, also as Markdown escapes it or as a Chinese reply writes it"""
_OUTPUT: Final = r"(?:(?:assistant|model|response|answer|output|option|candidate)\s{1,4})?"


def _doubled(inner: str) -> str:
    """An expression for something in double brackets."""
    return rf"{_OPEN}{_OPEN}{_ASIDE}{inner}{_ASIDE}{_CLOSE}{_CLOSE}"


_PAIR_VERDICT = re.compile(
    _doubled(rf"(?:(?:final\s)?verdict[\s:]{{1,4}})?{_OUTPUT}([AB]|C|tie|tied|draw)"), re.IGNORECASE
)


def _bracket(_: BracketRule, text: str) -> list[Found]:
    meanings = {"A": 1.0, "B": 2.0}
    return [
        _pair(match, meanings.get(match[1].upper(), 1.5)) for match in _PAIR_VERDICT.finditer(text)
    ]


_FIVE = r"([AB])\s*(>>|<<|>|<|=|≈|~|(?:&gt;){1,2}|(?:&lt;){1,2})\s*([AB])"
_VERDICT_CUE: Final = r"\b(?:verdict|rating|decision|judge?ment)\b[^\[\]\n]{0,40}?[:\s]"
_CUED_FIVE = re.compile(
    rf"(?im)(?:{_VERDICT_CUE}|^){_BEFORE}(?:{_OPEN}{_ASIDE}{_FIVE}{_ASIDE}{_CLOSE}|\*\*{_FIVE}\*\*)"
)
_LINE_END = re.compile(r"[^\w\n]*(?:\n|\Z)")


def _five_way(rule: FiveWayRule, text: str) -> list[Found]:
    """Double brackets; only where there are none, single ones or bold type after "verdict" or alone on a line."""
    matches = re.finditer(_doubled(_FIVE), text, re.IGNORECASE)
    found = [one for match in matches if (one := _strength(rule, match, match.groups()))]
    if found:
        return found
    return [
        one
        for match in _CUED_FIVE.finditer(text)
        if _LINE_END.match(text, match.end())
        and (one := _strength(rule, match, [g for g in match.groups() if g], (BACKUP,)))
    ]


def _strength(
    rule: FiveWayRule, match: re.Match[str], groups: Sequence[str], flags: tuple[str, ...] = ()
) -> Found | None:
    left, right = groups[0].upper(), groups[2].upper()
    sign = groups[1].replace("&gt;", ">").replace("&lt;", "<")
    if left == right:
        return None
    if sign in "=≈~":
        return _pair(match, 1.5, flags=flags)
    strong = len(sign) == 2
    gain = 1.0 if strong else rule.slight
    p_first = gain if (left if ">" in sign else right) == "A" else 1 - gain
    weight = rule.strong_weight if strong else 1.0
    return _pair(match, 2 - p_first, weight=weight, flags=flags)


def _result(rule: ResultRule, text: str) -> list[Found]:
    mark = rf"\[{_ASIDE}(?i:result){_ASIDE}\]{_LEAD}"
    if rule.rates:
        matches = re.finditer(rf"{mark}({_NUMBER})(?![\d.]*\d)", text)
        return [_rating(match, rule.lowest, rule.highest) for match in matches]
    return [
        _pair(match, 1.0 if match[1] == "A" else 2.0)
        for match in re.finditer(rf"{mark}([AB])\b", text)
    ]


def _rated(rule: RatingRule, text: str) -> list[Found]:
    """Double brackets; only where there are none, single ones after "rating" or alone on a line; else "Rating: 7"."""
    number = (
        rf"({_NUMBER}|\d{{1,6}},\d{{1,2}})(?:\s*(?:/|out of)\s*{re.escape(f'{rule.highest:g}')})?"
    )
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
            _rating(match, rule.lowest, rule.highest)._replace(flags=flags)
            for match in re.finditer(pattern, text, re.IGNORECASE | re.MULTILINE)
        ]
        if found:
            return found
    return []


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


def _score_pair(rule: ScorePairRule, text: str) -> list[Found]:
    """Two numbers on each line from the first on that is not blank, up to the first that is something else."""
    found = []
    for match in re.finditer(r"\S[^\n]*", text):
        pair = re.fullmatch(rf"({_NUMBER})(?:\s*[,;]\s*|\s+)({_NUMBER})\s*", match[0])
        if pair is None:
            break
        first, second = float(pair[1]), float(pair[2])
        preference = 1.5 if abs(first - second) <= rule.tie_within else 1.0 + (second > first)
        found.append(_pair(match, preference))
    return found


def _choice(_: ChoiceRule, text: str) -> list[Found]:
    meanings = {"1": 1.0, "2": 2.0, "tie": 1.5}
    line = re.search(r"\S[^\n]*", text)
    if line is None or (word := line[0].strip(" \t\r.*_`\"':").casefold()) not in meanings:
        return []
    return [_pair(line, meanings[word])]


def _regex(rule: RegexRule, text: str) -> list[Found]:
    """The matches of all expressions in order; one that begins inside another does not count."""
    sides = [(rule.first, 1.0), (rule.second, 2.0)] + ([(rule.tie, 1.5)] if rule.tie else [])
    matches = sorted(
        (
            _pair(match, preference)
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


def _phrase(rule: PhraseRule, text: str) -> list[Found]:
    spelled = _spellings(rule.first, rule.second, rule.tie)
    words = "|".join(re.escape(word) for word in sorted(spelled, key=len, reverse=True))
    phrase = r"\s+".join(map(re.escape, rule.phrase.split()))
    pattern = rf"(?i:{phrase}){_LEAD}((?i:{words}))(?!\w)"
    found = []
    for match in re.finditer(pattern, text):
        side = _side(match[1], spelled)
        if side is not None:
            found.append(_pair(match, side))
    return found


def _json(rule: JsonRule, text: str) -> list[Found]:
    spelled = _spellings(rule.first, rule.second, rule.tie)
    held = [one[rule.key] for value in values(text) for one in objects(value) if rule.key in one]
    if not held:
        quoted = rf"""["']{re.escape(rule.key)}["']\s*:\s*["']?([^"'\n,}}\]]*)"""
        held = [match[1] for match in re.finditer(quoted, text)]
    # Values have no place of their own: what is shown is where the key was last written.
    place = max(text.rfind(rule.key), 0)
    found = []
    for value in held:
        side = _side(_as_text(value), spelled)
        wrong = None if side is not None else f"{rule.key} is {excerpt(_as_text(value))!r}"
        found.append(Found(str(side), place, place + len(rule.key), side, wrong=wrong))
    return found


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else f"{value:g}" if _finite(value) else repr(value)


def _finite(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _labels(rule: LogprobRule, text: str) -> list[Found]:
    """The verdict token itself, of an endpoint that gave no probabilities."""
    side = _side(text, _spellings(rule.first, rule.second, rule.tie))
    return [] if side is None else [Found(str(side), 0, len(text), side, flags=(NO_PROBABILITIES,))]


_ENTRY = re.compile(
    r"""\{\s*["']?(?:
        model["']?\s*:\s*["']?(?P<a>[^"'{},]{1,80}?)["']?\s*,\s*["']?rank["']?\s*:\s*["']?(?P<i>\d+(?:\.0+)?)
      | rank["']?\s*:\s*["']?(?P<j>\d+(?:\.0+)?)["']?\s*,\s*["']?model["']?\s*:\s*["']?(?P<b>[^"'{},]{1,80}?)
    )["']?\s*\}""",
    re.VERBOSE,
)


def _ranking(rule: RankingRule, text: str) -> list[Found]:
    """Every list that ranks both names; names may lack their quotes, and keys may come in either order."""
    spelled = _spellings([rule.first], [rule.second], [])
    text_of_key = 0 if rule.key is None else max(text.rfind(rule.key), 0)
    entries = list(_ENTRY.finditer(text, text_of_key))
    found: list[Found] = []
    ranks: dict[float, float] = {}
    start = 0
    for match in entries:
        side = _side(match["a"] or match["b"], spelled)
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
        why = f"not both of {rule.first!r} and {rule.second!r} are ranked"
        return [Found("wrong", entries[0].start(), entries[-1].end(), wrong=why)]
    return found


def _ranked(ranks: dict[float, float], start: int, end: int) -> Found:
    """The verdict of two ranks; equal ones are a draw that the judge has declared."""
    if ranks[1.0] == ranks[2.0]:
        return Found("equal", start, end, 1.5, flags=(EQUAL_RANKS,))
    if sorted(ranks.values()) != [1, 2]:
        return Found("wrong", start, end, wrong="the ranks are not 1 and 2")
    side = min(ranks, key=lambda one: ranks[one])
    return Found(str(side), start, end, side)


def _pair(
    match: re.Match[str], preference: float, *, weight: float = 1.0, flags: tuple[str, ...] = ()
) -> Found:
    return Found(
        f"{preference} x {weight}",
        match.start(),
        match.end(),
        preference,
        weight=weight,
        flags=flags,
    )


def _spellings(first: Iterable[str], second: Iterable[str], tie: Iterable[str]) -> dict[str, float]:
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


def _side(text: str, spelled: dict[str, float]) -> float | None:
    word = " ".join(text.strip().strip("*_`\"'").split())
    return spelled.get(word, spelled.get(word.casefold()))


READERS: Final[dict[type, Callable[[Any, str], list[Found]]]] = {
    BracketRule: _bracket,
    ChoiceRule: _choice,
    FiveWayRule: _five_way,
    JsonRule: _json,
    LogprobRule: _labels,
    PhraseRule: _phrase,
    RankingRule: _ranking,
    RatingRule: _rated,
    RegexRule: _regex,
    ResultRule: _result,
    ScorePairRule: _score_pair,
}
