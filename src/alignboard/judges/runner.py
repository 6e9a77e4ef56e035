"""Judging pairs: which calls are made, which of them are known, and what the replies mean together.

What this module promises
    A call's key names all that determines its reply, so a reply that was kept is never asked for again, by whatever
    judge reads it: verdicts are read from the kept replies every time, and another parser costs nothing. Each reply is
    handed over to be kept before the next is taken. A call is claimed before it is made, so that two processes with
    the same calls make each once. A call that got no reply is a failed verdict now and is asked again
    on the next run. Identical outputs are a draw without a call.
What it never does
    Make a draw, a loss or nothing of a failure; ask in other batches because a part is known already.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from alignboard.engines.openai.format import shortened
from alignboard.errors import InputError
from alignboard.judges.adaptive import Waves
from alignboard.judges.calls import (
    Judge,
    PairQuestion,
    View,
    batch_size,
    first_questions,
    questions,
    single_questions,
    views,
)
from alignboard.judges.combining import pair_verdict, rated_verdict, sampled
from alignboard.judges.pairs import Judged, Pair, Rated, Settling
from alignboard.judges.parsing.reply_forms import parse
from alignboard.judges.prompting.hardened import bind, marks
from alignboard.judges.rows import Call, FailedCall, Question, Reply, Verdict
from alignboard.results.claims import ask_once

_HOPELESS: Final = 12
"""replies of which none holds a verdict, after which a judge is not asked any more"""


class Replies(Protocol):
    """Where replies are kept."""

    def known(self, keys: Sequence[str]) -> Mapping[str, Reply]:
        """Those of ``keys`` that have a reply."""
        ...

    def keep(self, call: Call, reply: Reply) -> None:
        """Keep a reply: it is committed at once, whether or not another one comes."""
        ...

    def flush(self) -> None:
        """When this returns, no crash can lose any reply that was handed over."""
        ...

    def claim(self, keys: Sequence[str]) -> set[str]:
        """Claim calls before they are made; returns those that no other process is making."""
        ...

    def release(self, keys: Collection[str]) -> None:
        """Give claims back."""
        ...


@dataclass
class InMemory:
    """Replies of this process only."""

    rows: dict[str, Reply] = field(default_factory=dict)

    def known(self, keys: Sequence[str]) -> Mapping[str, Reply]:
        """See `Replies`."""
        return {key: self.rows[key] for key in keys if key in self.rows}

    def keep(self, call: Call, reply: Reply) -> None:
        """See `Replies`."""
        self.rows[call.key] = reply

    def flush(self) -> None:
        """See `Replies`."""

    def claim(self, keys: Sequence[str]) -> set[str]:
        """See `Replies`."""
        return set(keys)

    def release(self, keys: Collection[str]) -> None:
        """See `Replies`."""


@dataclass(frozen=True)
class Counts:
    """How far a run is, in calls; ``total`` grows where verdicts decide what else is asked."""

    known: int
    asked: int
    total: int


OnProgress = Callable[[Counts], None]


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

    def ask_for(asked: Sequence[PairQuestion]) -> None:
        for view, verdict in run.verdicts(views(judge.prompter, asked)):
            found[view.question.index].append((view, verdict))

    ask_for(first_questions(judge.spec, pairs))
    inclusion: Mapping[int, float] = {}
    if judge.spec.shown_order == "adaptive":
        inclusion = _second_orders(judge, pairs, found, ask_for)
    return [
        _judged(judge, pair, found[place], inclusion.get(place), run)
        for place, pair in enumerate(pairs)
    ]


def rate_outputs(
    judge: Judge,
    outputs: Sequence[Question],
    replies: Replies | None = None,
    on_progress: OnProgress | None = None,
    *,
    ask: bool = True,
) -> list[Rated]:
    """The rating of every question's first output, by a judge that rates; ``ask`` as in `judge_pairs`."""
    run = _Run(judge, InMemory() if replies is None else replies, on_progress, ask=ask)
    found = run.verdicts(views(judge.prompter, single_questions(outputs)))
    return [
        Rated(question, verdict, run.replies([view]), _marks(question.asked, question.turns))
        for question, (view, verdict) in zip(outputs, found, strict=True)
    ]


def _second_orders(
    judge: Judge,
    pairs: Sequence[Pair],
    found: Mapping[int, list[tuple[View, Verdict]]],
    ask_for: Callable[[Sequence[PairQuestion]], None],
) -> Mapping[int, float]:
    """Ask the second orders of `stats.second_order`, in two waves; returns how probable each was."""
    shown_in = {place: first[0][0].question.switched for place, first in found.items() if first}

    def preferences(which: int) -> dict[int, float]:
        known = {}
        for place in shown_in:
            if len(found[place]) > which:
                view, verdict = found[place][which]
                if verdict.preference is not None:
                    p = verdict.preference - 1
                    known[place] = 1 - p if view.question.switched else p
        return known

    waves = Waves.of({place: pairs[place].asked for place in shown_in}, shown_in, preferences(0))
    audited = waves.audited()
    ask_for(questions(judge.spec, pairs, ((place, not shown_in[place]) for place in audited)))
    chosen, inclusion = waves.chosen(preferences(1))
    rest = sorted(set(chosen) - set(audited))
    ask_for(questions(judge.spec, pairs, ((place, not shown_in[place]) for place in rest)))
    return inclusion


