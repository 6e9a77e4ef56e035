"""The rating engine beside evalica and choix, on boards where all of them converge."""

import numpy as np
import pytest

from alignboard.stats.rating.battles import Battles, added_up
from alignboard.stats.rating.bradley_terry import bradley_terry
from alignboard.stats.rating.simple_scores import average_win_rate, eigenvector, elo_updates
from alignboard.stats.rating.ties import with_ties

evalica = pytest.importorskip("evalica")
choix = pytest.importorskip("choix")


def board(seed, n_models=6, n=900, *, draws=True):
    rng = np.random.default_rng(seed)
    theta = rng.normal(0, 0.7, n_models)
    first = rng.integers(0, n_models, n)
    second = (first + rng.integers(1, n_models, n)) % n_models
    p = 1 / (1 + np.exp(theta[second] - theta[first]))
    u, share = rng.random(n), 0.8 if draws else 1.0
    score = np.where(u < share * p, 1.0, np.where(u > 1 - share * (1 - p), 0.0, 0.5))
    return Battles(first, second, score, np.arange(n))


def by_evalica(method, battles, n_models, **options):
    winner = {1.0: evalica.Winner.X, 0.0: evalica.Winner.Y, 0.5: evalica.Winner.Draw}
    names = [f"{k:02d}" for k in range(n_models)]
    found = method(
        [names[k] for k in battles.first],
        [names[k] for k in battles.second],
        [winner[score] for score in battles.score.tolist()],
        **options,
    )
    return found.scores.sort_index().to_numpy()


def centred(values):
    return np.log(values) - np.log(values).mean()


@pytest.mark.parametrize("seed", range(3))
def test_bradley_terry_is_evalicas(seed):
    battles = board(seed)
    theirs = by_evalica(evalica.bradley_terry, battles, 6, tolerance=1e-14, limit=100_000)
    assert np.allclose(bradley_terry(battles, 6).log_strength, centred(theirs), atol=1e-8)


@pytest.mark.parametrize("seed", range(3))
def test_davidson_is_evalicas_newman(seed):
    battles = board(seed)
    theirs = by_evalica(evalica.newman, battles, 6, tolerance=1e-14, limit=100_000)
    assert np.allclose(with_ties(battles, 6, "davidson").log_strength, centred(theirs), atol=1e-8)


@pytest.mark.parametrize("seed", range(3))
def test_simple_scores_are_evalicas(seed):
    battles = board(seed)
    wins = added_up(battles, 6).wins
    theirs = by_evalica(evalica.average_win_rate, battles, 6)
    assert np.allclose(
        average_win_rate(wins), theirs, atol=1e-4
    )  # evalica adds its tolerance to every cell
    theirs = by_evalica(evalica.elo, battles, 6)
    assert np.allclose(elo_updates(battles, 6), theirs, atol=1e-9)
    theirs = by_evalica(evalica.eigen, battles, 6, tolerance=1e-14, limit=10_000)
    # evalica 0.4 takes the transpose: its highest score is that of the model that loses most
    assert np.allclose(eigenvector(wins.T), theirs / np.linalg.norm(theirs), atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_bradley_terry_is_choixs(seed):
    battles = board(seed, draws=False)
    won = battles.score == 1
    data = list(
        zip(
            np.where(won, battles.first, battles.second).tolist(),
            np.where(won, battles.second, battles.first).tolist(),
            strict=True,
        )
    )
    expected = choix.ilsr_pairwise(6, data, max_iter=1000, tol=1e-12)
    assert np.allclose(
        bradley_terry(battles, 6).log_strength, expected - expected.mean(), atol=1e-8
    )
