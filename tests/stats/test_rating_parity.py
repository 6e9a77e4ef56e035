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


def test_ratings_of_a_large_board_with_draws_are_evalicas():
    """59 models and 8,931 rows, as many as evalica's llmfao, whose file no package carries."""
    battles = board(59, n_models=59, n=8_931)
    options = {"tolerance": 1e-14, "limit": 100_000}
    theirs = by_evalica(evalica.bradley_terry, battles, 59, **options)
    for solver in ("newton", "newman"):
        found = bradley_terry(battles, 59, solver=solver).log_strength
        assert np.allclose(found, centred(theirs), atol=1e-8)
    theirs = by_evalica(evalica.newman, battles, 59, **options)
    assert np.allclose(with_ties(battles, 59, "davidson").log_strength, centred(theirs), atol=1e-8)


# Two of evalica's own data sets, rows as left, right and who won (=: a draw), with its golden scores.
SIMPLE = "01= 02> 02= 04= 10< 12= 12= 13= 24= 30< 31< 32< 34= 34= 40< 43<"
FOOD = (
    "PS< BA> TP< ST> BP< AS> TB< PA= SB> AT< BS> TP< SA= BT< PB> AT> BS> TA< PT> SB< AP> BS> TA< PS< SB> AT> TP< BA> "
    "ST< PB>"
)
GOLDEN = {
    "simple": (SIMPLE, "bradley_terry", {
        "4": 0.34947527489923, "3": 0.33688868041573855, "2": 0.13168568070110523, "1": 0.1311506914535368,
        "0": 0.050799672530389396,
    }),
    "food": (FOOD, "bradley_terry", {
        "T": 0.43428982771223773, "S": 0.19060028489839073, "B": 0.14797665121689418, "A": 0.1281534106031957,
        "P": 0.09897982556928168,
    }),
    "simple, ties": (SIMPLE, "newman", {
        "4": 13.03674474236858, "3": 12.805770244756038, "2": 0.4814190342801864, "1": 0.4802400245305803,
        "0": 0.017973592758248474,
    }),
    "food, ties": (FOOD, "newman", {
        "T": 2.6652107229187254, "S": 1.0906271591531849, "B": 0.8296600883232509, "A": 0.7101537820870093,
        "P": 0.536812511441843,
    }),
}  # fmt: skip


@pytest.mark.parametrize("name", GOLDEN)
def test_evalicas_data_sets_have_its_golden_scores(name):
    rows, method, golden = GOLDEN[name]
    names = sorted(golden)
    first, second, sign = zip(*rows.split(), strict=True)
    battles = Battles(
        np.array([names.index(one) for one in first]),
        np.array([names.index(one) for one in second]),
        np.array([{"<": 1.0, ">": 0.0, "=": 0.5}[one] for one in sign]),
        np.arange(len(first)),
    )
    k, expected = len(names), centred(np.array([golden[one] for one in names]))
    if method == "newman":
        assert with_ties(battles, k, "davidson").log_strength == pytest.approx(expected, abs=1e-8)
        return
    for solver in ("newton", "newman", "mm"):
        found = bradley_terry(battles, k, solver=solver).log_strength
        assert found == pytest.approx(expected, abs=1e-8)


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
