"""Ratings from comparisons of anybody: strengths, intervals, rank sets, and what they rest on."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from alignboard.errors import InputError, nearest
from alignboard.reports.strengths import ALPHA, Effect, Method, Strengths, strengths_of
from alignboard.results.battles import BattleTable, read_battles
from alignboard.stats.ranks import simultaneous_ranks
from alignboard.stats.rating.battles import Array, NotRankableError
from alignboard.stats.rating.bradley_terry import (
    ELO_PER_LOG_STRENGTH,
    BradleyTerryFit,
)
from alignboard.stats.rating.checks import certain_cycles, fragility, pair_fits
from alignboard.stats.rating.simple_scores import average_win_rate, eigenvector, elo_updates

_CENTRE = 1000.0
_CLUSTERED = ("bt", "judge-aware")
SIMPLE = ("elo", "win-rate", "eigenvector")
"""methods without intervals"""


class RankedModel(msgspec.Struct, frozen=True):
    """One model's line; None where it is not known or has no meaning."""

    model: str
    log_strength: float | None
    elo: float | None
    """mean 1000"""
    score: float | None
    """of the methods win-rate and eigenvector"""
    ci_low: float | None
    """95 % limits on Elo's scale; None where there is none on this side"""
    ci_high: float | None
    rank_low: int | None
    """best and worst rank, all models' true at once with 95 %"""
    rank_high: int | None
    n: float
    """comparisons, weighted"""


class Order(msgspec.Struct, frozen=True):
    """How firmly two neighbours are ordered."""

    better: str
    worse: str
    n_removed: int | None
    """fewest clusters found whose removal turns the order round; None: no half of them does"""


class Misfit(msgspec.Struct, frozen=True):
    """A pair whose results the ratings do not describe."""

    a: str
    b: str
    n: float
    observed: float
    predicted: float
    adjusted_p: float


class RankReport(msgspec.Struct, frozen=True, kw_only=True):
    """The ratings, or why there are none."""

    status: Literal["ranked", "not identified"]
    method: str
    prior_sd: float | None
    clustered_by: str
    n_rows: int
    n_unscored: int
    n_ties: int
    """draws, ``both_bad`` included"""
    n_both_bad: int
    n_clusters: int
    n_effective: float | None = None
    """clusters of one size that would leave the errors as well known; None without clustered errors"""
    reason: str | None = None
    """why the data identify no rating"""
    components: list[list[str]]
    """models that can be ranked among themselves, the strongest group first where they have met"""
    missing: list[tuple[str, str]] = []
    """pairs whose comparison would connect or determine the board"""
    tie: float | None = None
    models: list[RankedModel] = []
    effects: list[Effect] = []
    orders: list[Order] = []
    misfits: list[Misfit] = []
    cycles: list[list[str]] = []
    note: str | None = None


def rank(
    *paths: str | Path,
    method: Method = "bt",
    cluster: Sequence[str] = (),
    prior_sd: float | None = None,
    style: bool = False,
) -> RankReport:
    """Rank the models that the comparisons in ``paths`` compare.

    Parameters
    ----------
    paths
        Files as `results.battles.read_battles` takes them.
    method
        ``bt`` (draws as half a win), a model of draws, ``judge-aware`` (every judge with a sharpness of its own), or a
        score without intervals for comparison: ``elo``, ``win-rate``, ``eigenvector``.
    cluster
        Fields whose equal values are dependent, one or two; empty: the prompt, else single rows.
    prior_sd
        Standard deviation of a normal prior that places groups of which one never lost; None: none.
    style
        Whether differences of length and style, and the place shown, are taken out.

    Raises
    ------
    InputError
        For files that hold no comparisons, and for options that do not go together.
    """
    if len(cluster) > 2:
        raise InputError("--cluster is given at most twice: prompts and, say, annotators.")
    if prior_sd is not None and (method != "bt" or style):
        raise InputError("--prior goes with --method bt without --style.")
    if style and method not in {"bt", "judge-aware"}:
        raise InputError(f"--style goes with --method bt or judge-aware, not {method}.")
    if cluster and method not in _CLUSTERED:
        raise InputError(
            f"--cluster goes with --method bt or judge-aware; {method} "
            + ("has no interval." if method in SIMPLE else "takes rows for independent.")
        )
    if len(cluster) == 2 and (method != "bt" or style):
        raise InputError("Two fields of --cluster go with --method bt without --style.")
    table = read_battles([Path(path) for path in paths], cluster[0] if cluster else None)
    if len(cluster) == 2 and cluster[1] not in table.fields:
        close = nearest(cluster[1], list(table.fields)) or "."
        raise InputError(f"{paths[0]} has no field {cluster[1]!r} to cluster by{close}")
    shared: dict[str, Any] = _facts(table, method, cluster, prior_sd)
    if method in SIMPLE:
        return RankReport(
            status="ranked",
            models=_simple(table, method),
            components=[list(table.models)],
            note="A score without an interval, for comparison.",
            **shared,
        )
    try:
        found = strengths_of(table, method, cluster, prior_sd, style=style)
    except NotRankableError as error:
        return RankReport(
            status="not identified",
            reason=str(error),
            components=[[table.models[i] for i in group] for group in error.groups],
            missing=[(table.models[i], table.models[j]) for i, j in error.missing],
            **shared,
        )
    except ValueError as error:
        raise InputError(f"--method {method}: {error}.") from error
    return RankReport(
        status="ranked",
        components=_components(table, found.fit),
        tie=found.tie,
        models=_lines(table, found),
        effects=found.effects,
        n_effective=found.n_effective,
        **_checks(table, found.fit),
        **shared,
    )


