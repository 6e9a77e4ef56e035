"""Paired comparison of models: corrected differences on shared prompts, rank sets, and what is not separated."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from alignboard.errors import InputError
from alignboard.stats.multiplicity import benjamini_hochberg, holm, step_down_max_t
from alignboard.stats.paired import (
    McNemar,
    PairedDifference,
    equivalence_p_value,
    mcnemar,
    numbered,
    sign_flip_p_value,
)
from alignboard.stats.ranks import probability_of_best, rank_sets, tie_groups

Array = NDArray[np.float64]
Correction = Literal["holm", "maxt", "bh", "none"]

ALPHA = 0.05
_DRAWS = 20_000
_SEED = 20_800
_FEW_UNITS = 50
# Of so many pairs each takes all patterns of signs; of more, those with more units that differ take random ones.
_FEW_PAIRS, _QUICK_UNITS = 10, 41
_ROUNDING = 1e-9
_NUMBERS = (
    "estimate",
    "standard_error",
    "low",
    "high",
    "p_value",
    "n",
    "n_effective",
    "only_a",
    "only_b",
)


@dataclass(frozen=True)
class FamilyOfTests:
    """The pairs of one quantity, which are corrected together."""

    quantity: str
    """``win_rate``, ``lc_win_rate``, ``rating``, or a benchmark's task and metric"""
    pairs: Sequence[tuple[str, str]]
    found: Sequence[PairedDifference]
    units: Sequence[NDArray]
    """names of the clusters that each difference's influence belongs to, sorted"""
    conditions: Mapping[str, float] | None = None
    """by model: the C of a length-controlled fit"""
    sampling: Sequence[float] | None = None
    """by pair: the share of the variance that is due to the draws of responses and verdicts"""
    scale: tuple[float, float] | None = None
    """of ratings: the lowest and the highest, of whose distance differences are fractions"""

    @cached_property
    def influence(self) -> Array:
        """(units, pairs) each cluster's contribution to the error of each difference."""
        place = numbered(np.concatenate(self.units))
        influence = np.zeros((int(place.max(initial=-1)) + 1, len(self.found)))
        ends = np.cumsum([len(units) for units in self.units[:-1]])
        for column, (one, rows) in enumerate(zip(self.found, np.split(place, ends), strict=True)):
            influence[rows, column] = one.influence
        return influence


@dataclass(frozen=True)
class PairRow:
    """One pair of models: A minus B, rates as fractions."""

    a: str
    b: str
    quantity: str
    found: PairedDifference
    adjusted_p: float
    sign_flip_p: float
    """of an exact or simulated test of signs, below 50 clusters of one size; else NaN"""
    equivalence_p: float
    """that the difference is within the stated margin; NaN without one"""
    C: tuple[float, float] | None
    """of the two length-controlled fits"""
    sampling_share: float = math.nan
    """of the variance, due to the draws of responses and verdicts; NaN where they are not repeated"""
    mcnemar: McNemar | None = None
    """where every row's difference is -1, 0 or 1 and every row its own cluster"""
    scale: tuple[float, float] | None = None
    """see `FamilyOfTests`"""

    @property
    def unit(self) -> float:
        """What differences are shown in: points of 100 for rates, the judge's own scale for ratings."""
        return 100.0 if self.scale is None else self.scale[1] - self.scale[0]

    @property
    def verdict(self) -> str:
        """Which model is better; ``not separated`` is no claim that both are equal."""
        if self.found.identical:
            return "identical"
        if math.isnan(self.adjusted_p):
            return "unknown"
        if self.adjusted_p < ALPHA:
            return f"{self.a if self.found.estimate > 0 else self.b} higher"
        return "equivalent" if self.equivalence_p < ALPHA else "not separated"

    def to_json(self) -> dict[str, Any]:
        """Plain data; what is not known is None."""
        numbers = {name: _known(getattr(self.found, name)) for name in _NUMBERS}
        binary = self.mcnemar
        return {
            "a": self.a,
            "b": self.b,
            "quantity": self.quantity,
            **numbers,
            "adjusted_p": _known(self.adjusted_p),
            "sign_flip_p": _known(self.sign_flip_p),
            "equivalence_p": _known(self.equivalence_p),
            "sampling_share": _known(self.sampling_share),
            "n_a_higher": None if binary is None else binary.only_a,
            "n_b_higher": None if binary is None else binary.only_b,
            "mcnemar_p": None if binary is None else binary.exact,
            "mcnemar_mid_p": None if binary is None else binary.mid_p,
            "identical": self.found.identical,
            "verdict": self.verdict,
            "C": self.C,
            "scale": self.scale,
        }


@dataclass(frozen=True)
class Ranking:
    """The ranks that the pairs of one quantity leave open, all true at once with 95 %."""

    quantity: str
    models: tuple[str, ...]
    """in the order of their scores"""
    ranks: tuple[tuple[int, int], ...]
    """best and worst rank of each"""
    best: tuple[float, ...]
    """how probable it is that each has the highest score on new prompts"""
    not_separated: tuple[tuple[str, ...], ...]
    """largest runs of neighbours within which no pair is separated; they may overlap"""


