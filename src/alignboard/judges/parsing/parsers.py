"""From what a judge said to verdicts: one pure function per rule of `alignboard.judges.parsing.verdicts`.

What this module promises
    A reply never raises and is never evaluated. A reply without a verdict is *unparsed*, *truncated* or *refused*, and
    says why; it is never a draw. The last verdict of a reply counts, because judges quote their instructions and the
    answers before they decide; a reply that holds several different ones is flagged ``several verdicts``. White space
    and, where spellings stay distinct, case do not count. In a prompt of several pairs the verdicts are read in order,
    and a reply with another number of them has none, because nothing says which pair it left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from alignboard.judges.parsing.alpaca_eval_parsers import parse_upstream, reads_one_token
from alignboard.judges.parsing.evidence import SHOWN, excerpt
from alignboard.judges.parsing.text_rules import READERS, Found
from alignboard.judges.parsing.token_verdicts import parse_numbers, parse_tokens
from alignboard.judges.parsing.verdicts import (
    LogprobRule,
    NumbersRule,
    UpstreamRule,
    VerdictRule,
)
from alignboard.judges.rows import Said, Verdict

SEVERAL: Final = "several verdicts"
CUT_OFF: Final = "cut off after a verdict"


def parse(rule: VerdictRule, said: Said, n: int = 1) -> tuple[Verdict, ...]:
    """The verdicts on the ``n`` questions of one call, preferences in the order shown (1 = the first is better).

    >>> from alignboard.judges.parsing.verdicts import BracketRule
    >>> [verdict] = parse(BracketRule(), Said('"[[A]]" if A is better. I choose [[B]].'))
    >>> verdict.preference, verdict.flags
    (2.0, ('several verdicts',))
    """
    if said.finish == "refused":
        why = excerpt(said.reason or said.text) or "the judge refused to answer"
        return (Verdict("refused", evidence=why),) * n
    verdicts = _read(rule, said, n)
    if said.finish != "length" or _one_token(rule):
        return verdicts
    return tuple(_cut_off(verdict) for verdict in verdicts)


def _read(rule: VerdictRule, said: Said, n: int) -> tuple[Verdict, ...]:
    if isinstance(rule, UpstreamRule):
        return parse_upstream(rule, said, n)
    if isinstance(rule, NumbersRule):
        return parse_numbers(said, n)
    if isinstance(rule, LogprobRule) and said.tokens:
        return parse_tokens(rule, said, n)
    if not said.text.strip():
        return (Verdict("unparsed", evidence="the reply is empty"),) * n
    found = READERS[type(rule)](rule, said.text)
    return _decide(found, said.text, n)


def _one_token(rule: VerdictRule) -> bool:
    """Whether the reply is one token long by intent, so that its end says nothing."""
    if isinstance(rule, UpstreamRule):
        return reads_one_token(rule)
    return isinstance(rule, LogprobRule) and rule.position == "first"


def _cut_off(verdict: Verdict) -> Verdict:
    if verdict.status == "scored":
        return msgspec.structs.replace(verdict, flags=(*verdict.flags, CUT_OFF))
    if verdict.status == "unparsed":
        return msgspec.structs.replace(verdict, status="truncated")
    return verdict


def _decide(found: Sequence[Found], text: str, n: int) -> tuple[Verdict, ...]:
    if not found:
        return (Verdict("unparsed", evidence=f"no verdict in: {excerpt(text[-SHOWN:])}"),) * n
    if n > 1 and len(found) != n:
        why = f"{len(found)} verdicts for {n} questions"
        return (Verdict("unparsed", evidence=why),) * n
    if n > 1:
        return tuple(_verdict(one, text, ()) for one in found)
    several = len({one.meaning for one in found}) > 1
    return (_verdict(found[-1], text, (SEVERAL,) if several else ()),)


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
