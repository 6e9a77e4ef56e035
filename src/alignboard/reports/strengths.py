"""The strengths that a rank report shows: the models of a field by the method that was asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from alignboard.errors import InputError
from alignboard.results.battles import BattleTable
from alignboard.stats.intervals import known_errors
from alignboard.stats.ranks import difference_tests
from alignboard.stats.rating.battles import Array
from alignboard.stats.rating.bradley_terry import BradleyTerryFit, bradley_terry, two_way_covariance
from alignboard.stats.rating.covariates import with_covariates
from alignboard.stats.rating.ties import with_ties
from alignboard.stats.student import student_quantile

Method = Literal["bt", "davidson", "rao-kupper", "judge-aware", "elo", "win-rate", "eigenvector"]
ALPHA = 0.05
_JUDGE = ("judge", "annotator")


class Effect(msgspec.Struct, frozen=True):
    """A covariate: what one standard deviation, or the place shown, adds to the log odds; or a judge's sharpness."""

    name: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Strengths:
    """What all likelihood methods give."""

    theta: Array
    low: Array
    high: Array
    p: Array
    """(models, models) that two models are equally strong"""
    effects: list[Effect]
    tie: float | None = None
    fit: BradleyTerryFit | None = None
    n_effective: float | None = None
    """clusters of one size that would leave the errors as well known; None without clustered errors"""


def strengths_of(
    table: BattleTable,
    method: Method,
    cluster: Sequence[str],
    prior_sd: float | None,
    *,
    style: bool,
) -> Strengths:
    """The strengths of all models by ``method``."""
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
        covariance, known = two_way_covariance(battles, fit, table.fields[cluster[1]])
        groups = min(fit.n_clusters, len(np.unique(table.fields[cluster[1]])))
        shown = replace(fit, covariance=covariance, n_clusters=groups, n_effective=known)
    return Strengths(
        fit.log_strength,
        *shown.interval(),
        shown.p_values(),
        [],
        fit=fit,
        n_effective=float(shown.n_effective),
    )


def _strengths_with(
    theta: Array, covariance: Array, degrees: float, effects: list[Effect], tie: float | None = None
) -> Strengths:
    """Student's limits and tests."""
    reach = student_quantile(1 - ALPHA / 2, degrees) * known_errors(np.diag(covariance))
    return Strengths(
        theta,
        theta - reach,
        theta + reach,
        difference_tests(theta, covariance, degrees),
        effects,
        tie,
    )


def _with_effects(table: BattleTable, method: Method, *, style: bool) -> Strengths:
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
    degrees = fit.n_effective - 1
    reach = student_quantile(1 - ALPHA / 2, degrees) if degrees > 0 else math.nan
    error = reach * known_errors(np.diag(fit.covariance))
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
    found = _strengths_with(fit.log_strength, fit.covariance[:k, :k], degrees, effects)
    return replace(found, n_effective=float(fit.n_effective))


def _features(
    table: BattleTable, judges: Sequence[str], codes: NDArray
) -> tuple[list[str], list[Array]]:
    """Standardised differences, and a column of the place shown for each judge.

    Raises `InputError` for a length that is none: without ``style`` nothing needs it.
    """
    if table.unusable:
        raise InputError(next(iter(table.unusable.values())))
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
