"""Verdicts as a judge report takes them: one row of an annotation file, and the columns of many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from alignboard.errors import InputError, nearest
from alignboard.records import Judgment, is_switched, text_id
from alignboard.reports.judges.columns import Names
from alignboard.results.formats import preference_value

STATUSES = ("scored", "unparsed", "refused", "truncated", "failed")
"""the first enters means, the others are counted"""
PairKey: TypeAlias = tuple[int, int, int]
"""digests of the instruction and of the two answers, the smaller answer first"""


class JudgedRow(Judgment, gc=True):
    """A row of ``annotations.json`` with what alignboard's own judges add."""

    switched: list[bool] | None = None
    order_preferences: list[float | None] | None = None
    mass: list[float | None] | None = None
    status: str | None = None
    flags: list[str] | None = None
    price: float | None = None
    inclusion: float | None = None
    first_turn: str | None = None
    """of a second turn: what the conversation began with"""
    price_per_example: float | str | None = None
    """AlpacaEval's own column, in dollars"""


@dataclass(frozen=True)
class Judgments:
    """Rows of one or more judges as columns, each (n,)."""

    judge: Names
    model: Names
    baseline: Names
    instruction: NDArray[np.uint64]
    """what figures are clustered by; the turns of one conversation share it"""
    pair: NDArray[np.uint64]
    """(n, 3) what a `PairKey` holds"""
    mirrored: NDArray[np.bool_]
    """whether `pair` holds the answers in the other order than the row"""
    score: NDArray[np.float64]
    """preference for the model in [0, 1]; NaN unless scored"""
    status: Names
    model_first: NDArray[np.bool_]
    """whether the model's answer was shown first, in the first call"""
    first_score: NDArray[np.float64]
    """`score` of the first call alone"""
    other_score: NDArray[np.float64]
    """`score` of the call in the other order; NaN where there was none, or none that was scored"""
    inclusion: NDArray[np.float64]
    """how probable it was that the second order was asked; 1 where that was not left to chance"""
    balanced: NDArray[np.float64]
    """the row's part in the order-balanced estimate, less 1, where the second order was drawn; may leave [0, 1]"""
    order_recorded: NDArray[np.bool_]
    """False where the order is recomputed from AlpacaEval's coin, or where there was none"""
    ordered: NDArray[np.bool_]
    """whether the two answers were shown in an order at all"""
    asked_both: NDArray[np.bool_]
    longer: NDArray[np.int64]
    """characters by which the model's answer is longer than the baseline's"""
    mass: NDArray[np.float64]
    """least probability that the verdict tokens had together, over the calls; NaN where not recorded"""
    price: NDArray[np.float64]
    flags: Sequence[tuple[str, ...]]

    def __len__(self) -> int:
        return len(self.score)

    def where(self, keep: NDArray[np.bool_] | NDArray[np.intp]) -> Judgments:
        """The rows for which ``keep`` (n,) is true, or those whose numbers it holds."""
        rows = np.flatnonzero(keep) if keep.dtype == np.bool_ else keep
        taken: dict[str, Any] = {
            name: [column[row] for row in rows.tolist()] if name == "flags" else column[rows]
            for name, column in vars(self).items()
        }
        return Judgments(**taken)

    def pair_keys(self, rows: Sequence[int] | None = None) -> list[PairKey]:
        """`pair` as keys, of all rows or of some."""
        pairs = self.pair if rows is None else self.pair[list(rows)]
        return list(map(tuple, pairs.tolist()))

    def canonical_score(self) -> NDArray[np.float64]:
        """(n,) the preference for the second answer of `pair`, so that mirrored rows can be compared."""
        return np.where(self.mirrored, 1 - self.score, self.score)

    def compared(self) -> Judgments:
        """The rows of two different answers: about equal ones there is nothing to ask."""
        return self.where(self.pair[:, 1] != self.pair[:, 2])


COLUMNS = tuple(Judgments.__dataclass_fields__)
NAMES = frozenset(["judge", "model", "baseline", "status"])
IDS = frozenset(["instruction", "pair"])


