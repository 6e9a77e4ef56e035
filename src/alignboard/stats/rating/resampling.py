"""Bootstraps of log-strengths: prompts drawn anew, or comparisons drawn anew within pair and outcome."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alignboard.stats.rating.battles import Array, Battles, summed
from alignboard.stats.rating.bradley_terry import BradleyTerryFit

_CELLS_AT_ONCE = 400_000
_MAX_STEPS = 200
_TOLERANCE = 1e-7
_DIVERGED = 50.0


@dataclass(frozen=True)
class Resampled:
    """Log-strengths of boards drawn anew."""

    log_strength: Array
    """(draws, models); NaN in draws that determine no rating"""

    @property
    def n_undefined(self) -> int:
        """Draws without a rating."""
        return int(np.isnan(self.log_strength).any(axis=1).sum())

    def interval(self, level: float = 0.95) -> tuple[Array, Array]:
        """(models,) percentile limits over the draws that have a rating."""
        tail = (1 - level) / 2
        known = self.log_strength[~np.isnan(self.log_strength).any(axis=1)]
        low, high = np.quantile(known, [tail, 1 - tail], axis=0)
        return low, high


def prompt_bootstrap(
    battles: Battles, fit: BradleyTerryFit, *, draws: int, rng: np.random.Generator
) -> Resampled:
    """Draw clusters with replacement; every draw is fitted from ``fit`` by chord steps."""
    k = len(fit.log_strength)
    points, played = _by_cluster(battles, k)
    groups = len(points)
    constant = bool((played == played[0]).all())  # a round robin: nothing to add up
    found, inverse = [], np.linalg.inv(fit.hessian)
    block = max(1, _CELLS_AT_ONCE // k**2)
    for start in range(0, draws, block):
        size = min(block, draws - start)
        chosen = rng.integers(0, groups, (size, groups), dtype=np.int32)
        counts = np.empty((size, groups), dtype=played.dtype)
        for row, clusters in zip(counts, chosen, strict=True):
            row[:] = np.bincount(clusters, minlength=groups)
        games = groups * played[:1] if constant else counts @ played
        found.append(_fitted(counts @ points, games.reshape(-1, k, k), fit, inverse))
    return Resampled(np.concatenate(found))


def multinomial_bootstrap(
    battles: Battles, fit: BradleyTerryFit, *, draws: int, rng: np.random.Generator
) -> Resampled:
    """Draw every pair's wins, draws and losses anew: comparisons taken for independent, as arena boards do."""
    k = len(fit.log_strength)
    first, second = np.triu_indices(k, 1)
    swap = battles.first > battles.second
    low = np.where(swap, battles.second, battles.first)
    high = np.where(swap, battles.first, battles.second)
    score = np.where(swap, 1 - battles.score, battles.score)
    outcome = np.rint(2 * score).astype(np.intp)
    if not (outcome == 2 * score).all() or battles.weight is not None:
        raise ValueError("the multinomial bootstrap needs unweighted wins, draws and losses")
    key = (low * k + high) * 3 + outcome
    counts = np.bincount(key, minlength=k * k * 3).reshape(k * k, 3)[first * k + second]
    n = counts.sum(axis=1)
    share = counts / np.maximum(1, n)[:, None]
    share[n == 0] = (1, 0, 0)
    drawn = rng.multinomial(n, share, size=(draws, len(n)))
    won = drawn[..., 2] + drawn[..., 1] / 2
    sides = np.eye(k)[first], np.eye(k)[second]
    games = sides[0].T @ (n[:, None] * sides[1])
    return Resampled(
        _fitted(
            won @ sides[0] + (n - won) @ sides[1],
            (games + games.T)[None],
            fit,
            np.linalg.inv(fit.hessian),
        )
    )


def _by_cluster(battles: Battles, k: int) -> tuple[NDArray, NDArray]:
    """(clusters, models) points of every model, and (clusters, models x models) comparisons of every two.

    The latter in single precision, which holds what one prompt can have.
    """
    codes, groups = battles.codes
    if battles.n_clusters < groups:  # numbers without a row are no clusters
        codes = np.unique(codes, return_inverse=True)[1]
        groups = battles.n_clusters
    weight = battles.weight
    scored = battles.score if weight is None else battles.score * weight
    second = codes.astype(np.intp) * k
    first = second + battles.first
    second += battles.second
    points = summed(first, scored, groups * k)
    points += summed(second, weight, groups * k) - summed(second, scored, groups * k)
    first *= k
    first += battles.second
    played = summed(first, weight, groups * k**2).reshape(groups, k, k)
    both = (played + played.transpose(0, 2, 1)).reshape(groups, k * k)
    return points.reshape(groups, k), both.astype(np.float32)


def _fitted(points: NDArray, games: NDArray, fit: BradleyTerryFit, inverse: NDArray) -> Array:
    """(draws, models) log-strengths by steps with the ``inverse`` Hessian of ``fit``, which draws hardly change.

    ``points`` is (draws, models), ``games`` (draws or 1, models, models).
    """
    theta = np.tile(fit.log_strength, (len(points), 1))
    moving = np.arange(len(points))
    for _ in range(_MAX_STEPS):
        strength = np.exp(theta[moving])
        p = strength[:, :, None] / (strength[:, :, None] + strength[:, None, :])
        met = games if len(games) == 1 else games[moving]
        expected = (met * p).sum(axis=2)
        move = (points[moving] - expected) @ inverse
        theta[moving] += move
        moved = np.abs(move).max(axis=1)
        moving = moving[(moved > _TOLERANCE) & (moved < _DIVERGED)]
        if not len(moving):
            break
    theta[moving] = np.nan
    theta[np.abs(theta).max(axis=1) > _DIVERGED] = np.nan
    return theta