def _facts(
    table: BattleTable, method: Method, cluster: Sequence[str], prior_sd: float | None
) -> dict[str, Any]:
    by = " and ".join(cluster)
    n = len(table.battles.score)
    groups = table.battles.n_clusters if method in _CLUSTERED else n
    return {
        "method": method,
        "prior_sd": prior_sd,
        "clustered_by": by or ("rows" if groups == n else "prompts"),
        "n_rows": table.n_rows,
        "n_unscored": table.n_unscored,
        "n_ties": int((table.battles.score == 0.5).sum()),
        "n_both_bad": table.n_both_bad,
        "n_clusters": groups,
    }


def _lines(table: BattleTable, found: Strengths) -> list[RankedModel]:
    theta, low, high = found.theta, found.low, found.high
    best, worst = simultaneous_ranks(theta, found.p, ALPHA)
    n = _games(table)
    order = sorted(range(len(theta)), key=lambda i: (not math.isfinite(theta[i]), -theta[i]))
    return [
        RankedModel(
            table.models[i],
            _known(theta[i]),
            _known(_elo(theta[i])),
            None,
            _known(_elo(low[i])),
            _known(_elo(high[i])),
            int(best[i]),
            int(worst[i]),
            float(n[i]),
        )
        for i in order
    ]


def _simple(table: BattleTable, method: Method) -> list[RankedModel]:
    k = len(table.models)
    if method == "elo":
        score = elo_updates(table.battles, k)
    else:
        wins = table.sums.wins
        score = (average_win_rate if method == "win-rate" else eigenvector)(wins)
    n = _games(table)
    found = []
    for i in np.argsort(-score, kind="stable").tolist():
        own = _known(float(score[i]))
        elo, other = (own, None) if method == "elo" else (None, own)
        found.append(
            RankedModel(table.models[i], None, elo, other, None, None, None, None, float(n[i]))
        )
    return found


def _checks(table: BattleTable, fit: BradleyTerryFit | None) -> dict[str, Any]:
    """Orders, misfits and cycles of a fit without a prior."""
    if fit is None or fit.prior_sd is not None or fit.n_clusters < 2:
        return {}
    names, sums = table.models, table.sums
    return {
        "orders": [
            Order(names[one.better], names[one.worse], one.n_removed)
            for one in fragility(table.battles, fit, sums)
        ],
        "misfits": [
            Misfit(
                names[one.first],
                names[one.second],
                one.n,
                one.observed,
                one.predicted,
                one.adjusted_p,
            )
            for one in pair_fits(table.battles, fit, sums)
            if one.adjusted_p < ALPHA
        ],
        "cycles": [[names[i] for i in group] for group in certain_cycles(table.battles, fit, sums)],
    }


def _components(table: BattleTable, fit: BradleyTerryFit | None) -> list[list[str]]:
    if fit is None:
        return [list(table.models)]
    pairs = sorted(zip(fit.component.tolist(), table.models, strict=True))
    return [[name for _, name in group] for _, group in itertools.groupby(pairs, lambda p: p[0])]


def _games(table: BattleTable) -> Array:
    wins = table.sums.wins
    return (wins + wins.T).sum(axis=1)


def _elo(theta: float) -> float:
    return _CENTRE + ELO_PER_LOG_STRENGTH * theta


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
