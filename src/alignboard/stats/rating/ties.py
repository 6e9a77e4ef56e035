"""Bradley-Terry with draws as an outcome of their own: Davidson, and Rao and Kupper."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from alignboard.stats.logistic import expit
from alignboard.stats.rating.battles import Array, Battles, components, require_rankable, summed
from alignboard.stats.rating.solvers import maximise

TieModel = Literal["davidson", "rao-kupper"]

_DRAW = 0.5


@dataclass(frozen=True)
class TieFit:
    """Log-strengths beside a parameter of draws."""

    model: TieModel
    log_strength: Array
    """(models,) with mean zero"""
    covariance: Array
    """(models, models) inverse Fisher information: comparisons are taken for independent"""
    tie: float
    """Davidson: nu, a draw weighs nu sqrt(pi_i pi_j). Rao and Kupper: the threshold, 1 without draws"""
    log_likelihood: float
    n_battles: int


def with_ties(battles: Battles, n_models: int, model: TieModel) -> TieFit:
    """Fit ``model`` to wins, draws and losses; scores between them are refused.

    Raises `NotRankableError` as `bradley_terry` does, and `ValueError` for a board without a draw or a decision.

    References: Davidson 1970, JASA 65; Rao and Kupper 1967, JASA 62.
    """
    draw = battles.score == _DRAW
    if not (draw | (battles.score == 0) | (battles.score == 1)).all():
        raise ValueError("models of draws need wins, draws and losses: scores of 0, 0.5 and 1")
    if not draw.any() or draw.all():
        raise ValueError("models of draws need a draw and a decision at least")
    wins, draws = _counts(battles, draw, n_models)
    met = wins + draws / 2
    require_rankable(met, components(met))
    likelihood = {"davidson": _davidson, "rao-kupper": _rao_kupper}[model]
    start = np.zeros(n_models + 1)
    start[-1] = 0.0 if model == "davidson" else math.log(1.5)
    x, information, _ = maximise(lambda at: likelihood(at, wins, draws), start)
    value = likelihood(x, wins, draws)[0]
    inverse = np.linalg.inv(information)[:n_models, :n_models]
    centred = np.eye(n_models) - 1 / n_models
    return TieFit(
        model,
        x[:-1],
        centred @ inverse @ centred,
        math.exp(x[-1]),
        value,
        len(battles.score),
    )


def _counts(battles: Battles, draw: np.ndarray, n_models: int) -> tuple[Array, Array]:
    """(models, models) wins of the row's model, and draws, which are symmetric."""
    weight = np.ones(len(draw)) if battles.weight is None else battles.weight
    won = battles.score == 1
    winner = np.where(won, battles.first, battles.second)
    loser = np.where(won, battles.second, battles.first)
    shape = (n_models, n_models)
    key = winner * n_models + loser
    wins = summed(key, np.where(draw, 0.0, weight), n_models**2).reshape(shape)
    draws = summed(key, np.where(draw, weight, 0.0), n_models**2).reshape(shape)
    return wins, draws + draws.T


def _davidson(x: Array, wins: Array, draws: Array) -> tuple[float, Array, Array]:
    """An exponential family: gradient and information are those of its sufficient statistics.

    Every unordered pair stands twice in the matrices, once from either side, which the halves undo.
    """
    theta, log_nu = x[:-1], x[-1]
    mean = (theta[:, None] + theta) / 2
    odds = np.stack(
        [
            np.broadcast_to(theta[:, None], mean.shape),
            np.broadcast_to(theta, mean.shape),
            log_nu + mean,
        ]
    )
    top = odds.max(axis=0)
    norm = top + np.log(np.exp(odds - top).sum(axis=0))
    win, lose, tie = np.exp(odds - norm)
    games = wins + wins.T + draws
    np.fill_diagonal(games, 0)
    value = float((wins * (odds[0] - norm)).sum() + (draws * (odds[2] - norm)).sum() / 2)
    gradient = np.append(
        (wins + draws / 2 - games * (win + tie / 2)).sum(axis=1),
        (draws - games * tie).sum() / 2,
    )
    own = games * (win + tie / 4 - (win + tie / 2) ** 2)
    across = games * (tie / 4 - (win + tie / 2) * (lose + tie / 2))
    with_nu = (games * (tie / 2 - tie * (win + tie / 2))).sum(axis=1)
    return (
        value,
        gradient,
        _information(own, across, with_nu, float((games * (tie - tie**2)).sum() / 2)),
    )


def _rao_kupper(x: Array, wins: Array, draws: Array) -> tuple[float, Array, Array]:
    """P(i wins) = s(d - l), P(draw) = (e^2l - 1) s(d - l) s(-d - l): s the logistic function, l the threshold's log."""
    theta, threshold = x[:-1], x[-1]
    if threshold <= 0:
        return -math.inf, x, np.eye(len(x))
    gap = theta[:, None] - theta
    one = gap - threshold
    decided = wins + draws  # each enters with s(d - l), seen from its own side
    p = expit(one)
    n_draws = float(draws.sum()) / 2
    value = float(-(decided * np.logaddexp(0, -one)).sum()) + n_draws * math.log(
        math.expm1(2 * threshold)
    )
    residual = decided * (1 - p)
    weight = decided * p * (1 - p)
    slope = 2 / -math.expm1(-2 * threshold)
    bend = 4 * math.exp(-2 * threshold) / math.expm1(-2 * threshold) ** 2
    gradient = np.append(
        residual.sum(axis=1) - residual.sum(axis=0), n_draws * slope - residual.sum()
    )
    both = weight + weight.T
    with_threshold = weight.sum(axis=0) - weight.sum(axis=1)
    information = _information(both, -both, with_threshold, float(weight.sum()) + n_draws * bend)
    return value, gradient, information


def _information(own: Array, across: Array, beside: Array, last: float) -> Array:
    """The information of strengths and one parameter of draws, with the mean of the strengths fixed."""
    models = len(own)
    full = np.empty((models + 1, models + 1))
    full[:-1, :-1] = across + 1 / models
    np.fill_diagonal(full[:-1, :-1], own.sum(axis=1) + 1 / models)
    full[-1, :-1] = full[:-1, -1] = beside
    full[-1, -1] = last
    return full
