"""Paired comparison of models by one judge: differences of raw and length-controlled win rates, corrected p-values."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from alignboard.errors import InputError
from alignboard.published.calibration import Calibration
from alignboard.published.scores import aligned_length_control
from alignboard.records import Annotations, TextId
from alignboard.stats.multiplicity import benjamini_hochberg, holm, step_down_max_t
from alignboard.stats.paired import PairedDifference, influence_difference, paired_difference
from alignboard.text import shown, table

Array = NDArray[np.float64]
Correction = Literal["holm", "maxt", "bh", "none"]

CORRECTIONS: tuple[Correction, ...] = ("holm", "maxt", "bh", "none")
_DRAWS = 20_000
_SEED = 20_800


@dataclass(frozen=True)
class PairRow:
    """One pair of models: A minus B, rates as fractions."""

    a: str
    b: str
    quantity: str
    """``win_rate`` or ``lc_win_rate``"""
    found: PairedDifference
    adjusted_p: float
    C: tuple[float, float] | None
    """of the two length-controlled fits"""

    def to_json(self) -> dict:
        """Plain data; what is not known is None."""
        kept = ("estimate", "standard_error", "low", "high", "p_value", "n", "only_a", "only_b")
        numbers = {name: _known(getattr(self.found, name)) for name in kept}
        return {
            "a": self.a,
            "b": self.b,
            "quantity": self.quantity,
            **numbers,
            "adjusted_p": _known(self.adjusted_p),
            "identical": self.found.identical,
            "C": self.C,
        }


def compare_annotations(
    tables: Mapping[str, Annotations],
    *,
    calibration: tuple[TextId, Calibration] | None = None,
    correction: Correction = "holm",
    all_pairs: bool = False,
) -> list[PairRow]:
    """Compare the first model with the others, or all pairs, on the instructions that two models have in common.

    Parameters
    ----------
    tables
        Annotations by model: of one judge, against one baseline.
    calibration
        The reference set's instructions and AlpacaEval's calibration; adds length-controlled differences.
    correction
        How p-values are corrected over the pairs; raw and length-controlled differences are families of their own.
    all_pairs
        Whether the other models are compared with each other, too.

    Raises
    ------
    InputError
        For fewer than two models, two judges or two baselines.
    """
    _require_comparable(tables)
    names = list(tables)
    pairs = (
        list(itertools.combinations(names, 2)) if all_pairs else [(names[0], b) for b in names[1:]]
    )
    union = np.unique(np.concatenate([table.instruction for table in tables.values()]))
    score = {name: _spread(table, table.balanced - 1, union) for name, table in tables.items()}
    raw = [paired_difference(score[a], score[b], estimated=True) for a, b in pairs]
    places = [~np.isnan(score[a] - score[b]) for a, b in pairs]
    rows = _rows("win_rate", pairs, raw, places, correction, None)
    if calibration is None:
        return rows
    fits = {name: aligned_length_control(table, *calibration) for name, table in tables.items()}
    psi = {name: _spread(tables[name], fit.influence, union) for name, fit in fits.items()}
    controlled = [
        influence_difference(fits[a].win_rate, fits[b].win_rate, psi[a], psi[b]) for a, b in pairs
    ]
    everywhere = [np.ones(len(union), dtype=np.bool_)] * len(pairs)
    C = {name: fit.C for name, fit in fits.items()}
    return rows + _rows("lc_win_rate", pairs, controlled, everywhere, correction, C)


def comparison_table(rows: list[PairRow], correction: Correction) -> str:
    """The pairs as a table for the terminal, in percentage points."""
    header = [
        "A",
        "B",
        "",
        "A - B",
        "95 %",
        "p",
        f"p {correction}",
        "n",
        "only A",
        "only B",
        "verdict",
    ]
    return table(header, [_cells(row) for row in rows], left=(0, 1, 2, len(header) - 1))


def _cells(row: PairRow) -> list[str]:
    found = row.found
    if found.identical:
        verdict = "identical"
    elif math.isnan(row.adjusted_p):
        verdict = "unknown"
    else:
        verdict = (
            "not separated"
            if row.adjusted_p >= 0.05
            else f"{shown(row.a if found.estimate > 0 else row.b)} better"
        )
    return [
        shown(row.a),
        shown(row.b),
        "LC" if row.C else "win rate",
        f"{100 * found.estimate:+.2f}" if found.n else "-",
        "-" if math.isnan(found.low) else f"{100 * found.low:+.2f} to {100 * found.high:+.2f}",
        "-" if math.isnan(found.p_value) else f"{found.p_value:.2g}",
        "-" if math.isnan(row.adjusted_p) else f"{row.adjusted_p:.2g}",
        str(found.n),
        str(found.only_a),
        str(found.only_b),
        verdict,
    ]


def _rows(
    quantity: str,
    pairs: list[tuple[str, str]],
    found: list[PairedDifference],
    places: list[NDArray[np.bool_]],
    correction: Correction,
    C: Mapping[str, float] | None,
) -> list[PairRow]:
    p = np.array([one.p_value for one in found])
    if correction == "maxt":
        influence = np.zeros((len(places[0]), len(found)))
        for column, (one, place) in enumerate(zip(found, places, strict=True)):
            influence[place, column] = one.influence
        t = np.array([one.t for one in found])
        adjusted = step_down_max_t(influence, t, draws=_DRAWS, rng=np.random.default_rng(_SEED))
    else:
        adjusted = {"holm": holm, "bh": benjamini_hochberg, "none": np.copy}[correction](p)
    return [
        PairRow(a, b, quantity, one, float(q), None if C is None else (C[a], C[b]))
        for (a, b), one, q in zip(pairs, found, adjusted, strict=True)
    ]


def _spread(table: Annotations, values: Array, union: TextId) -> Array:
    """(U,) ``values`` (n,) at the places of their instructions, NaN where the model has none."""
    spread = np.full(len(union), np.nan)
    spread[np.searchsorted(union, table.instruction)] = values
    return spread


def _require_comparable(tables: Mapping[str, Annotations]) -> None:
    if len(tables) < 2:
        raise InputError("Two models or more are needed for a comparison, each named once.")
    first, *others = tables.values()
    for other in others:
        for field in ("annotator", "baseline"):
            mine, theirs = getattr(first, field), getattr(other, field)
            if mine != theirs:
                raise InputError(
                    f"{first.path} and {other.path} have two {field}s, {mine!r} and {theirs!r}: "
                    "their verdicts cannot be compared."
                )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
