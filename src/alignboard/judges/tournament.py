"""A tournament: all pairs of models judged prompt by prompt until they are separated or the budget is spent.

Prompts come in a seeded random order, the same for all pairs, so that a stopped tournament that is started again asks
for what it asked for before. A pair is decided by an e-process with Holm's correction: however often the table is
looked at, the chance of any false claim in the whole run is at most ``ALPHA``.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from alignboard.judges.pairs import Judged, Pair
from alignboard.judges.round_robin import by_instruction, pair_on, shared_instructions
from alignboard.records import Generation
from alignboard.stats.sequential import EProcesses, confidence_sequence

Policy: TypeAlias = Literal["round-robin", "open-pairs", "information"]
POLICIES: tuple[Policy, ...] = ("round-robin", "open-pairs", "information")
ALPHA = 0.05

Judge: TypeAlias = Callable[[Sequence[Pair]], Sequence[Judged]]
Task: TypeAlias = tuple[int, int]
"""(pair, prompt), by number"""

_AT_ONCE = 32
_FIRST_LOOK = 8
_LOOK_AHEAD = 100


@dataclass(frozen=True)
class PairStanding:
    """Where one pair stands; rates are fractions, the difference is A's share of points less B's."""

    a: str
    b: str
    n: int
    """scored judgments"""
    difference: float
    low: float
    """limits that hold at every look at once with 95 %, for this pair by itself"""
    high: float
    adjusted_p: float
    """anytime-valid, by Holm's correction over all pairs"""

    @property
    def winner(self) -> str | None:
        """The model that is separately better; None where the two are not separated."""
        if not self.adjusted_p < ALPHA:
            return None
        return self.a if self.difference > 0 else self.b


@dataclass(frozen=True)
class RankRange:
    """One model's ranks that the claims leave open."""

    model: str
    best: int
    worst: int


@dataclass(frozen=True)
class Standings:
    """A tournament's table."""

    policy: Policy
    seed: int
    budget: int
    n_judged: int
    """judgments paid for, those that could not be scored included"""
    n_unscored: int
    n_prompts: int
    """prompts that any pair was judged on"""
    pairs: tuple[PairStanding, ...]
    ranks: tuple[RankRange, ...]
    separable_by_100: float
    """how many more pairs 100 further judgments are expected to separate, if the means stay"""
    stopped: Literal["budget", "all separated", "prompts"]

    @property
    def n_separated(self) -> int:
        """Pairs with a claim."""
        return sum(pair.winner is not None for pair in self.pairs)


