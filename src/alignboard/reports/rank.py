"""Ratings from comparisons of anybody: strengths, intervals, rank sets, and what they rest on."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from alignboard.errors import InputError, nearest
from alignboard.results.battles import BattleTable, read_battles
from alignboard.stats.ranks import difference_tests, simultaneous_ranks
from alignboard.stats.rating.battles import Array, NotRankableError
from alignboard.stats.rating.bradley_terry import (
    ELO_PER_LOG_STRENGTH,
    BradleyTerryFit,
    bradley_terry,
    two_way_covariance,
)
from alignboard.stats.rating.checks import certain_cycles, fragility, pair_fits
from alignboard.stats.rating.covariates import with_covariates
from alignboard.stats.rating.simple_scores import average_win_rate, eigenvector, elo_updates
from alignboard.stats.rating.ties import with_ties
from alignboard.stats.student import student_quantile

Method = Literal["bt", "davidson", "rao-kupper", "judge-aware", "elo", "win-rate", "eigenvector"]
ALPHA = 0.05
_CENTRE = 1000.0
_JUDGE = ("judge", "annotator")


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


class Effect(msgspec.Struct, frozen=True):
    """A covariate: what one standard deviation, or the place shown, adds to the log odds; or a judge's sharpness."""

    name: str
    value: float
    low: float
    high: float


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


@dataclass(frozen=True)
class _Strengths:
    """What all likelihood methods give."""

    theta: Array
    low: Array
    high: Array
    p: Array
    """(models, models) that two models are equally strong"""
    effects: list[Effect]
    tie: float | None = None
    fit: BradleyTerryFit | None = None


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
    if len(cluster) == 2 and (method != "bt" or style):
        raise InputError("Two fields of --cluster go with --method bt without --style.")
    table = read_battles([Path(path) for path in paths], cluster[0] if cluster else None)
    if len(cluster) == 2 and cluster[1] not in table.fields:
        close = nearest(cluster[1], list(table.fields)) or "."
        raise InputError(f"{paths[0]} has no field {cluster[1]!r} to cluster by{close}")
    shared: dict[str, Any] = _facts(table, method, cluster, prior_sd)
    if method in {"elo", "win-rate", "eigenvector"}:
        return RankReport(
            status="ranked",
            models=_simple(table, method),
            components=[list(table.models)],
            note="A score without an interval, for comparison.",
            **shared,
        )
    try:
        found = _strengths(table, method, cluster, prior_sd, style=style)
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
        **_checks(table, found.fit),
        **shared,
    )


def _facts(
    table: BattleTable, method: Method, cluster: Sequence[str], prior_sd: float | None
) -> dict[str, Any]:
    by = " and ".join(cluster)
    n = len(table.battles.score)
    groups = table.battles.n_clusters
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


def _strengths(
    table: BattleTable,
    method: Method,
    cluster: Sequence[str],
    prior_sd: float | None,
    *,
    style: bool,
) -> _Strengths:
    battles, k = table.battles, len(table.models)
    if method in {"davidson", "rao-kupper"}:
        tied = with_ties(battles, k, method)  # pyright: ignore[reportArgumentType]
        # Fisher's information: the law is normal, which Student's is to ten digits at so many degrees.
        return _strengths_with(tied.log_strength, tied.covariance, 1e6, [], tied.tie)
    if style or method == "judge-aware":
        return _with_effects(table, method, style=style)
    fit = bradley_terry(battles, k, prior_sd=prior_sd)
    shown = fit
    if len(cluster) == 2:
        covariance, groups = two_way_covariance(battles, fit, table.fields[cluster[1]])
        shown = replace(fit, covariance=covariance, n_clusters=groups)
    return _Strengths(fit.log_strength, *shown.interval(), shown.p_values(), [], fit=fit)


def _strengths_with(
    theta: Array, covariance: Array, degrees: float, effects: list[Effect], tie: float | None = None
) -> _Strengths:
    """Student's limits and tests."""
    reach = student_quantile(1 - ALPHA / 2, degrees) * np.sqrt(np.diag(covariance))
    return _Strengths(
        theta,
        theta - reach,
        theta + reach,
        difference_tests(theta, covariance, degrees),
        effects,
        tie,
    )


def _with_effects(table: BattleTable, method: Method, *, style: bool) -> _Strengths:
    judge_field = next((name for name in _JUDGE if name in table.fields), None)
    judges = table.names[judge_field] if judge_field else ("",)
    codes = table.fields[judge_field] if judge_field else np.zeros(len(table.battles.score), int)
    names, columns = _features(table, judges, codes) if style else ([], [])
    if style and not names:
        raise ValueError(
            "--style finds neither lengths nor styles (fields NAME_a, NAME_b) nor a position that varies"
        )
    if method == "judge-aware" and len(judges) < 2:
        raise ValueError("two judges are needed, in a field 'judge' or 'annotator'")
    n = len(table.battles.score)
    fit = with_covariates(
        table.battles,
        len(table.models),
        np.column_stack(columns) if columns else np.zeros((n, 0)),
        codes.astype(np.intp) if method == "judge-aware" else None,
    )
    k = len(table.models)
    reach = student_quantile(1 - ALPHA / 2, fit.n_clusters - 1) if fit.n_clusters > 1 else math.nan
    error = reach * np.sqrt(np.diag(fit.covariance))
    values = [*fit.coefficient.tolist(), *np.log(fit.discrimination).tolist()]
    labels = [*names, *(f"discrimination of {one}" for one in judges)][: len(values)]
    effects = [
        Effect(label, value, value - margin, value + margin)
        for label, value, margin in zip(labels, values, error[k:].tolist(), strict=True)
    ]
    for at in range(len(names), len(effects)):  # printed as factors
        one = effects[at]
        effects[at] = Effect(one.name, *(math.exp(x) for x in (one.value, one.low, one.high)))
    effects.sort(key=lambda one: one.name)
    return _strengths_with(fit.log_strength, fit.covariance[:k, :k], fit.n_clusters - 1, effects)


def _features(
    table: BattleTable, judges: Sequence[str], codes: NDArray
) -> tuple[list[str], list[Array]]:
    """Standardised differences, and a column of the place shown for each judge."""
    names, columns = [], []
    for name, values in table.features.items():
        spread = float(values.std())
        if spread > 0:
            names.append(name)
            columns.append(values / spread)
    if table.position is not None:
        for number, judge in enumerate(judges):
            own = np.where(codes == number, table.position, 0.0)
            if own.any():
                names.append(f"shown first to {judge}" if judge else "shown first")
                columns.append(own)
    return names, columns


def _lines(table: BattleTable, found: _Strengths) -> list[RankedModel]:
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
