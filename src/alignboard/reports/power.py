"""What a comparison can resolve: prompts needed, and the smallest difference that the prompts at hand separate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from alignboard.reports.comparison import PairedComparison
from alignboard.reports.comparison_text import quantity_text
from alignboard.stats.power import detectable_difference, prompts_needed
from alignboard.text import shown, table

ALPHA = 0.05


@dataclass(frozen=True)
class PairPower:
    """One pair of a pilot; differences are fractions."""

    a: str
    b: str
    quantity: str
    difference: float
    """as the pilot saw it"""
    sd: float
    """of the differences of prompts; of clusters, scaled to prompts"""
    n: int
    """prompts of the pilot"""
    detectable: float
    """the smallest difference that the pilot's prompts separate with the target power"""
    needed: int | None
    """prompts that separate the stated difference; of the seen one where none is stated"""
    resolution: float | None
    """prompts over prompts needed for the seen difference: below 1 the pair is not resolved"""
    calls: int | None = None
    """of the judge, for the needed prompts with responses as long as the pilot's; None where that is not known"""
    dollars: float | None = None
    """what these calls cost at most, by the table of prices; None where it does not know"""


@dataclass(frozen=True)
class PromptCost:
    """Judging of one model on one prompt."""

    calls: float
    dollars: float | None
    """US dollars, at most"""


def pair_powers(
    pilot: PairedComparison,
    difference: float | None,
    target: float,
    n_tests: int,
    costs: Mapping[str, PromptCost] | None = None,
) -> list[PairPower]:
    """The power of every pair of a pilot.

    ``difference`` is the difference to separate, a fraction (None: each pair's own); ``target`` the wanted power;
    ``n_tests`` the number of tests that share the error rate, as in Holm's first step; ``costs``, by model, what
    judging a prompt takes.

    References: Kotawala, arXiv 2605.30315 (prompts over prompts needed, pair by pair).
    """
    alpha = ALPHA / n_tests
    rows = []
    for row in pilot.rows:
        found = row.found
        known = found.standard_error > 0
        sd = found.standard_error * math.sqrt(found.n_effective) if known else math.nan
        per_unit = found.n / found.n_effective if found.n_effective else math.nan
        units = math.floor(found.n_effective)
        own = _needed(found.estimate, sd, target, alpha, per_unit)
        wanted = own if difference is None else _needed(difference, sd, target, alpha, per_unit)
        rows.append(
            PairPower(
                row.a,
                row.b,
                row.quantity if row.scale is None else f"{row.quantity}, % of its scale",
                found.estimate,
                sd * math.sqrt(per_unit) if known else math.nan,
                found.n,
                detectable_difference(sd, units, target, alpha) if known else math.nan,
                wanted,
                None if own is None else found.n / own,
                *_price(wanted, [(costs or {}).get(name) for name in (row.a, row.b)]),
            )
        )
    return rows


def to_json(rows: list[PairPower]) -> list[dict[str, Any]]:
    """Plain data."""
    return [asdict(row) for row in rows]


def to_text(rows: list[PairPower], difference: float | None, target: float) -> str:
    """The pairs as a table, in points."""
    wanted = "seen A - B" if difference is None else f"{100 * difference:g} points"
    header = [
        "A",
        "B",
        "",
        "A - B",
        "sd",
        "n",
        f"detectable at {target:.0%}",
        f"n for {wanted}",
        "n / n*",
        *(["calls"] if any(row.calls is not None for row in rows) else []),
        *(["US dollars"] if any(row.dollars is not None for row in rows) else []),
    ]
    cells = [
        [
            shown(row.a),
            shown(row.b),
            quantity_text(row.quantity),
            f"{100 * row.difference:+.2f}",
            _points(row.sd),
            str(row.n),
            _points(row.detectable),
            "-" if row.needed is None else str(row.needed),
            "-" if row.resolution is None else f"{row.resolution:.2f}",
            "-" if row.calls is None else str(row.calls),
            "-" if row.dollars is None else f"{row.dollars:.2f}",
        ][: len(header)]
        for row in rows
    ]
    return table(header, cells, left=(0, 1, 2))


def _needed(
    difference: float, sd: float, target: float, alpha: float, per_unit: float
) -> int | None:
    """Prompts needed; None where there is no difference, or no number up to a billion suffices."""
    if not difference or not sd > 0:
        return None
    try:
        return math.ceil(prompts_needed(abs(difference), sd, target, alpha) * per_unit)
    except ValueError:
        return None


def _price(
    prompts: int | None, costs: Sequence[PromptCost | None]
) -> tuple[int | None, float | None]:
    """Calls and dollars of judging both models on so many prompts."""
    known = [one for one in costs if one is not None]
    if prompts is None or len(known) < len(costs):
        return None, None
    dollars = [one.dollars for one in known]
    price = None if None in dollars else prompts * sum(one for one in dollars if one is not None)
    return math.ceil(prompts * sum(one.calls for one in known)), price


def _points(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f}"
