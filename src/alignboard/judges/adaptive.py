"""The second order of a pair, asked where it can matter: which pairs, and what the verdicts then say of the win rate.

The statistics are those of `alignboard.stats.second_order`; here rows of verdicts become its columns and back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from alignboard.judges.pairs import Judged, conversations, uniform
from alignboard.records import is_switched
from alignboard.stats.second_order import SecondOrderEstimate, estimate
from alignboard.stats.second_order_design import (
    FirstOrders,
    SecondOrderDesign,
    first_wave,
    inclusion,
)

DESIGN = SecondOrderDesign()


@dataclass(frozen=True)
class Waves:
    """The pairs of one run whose first order is known."""

    indices: tuple[int, ...]
    """of the pairs that were shown in an order; identical outputs are shown in none"""
    first: FirstOrders

    @classmethod
    def of(
        cls,
        instructions: Mapping[int, str],
        switched: Mapping[int, bool],
        shown: Mapping[int, float],
    ) -> Waves:
        """``shown`` is the preference of the first order, of [0, 1] for output_2, for those that were scored."""
        indices = tuple(sorted(instructions))
        return cls(
            indices,
            FirstOrders(
                preference=np.array([shown.get(index, np.nan) for index in indices]),
                model_first=np.array([switched[index] for index in indices], dtype=np.bool_),
                uniform=np.array(
                    [uniform("second order", instructions[index]) for index in indices]
                ),
            ),
        )

    def audited(self) -> list[int]:
        """The pairs that are asked again whatever their first verdict."""
        return [self.indices[i] for i in np.flatnonzero(first_wave(self.first, DESIGN))]

    def chosen(self, second: Mapping[int, float]) -> tuple[list[int], dict[int, float]]:
        """Every pair that is asked again, once the audited ones are known; and how probable each was."""
        probability = inclusion(self.first, self._column(second), DESIGN)
        asked = np.flatnonzero(self.first.scored & (self.first.uniform < probability))
        held = {index: float(p) for index, p in zip(self.indices, probability, strict=True)}
        return [self.indices[i] for i in asked], held

    def _column(self, known: Mapping[int, float]) -> np.ndarray:
        return np.array([known.get(index, np.nan) for index in self.indices])


def balanced(judged: Sequence[Judged]) -> SecondOrderEstimate:
    """The order-balanced win rate of output_2 from verdicts of which some have both orders.

    Pairs of identical outputs are a draw in both orders. Pairs whose first order was not scored are left out. The turns
    of one conversation are one unit of the standard error.
    """
    first, second, chance = [], [], []
    switched, draws = [], []
    for one in judged:
        orders = [None if p is None else p - 1 for p in one.order_preferences]
        draws.append(not one.switched and one.status == "scored")
        first.append(0.5 if draws[-1] else _known(orders, 0))
        second.append(0.5 if draws[-1] else _known(orders, 1))
        coin = is_switched(one.pair.asked)
        switched.append(one.switched[0] if one.switched else coin)
        chance.append(1.0 if draws[-1] else (one.inclusion or 0.0))
    shown = FirstOrders(
        preference=np.array(first),
        model_first=np.array(switched, dtype=np.bool_),
        uniform=np.array(
            [
                0.0 if draw else uniform("second order", one.pair.asked)
                for draw, one in zip(draws, judged, strict=True)
            ]
        ),
    )
    units = np.array(conversations([one.pair for one in judged]))
    return estimate(shown, np.array(second), np.array(chance), DESIGN, clusters=units)


def _known(orders: Sequence[float | None], index: int) -> float:
    value = orders[index] if index < len(orders) else None
    return np.nan if value is None else value
