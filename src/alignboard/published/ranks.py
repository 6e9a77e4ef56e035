"""Ranks by win rate, with what paired tests on shared prompts leave open."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from alignboard.records import Annotations, TextId


def shared_prompts(tables: Iterable[Annotations]) -> TextId:
    """The instructions of all ``tables``, each once, in order; `numpy.unique` would load `numpy.ma`, for 18 ms."""
    ordered = np.sort(np.concatenate([table.instruction for table in tables]))
    return ordered[np.append(True, ordered[1:] != ordered[:-1])]


class PairedRank(NamedTuple):
    """A rank by win rate, with those that paired tests on shared prompts leave open."""

    rank: int
    best: int
    worst: int
    n: int
    """prompts"""
    resolution: float | None
    """prompts at hand over those that separate it from the next lower model, see `stats.power.resolution`; None of the
    last one, and where no number does"""

    @property
    def note(self) -> str | None:
        """The resolution, as boards show it.

        >>> [PairedRank(1, 1, 2, 805, resolution).note for resolution in (3e-6, 0.0123, 112.4)]
        ['N/N* < 0.001', 'N/N* 0.012', 'N/N* 112']
        """
        if self.resolution is None:
            return None
        if self.resolution < 0.001:
            return "N/N* < 0.001"
        return f"N/N* {self.resolution:.{'2g' if self.resolution < 10 else '0f'}}"


def paired_ranks(tables: Mapping[str, Annotations]) -> dict[str, PairedRank]:
    """The rank of every model but the baseline; the sets are true all at once with 95 %.

    Empty for fewer than two models.
    """
    others = {name: table for name, table in tables.items() if table.generator != table.baseline}
    if len(others) < 2:
        return {}
    from alignboard.stats.ranks import paired_rank_sets

    prompts = shared_prompts(others.values())
    score = np.full((len(prompts), len(others)), np.nan)
    for column, table in enumerate(others.values()):
        score[np.searchsorted(prompts, table.instruction), column] = table.balanced
    scored = ~np.isnan(score)
    rate = np.where(scored, score, 0).sum(axis=0) / np.maximum(1, scored.sum(axis=0))
    low, high = paired_rank_sets(score)
    resolved = _resolutions(score, rate)
    return {
        name: PairedRank(
            1 + int((rate > rate[k]).sum()), int(low[k]), int(high[k]), int(n), resolved.get(k)
        )
        for k, (name, n) in enumerate(zip(others, scored.sum(axis=0), strict=True))
        if n
    }


def _resolutions(score: NDArray[np.float64], rate: NDArray[np.float64]) -> dict[int, float]:
    """By column of ``score`` (prompts, models): that of its difference from the next lower ``rate``, where known."""
    from alignboard.stats.power import resolution

    found = {}
    order = np.argsort(-rate, kind="stable").tolist()
    for upper, lower in pairwise(order):
        delta = score[:, upper] - score[:, lower]
        delta = delta[~np.isnan(delta)]
        if len(delta) > 1:
            sd = float(delta.std(ddof=1))
            found[upper] = resolution(float(delta.mean()), sd, len(delta))
    return {column: value for column, value in found.items() if not math.isnan(value)}
