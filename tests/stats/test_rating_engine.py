"""The rating engine: arithmetic goldens, draws, covariates, solvers, checks of fit, bootstraps and simple scores."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignboard.stats.rating import ties
from alignboard.stats.rating.battles import Battles, NotRankableError, added_up
from alignboard.stats.rating.bradley_terry import bradley_terry, two_way_covariance
from alignboard.stats.rating.checks import certain_cycles, fragility, pair_fits
from alignboard.stats.rating.covariates import with_covariates
from alignboard.stats.rating.resampling import multinomial_bootstrap, prompt_bootstrap
from alignboard.stats.rating.simple_scores import average_win_rate, eigenvector, elo_updates
from alignboard.stats.rating.ties import with_ties
from rating_boards import arithmetic


def simulated(seed, n_models=6, n_prompts=80, *, strength=None, rounds=1):
    rng = np.random.default_rng(seed)
    theta = np.linspace(0.6, -0.6, n_models) if strength is None else np.asarray(strength)
    i, j = np.triu_indices(n_models, 1)
    first, second = np.tile(i, n_prompts * rounds), np.tile(j, n_prompts * rounds)
    p = 1 / (1 + np.exp(theta[second] - theta[first]))
    u = rng.random(len(p))
    score = np.where(u < 0.8 * p, 1.0, np.where(u > 1 - 0.8 * (1 - p), 0.0, 0.5))
    return Battles(first, second, score, np.repeat(np.arange(n_prompts), len(i) * rounds))


STRENGTHS = [0.134210999868, 0.100618252856, -0.033382546954, -0.201446705770]
ERRORS = [0.090814385130, 0.124101927881, 0.148548361575, 0.147667240796]


@pytest.mark.parametrize("solver", ["newton", "newman", "mm"])
def test_half_tie_strengths_and_prompt_errors_of_the_arithmetic_board(solver):
    fit = bradley_terry(arithmetic(), 4, solver=solver)
    assert np.allclose(fit.log_strength, STRENGTHS, rtol=0, atol=1e-11)
    assert np.allclose(fit.standard_error, ERRORS, rtol=1e-9, atol=0)
    difference, error = fit.differences()
    assert difference[0, 3] == pytest.approx(0.335657705639, rel=1e-9)
    assert error[0, 3] == pytest.approx(0.214826859224, rel=1e-9)


def test_row_errors_of_the_arithmetic_board():
    one = arithmetic()
    n = len(one.score)
    fit = bradley_terry(Battles(one.first, one.second, one.score, np.arange(n)), 4)
    hc0 = fit.differences()[1][0, 3] * np.sqrt((n - 1) / n)
    assert hc0 == pytest.approx(0.237516084809, rel=1e-9)


def test_davidson_and_rao_kupper_of_the_arithmetic_board():
    davidson = with_ties(arithmetic(), 4, "davidson")
    expected = [0.163571354, 0.122625788, -0.040667696, -0.245529446]
    assert np.allclose(davidson.log_strength, expected, atol=1e-9)
    assert davidson.tie == pytest.approx(0.436159826, abs=1e-9)
    assert davidson.log_likelihood == pytest.approx(-185.564696069, abs=1e-9)
    rao = with_ties(arithmetic(), 4, "rao-kupper")
    expected = [0.138731280, 0.102522838, -0.033639801, -0.207614316]
    assert np.allclose(rao.log_strength, expected, atol=1e-7)
    assert rao.tie == pytest.approx(1.438739728, abs=1e-7)
    assert rao.log_likelihood == pytest.approx(-185.569161343, abs=1e-7)


@pytest.mark.parametrize("likelihood", [ties._davidson, ties._rao_kupper])
def test_derivatives_of_tie_models_are_those_of_their_likelihoods(likelihood):
    wins, draws = ties._counts(arithmetic(), arithmetic().score == 0.5, 4)
    x = np.array([0.3, -0.2, 0.1, -0.2, 0.4])
    _, gradient, information = likelihood(x, wins, draws)
    gauge = np.zeros((5, 5))
    gauge[:4, :4] = 1 / 4
    for k in range(5):
        step = np.eye(5)[k] * 1e-5
        up, down = likelihood(x + step, wins, draws), likelihood(x - step, wins, draws)
        assert (up[0] - down[0]) / 2e-5 == pytest.approx(gradient[k], abs=1e-5)
        assert np.allclose(-(up[1] - down[1]) / 2e-5, (information - gauge)[k], atol=1e-5)


def test_tie_models_refuse_what_they_do_not_describe():
    one = arithmetic()
    soft = Battles(one.first, one.second, one.score * 0.8, one.cluster)
    with pytest.raises(ValueError, match="wins, draws and losses"):
        with_ties(soft, 4, "davidson")
    decided = one.score != 0.5
    without = Battles(
        one.first[decided], one.second[decided], one.score[decided], one.cluster[decided]
    )
    with pytest.raises(ValueError, match="a draw and a decision"):
        with_ties(without, 4, "rao-kupper")


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_sums_by_cluster_and_sums_by_row_give_one_fit(seed):
    battles = simulated(seed, n_prompts=12)
    weight = np.random.default_rng(seed).uniform(0.5, 2, len(battles.score))
    weighted = Battles(battles.first, battles.second, battles.score, battles.cluster, weight)
    dense = bradley_terry(weighted, 6, prior_sd=4.0)
    # a cluster for every row leaves too many cells to keep
    head = slice(0, 40)
    columns = (weighted.first[head], weighted.second[head], weighted.score[head])
    sparse = Battles(*columns, np.arange(40), weight[head])
    assert added_up(weighted, 6).won is not None
    assert added_up(sparse, 6).won is None
    by_rows = bradley_terry(sparse, 6, prior_sd=4.0)
    ten = np.repeat(np.arange(40), 10)
    forced = Battles(
        sparse.first[ten], sparse.second[ten], sparse.score[ten], ten, weight[head][ten] / 10
    )
    by_cells = bradley_terry(forced, 6, prior_sd=4.0)
    assert np.allclose(by_rows.covariance, by_cells.covariance, atol=1e-12)
    assert np.isfinite(dense.covariance).all()


def test_a_weight_of_two_is_a_row_twice():
    one = simulated(1)
    n = len(one.score)
    weight = np.where(np.arange(n) % 3 == 0, 2.0, 1.0)
    twice = np.repeat(np.arange(n), weight.astype(int))
    by_weight = bradley_terry(Battles(one.first, one.second, one.score, one.cluster, weight), 6)
    by_rows = bradley_terry(
        Battles(one.first[twice], one.second[twice], one.score[twice], one.cluster[twice]), 6
    )
    assert np.allclose(by_weight.log_strength, by_rows.log_strength, atol=1e-9)
    assert np.allclose(by_weight.covariance, by_rows.covariance, atol=1e-12)
    for bad in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="weights"):
            Battles(one.first, one.second, one.score, one.cluster, np.full(n, bad))


def test_pairs_that_would_connect_or_determine_a_board_are_named():
    zeros = np.zeros(2)
    apart = Battles(np.array([0, 2]), np.array([1, 3]), zeros + 0.5, np.arange(2))
    with pytest.raises(NotRankableError) as refused:
        bradley_terry(apart, 4)
    assert refused.value.missing == [(0, 2)]
    unbeaten = Battles(
        np.array([0, 1, 1]), np.array([1, 2, 2]), np.array([1.0, 1, 0]), np.arange(3)
    )
    with pytest.raises(NotRankableError) as refused:
        bradley_terry(unbeaten, 3)
    assert refused.value.missing == [(0, 1)]


def test_two_way_errors_count_annotators_as_well():
    rng = np.random.default_rng(0)
    one = simulated(2, n_prompts=60)
    annotator = rng.integers(0, 5, len(one.score))
    taste = rng.normal(0, 0.4, (5, 6))  # each annotator favours some models everywhere
    push = taste[annotator, one.first] - taste[annotator, one.second]
    score = (rng.random(len(push)) < 1 / (1 + np.exp(-push))).astype(float)
    battles = Battles(one.first, one.second, score, one.cluster)
    fit = bradley_terry(battles, 6)
    covariance, groups = two_way_covariance(battles, fit, annotator)
    assert 4.5 < groups <= 5  # their shares differ a little
    assert np.trace(covariance) > 2 * np.trace(fit.covariance)
    # an annotator for every prompt is the prompt
    same, _ = two_way_covariance(battles, fit, battles.cluster)
    assert np.allclose(same, fit.covariance, atol=1e-12)


def test_an_annotator_with_half_of_all_rows_leaves_few_degrees_of_freedom():
    one = simulated(2, n_prompts=60)
    rng = np.random.default_rng(0)
    annotator = rng.choice(20, len(one.score), p=[0.5, *[0.5 / 19] * 19])
    fit = bradley_terry(one, 6)
    covariance, groups = two_way_covariance(one, fit, annotator)
    assert groups < 5
    assert np.isfinite(covariance).all()
    # alone, one annotator shows nothing of how annotators vary
    covariance, groups = two_way_covariance(one, fit, np.zeros(len(one.score)))
    assert groups == 1
    assert np.isnan(covariance).all()


def test_covariates_are_found_and_taken_out():
    rng = np.random.default_rng(5)
    n_models, n = 5, 20_000
    theta = np.array([0.6, 0.2, 0.0, -0.2, -0.6])
    first = rng.integers(0, n_models, n)
    second = (first + rng.integers(1, n_models, n)) % n_models
    length = rng.normal(size=n) + theta[second] - theta[first]  # weak models write more
    place = rng.choice([-1.0, 1.0], n)
    judge = rng.integers(0, 2, n)
    sharp = np.array([1.5, 1 / 1.5])
    eta = sharp[judge] * (theta[first] - theta[second]) + 0.5 * length + 0.3 * place
    score = (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(float)
    battles = Battles(first, second, score, np.arange(n))
    fit = with_covariates(battles, n_models, np.column_stack([length, place]), judge)
    error = np.sqrt(np.diag(fit.covariance))
    assert np.all(np.abs(fit.log_strength - theta) < 4 * error[:5])
    assert np.all(np.abs(fit.coefficient - [0.5, 0.3]) < 4 * error[5:7])
    assert np.all(np.abs(np.log(fit.discrimination) - np.log(sharp)) < 4 * error[7:])
    plain = bradley_terry(battles, n_models)
    assert np.abs(plain.log_strength - theta).max() > 4 * error[:5].max()


def test_without_covariates_the_fit_is_bradley_terrys_and_a_constant_one_is_refused():
    battles = simulated(3)
    plain = bradley_terry(battles, 6)
    fit = with_covariates(battles, 6, np.zeros((len(battles.score), 0)))
    assert np.allclose(fit.log_strength, plain.log_strength, atol=1e-9)
    assert np.allclose(fit.covariance, plain.covariance, atol=1e-10)
    with pytest.raises(ValueError, match="cannot be told"):
        with_covariates(battles, 6, np.zeros((len(battles.score), 1)))


def test_a_cycle_that_is_certain_is_found_and_described_badly():
    n = 60
    first, second = np.tile([0, 1, 2], n), np.tile([1, 2, 0], n)
    score = np.where(
        np.arange(3 * n) % 10 < 9, 1.0, 0.0
    )  # rock, paper, scissors, nine times in ten
    battles = Battles(first, second, score, np.repeat(np.arange(n), 3))
    fit = bradley_terry(battles, 3)
    assert certain_cycles(battles, fit, added_up(battles, 3)) == [[0, 1, 2]]
    worst = pair_fits(battles, fit, added_up(battles, 3))[0]
    assert worst.adjusted_p < 1e-6
    assert abs(worst.observed - worst.predicted) == pytest.approx(0.4, abs=0.05)
    ladder = simulated(0, n_prompts=200)
    assert certain_cycles(ladder, bradley_terry(ladder, 6), added_up(ladder, 6)) == []


def test_the_fewest_prompts_that_decide_an_order_are_confirmed_by_a_refit():
    battles = simulated(4, n_models=3, n_prompts=60, strength=[0.5, 0.4, -0.8])
    fit = bradley_terry(battles, 3)
    first = fragility(battles, fit, added_up(battles, len(fit.log_strength)))[0]
    assert first.n_removed is not None
    keep = ~np.isin(battles.cluster, first.removed)
    rest = Battles(
        battles.first[keep], battles.second[keep], battles.score[keep], battles.cluster[keep]
    )
    again = bradley_terry(rest, 3).log_strength
    assert again[first.better] <= again[first.worse]
    # fewer do not: the search over all pairs of prompts finds none where the answer is three or more
    assert first.n_removed < 15


def test_nothing_is_removed_to_change_the_order_of_equal_strengths():
    first, second = np.tile([0, 1], 20), np.tile([1, 2], 20)
    draws = Battles(first, second, np.full(40, 0.5), np.repeat(np.arange(20), 2))
    found = fragility(draws, bradley_terry(draws, 3), added_up(draws, 3))
    assert [one.n_removed for one in found] == [0, 0]


def test_bootstraps_agree_with_the_sandwich():
    battles = simulated(6, n_prompts=150)
    fit = bradley_terry(battles, 6)
    rng = np.random.default_rng(0)
    drawn = prompt_bootstrap(battles, fit, draws=600, rng=rng)
    assert drawn.n_undefined == 0
    ratio = drawn.log_strength.std(axis=0) / fit.standard_error
    assert np.all((ratio > 0.85) & (ratio < 1.15))
    low, high = drawn.interval()
    assert np.all((low < fit.log_strength) & (fit.log_strength < high))
    independent = multinomial_bootstrap(battles, fit, draws=600, rng=rng)
    assert np.all(np.abs(independent.log_strength.mean(axis=0) - fit.log_strength) < 0.05)


def test_simple_scores_follow_their_definitions():
    wins = np.array([[0, 3, 1], [1, 0, 2], [1, 0, 0.0]])
    assert average_win_rate(wins).tolist() == [(3 / 4 + 1 / 2) / 2, (1 / 4 + 1) / 2, 1 / 4]
    vector = eigenvector(wins)
    assert np.allclose(wins @ vector, vector * np.abs(np.linalg.eigvals(wins)).max())
    one = Battles(np.array([0]), np.array([1]), np.array([1.0]), np.array([0]))
    assert elo_updates(one, 2).tolist() == [1002.0, 998.0]


def test_the_compiled_sums_are_numpys(monkeypatch):
    pytest.importorskip("numba")
    from alignboard.stats.rating import kernel

    battles = simulated(9, n_prompts=40)
    plain = bradley_terry(battles, 6)
    monkeypatch.setattr(kernel, "_WORTH_IT", 0)
    compiled = bradley_terry(battles, 6)
    assert np.allclose(compiled.log_strength, plain.log_strength, atol=1e-13)
    assert np.allclose(compiled.covariance, plain.covariance, atol=1e-14)
    assert compiled.n_clusters == plain.n_clusters == 40
