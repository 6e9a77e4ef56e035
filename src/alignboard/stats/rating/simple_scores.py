"""Scores for comparison with strengths: Elo's updates, the average win rate, the eigenvector. None has an interval."""

from __future__ import annotations

import math

import numpy as np

from alignboard.stats.rating.battles import Array, Battles

_K, _SCALE = 4.0, 400.0
_MAX_ITERATIONS = 10_000


def elo_updates(battles: Battles, n_models: int, start: float = 1000.0) -> Array:
    """(models,) ratings after one update a row, K = 4: they depend on the order of the rows.

    References: Elo 1978; FastChat ``elo_analysis.py`` (K = 4, scale 400).
    """
    rating = [start] * n_models
    weights = np.ones(len(battles.score)) if battles.weight is None else battles.weight
    columns = (battles.first, battles.second, battles.score, weights)
    for i, j, score, weight in zip(*(column.tolist() for column in columns), strict=True):
        expected = 1 / (1 + 10 ** ((rating[j] - rating[i]) / _SCALE))
        move = _K * weight * (score - expected)
        rating[i] += move
        rating[j] -= move
    return np.array(rating)


def average_win_rate(wins: Array) -> Array:
    """(models,) mean over opponents of the share of points won against each; NaN for a model that met nobody."""
    games = wins + wins.T
    met = games > 0
    rate = np.where(met, wins / np.where(met, games, 1), 0)
    n = met.sum(axis=1)
    return np.where(n, rate.sum(axis=1) / np.maximum(n, 1), math.nan)


def eigenvector(wins: Array) -> Array:
    """(models,) the leading eigenvector of the points won, of length 1: a win counts by the strength of who lost.

    References: Newman, Networks (2018), section 7.1.2. evalica 0.4's ``eigen`` is that of the points lost.
    """
    scores = np.full(len(wins), 1 / math.sqrt(len(wins)))
    shifted = wins + np.eye(len(wins)) * wins.max(
        initial=1.0
    )  # the same vectors, and no oscillation
    for _ in range(_MAX_ITERATIONS):
        new = shifted @ scores
        new /= np.linalg.norm(new)
        if np.abs(new - scores).max() < 1e-14:
            return new
        scores = new
    return scores
