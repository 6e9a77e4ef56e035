"""The trust report of judges: does the place, the length or the family of an answer decide, and who agrees with whom.

Every figure has an interval that clusters by instruction. Judges never share a figure; verdicts that were not scored
are counted and enter none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from itertools import combinations
from typing import Any

import numpy as np

from alignboard.errors import InputError
from alignboard.reports.judges.judge import JudgeFigures, judge_figures
from alignboard.reports.judges.judgments import Judgments, PairKey
from alignboard.stats.agreement import (
    Alpha,
    agreement_among_humans,
    agreement_with_humans,
    cohen_kappa,
    krippendorff_alpha,
    raw_agreement,
    side,
)
from alignboard.stats.calibrated import calibrated_mean
from alignboard.stats.intervals import Interval, bounded_mean


@dataclass(frozen=True)
class PairFigures:
    """Two judges, or two protocols such as single ratings and rankings, on the same pairs."""

    judges: tuple[str, str]
    n_pairs: int
    same: Interval
    """share of the same verdict out of baseline, draw and model"""
    contradict: Interval
    """share of opposite winners"""
    one_draws: Interval
    """share in which only one of the two says draw"""
    kappa: Interval
    alpha: Alpha


@dataclass(frozen=True)
class HumanFigures:
    """One judge against the majority of humans."""

    judge: str
    n_pairs: int
    agreement: Interval
    kappa: Interval
    """with the humans' majority, split votes as a draw"""
    models: list[CalibratedModel]
    """of models of which humans labelled a part"""


@dataclass(frozen=True)
class CalibratedModel:
    """The win rate that people would give a model, from few labels of theirs and the judge's of all rows.

    The labelled rows are taken for a random part of the judged ones.
    """

    model: str
    baseline: str
    n_labels: int
    judged: Interval
    humans_alone: Interval
    calibrated: Interval
    gain: float
    """share of the humans' standard error that the judge saves"""


@dataclass(frozen=True)
class JudgeReport:
    """Everything that a set of judgments says about its judges."""

    judges: list[JudgeFigures]
    between: list[PairFigures]
    jury: Alpha | None
    """of all judges together, from three judges on"""
    humans: list[HumanFigures]
    among_humans: Interval | None
    """one human against the majority of the others"""

    def to_json(self) -> dict[str, Any]:
        """The report as JSON can hold it; what is unknown is null."""
        return _json(self)


def judge_report(
    rows: Judgments, human: Mapping[PairKey, Sequence[float]] | None = None, seed: int = 0
) -> JudgeReport:
    """The trust report of all judges in ``rows``; ``seed`` draws the resamples of alpha.

    Raises `InputError` where ``human`` labels none of their pairs.
    """
    if human and human.keys().isdisjoint(rows.pair_keys()):
        raise InputError(
            f"None of the {len(human)} pairs that humans labelled was judged; instruction, output_1 and output_2 have "
            "to be the very texts of the judgments."
        )
    names = rows.judge.present()
    parts = {name: rows.where(rows.judge.equal(name)) for name in names}
    rng = np.random.default_rng(seed)
    sides, clusters = _shared(rows, parts) if len(parts) > 1 else ({}, {})
    return JudgeReport(
        judges=[judge_figures(name, part, rows) for name, part in parts.items()],
        between=[
            found
            for pair in combinations(names, 2)
            if (found := _between(pair, sides, clusters, rng))
        ],
        jury=_jury(sides, clusters, rng) if len(names) > 2 else None,
        humans=[_against(name, part, human) for name, part in parts.items()] if human else [],
        among_humans=_among(human) if human else None,
    )


def _shared(
    rows: Judgments, parts: Mapping[str, Judgments]
) -> tuple[dict[str, dict[PairKey, float]], dict[PairKey, int]]:
    """By judge and pair what was preferred (`_sides`), and by pair what figures are clustered by."""
    pairs = rows.pair_keys()
    turned = dict(zip(reversed(pairs), reversed(rows.mirrored.tolist()), strict=True))
    sides = {name: _sides(part.compared(), turned) for name, part in parts.items()}
    return sides, dict(zip(pairs, rows.instruction.tolist(), strict=True))


