"""Everybody against everybody: which pairs are judged, and the ratings that follow from the verdicts.

A round robin over a seeded subset of the prompts: all models meet on every one of them, so that the intervals, which
cluster by prompt, compare models on the same questions. A rating is conditional on those prompts and on the judge.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from alignboard.errors import InputError
from alignboard.judges.pairs import Judged, Pair
from alignboard.records import Generation
from alignboard.stats.rating.battles import Battles, NotRankableError
from alignboard.stats.rating.bradley_terry import BradleyTerryFit, bradley_terry

Responses: TypeAlias = Mapping[str, Mapping[str, str]]
"""model -> instruction -> output"""
WEAK_PRIOR_SD = 3.0
"""Standard deviation, in log-strengths (521 Elo), of the prior that is used where the verdicts alone give no finite
rating, and only there."""


@dataclass(frozen=True)
class RatedModel:
    """One model's line of the table."""

    model: str
    elo: float
    elo_low: float
    elo_high: float
    rank_best: int
    """1 + the models that are surely better"""
    rank_worst: int
    n_battles: int
    """scored comparisons it took part in"""
    component: int
    """ratings of different components cannot be compared"""


@dataclass(frozen=True)
class Ratings:
    """The table and what it is conditional on."""

    rows: tuple[RatedModel, ...]
    """strongest first"""
    fit: BradleyTerryFit
    models: tuple[str, ...]
    """in the order of the fit's arrays"""
    level: float
    n_prompts: int
    n_unparsed: int
    n_failed: int
    note: str | None
    """why a prior had to be used"""


def round_robin(
    outputs: Mapping[str, Sequence[Generation]], n_prompts: int, seed: int = 0
) -> list[Pair]:
    """Every two models on ``n_prompts`` of the prompts that all of them answered (all prompts, where there are fewer).

    Which of the two is ``output_1`` is drawn per prompt and pair, so that the order shown favours nobody.

    >>> rows = {m: [Generation("2 + 2?", m, m)] for m in ("a", "b", "c")}
    >>> len(round_robin(rows, 10))
    3
    """
    answers = by_instruction(outputs)
    shared = chosen = shared_instructions(answers)
    if n_prompts < len(shared):
        picked = random.Random(f"round-robin|{seed}").sample(range(len(shared)), n_prompts)
        chosen = [shared[i] for i in sorted(picked)]
    return [
        pair_on(answers, instruction, names, seed)
        for instruction in chosen
        for names in itertools.combinations(sorted(answers), 2)
    ]


def by_instruction(outputs: Mapping[str, Sequence[Generation]]) -> Responses:
    """Every model's outputs by instruction; raises `InputError` for fewer than two models."""
    if len(outputs) < 2:
        raise InputError("A round robin needs two models or more.")
    return {model: {row.instruction: row.output for row in rows} for model, rows in outputs.items()}


def shared_instructions(answers: Responses) -> list[str]:
    """The instructions that all models answered, in the order of the first; raises `InputError` without one."""
    first = next(iter(answers))
    shared = [text for text in answers[first] if all(text in found for found in answers.values())]
    if not shared:
        raise InputError("The models of the round robin have no instruction in common.")
    return shared


def pair_on(answers: Responses, instruction: str, names: tuple[str, str], seed: int) -> Pair:
    """Two models on an instruction; which of them is ``output_1`` is drawn by ``seed``, prompt and pair."""
    one, two = names if _heads(seed, instruction, *names) else names[::-1]
    return Pair(instruction, answers[one][instruction], one, answers[two][instruction], two)


def rate(judged: Sequence[Judged], level: float = 0.95, centre: float = 1000.0) -> Ratings:
    """Bradley-Terry ratings from verdicts; what was not scored is counted and left out.

    Where a model won or lost everything there is no finite rating: then, and only then, a weak normal prior
    (`WEAK_PRIOR_SD`) places it, and ``note`` says so; its interval has one limit, which does not rest on the prior.
    """
    models = sorted(
        {name for row in judged for name in (row.pair.generator_1, row.pair.generator_2)}
    )
    number = {model: i for i, model in enumerate(models)}
    scored = [row for row in judged if row.preference is not None]
    if not scored:
        raise InputError("None of the comparisons was scored, so there is nothing to rate.")
    prompts = {
        text: i for i, text in enumerate(dict.fromkeys(row.pair.instruction for row in scored))
    }
    battles = Battles(
        first=np.array([number[row.pair.generator_1] for row in scored], dtype=np.intp),
        second=np.array([number[row.pair.generator_2] for row in scored], dtype=np.intp),
        score=np.array([2 - (row.preference or 0.0) for row in scored]),
        cluster=np.array([prompts[row.pair.instruction] for row in scored]),
    )
    note = None
    try:
        fit = bradley_terry(battles, len(models))
    except NotRankableError as error:
        groups = " > ".join(
            "{" + ", ".join(models[i] for i in group) + "}" for group in error.groups
        )
        note = f"A normal prior with standard deviation {WEAK_PRIOR_SD} places the groups. {error} Groups: {groups}."
        fit = bradley_terry(battles, len(models), prior_sd=WEAK_PRIOR_SD)
    return Ratings(
        rows=_rows(models, fit, battles, level, centre),
        fit=fit,
        models=tuple(models),
        level=level,
        n_prompts=len(prompts),
        n_unparsed=sum(row.status == "unparsed" for row in judged),
        n_failed=sum(row.status not in {"scored", "unparsed"} for row in judged),
        note=note,
    )


def _rows(
    models: Sequence[str], fit: BradleyTerryFit, battles: Battles, level: float, centre: float
) -> tuple[RatedModel, ...]:
    elo = fit.elo(centre)
    low, high = fit.elo_interval(level, centre)
    best, worst = fit.rank_interval(level)
    count = np.bincount(battles.first, minlength=len(models))
    count += np.bincount(battles.second, minlength=len(models))
    order = sorted(range(len(models)), key=lambda i: (int(fit.component[i]), -elo[i], models[i]))
    return tuple(
        RatedModel(
            model=models[i],
            elo=float(elo[i]),
            elo_low=float(low[i]),
            elo_high=float(high[i]),
            rank_best=int(best[i]),
            rank_worst=int(worst[i]),
            n_battles=int(count[i]),
            component=int(fit.component[i]),
        )
        for i in order
    )


def _heads(seed: int, *parts: str) -> bool:
    text = "\x00".join(("side", str(seed), *parts))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass")).digest()[0] % 2 == 0
