"""What is still to be paid: calls, tokens and dollars, of the single commands and of every job of a plan.

Nothing is loaded and nobody is asked. What is done already costs nothing; what cannot be known yet is None, with the
reason.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import msgspec

from alignboard.data.instruction_sets import InstructionSet
from alignboard.engines.openai.format import Usage
from alignboard.engines.rows import Decoding
from alignboard.errors import AlignboardError
from alignboard.judges.pricing import Cost
from alignboard.models.checks.opened import open_small
from alignboard.models.spec import ModelSpec
from alignboard.pipeline.answerers import Served, ServedModel, rendered
from alignboard.pipeline.answering import by_temperature
from alignboard.results.journal import Journal


class GenerationCost(msgspec.Struct, frozen=True):
    """Of one model's responses to one set."""

    model: str
    n_calls: int
    """responses that are missing, those to later turns included"""
    n_known: int | None
    """responses that are there; None where only the model's weights could tell"""
    n_prompt: int | None
    """tokens of the first turns that are missing"""
    longest: int | None
    """tokens of the longest of these prompts"""
    n_new: int
    """tokens, at most"""
    price: float | None
    """US dollars, at most: 0 where the model is loaded here; None where nobody says"""
    unknown: tuple[str, ...] = ()
    """what is not known, and why"""


def generation_cost(
    spec: ModelSpec,
    decoding: Decoding,
    asked: InstructionSet,
    served: Served | None,
    journal: Journal,
) -> GenerationCost:
    """What is missing of the responses of ``spec`` to ``asked``, and what it costs."""
    total = sum(len(row.turns) for row in asked.rows)
    try:
        missing, n_known, counts = _missing(spec, decoding, asked, served, journal)
    except AlignboardError as error:
        unknown = f"tokens of {spec.name}: {error}"
        missing, n_known, counts = list(range(len(asked.rows))), None, None
    else:
        unknown = "" if counts is not None else f"tokens of {spec.name}: the server renders"
    n_calls = total if n_known is None else total - n_known
    n_new = n_calls * decoding.max_new_tokens
    n_prompt = 0 if not n_calls else None if counts is None else sum(counts[k] for k in missing)
    price, rate = 0.0, None if served is None else served.rate_of(spec)
    if served is not None and n_calls:
        price = None if rate is None or n_prompt is None else rate.of(Usage(n_prompt, n_new))
    if served is not None and n_calls and rate is None:
        unknown = unknown or f"dollars of {spec.name}: no price is known at {','.join(served.urls)}"
    longest = None if counts is None else max((counts[k] for k in missing), default=0)
    return GenerationCost(
        spec.name,
        n_calls,
        n_known,
        n_prompt,
        longest,
        n_new,
        price,
        (unknown,) if unknown and n_calls else (),
    )


def _missing(
    spec: ModelSpec,
    decoding: Decoding,
    asked: InstructionSet,
    served: Served | None,
    journal: Journal,
) -> tuple[list[int], int | None, list[int] | None]:
    """(rows whose first turn is missing, responses that are there, tokens of every first turn)."""
    places = list(range(len(asked.rows)))
    if served is None:
        opened = open_small(spec)
        return places, None, [len(rendered(opened, row.turns[0])) for row in asked.rows]
    model = ServedModel(spec, served)
    keys: dict[int, bytes] = {}
    counts: dict[int, int] = {}
    for own, chosen in by_temperature(asked, places, model.decoding(decoding)):
        texts = [asked.rows[k].turns[0] for k in chosen]
        for k, prompt in zip(chosen, model.prompts(texts, own, [()] * len(chosen)), strict=True):
            keys[k], counts[k] = bytes.fromhex(prompt.key), len(prompt.ids)
    known = journal.get(list(keys.values()))
    missing = [k for k in places if keys[k] not in known]
    if model.opened is not None:
        return missing, len(places) - len(missing), [counts[k] for k in places]
    with contextlib.suppress(AlignboardError):  # the server renders, by about the same template
        opened = open_small(spec)
        tokens = [len(rendered(opened, row.turns[0])) for row in asked.rows]
        return missing, len(places) - len(missing), tokens
    return missing, len(places) - len(missing), None


@dataclass(frozen=True)
class JobCost:
    """Of one job that is to be done; None: not known."""

    n_calls: int | None = 0
    n_prompt: int | None = 0
    n_new: int | None = 0
    price: float | None = 0.0
    unknown: tuple[str, ...] = ()


def of_generation(cost: GenerationCost) -> JobCost:
    """A model's responses as the cost of a job."""
    return JobCost(cost.n_calls, cost.n_prompt, cost.n_new, cost.price, cost.unknown)


def of_judging(costs: Sequence[Cost], what: str, *, lengths_known: bool) -> JobCost:
    """The cost of a job that asks the judges of ``costs``; ``what`` names it where something is not known."""
    n_calls = sum(one.n_calls for one in costs)
    if not n_calls:
        return JobCost()
    if not lengths_known:
        reason = f"tokens of {what}: the responses are not there yet"
        price = None if any(one.hosted for one in costs) else 0.0
        return JobCost(n_calls, None, sum(one.n_answer for one in costs), price, (reason,))
    unpriced = [one.judge for one in costs if one.hosted and one.n_calls and one.price is None]
    return JobCost(
        n_calls,
        sum(one.n_prompt for one in costs),
        sum(one.n_answer for one in costs),
        None if unpriced else sum(one.price or 0.0 for one in costs),
        tuple(f"dollars of {what}: no price of {judge} is known" for judge in unpriced),
    )


class Total(msgspec.Struct, frozen=True):
    """A sum over jobs."""

    known: float
    n_unknown: int
    """jobs whose part is not known"""


class KindCost(msgspec.Struct, frozen=True):
    """Of all jobs of a kind that are to be done."""

    kind: str
    n_jobs: int
    n_calls: Total
    n_prompt: Total
    n_new: Total
    """at most"""
    price: Total
    """US dollars, at most"""
    seconds: Total
    """of one worker"""
    unknown: tuple[str, ...]


def by_kind(
    costs: Iterable[tuple[str, JobCost, float | None]],
) -> list[KindCost]:
    """The costs of jobs (kind, cost, seconds) together, kind by kind."""
    kinds: dict[str, list[tuple[JobCost, float | None]]] = {}
    for kind, cost, seconds in costs:
        kinds.setdefault(kind, []).append((cost, seconds))

    def total(
        own: list[tuple[JobCost, float | None]], of: Callable[[JobCost], float | None]
    ) -> Total:
        return _total([of(cost) for cost, _ in own])

    return [
        KindCost(
            kind,
            len(own),
            total(own, lambda cost: cost.n_calls),
            total(own, lambda cost: cost.n_prompt),
            total(own, lambda cost: cost.n_new),
            total(own, lambda cost: cost.price),
            _total([seconds for _, seconds in own]),
            tuple(dict.fromkeys(reason for cost, _ in own for reason in cost.unknown)),
        )
        for kind, own in kinds.items()
    ]


def _total(values: Sequence[float | None]) -> Total:
    known = [value for value in values if value is not None]
    return Total(sum(known), len(values) - len(known))
