"""Coverage of ratings: round robins, comparisons with one baseline, and boards whose ratings need a prior."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np

from alignboard.stats.rating.battles import Battles, NotRankableError, added_up, reachable
from alignboard.stats.rating.bradley_terry import (
    BradleyTerryFit,
    bradley_terry,
    influence_on_strengths,
    log_strengths,
    two_way_covariance,
)
from alignboard.stats.student import student_quantile
from coverage_cells import Array, Design, Labels, Limits

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(60)
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
    reach = student_quantile(0.975, fit.n_effective - 1) * error
    low, high = (found - reach)[i, j], (found + reach)[i, j]
    if fit.separation is not None:
        for k in np.flatnonzero(fit.separation.separate[i, j]).tolist():
            low[k], high[k] = fit.difference_interval(int(i[k]), int(j[k]))
    return low, high


def _apart(values: Array) -> Array:
    i, j = np.triu_indices(len(values), 1)
    return np.asarray(values[i] - values[j])


def _fit(first: Labels, second: Labels, score: Array, cluster: Labels, n: int) -> BradleyTerryFit:
    battles = Battles(first, second, score, cluster)
    try:
        return bradley_terry(battles, n)
    except NotRankableError:
        return bradley_terry(battles, n, prior_sd=3.0)


def round_robins() -> Iterator[Design]:
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
        yield Design(
            "rating differences, round robin",
            f"{models} models, {prompts} prompts, prompt-by-model sd {sd:g}",
            _apart(_pseudo_truth(theta, sd)),
            draw,
            methods,
        )


def baseline_only() -> Iterator[Design]:
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
        yield Design(
            "rating differences, baseline only",
            f"8 models, {prompts} prompts, prompt-by-model sd {sd:g}",
            _apart(truth), draw, methods,
        )  # fmt: skip


def dominated() -> Iterator[Design]:
    """All differences of four equal models by annotators of different tastes, of whom the first gave half of all."""
    for groups in (5, 10, 20, 50):
        size = np.full(groups, 12)
        size[0] = 12 * (groups - 1)
        cluster = np.repeat(np.arange(groups), size)

        def draw(
            rng: np.random.Generator, cluster: Labels = cluster, groups: int = groups
        ) -> tuple[Labels, Labels, Array, Labels]:
            taste = 0.7 * rng.standard_normal((groups, 4))
            first = rng.integers(0, 4, len(cluster))
            second = (first + rng.integers(1, 4, len(cluster))) % 4
            p = _logistic(taste[cluster, first] - taste[cluster, second])
            return first, second, (rng.random(len(p)) < p).astype(np.float64), cluster

        def former(first: Labels, second: Labels, score: Array, cluster: Labels) -> Limits:
            fit = _fit(first, second, score, cluster, 4)
            n, found = fit.n_clusters, _apart(fit.log_strength)
            i, j = np.triu_indices(4, 1)
            push = fit.influence[:, i] - fit.influence[:, j]
            reach = student_quantile(0.975, n - 1) * np.sqrt(n / (n - 1) * (push**2).sum(axis=0))
            return found - reach, found + reach

        yield Design(
            "rating differences, clusters", f"one with half, G = {groups}", np.zeros(6), draw,
            {
                "alignboard": lambda first, second, score, cluster: _differences(
                    _fit(first, second, score, cluster, 4)
                ),
                "CR1, G - 1 (former)": former,
                "rows independent": lambda first, second, score, _: _differences(
                    _fit(first, second, score, np.arange(len(score)), 4)
                ),
            },
        )  # fmt: skip


def two_ways() -> Iterator[Design]:
    """All differences of four equal models whose rows share prompts and annotators, both with tastes of their own."""
    i, j = np.triu_indices(4, 1)
    first, second = np.tile(i, 60), np.tile(j, 60)
    prompt = np.repeat(np.arange(60), len(i))
    for groups, dominant in itertools.product((5, 10, 20), (False, True)):
        share = np.full(groups, 1 / groups)
        if dominant:
            share[:] = 0.5 / (groups - 1)
            share[0] = 0.5

        def draw(
            rng: np.random.Generator, groups: int = groups, share: Array = share
        ) -> tuple[Battles, Labels]:
            annotator = rng.choice(groups, len(first), p=share)
            taste = 0.7 * rng.standard_normal((groups, 4))[annotator]
            taste += 0.7 * rng.standard_normal((60, 4))[prompt]
            rows = np.arange(len(first))
            p = _logistic(taste[rows, first] - taste[rows, second])
            score = (rng.random(len(p)) < p).astype(np.float64)
            return Battles(first, second, score, prompt), annotator

        def limits(fit: BradleyTerryFit, covariance: Array, known: float) -> Limits:
            found, error = _apart(fit.log_strength), np.diag(covariance)
            variance = error[i] + error[j] - 2 * covariance[i, j]
            reach = student_quantile(0.975, known - 1) * np.sqrt(np.maximum(variance, 0))
            return found - reach, found + reach

        def both(battles: Battles, annotator: Labels) -> Limits:
            fit = bradley_terry(battles, 4)
            return limits(fit, *two_way_covariance(battles, fit, annotator))

        def prompts_alone(battles: Battles, _: Labels) -> Limits:
            return _differences(bradley_terry(battles, 4))

        def former(battles: Battles, annotator: Labels) -> Limits:
            fit, total, fewest = bradley_terry(battles, 4), np.zeros((4, 4)), len(first)
            pairs = battles.codes[0] * (len(annotator) + 1) + annotator
            for cluster, sign in ((battles.cluster, 1), (annotator, 1), (pairs, -1)):
                own = bradley_terry(Battles(first, second, battles.score, cluster), 4)
                groups, push = own.n_clusters, own.influence
                total += sign * groups / (groups - 1) * (push.T @ push)
                fewest = min(fewest, groups)
            return limits(fit, total, fewest)

        shape = "one with half" if dominant else "equal"
        yield Design(
            "rating differences, prompts and annotators", f"{shape}, G = {groups}", np.zeros(6), draw,
            {
                "alignboard": both,
                "CR1, G - 1 (former)": former,
                "prompts alone": prompts_alone,
            },
        )  # fmt: skip


SEPARATE = {
    "top at 4 of 4 models, 20 prompts": ((4.0, 0.5, 0.0, -0.5), 20),
    "top at 5 of 4 models, 50 prompts": ((5.0, 0.5, 0.0, -0.5), 50),
    "top at 6 of 4 models, 100 prompts": ((6.0, 0.5, 0.0, -0.5), 100),
    "2 equal models, 5 prompts": ((0.0, 0.0), 5),
    "2 models, 5 prompts": ((0.3, 0.0), 5),
    "2 models, 10 prompts": ((1.35, 0.0), 10),
    "2 models, 20 prompts": ((2.3, 0.0), 20),
    "1 weak of 8 models, 10 prompts": ((-2.5, 0.6, 0.4, 0.2, 0.0, -0.2, -0.4, -0.6), 10),
    "1 hopeless of 20 models, 8 prompts": ((-3.5, *np.linspace(0.5, -0.5, 19).tolist()), 8),
    "2 above 2 models, 10 prompts": ((2.5, 1.5, -1.5, -2.5), 10),
}


def separate() -> Iterator[Design]:
    """Differences on boards where the first model's group never lost to the last one's, or never won against it."""
    for design, (strengths, prompts) in SEPARATE.items():
        theta = np.array(strengths)
        last = len(theta) - 1
        i, j = np.triu_indices(len(theta), 1)
        first, second = np.tile(i, prompts), np.tile(j, prompts)
        prompt = np.repeat(np.arange(prompts), len(i))

        def draw(
            rng: np.random.Generator,
            theta: Array = theta,
            first: Labels = first,
            second: Labels = second,
            prompt: Labels = prompt,
        ) -> tuple[BradleyTerryFit, Battles]:
            while True:
                p = 1 / (1 + np.exp(theta[second] - theta[first]))
                score = (rng.random(len(p)) < p).astype(np.float64)
                battles = Battles(first, second, score, prompt)
                reach = reachable(added_up(battles, len(theta)).wins > 0)
                if not (reach[0, -1] and reach[-1, 0]):
                    return bradley_terry(battles, len(theta), prior_sd=3.0), battles

        def across(fit: BradleyTerryFit, _: Battles, last: int = last) -> Limits:
            return fit.difference_interval(0, last)

        def sandwich(fit: BradleyTerryFit, battles: Battles, last: int = last) -> Limits:
            theta, sums = fit.log_strength, added_up(battles, len(fit.log_strength))
            p = 1 / (1 + np.exp(theta - theta[:, None]))
            push, size = influence_on_strengths(battles, sums, p.ravel(), fit.hessian)
            n = np.count_nonzero(size)
            gap = theta[0] - theta[last]
            error = math.sqrt(n / (n - 1) * float(((push[:, 0] - push[:, last]) ** 2).sum()))
            reach = student_quantile(0.975, fit.n_clusters - 1) * error
            return gap - reach, gap + reach

        truth = float(theta[0] - theta[-1])
        methods = {"alignboard": across, "prior and sandwich (former)": sandwich}
        yield Design("rating difference, separate groups", design, truth, draw, methods)