def _judged(
    judge: Judge,
    pair: Pair,
    found: Sequence[tuple[View, Verdict]],
    inclusion: float | None,
    run: _Run,
) -> Judged:
    replies = run.replies([view for view, _ in found])
    verdicts = tuple(verdict for _, verdict in found)
    attacks = tuple(
        f"{name} in output_{number}"
        for number, turns in enumerate(pair.turns, start=1)
        for name in _marks(pair.asked, turns)
    )
    if not found:
        return Judged(pair, "scored", 1.5, marks=attacks)
    if judge.spec.is_rating:
        status, preference = rated_verdict(judge.spec, verdicts)
        return Judged(pair, status, preference, verdicts=verdicts, replies=replies, marks=attacks)
    switched = tuple(view.question.switched for view, _ in found)
    status, preference = pair_verdict(switched, verdicts)
    return Judged(pair, status, preference, switched, verdicts, replies, inclusion, attacks)


def _marks(asked: str, turns: Sequence[str]) -> tuple[str, ...]:
    """What in the turns of one output looks like an attack on the judge."""
    return tuple(dict.fromkeys(name for output in turns for name in marks(asked, output)))


class _Run:
    """One run's replies, as they are known or come."""

    def __init__(
        self, judge: Judge, replies: Replies, on_progress: OnProgress | None, *, ask: bool
    ) -> None:
        self._judge, self._replies, self._ask = judge, replies, ask
        self._on_progress = on_progress
        self._rule, self._batch = judge.spec.reply_form, batch_size(judge.spec)
        self._counts = Counts(0, 0, 0)
        self._received: dict[str, Reply] = {}
        self._failed: dict[str, FailedCall] = {}

    def verdicts(self, asked: Sequence[View]) -> list[tuple[View, Verdict]]:
        """Every view with its verdict; what is not known is asked."""
        calls = {call.key: call for view in asked for call, _ in view.calls}
        known = self._replies.known(list(calls))
        self._received |= known
        missing = [call for key, call in calls.items() if key not in known]
        self._count(known=len(known), total=len(calls))
        if not self._ask:
            reason = "not asked yet"
            self._failed |= {call.key: FailedCall(call.key, reason, 0) for call in missing}
        else:
            ask_once(self._replies, {call.key: call for call in missing}, self._learn, self._take)
        return [(view, sampled([self._verdict(*one) for one in view.calls])) for view in asked]

    def replies(self, asked: Sequence[View]) -> tuple[Reply, ...]:
        """What was said to these, each reply once."""
        keys = dict.fromkeys(call.key for view in asked for call, _ in view.calls)
        return tuple(self._received[key] for key in keys if key in self._received)

    def _learn(self, keys: Sequence[str]) -> Mapping[str, Reply]:
        """Take over what another process was told meanwhile."""
        found = self._replies.known(keys)
        self._received |= found
        self._count(known=len(found))
        return found

    def _take(self, missing: Sequence[Call]) -> None:
        self._require_hope()
        try:
            for call, reply in self._judge.backend.ask(missing):
                if isinstance(reply, Reply):
                    self._replies.keep(call, reply)
                    self._received[call.key] = reply
                    self._require_some_verdict(call, reply)
                else:
                    self._failed[call.key] = reply
                self._count(asked=1)
        finally:
            self._replies.flush()
            if isinstance(self._judge.backend, Settling):
                self._judge.backend.settle()

    def _require_some_verdict(self, call: Call, reply: Reply) -> None:
        """Raises `InputError` where none of the judge's first replies holds a verdict: no more is paid for."""
        # Token probabilities of a model in memory can always be read; a small judge gives too little to any verdict.
        in_memory = reply.seconds is None and bool(reply.tokens)
        trial = self._judge.trial
        if trial.n_hopeless is None or in_memory:
            return
        found = parse(bind(self._rule, call.named), reply, self._batch)
        if any(verdict.status == "scored" for verdict in found):
            trial.n_hopeless = None
            return
        trial.n_hopeless += 1
        trial.last = f"{found[0].status}: {found[0].evidence or shortened(reply.text)}"
        self._require_hope()

    def _require_hope(self) -> None:
        trial = self._judge.trial
        if trial.n_hopeless is not None and trial.n_hopeless >= _HOPELESS:
            raise InputError(
                f"Judge {self._judge.spec.name} is stopped: none of its first {_HOPELESS} replies holds a verdict "
                f"(the last is {trial.last}). The replies are kept; mend the judge's prompt, verdict or max_new_tokens."
            )

    def _verdict(self, call: Call, place: int) -> Verdict:
        reply = self._received.get(call.key)
        if reply is None:
            return Verdict("failed", evidence=self._failed[call.key].reason)
        return parse(bind(self._rule, call.named), reply, self._batch)[place]

    def _count(self, known: int = 0, asked: int = 0, total: int = 0) -> None:
        now = self._counts
        self._counts = Counts(now.known + known, now.asked + asked, now.total + total)
        if self._on_progress is not None:
            self._on_progress(self._counts)
