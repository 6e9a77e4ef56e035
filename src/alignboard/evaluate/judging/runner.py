"""Judging pairs: which calls are made, which of them are known, and what the replies mean together.

What this module promises
    A call's key names all that determines its reply, so a reply that was kept is never asked for again, by whatever
    judge reads it: verdicts are read from the kept replies every time, and another parser costs nothing. Each reply is
    handed over to be kept before the next is taken. A call that got no reply is a failed verdict now and is asked again
    on the next run. Identical outputs are a draw without a call.
What it never does
    Make a draw, a loss or nothing of a failure; ask in other batches because a part is known already.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from alignboard.evaluate.judging.adaptive import Waves
from alignboard.evaluate.judging.combining import pair_verdict, rated_verdict, sampled
from alignboard.evaluate.judging.hardened import bind, draw_nonce, harden, marks
from alignboard.evaluate.judging.pairs import Asker, Judged, Pair, first_orders, shown
from alignboard.evaluate.judging.parsers import parse
from alignboard.evaluate.judging.prompts import render
from alignboard.evaluate.judging.rows import Call, Message, Question, Said, Unsaid, Verdict
from alignboard.evaluate.judging.spec import (
    AskedSpec,
    PromptedSpec,
    order_of,
    rates,
    verdict_rule,
)


class Replies(Protocol):
    """Where replies are kept."""

    def known(self, keys: Sequence[str]) -> Mapping[str, Said]:
        """Those of ``keys`` that have a reply."""
        ...

    def keep(self, call: Call, said: Said) -> None:
        """Keep a reply: when this returns, no crash can lose one that was paid for."""
        ...

    def flush(self) -> None:
        """When this returns, no crash can lose any reply that was handed over."""
        ...


@dataclass
class InMemory:
    """Replies of this process only."""

    rows: dict[str, Said] = field(default_factory=dict)

    def known(self, keys: Sequence[str]) -> Mapping[str, Said]:
        """See `Replies`."""
        return {key: self.rows[key] for key in keys if key in self.rows}

    def keep(self, call: Call, said: Said) -> None:
        """See `Replies`."""
        self.rows[call.key] = said

    def flush(self) -> None:
        """See `Replies`."""


@dataclass(frozen=True)
class Judge:
    """A declared judge, and who is asked."""

    spec: AskedSpec
    asker: Asker
    secret: str = ""
    """what hardened prompts draw their marks from; without it their authors could guess them"""


@dataclass(frozen=True)
class Counts:
    """How far a run is, in calls; ``total`` grows where verdicts decide what else is asked."""

    known: int
    asked: int
    total: int


OnProgress = Callable[[Counts], None]


@dataclass(frozen=True)
class View:
    """One question about a pair, and the calls that hold it: several where replies are sampled."""

    pair: int
    switched: bool
    """whether output_2 is shown first, or is the one that is rated"""
    calls: tuple[tuple[Call, int], ...]
    """(call, the question's place in it)"""


def judge_pairs(
    judge: Judge,
    pairs: Sequence[Pair],
    replies: Replies | None = None,
    on_progress: OnProgress | None = None,
    *,
    ask: bool = True,
) -> list[Judged]:
    """The verdict on every pair, in the order of ``pairs``.

    ``ask=False`` reads what is kept and asks nobody: what is missing is then a failed verdict.
    """
    run = _Run(judge, InMemory() if replies is None else replies, on_progress, ask=ask)
    found: dict[int, list[tuple[View, Verdict]]] = {place: [] for place in range(len(pairs))}

    def ask_for(wanted: Iterable[tuple[int, bool]]) -> None:
        for view, verdict in run.verdicts(views(judge, pairs, wanted)):
            found[view.pair].append((view, verdict))

    ask_for(first_questions(judge, pairs))
    inclusion: Mapping[int, float] = {}
    if order_of(judge.spec) == "adaptive":
        inclusion = _second_orders(pairs, found, ask_for)
    return [
        _judged(judge, pair, found[place], inclusion.get(place), run.said)
        for place, pair in enumerate(pairs)
    ]


def first_questions(judge: Judge, pairs: Sequence[Pair]) -> list[tuple[int, bool]]:
    """(pair, switched) of everything that is asked whatever the verdicts are."""
    order = order_of(judge.spec)
    if rates(judge.spec):
        unequal = [i for i, pair in enumerate(pairs) if pair.output_1 != pair.output_2]
        return [(place, switched) for place in unequal for switched in (False, True)]
    return [
        (place, switched)
        for place, pair in enumerate(pairs)
        for switched in first_orders(order, pair)
    ]


def _second_orders(
    pairs: Sequence[Pair],
    found: Mapping[int, list[tuple[View, Verdict]]],
    ask_for: Callable[[Iterable[tuple[int, bool]]], None],
) -> Mapping[int, float]:
    """Ask the second orders of `stats.second_order`, in two waves; returns how probable each was."""
    shown_in = {place: views[0][0].switched for place, views in found.items() if views}

    def preferences(which: int) -> dict[int, float]:
        known = {}
        for place in shown_in:
            if len(found[place]) > which:
                view, verdict = found[place][which]
                if verdict.preference is not None:
                    p = verdict.preference - 1
                    known[place] = 1 - p if view.switched else p
        return known

    waves = Waves.of(
        {place: pairs[place].instruction for place in shown_in}, shown_in, preferences(0)
    )
    audited = waves.audited()
    ask_for([(place, not shown_in[place]) for place in audited])
    chosen, inclusion = waves.chosen(preferences(1))
    rest = sorted(set(chosen) - set(audited))
    ask_for([(place, not shown_in[place]) for place in rest])
    return inclusion


def _judged(
    judge: Judge,
    pair: Pair,
    found: Sequence[tuple[View, Verdict]],
    inclusion: float | None,
    said: Mapping[str, Said],
) -> Judged:
    calls = dict.fromkeys(call.key for view, _ in found for call, _ in view.calls)
    replies = tuple(said[key] for key in calls if key in said)
    verdicts = tuple(verdict for _, verdict in found)
    attacks = _marks(pair)
    if not found:
        return Judged(pair, "scored", 1.5, marks=attacks)
    if rates(judge.spec):
        status, preference = rated_verdict(judge.spec, verdicts)
        return Judged(pair, status, preference, verdicts=verdicts, said=replies, marks=attacks)
    switched = tuple(view.switched for view, _ in found)
    status, preference = pair_verdict(switched, verdicts)
    return Judged(pair, status, preference, switched, verdicts, replies, inclusion, attacks)


def _marks(pair: Pair) -> tuple[str, ...]:
    """What looks like an attack on the judge, and in which output."""
    return tuple(
        f"{name} in output_{number}"
        for number, output in enumerate((pair.output_1, pair.output_2), start=1)
        for name in marks(pair.instruction, output)
    )


# Calls.


def views(judge: Judge, pairs: Sequence[Pair], wanted: Iterable[tuple[int, bool]]) -> list[View]:
    """The questions (pair, switched), and the calls that ask them."""
    spec, size = judge.spec, _batch(judge.spec)
    asked = [
        (place, switched, _question(spec, pairs[place], switched=switched))
        for place, switched in wanted
    ]
    samples = spec.sampling.samples if isinstance(spec, PromptedSpec) else 1
    found = []
    for start in range(0, len(asked), size):
        part = asked[start : start + size]
        calls = [_call(judge, [one[2] for one in part], sample) for sample in range(samples)]
        found += [
            View(place, switched, tuple((call, k) for call in calls))
            for k, (place, switched, _) in enumerate(part)
        ]
    return found


def _question(spec: AskedSpec, pair: Pair, *, switched: bool) -> Question:
    question = shown(pair, switched=switched)
    return msgspec.structs.replace(question, second=None) if rates(spec) else question


def _batch(spec: AskedSpec) -> int:
    return spec.prompt.batch if isinstance(spec, PromptedSpec) else 1


def _call(judge: Judge, questions: Sequence[Question], sample: int) -> Call:
    spec = judge.spec
    identity = judge.asker.identity
    messages: tuple[Message, ...] = ()
    named: tuple[str, ...] = ()
    if isinstance(spec, PromptedSpec) and spec.hardened:
        digest = call_key(identity, (), ())
        nonce = draw_nonce(judge.secret, digest, questions[0])
        messages, named = harden(spec.prompt, questions[0], nonce)
    elif isinstance(spec, PromptedSpec):
        messages = render(spec.prompt, questions)
    key = call_key(identity, questions, messages, sample)
    return Call(key, tuple(questions), messages, sample, named)


def call_key(
    identity: Mapping[str, Any],
    questions: Sequence[Question],
    messages: Sequence[Message],
    sample: int = 0,
) -> str:
    """The name of a reply: who is asked and how, and the prompt; or the question, of judges that have no prompt."""
    shown_texts = messages or questions
    content = [identity, [msgspec.to_builtins(one) for one in shown_texts], sample]
    text = json.dumps(["judging-1", content], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class _Run:
    """One run's replies, as they are known or come."""

    def __init__(
        self, judge: Judge, replies: Replies, on_progress: OnProgress | None, *, ask: bool
    ) -> None:
        self._judge, self._replies, self._ask = judge, replies, ask
        self._on_progress = on_progress
        self._rule, self._batch = verdict_rule(judge.spec), _batch(judge.spec)
        self._counts = Counts(0, 0, 0)
        self.said: dict[str, Said] = {}
        self._unsaid: dict[str, Unsaid] = {}

    def verdicts(self, asked: Sequence[View]) -> list[tuple[View, Verdict]]:
        """Every view with its verdict; what is not known is asked."""
        calls = {call.key: call for view in asked for call, _ in view.calls}
        known = self._replies.known(list(calls))
        self.said |= known
        missing = [call for key, call in calls.items() if key not in known]
        self._count(known=len(known), total=len(calls))
        if not self._ask:
            reason = "not asked yet"
            self._unsaid |= {call.key: Unsaid(call.key, reason, 0) for call in missing}
        elif missing:
            try:
                self._take(missing)
            finally:
                self._replies.flush()
        return [(view, sampled([self._verdict(*one) for one in view.calls])) for view in asked]

    def _take(self, missing: Sequence[Call]) -> None:
        for call, reply in self._judge.asker.ask(missing):
            if isinstance(reply, Said):
                self._replies.keep(call, reply)
                self.said[call.key] = reply
            else:
                self._unsaid[call.key] = reply
            self._count(asked=1)

    def _verdict(self, call: Call, place: int) -> Verdict:
        reply = self.said.get(call.key)
        if reply is None:
            return Verdict("failed", evidence=self._unsaid[call.key].reason)
        return parse(bind(self._rule, call.named), reply, self._batch)[place]

    def _count(self, known: int = 0, asked: int = 0, total: int = 0) -> None:
        now = self._counts
        self._counts = Counts(now.known + known, now.asked + asked, now.total + total)
        if self._on_progress is not None:
            self._on_progress(self._counts)