@dataclass
class Schedule:
    """Which pair is judged on which prompt next; knows no texts, so that policies can be simulated."""

    n_pairs: int
    n_prompts: int
    policy: Policy
    processes: EProcesses = field(init=False)

    def __post_init__(self) -> None:
        self.processes = EProcesses(self.n_pairs)
        self._next = np.zeros(self.n_pairs, dtype=np.intp)
        self._decided = np.zeros(self.n_pairs, dtype=np.bool_)

    @property
    def decided(self) -> NDArray[np.bool_]:
        """(pairs,) which are separated; what was claimed once stays."""
        return self._decided

    def tasks(self, left: int) -> list[Task]:
        """The next tasks, at most ``left``; empty where the tournament is over."""
        room = self._next < self.n_prompts
        if self._decided.all() or left < 1:
            return []
        wanted = np.flatnonzero(room if self.policy == "round-robin" else room & ~self._decided)
        if not len(wanted):
            return []
        if self.policy == "information":
            wanted = self._promising(wanted)
        else:
            wanted = wanted[self._next[wanted] == self._next[wanted].min()]
        found: list[Task] = []
        rounds = max(1, _AT_ONCE // len(wanted))
        for _ in range(rounds):
            for pair in wanted.tolist():
                if self._next[pair] < self.n_prompts and len(found) < left:
                    found.append((pair, int(self._next[pair])))
                    self._next[pair] += 1
        return found

    def add(self, tasks: Sequence[Task], difference: Sequence[float | None]) -> None:
        """What the judge said of ``tasks``: differences in [-1, 1], None where there was no verdict."""
        by_prompt: dict[int, list[tuple[int, float]]] = {}
        for (pair, prompt), value in zip(tasks, difference, strict=True):
            if value is not None:
                by_prompt.setdefault(prompt, []).append((pair, value))
        for prompt in sorted(by_prompt):
            pairs, values = zip(*by_prompt[prompt], strict=True)
            self.processes.add(np.array(pairs), np.array(values))
            self._decided |= self.processes.adjusted_p() < ALPHA

    def still_needed(self) -> NDArray[np.float64]:
        """(pairs,) judgments that are expected until a pair is separated, if its mean stays; infinite where never."""
        missing = math.log(max(1, int((~self._decided).sum())) / ALPHA) - self.processes.log_e
        growth = self.processes.growth()
        with np.errstate(divide="ignore"):
            needed = np.where(growth > 0, np.maximum(missing, 1) / growth, math.inf)
        return np.where(self._decided, 0, needed)

    def _promising(self, wanted: NDArray[np.intp]) -> NDArray[np.intp]:
        """Pairs that were hardly seen, else the half that is nearest to a decision."""
        new = wanted[self._next[wanted] < _FIRST_LOOK]
        if len(new):
            return new
        needed = self.still_needed()[wanted]
        return wanted[np.argsort(needed, kind="stable")[: max(1, (len(wanted) + 1) // 2)]]


def play(
    outputs: Mapping[str, Sequence[Generation]],
    judge: Judge,
    budget: int,
    *,
    policy: Policy = "open-pairs",
    seed: int = 0,
    on_round: Callable[[int, int], None] | None = None,
) -> Standings:
    """Judge pairs until all are separated, the prompts are used up, or ``budget`` judgments are spent.

    Parameters
    ----------
    outputs
        Every model's responses.
    judge
        Gives a verdict on every pair, in their order.
    budget
        The most judgments of pairs.
    policy
        ``round-robin`` judges every pair on every prompt; ``open-pairs`` those not separated yet; ``information`` of
        these the half that is nearest to a decision.
    seed
        Draws the order of the prompts and which response is ``output_1``.
    on_round
        Told after every round how many judgments are spent, and how many pairs are separated.

    Raises
    ------
    InputError
        For fewer than two models, or models without an instruction in common.
    """
    answers = by_instruction(outputs)
    prompts = shared_instructions(answers)
    random.Random(f"tournament|{seed}").shuffle(prompts)
    names = list(itertools.combinations(sorted(answers), 2))
    schedule = Schedule(len(names), len(prompts), policy)
    seen: list[list[float]] = [[] for _ in names]
    used: set[int] = set()
    spent = unscored = 0
    while tasks := schedule.tasks(budget - spent):
        judged = judge([pair_on(answers, prompts[at], names[pair], seed) for pair, at in tasks])
        found = [
            _difference(one, names[pair]) for (pair, _), one in zip(tasks, judged, strict=True)
        ]
        schedule.add(tasks, found)
        for (pair, at), value in zip(tasks, found, strict=True):
            used.add(at)
            if value is not None:
                seen[pair].append(value)
        spent += len(tasks)
        unscored += sum(value is None for value in found)
        if on_round is not None:
            on_round(spent, int(schedule.decided.sum()))
    return _standings(
        schedule,
        names,
        seen,
        policy=policy,
        seed=seed,
        budget=budget,
        n_judged=spent,
        n_unscored=unscored,
        n_prompts=len(used),
    )


def _difference(judged: Judged, names: tuple[str, str]) -> float | None:
    """Points of the first of ``names`` less those of the second; None where there is no verdict."""
    if judged.preference is None:
        return None
    toward_second = 2 * (judged.preference - 1.5)  # 1: output_2 won
    return -toward_second if judged.pair.generator_1 == names[0] else toward_second


def _standings(
    schedule: Schedule, names: Sequence[tuple[str, str]], seen: Sequence[list[float]], **facts: Any
) -> Standings:
    p = schedule.processes.adjusted_p()
    pairs = []
    for (a, b), differences, adjusted in zip(names, seen, p.tolist(), strict=True):
        values = np.array(differences)
        low, high = confidence_sequence(values, ALPHA)
        mean = float(values.mean()) if len(values) else math.nan
        pairs.append(PairStanding(a, b, len(values), mean, low, high, adjusted))
    models = sorted({name for pair in names for name in pair})
    ranks = []
    for model in models:
        claims = [one.winner for one in pairs if model in {one.a, one.b} and one.winner]
        lost = sum(winner != model for winner in claims)
        ranks.append(RankRange(model, 1 + lost, len(models) - (len(claims) - lost)))
    ranks.sort(key=lambda one: (one.best, one.worst, one.model))
    over = bool(schedule.decided.all())
    out = facts["n_judged"] >= facts["budget"]
    return Standings(
        pairs=tuple(pairs),
        ranks=tuple(ranks),
        separable_by_100=_bought(schedule.still_needed()[~schedule.decided]),
        stopped="all separated" if over else "budget" if out else "prompts",
        **facts,
    )


def _bought(needed: NDArray[np.float64]) -> float:
    """How many pairs `_LOOK_AHEAD` judgments separate, the nearest first, a part of the last one counted."""
    left, bought = float(_LOOK_AHEAD), 0.0
    for one in np.sort(needed):
        if left <= 0 or not math.isfinite(one):
            break
        bought += min(1.0, left / one)
        left -= one
    return float(bought)