@dataclass(frozen=True)
class PairedComparison:
    """Every pair and, of all pairs, the rank sets."""

    rows: list[PairRow]
    rankings: list[Ranking]
    correction: Correction
    margin: float | None

    @property
    def shared(self) -> bool:
        """Whether any two models have a scored prompt in common."""
        return any(row.found.n for row in self.rows if row.C is None)

    def to_json(self) -> dict[str, Any]:
        """Plain data; what is not known is None."""
        return {
            "correction": self.correction,
            "margin": self.margin,
            "pairs": [row.to_json() for row in self.rows],
            "rankings": [
                {
                    "quantity": one.quantity,
                    "models": [
                        {"model": model, "rank_low": low, "rank_high": high, "p_best": best}
                        for model, (low, high), best in zip(
                            one.models, one.ranks, one.best, strict=True
                        )
                    ],
                    "not_separated": one.not_separated,
                }
                for one in self.rankings
            ],
        }


def pairs_of(names: Sequence[str], *, all_pairs: bool) -> list[tuple[str, str]]:
    """The first with each of the others, or all pairs."""
    if len(names) < 2:
        raise InputError("Two models or more are needed for a comparison, each named once.")
    return (
        list(itertools.combinations(names, 2)) if all_pairs else [(names[0], b) for b in names[1:]]
    )


def corrected(
    families: Sequence[FamilyOfTests], correction: Correction, margin: float | None = None
) -> PairedComparison:
    """The families with their p-values corrected, each family by itself.

    ``margin``, a fraction, is the difference below which two models count as equivalent; None: no such claim is tested.
    """
    rows, rankings = [], []
    for family in families:
        adjusted = _adjusted(family, correction)
        rows += [
            PairRow(
                a,
                b,
                family.quantity,
                found,
                float(q),
                _sign_flip(found, len(family.pairs)) if family.conditions is None else math.nan,
                math.nan if margin is None else equivalence_p_value(found, margin),
                None if family.conditions is None else (family.conditions[a], family.conditions[b]),
                share,
                _mcnemar(found) if family.conditions is None else None,
                family.scale,
            )
            for (a, b), found, q, share in zip(
                family.pairs,
                family.found,
                adjusted,
                family.sampling or itertools.repeat(math.nan, len(family.pairs)),
                strict=True,
            )
        ]
        names = list(dict.fromkeys(itertools.chain.from_iterable(family.pairs)))
        complete = len(family.pairs) == len(names) * (len(names) - 1) / 2 > 1
        if complete and correction in {"holm", "maxt"}:  # the others hold for no whole ranking
            rankings.append(_ranking(family, names, adjusted))
    return PairedComparison(rows, rankings, correction, margin)


def _adjusted(family: FamilyOfTests, correction: Correction) -> Array:
    p = np.array([one.p_value for one in family.found])
    if correction != "maxt":
        return {"holm": holm, "bh": benjamini_hochberg, "none": np.copy}[correction](p)
    t = np.array([one.t for one in family.found])
    rng = np.random.default_rng(_SEED)
    adjusted = step_down_max_t(family.influence, t, draws=_DRAWS, rng=rng)
    # Units that are too rare to be seen have no influence: they are corrected for by themselves.
    return np.fmax(adjusted, holm(np.array([one.corner_p for one in family.found])))


def _ranking(family: FamilyOfTests, names: list[str], adjusted: Array) -> Ranking:
    place = {name: number for number, name in enumerate(names)}
    influence = family.influence
    difference = np.zeros((len(names), len(names)))
    p = np.full_like(difference, np.nan)
    for (a, b), found, q in zip(family.pairs, family.found, adjusted, strict=True):
        i, j = place[a], place[b]
        difference[i, j], difference[j, i] = found.estimate, -found.estimate
        p[i, j] = p[j, i] = q
    score = difference.mean(axis=1)
    order = np.argsort(-score, kind="stable")
    low, high = rank_sets(difference, p, ALPHA)
    # The pairs of the first model come first: everything is measured from it.
    behind = np.column_stack([np.zeros(len(influence)), -influence[:, : len(names) - 1]])
    rng = np.random.default_rng(_SEED)
    best = probability_of_best(-difference[0], behind, draws=_DRAWS, rng=rng)
    return Ranking(
        family.quantity,
        tuple(names[i] for i in order),
        tuple((int(low[i]), int(high[i])) for i in order),
        tuple(best[order].tolist()),
        tuple(
            tuple(names[i] for i in group)
            for group in tie_groups(score, p, ALPHA)
            if len(group) > 1
        ),
    )


def _sign_flip(found: PairedDifference, n_pairs: int) -> float:
    """The test of signs on the clusters' sums, where there are few clusters, of one size."""
    few = 1 < found.n_clusters < _FEW_UNITS and found.n_effective == found.n_clusters
    if not few or found.identical:
        return math.nan
    sums = found.influence + found.estimate / found.n_clusters
    exact_below = _FEW_UNITS if n_pairs <= _FEW_PAIRS else _QUICK_UNITS
    return sign_flip_p_value(sums, rng=np.random.default_rng(_SEED), exact_below=exact_below)


def _mcnemar(found: PairedDifference) -> McNemar | None:
    """The exact test of the rows that differ, where all that a row can do is to favour one model, the other or none."""
    if found.n_clusters != found.n or found.n < 1:
        return None
    delta = found.influence * found.n + found.estimate
    sign = np.rint(delta)
    if np.abs(delta - sign).max() > _ROUNDING or np.abs(sign).max() > 1:
        return None
    return mcnemar(int((sign > 0).sum()), int((sign < 0).sum()))


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
