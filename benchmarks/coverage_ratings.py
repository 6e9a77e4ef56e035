"""Coverage of ratings: round robins, comparisons with one baseline, and boards whose ratings need a prior."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np

from alignboard.stats.rating.battles import Battles, NotRankableError
from alignboard.stats.rating.bradley_terry import BradleyTerryFit, bradley_terry, log_strengths
from alignboard.stats.student import student_quantile
from coverage_cells import Array, Cell, Labels, Limits, simulate

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(60)
_REPETITIONS = {3: 1_000, 8: 300, 20: 100, 50: 25}
"""by number of models: all of a board's differences are counted"""
_MOST_ROWS = 20_000
"""above it the row-level fit, which sums by rows, is left out"""


def _logistic(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def _pseudo_truth(theta: Array, sd: float) -> Array:
    """(models,) the strengths that a fit to endless prompts would find, of which each favours some models."""
    gap = (theta[:, None] - theta)[..., None] + math.sqrt(2) * sd * _NODES
    wins = (_logistic(gap) * _WEIGHTS / _WEIGHTS.sum()).sum(axis=-1)
    np.fill_diagonal(wins, 0)
    return log_strengths(wins)


def _differences(fit: BradleyTerryFit) -> Limits:
    """Limits of all differences, the first model of each pair less the second."""
    i, j = np.triu_indices(len(fit.log_strength), 1)
    found, error = fit.differences()
    reach = student_quantile(0.975, fit.n_clusters - 1) * error
    return (found - reach)[i, j], (found + reach)[i, j]


def _apart(values: Array) -> Array:
    i, j = np.triu_indices(len(values), 1)
    return np.asarray(values[i] - values[j])


def _fit(first: Labels, second: Labels, score: Array, cluster: Labels, n: int) -> BradleyTerryFit:
    battles = Battles(first, second, score, cluster)
    try:
        return bradley_terry(battles, n)
    except NotRankableError:
        return bradley_terry(battles, n, prior_sd=3.0)


def round_robins(repetitions: int) -> Iterator[Cell]:
    """All differences of a round robin; each prompt favours some models, and pairs are seen in both orders."""
    designs = itertools.product((3, 8, 20, 50), (3, 5, 10, 20, 50, 200), (0.0, 1.0, 2.0))
    for models, prompts, sd in designs:
        i, j = np.triu_indices(models, 1)
        first, second = np.tile(i, 2 * prompts), np.tile(j, 2 * prompts)
        prompt = np.repeat(np.arange(prompts), 2 * len(i))
        theta = np.linspace(0.5, -0.5, models)

        def draw(
            rng: np.random.Generator,
            sd: float = sd,
            prompts: int = prompts,
            theta: Array = theta,
            pairs: tuple[Labels, Labels] = (i, j),
            battles: tuple[Labels, Labels, Labels] = (first, second, prompt),
        ) -> tuple[Array, tuple[Labels, Labels, Labels], int]:
            own = theta + sd * rng.standard_normal((prompts, len(theta)))
            p = np.repeat(_logistic(own[:, pairs[0]] - own[:, pairs[1]]), 2, axis=0).ravel()
            return (rng.random(len(p)) < p).astype(np.float64), battles, len(theta)

        def by_prompt(score: Array, battles: tuple[Labels, Labels, Labels], models: int) -> Limits:
            return _differences(_fit(battles[0], battles[1], score, battles[2], models))

        def by_row(score: Array, battles: tuple[Labels, Labels, Labels], models: int) -> Limits:
            rows = np.arange(len(score))
            return _differences(_fit(battles[0], battles[1], score, rows, models))

        methods = {"alignboard": by_prompt}
        if len(first) <= _MOST_ROWS:
            methods["rows independent"] = by_row
        yield from simulate(
            "rating differences, round robin",
            f"{models} models, {prompts} prompts, prompt-by-model sd {sd:g}",
            _apart(_pseudo_truth(theta, sd)),
            draw,
            methods,
            min(repetitions, _REPETITIONS[models]),
        )


def baseline_only(repetitions: int) -> Iterator[Cell]:
    """All differences of eight models and the baseline, each compared with the baseline alone on every prompt."""
    theta = np.linspace(0.5, -1.5, 8)
    for prompts, sd in itertools.product((200, 805), (0.0, 1.0, 2.0)):
        first = np.tile(np.arange(8), prompts)
        prompt = np.repeat(np.arange(prompts), 8)
        gap = theta[:, None] + math.sqrt(2) * sd * _NODES
        rate = (_logistic(gap) * _WEIGHTS / _WEIGHTS.sum()).sum(axis=-1)
        truth = np.append(np.log(rate / (1 - rate)), 0.0)

        def draw(rng: np.random.Generator, prompts: int = prompts, sd: float = sd) -> tuple[Array]:
            own = theta + sd * rng.standard_normal((prompts, 8))
            p = _logistic(own - sd * rng.standard_normal((prompts, 1))).ravel()
            return ((rng.random(len(p)) < p).astype(np.float64),)

        def limits(score: Array, first: Labels = first, cluster: Labels = prompt) -> Limits:
            return _differences(_fit(first, np.full(len(first), 8), score, cluster, 9))

        methods = {
            "alignboard": limits,
            "rows independent": lambda score, first=first, limits=limits: limits(
                score, first, np.arange(len(score))
            ),
        }
        yield from simulate(
            "rating differences, baseline only",
            f"8 models, {prompts} prompts, prompt-by-model sd {sd:g}",
            _apart(truth), draw, methods, min(repetitions, 500),
        )  # fmt: skip


_PRIORS: dict[str, tuple[Array, int]] = {
    "undefeated, top at 4, 20 prompts": (np.array([4.0, 0.5, 0.0, -0.5]), 20),
    "undefeated, top at 5, 50 prompts": (np.array([5.0, 0.5, 0.0, -0.5]), 50),
    "undefeated, top at 6, 100 prompts": (np.array([6.0, 0.5, 0.0, -0.5]), 100),
    "two models, 1.5 apart, 5 prompts": (np.array([1.5, 0.0]), 5),
    "two models, 2 apart, 10 prompts": (np.array([2.0, 0.0]), 10),
    "winless, 8 models, one at -3, 10 prompts": (np.append(np.linspace(0.5, -0.5, 7), -3.0), 10),
    "winless, 20 models, one at -4, 8 prompts": (np.append(np.linspace(0.5, -0.5, 19), -4.0), 8),
    "separate groups of 3, 4.5 apart, 10 prompts": (
        np.array([4.75, 4.5, 4.25, 0.25, 0.0, -0.25]),
        10,
    ),
}


def needing_a_prior(repetitions: int) -> Iterator[Cell]:
    """All strengths and all differences, on those boards alone whose ratings exist with a prior only."""
    for design, (theta, prompts) in _PRIORS.items():
        i, j = np.triu_indices(len(theta), 1)
        first, second = np.tile(i, prompts), np.tile(j, prompts)
        prompt = np.repeat(np.arange(prompts), len(i))
        p = _logistic(theta[first] - theta[second])

        def draw(
            rng: np.random.Generator,
            p: Array = p,
            battles: tuple[Labels, Labels, Labels] = (first, second, prompt),
            models: int = len(theta),
        ) -> tuple[BradleyTerryFit]:
            while True:
                score = (rng.random(len(p)) < p).astype(np.float64)
                own = Battles(battles[0], battles[1], score, battles[2])
                try:
                    bradley_terry(own, models)
                except NotRankableError:
                    return (bradley_terry(own, models, prior_sd=3.0),)

        def sandwich(fit: BradleyTerryFit) -> Limits:
            reach = student_quantile(0.975, fit.n_clusters - 1) * np.sqrt(np.diag(fit.covariance))
            return fit.log_strength - reach, fit.log_strength + reach

        def sandwich_apart(fit: BradleyTerryFit) -> Limits:
            i, j = np.triu_indices(len(fit.log_strength), 1)
            c = fit.covariance
            error = np.sqrt(np.maximum(np.diag(c)[:, None] + np.diag(c) - 2 * c, 0))[i, j]
            reach = student_quantile(0.975, fit.n_clusters - 1) * error
            centre = _apart(fit.log_strength)
            return centre - reach, centre + reach

        n = min(repetitions, 500)
        yield from simulate(
            "rating strengths, prior needed", design, theta - theta.mean(), draw,
            {"alignboard": lambda fit: fit.interval(), "sandwich (former)": sandwich}, n,
        )  # fmt: skip
        yield from simulate(
            "rating differences, prior needed", design, _apart(theta), draw,
            {"alignboard": _differences, "sandwich (former)": sandwich_apart}, n,
        )  # fmt: skip
