"""From what a judge replied to verdicts: what a reply form is (`ReplyForm`), and how every reply is read (`parse`).

What this module promises
    A reply never raises and is never evaluated. A reply without a verdict is *unparsed*, *truncated* or *refused*, and
    says why; it is never a draw. Only the response is read: a verdict inside a block of reasoning is none, and a block
    that does not end makes the reply truncated. Of a reply that was cut off the verdict counts where it is the last
    line, or where its form puts it on the first. The last verdict of a reply counts, because judges quote their
    instructions and the answers before they decide; a reply that holds several different ones is flagged ``several
    verdicts``. One that is ruled out or conditional (``not [[3]]``, ``[[A]] if A is better``) is none. White space and,
    where spellings stay distinct, case do not count. In a prompt of several pairs the
    verdicts are read in order,
    and a reply with another number of them has none, because nothing says which pair it left out.

A form is a subclass of `ReplyForm` with a tag and one registration, here or in another package:
``register("reply form", "mine", "my_package.form:MyForm")``. Forms that read text override `ReplyForm.find`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, Final, NamedTuple

import msgspec

from alignboard.judges.parsing.responses import SHOWN, excerpt, is_last, response_of
from alignboard.judges.rows import Reply, Verdict
from alignboard.registry import register

_LISTED: Final = 3
_ROUND: Final = "[ \t*_`\"'\u201c\u201d]{0,8}"
_LISTS = re.compile(rf"{_ROUND}(?:[,;/|] ?(?:and|or)?|and|or){_ROUND}", re.IGNORECASE)
"""what stands between the verdicts of a list"""
_LABELS = re.compile(r"[^\w\n]{0,8}\n[^\n]{1,120}")
"""what stands between the verdicts of a form that is repeated, a labelled one in each line"""
_NEAR: Final = 24
"""characters before a verdict that may rule it out"""
_AFTER: Final = r"[*_`\"'\u201d\u2019]{0,4},?\s+"
_IF = re.compile(
    _AFTER + r"(?:if|when)\b(?!\s+(?:I|we|one|you|any|forced|pressed)\b)", re.IGNORECASE
)
_IF_TIED = re.compile(_AFTER + r"for\s+(?:a|an)\s+(?:tie|draw|equal)", re.IGNORECASE)
_NOT = re.compile(
    r"(?:\b(?:not|never|neither|nor|instead of|than|over)|n't)\s[*_`\"'\u201c\u2018]{0,4}\Z",
    re.IGNORECASE,
)
_OR = re.compile(rf"{_ROUND}(?:or|to|[/\u2013-]){_ROUND}", re.IGNORECASE)
"""what stands between two verdicts of which neither is chosen"""
_ELSE = re.compile(r"[;,.]\s+(?:otherwise|else)\b[^.;\n]{0,40}\Z", re.IGNORECASE)
_SUPPOSED = re.compile(r"\b(?:might|could|(?:would|should) have)\b[^.!?;\n]{0,40}\Z", re.IGNORECASE)
_WOULD = re.compile(r"[*_`\"'\u201d\u2019]{0,4}\s+(?:would|might|could)\b", re.IGNORECASE)
"""of a verdict that another one would be: ``a [[10]] would need``, ``some might choose [[A]]``"""
SEVERAL: Final = "several verdicts"
CUT_OFF: Final = "cut off after a verdict"


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

    @classmethod
    def at(
        cls,
        match: re.Match[str],
        preference: float,
        *,
        weight: float = 1.0,
        flags: tuple[str, ...] = (),
    ) -> Found:
        """The preference that a match means."""
        meaning = f"{preference} x {weight}"
        return cls(meaning, *match.span(), preference, weight=weight, flags=flags)


class ReplyForm(msgspec.Struct, forbid_unknown_fields=True, frozen=True, tag_field="by"):
    """Which part of a reply is the verdict, and what the rest of the house asks of that."""

    starts_with_verdict: ClassVar[bool] = False
    """whether the verdict is at the beginning, so that a reply which was cut off after it is complete"""

    @property
    def is_rating(self) -> bool | None:
        """Whether the verdict is the rating of one output; None where it may be either."""
        return False

    @property
    def scale(self) -> tuple[float, float] | None:
        """The lowest and the highest rating; None where ratings have no bounds, or there are none."""
        return None

    @property
    def raw_key(self) -> str:
        """What AlpacaEval calls the part of a raw completion that is stored."""
        return "completions"

    @property
    def reads_tokens(self) -> bool:
        """Whether the verdict is a probability, for which an endpoint has to give the likeliest tokens."""
        return False

    @property
    def is_one_token(self) -> bool:
        """Whether the reply is one token long by intent, so that its end says nothing."""
        return False

    def check(self, path: Path) -> None:
        """Raise `InputError`, naming ``path`` and the field, for what the schema allows and no form can mean."""

    def respelled(self, spell: Callable[[str], str]) -> ReplyForm:  # noqa: ARG002 - forms with spellings use it
        """The form with ``spell`` applied to what means the first and the second output."""
        return self

    def find(self, text: str) -> list[Found]:
        """The verdicts in a text, in the order of the text."""
        raise NotImplementedError(f"{type(self).__name__} reads no text")

    def is_complete(self, last: Found, text: str) -> bool:
        """Whether a reply that was cut off had come to its verdict."""
        return self.starts_with_verdict or is_last(text, last.start, last.end)

    def read(self, reply: Reply, n: int, *, cut_off: bool) -> tuple[Verdict, ...]:
        """The verdicts on the ``n`` questions of one call, from its response."""
        if not reply.text.strip():
            return (Verdict("unparsed", evidence="the reply is empty"),) * n
        found = self.find(reply.text)
        several = len({one.meaning for one in found}) > 1
        found = _meant(found, reply.text) if n == 1 else found
        if cut_off and found and not self.is_complete(found[-1], reply.text):
            return (not_at_its_verdict(reply.text),) * n
        return _decide(found, reply.text, n, several=several)


def parse(rule: ReplyForm, reply: Reply, n: int = 1) -> tuple[Verdict, ...]:
    """The verdicts on the ``n`` questions of one call, preferences in the order shown (1 = the first is better).

    >>> from alignboard.judges.parsing.marked_forms import BracketRule
    >>> [verdict] = parse(BracketRule(), Reply('"[[A]]" if A is better. I choose [[B]].'))
    >>> verdict.preference, verdict.flags
    (2.0, ('several verdicts',))
    """
    if reply.finish == "refused":
        why = excerpt(reply.reason or reply.text) or "the judge refused to answer"
        return (Verdict("refused", evidence=why),) * n
    reply = response_of(reply)
    if reply.reasoning and not reply.text.strip() and not reply.tokens:
        why = f"it ended while it was reasoning: {excerpt(reply.reasoning[-SHOWN:])}"
        return (Verdict("truncated", evidence=why),) * n
    cut_off = reply.finish == "length" and not rule.is_one_token
    verdicts = rule.read(reply, n, cut_off=cut_off)
    return tuple(map(_cut_off, verdicts)) if cut_off else verdicts


def not_at_its_verdict(text: str) -> Verdict:
    """The verdict of a reply that was cut off before it came to one."""
    return Verdict(
        "truncated", evidence=f"cut off, and not at its verdict: {excerpt(text[-SHOWN:])}"
    )


def register_forms(*forms: type[ReplyForm]) -> None:
    """Register each form under its tag."""
    for form in forms:
        register("reply form", str(form.__struct_config__.tag), form)


def _cut_off(verdict: Verdict) -> Verdict:
    if verdict.status == "scored":
        return msgspec.structs.replace(verdict, flags=(*verdict.flags, CUT_OFF))
    if verdict.status == "unparsed":
        return msgspec.structs.replace(verdict, status="truncated")
    return verdict


def _decide(found: Sequence[Found], text: str, n: int, *, several: bool) -> tuple[Verdict, ...]:
    if not found:
        return (Verdict("unparsed", evidence=f"no verdict in: {excerpt(text[-SHOWN:])}"),) * n
    if n > 1 and len(found) != n:
        why = f"{len(found)} verdicts for {n} questions"
        return (Verdict("unparsed", evidence=why),) * n
    if n > 1:
        return tuple(_verdict(one, text, ()) for one in found)
    return (_verdict(found[-1], text, (SEVERAL,) if several else ()),)


def _meant(found: Sequence[Found], text: str) -> list[Found]:
    """The verdicts that the judge means.

    Those that are ruled out (``not [[3]]``), the form's own (``[[A]] if A is better``) or supposed (``some might choose
    [[A]]``, beside one that is not) are none; nor are those of a list or a choice that is left open (``[[A]], [[B]] and
    [[C]]``, ``[[7]] to [[8]]``, ``[[A]] if that counts; otherwise [[B]]``).
    """
    if _is_open(found, text):
        return []
    stated = [one for one in found if not _IF.match(text, one.end)]
    if len(stated) < len(found):
        stated = [one for one in stated if not _IF_TIED.match(text, one.end)]
    stated = [one for one in stated if not _NOT.search(text, max(0, one.start - _NEAR), one.start)]
    certain = [
        one
        for one in stated
        if not _WOULD.match(text, one.end)
        and not _SUPPOSED.search(text, max(0, one.start - 2 * _NEAR), one.start)
    ]
    return certain or stated


def _is_open(found: Sequence[Found], text: str) -> bool:
    """Whether the last verdicts are different ones of which none is chosen."""
    gaps = [text[one.end : other.start] for one, other in pairwise(found)]
    for last, between in ((2, _OR), (_LISTED, _LISTS), (_LISTED + 1, _LABELS)):
        ends = found[-last:]
        if len({one.meaning for one in ends}) == last and all(
            map(between.fullmatch, gaps[1 - last :])
        ):
            return True
    return len(found) > 1 and _ELSE.search(gaps[-1]) is not None


def _verdict(found: Found, text: str, flags: tuple[str, ...]) -> Verdict:
    evidence = excerpt(text, found.start, found.end)
    if found.wrong is not None:
        return Verdict("unparsed", evidence=f"{found.wrong}: {evidence}", flags=flags)
    return Verdict(
        "scored",
        preference=found.preference,
        score=found.score,
        weight=found.weight,
        evidence=evidence,
        flags=(*found.flags, *flags),
    )
