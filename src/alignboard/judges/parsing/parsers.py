"""From what a judge said to verdicts: one pure function per rule of `alignboard.judges.parsing.verdicts`.

What this module promises
    A reply never raises and is never evaluated. A reply without a verdict is *unparsed*, *truncated* or *refused*, and
    says why; it is never a draw. Only the response is read: a verdict inside a block of reasoning is none, and a block
    that does not end makes the reply truncated. Of a reply that was cut off the verdict counts where it is the last
    line, or where its form puts it on the first. The last verdict of a reply counts, because judges quote their
    instructions and the answers before they decide; a reply that holds several different ones is flagged ``several
    verdicts``. White space and, where spellings stay distinct, case do not count. In a prompt of several pairs the
    verdicts are read in order,
    and a reply with another number of them has none, because nothing says which pair it left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from alignboard.judges.parsing.alpaca_eval_parsers import (
    last_place,
    parse_upstream,
    reads_one_token,
)
from alignboard.judges.parsing.evidence import SHOWN, excerpt
from alignboard.judges.parsing.responses import is_last, response_of
from alignboard.judges.parsing.text_rules import READERS, Found
from alignboard.judges.parsing.token_verdicts import parse_numbers, parse_tokens
from alignboard.judges.parsing.verdicts import (
    ChoiceRule,
    JsonRule,
    LogprobRule,
    NumbersRule,
    RankingRule,
    ScorePairRule,
    UpstreamRule,
    VerdictRule,
)
from alignboard.judges.rows import Reply, Verdict

SEVERAL: Final = "several verdicts"
CUT_OFF: Final = "cut off after a verdict"


def parse(rule: VerdictRule, said: Reply, n: int = 1) -> tuple[Verdict, ...]:
    """The verdicts on the ``n`` questions of one call, preferences in the order shown (1 = the first is better).

    >>> from alignboard.judges.parsing.verdicts import BracketRule
    >>> [verdict] = parse(BracketRule(), Reply('"[[A]]" if A is better. I choose [[B]].'))
    >>> verdict.preference, verdict.flags
    (2.0, ('several verdicts',))
    """
    if said.finish == "refused":
        why = excerpt(said.reason or said.text) or "the judge refused to answer"
        return (Verdict("refused", evidence=why),) * n
    said = response_of(said)
    if said.reasoning and not said.text.strip() and not said.tokens:
        why = f"it ended while it was reasoning: {excerpt(said.reasoning[-SHOWN:])}"
        return (Verdict("truncated", evidence=why),) * n
    cut_off = said.finish == "length" and not _one_token(rule)
    verdicts = _read(rule, said, n, cut_off=cut_off)
    return tuple(map(_cut_off, verdicts)) if cut_off else verdicts


def _read(rule: VerdictRule, said: Reply, n: int, *, cut_off: bool) -> tuple[Verdict, ...]:
    if isinstance(rule, NumbersRule):
        return parse_numbers(said, n)
    if isinstance(rule, UpstreamRule):
        return _upstream(rule, said, n, cut_off=cut_off)
    if isinstance(rule, LogprobRule) and said.tokens:
        return parse_tokens(rule, said, n)
    if not said.text.strip():
        return (Verdict("unparsed", evidence="the reply is empty"),) * n
    foreign: Any = rule
    own = READERS.get(type(rule))
    found = foreign.find(said.text) if own is None else own(rule, said.text)
    if cut_off and found and not _ended(rule, found[-1], said.text):
        why = f"cut off, and not at its verdict: {excerpt(said.text[-SHOWN:])}"
        return (Verdict("truncated", evidence=why),) * n
    return _decide(found, said.text, n)


def _ended(rule: VerdictRule, last: Found, text: str) -> bool:
    """Whether a reply that was cut off had come to its verdict."""
    if isinstance(rule, ScorePairRule | ChoiceRule | LogprobRule):
        return True  # the form has it at the beginning
    if isinstance(rule, JsonRule | RankingRule):
        return text.rstrip().rstrip("`").rstrip().endswith(("}", "]"))
    return is_last(text, last.start, last.end)


def _upstream(rule: UpstreamRule, said: Reply, n: int, *, cut_off: bool) -> tuple[Verdict, ...]:
    """AlpacaEval's reading; where expressions search a text that was cut off, its last line has to be the verdict."""
    verdicts = parse_upstream(rule, said, n)
    place = last_place(rule, said.text) if cut_off else None
    if place is None or is_last(said.text, *place):
        return verdicts
    why = f"cut off, and not at its verdict: {excerpt(said.text[-SHOWN:])}"
    return (Verdict("truncated", evidence=why),) * n


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