def _sides(part: Judgments, turned: Mapping[PairKey, bool]) -> dict[PairKey, float]:
    """The scored verdicts without their strength, by pair; of a pair that two models share, the first.

    -1 is the answer that is ``output_1`` in the first row with that pair, whoever judged it: kappa depends on how often
    each side is preferred, so the baseline has to stay the baseline.
    """
    found: dict[PairKey, float] = {}
    for pair, value in zip(part.pair_keys(), side(part.canonical_score()).tolist(), strict=True):
        if not math.isnan(value):
            found.setdefault(pair, -value if turned[pair] else value)
    return found


def _between(
    pair: tuple[str, str],
    sides: Mapping[str, Mapping[PairKey, float]],
    of: Mapping[PairKey, int],
    rng: np.random.Generator,
) -> PairFigures | None:
    shared = sorted(sides[pair[0]].keys() & sides[pair[1]].keys())
    if not shared:
        return None
    first, second = (np.array([sides[name][key] for key in shared]) for name in pair)
    clusters = np.array([of[key] for key in shared], dtype=np.uint64)
    return PairFigures(
        judges=pair,
        n_pairs=len(shared),
        same=raw_agreement(first, second, clusters),
        contradict=bounded_mean((first * second < 0).astype(float), clusters),
        one_draws=bounded_mean(((first == 0) != (second == 0)).astype(float), clusters),
        kappa=cohen_kappa(first, second, clusters),
        alpha=krippendorff_alpha(np.array([first, second]), "nominal", rng, clusters=clusters),
    )


def _jury(
    sides: Mapping[str, Mapping[PairKey, float]],
    of: Mapping[PairKey, int],
    rng: np.random.Generator,
) -> Alpha:
    pairs = sorted(set().union(*sides.values()))
    ratings = np.array([[found.get(pair, math.nan) for pair in pairs] for found in sides.values()])
    clusters = np.array([of[pair] for pair in pairs], dtype=np.uint64)
    return krippendorff_alpha(ratings, "nominal", rng, clusters=clusters)


def _against(name: str, part: Judgments, human: Mapping[PairKey, Sequence[float]]) -> HumanFigures:
    labelled = np.array([pair in human for pair in part.pair_keys()], dtype=bool)
    known = part.where(labelled & (part.status.equal("scored")))
    votes = [human[pair] for pair in known.pair_keys()]
    score = known.canonical_score()
    majority = np.array([np.sign(np.sign(np.asarray(vote) - 1.5).sum()) for vote in votes])
    turn = np.where(known.mirrored, -1, 1)
    return HumanFigures(
        judge=name,
        n_pairs=len(known),
        agreement=agreement_with_humans(score + 1, votes, known.instruction),
        kappa=cohen_kappa(turn * side(score), turn * majority, known.instruction),
        models=_calibrated(part.where(part.status.equal("scored")), human),
    )


def _calibrated(part: Judgments, human: Mapping[PairKey, Sequence[float]]) -> list[CalibratedModel]:
    """Every model of which humans labelled a part, in the order of names."""
    canonical = np.array(
        [np.mean(human[pair]) - 1 if pair in human else np.nan for pair in part.pair_keys()]
    )
    labels = np.where(part.mirrored, 1 - canonical, canonical)
    models = []
    for model, baseline in sorted(
        set(zip(part.model.tolist(), part.baseline.tolist(), strict=True))
    ):
        own = (part.model.equal(model)) & (part.baseline.equal(baseline))
        if np.isnan(labels[own]).all():
            continue
        found = calibrated_mean(part.score[own], labels[own])
        models.append(
            CalibratedModel(
                model,
                baseline,
                found.n_labels,
                bounded_mean(part.score[own], part.instruction[own]),
                found.humans_alone,
                found.rate,
                found.gain,
            )
        )
    return models


def _among(human: Mapping[PairKey, Sequence[float]]) -> Interval:
    clusters = np.array([pair[0] for pair in human], dtype=np.uint64)
    return agreement_among_humans(list(human.values()), clusters)


def _json(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return _json(asdict(value))
    if isinstance(value, dict):
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