def columns_of(path: Path, number: int, row: JudgedRow) -> tuple[Any, ...]:
    """One row of `Judgments`, in the order of its fields."""
    status, score = _status(path, number, row)
    switched = row.switched or [is_switched(row.instruction)]
    calls = _calls(path, number, row, switched, score)
    first_side = switched[0]
    other = [value for side, value in calls[1:] if side != first_side and not math.isnan(value)]
    scored = status == "scored"
    balanced = row.balanced_preference
    if row.inclusion is not None and not 0 < row.inclusion <= 1:
        raise InputError(
            f"{path}, row {number}, field 'inclusion': {row.inclusion!r} is no probability of a second order that was "
            "asked; expected a number above 0, and at most 1."
        )
    masses = [value for value in row.mass or [] if value is not None]
    pair, mirrored = pair_of(row.instruction, row.output_1, row.output_2)
    same = pair[1] == pair[2]  # equal answers read the same in both orders
    ordered = bool(row.switched) or row.status is None
    return (
        row.annotator or path.parent.name,
        row.generator_2,
        row.generator_1,
        pair[0] if row.first_turn is None else text_id(row.first_turn),
        pair,
        mirrored,
        score,
        status,
        first_side,
        calls[0][1] if scored and (ordered or same) else math.nan,
        score if same else other[0] if other and scored else math.nan,
        1.0 if row.inclusion is None else row.inclusion,
        balanced - 1 if scored and balanced is not None else math.nan,
        bool(row.switched),
        ordered,
        same or any(side != first_side for side in switched[1:]),
        len(row.output_2) - len(row.output_1),
        min(masses, default=math.nan),
        _price(path, number, row),
        tuple(sorted(set(row.flags or ()))),
    )


def _status(path: Path, number: int, row: JudgedRow) -> tuple[str, float]:
    """The row's status and its score in [0, 1], NaN unless scored; the two must not contradict each other."""
    preference = preference_value(path, number, row.preference)
    status = row.status or ("unparsed" if math.isnan(preference) else "scored")
    if status not in STATUSES:
        raise InputError(
            f"{path}, row {number}, field 'status': {status!r} is no status"
            f"{nearest(status, STATUSES)}; expected one of {', '.join(STATUSES)}."
        )
    if (status == "scored") == math.isnan(preference):
        raise InputError(
            f"{path}, row {number}, field 'preference': "
            f"{'null' if math.isnan(preference) else repr(row.preference)}, but the status is {status!r}; a scored row "
            "has a preference, any other has null."
        )
    return status, preference - 1


def _calls(
    path: Path, number: int, row: JudgedRow, switched: Sequence[bool], score: float
) -> list[tuple[bool, float]]:
    """Per call, whether the model was shown first and its score."""
    if row.order_preferences is None:
        if len(switched) > 1:
            raise InputError(
                f"{path}, row {number}, field 'order_preferences': missing, but 'switched' names {len(switched)} "
                "calls; write the preference of each call, null where it was not scored."
            )
        return [(switched[0], score)]
    if row.switched is None or len(row.switched) != len(row.order_preferences):
        raise InputError(
            f"{path}, row {number}, field 'order_preferences': {len(row.order_preferences)} calls, but 'switched' "
            f"names {len(row.switched or [])}; both need one entry per call."
        )
    if not row.order_preferences:
        return [(switched[0], score)]
    values = (preference_value(path, number, value) - 1 for value in row.order_preferences)
    return list(zip(switched, values, strict=True))


def _price(path: Path, number: int, row: JudgedRow) -> float:
    price = row.price_per_example if row.price is None else row.price
    try:
        return math.nan if price is None else float(price)
    except ValueError:
        raise InputError(
            f"{path}, row {number}, field 'price_per_example': {str(price)[:60]!r} is no number; expected dollars."
        ) from None


def pair_of(instruction: str, output_1: str, output_2: str) -> tuple[PairKey, bool]:
    """The identity of a pair, and whether it holds the answers in the other order."""
    one, two = text_id(output_1), text_id(output_2)
    return (text_id(instruction), min(one, two), max(one, two)), one > two
