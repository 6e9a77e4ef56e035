"""Bradley-Terry: published values, closed form, invariants, refusals, and the coverage of its intervals."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from alignboard.stats.rating.battles import Battles, NotRankableError
from alignboard.stats.rating.bradley_terry import bradley_terry


def from_table(wins, cluster=None):
    """Battles from a table in which entry (i, j) is how often i beat j."""
    rows = [
        (i, j) for i, row in enumerate(wins) for j, count in enumerate(row) for _ in range(count)
    ]
    first, second = np.array(rows, dtype=np.intp).T
    return Battles(
        first, second, np.ones(len(rows)), np.arange(len(rows)) if cluster is None else cluster
    )


def test_the_22_games_of_the_encyclopedia():
    # Wikipedia, "Bradley-Terry model", worked example; also arena-rank's tests/test_bradley_terry.py
    wins = [[0, 2, 0, 1], [3, 0, 5, 0], [0, 3, 0, 1], [4, 0, 3, 0]]
    fit = bradley_terry(from_table(wins), 4)
    assert np.round(np.exp(fit.log_strength), 3).tolist() == [0.640, 1.043, 0.660, 2.270]
    assert fit.n_battles == 22


def test_the_american_league_of_1987():
    # Agresti, Categorical Data Analysis, 2nd edition (2002), table 10.10 and section 10.6.3; BradleyTerry2's `baseball`
    wins = [
        [0, 7, 9, 7, 7, 9, 11],
        [6, 0, 7, 5, 11, 9, 9],
        [4, 6, 0, 7, 7, 8, 12],
        [6, 8, 6, 0, 6, 7, 10],
        [6, 2, 6, 7, 0, 7, 12],
        [4, 4, 5, 6, 6, 0, 6],
        [2, 4, 1, 3, 1, 7, 0],
    ]
    fit = bradley_terry(from_table(wins), 7)
    difference, _ = fit.differences()
    expected = [1.581, 1.436, 1.294, 1.248, 1.108, 0.684, 0.0]
    assert np.round(difference[:, 6], 3).tolist() == expected


def test_two_models_have_a_closed_form():
    fit = bradley_terry(
        Battles(
            np.zeros(10, dtype=np.intp),
            np.ones(10, dtype=np.intp),
            np.array([1.0] * 6 + [0.0] * 2 + [0.5] * 2),
            np.arange(10),
        ),
        2,
    )
    assert fit.log_strength[0] - fit.log_strength[1] == pytest.approx(np.log(7 / 3), abs=1e-12)
    assert fit.win_probability(0, 1) == pytest.approx(0.7)
    # the logit of a mean: sd(ddof 1) / sqrt(n) / (p (1 - p))
    _, error = fit.differences()
    score = np.array([1.0] * 6 + [0.0] * 2 + [0.5] * 2)
    assert error[0, 1] == pytest.approx(score.std(ddof=1) / np.sqrt(10) / 0.21, rel=1e-9)
    assert fit.elo()[0] - fit.elo()[1] == pytest.approx(400 * np.log10(7 / 3))


def random_battles(seed, models=5, n=80, prompts=20):
    rng = np.random.default_rng(seed)
    first = rng.integers(models, size=n)
    second = (first + rng.integers(1, models, size=n)) % models
    # scores strictly inside (0, 1): every pair that met has beaten each other, so ratings exist
    return Battles(first, second, rng.uniform(0.1, 0.9, size=n), rng.integers(prompts, size=n))


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_invariants(seed):
    battles = random_battles(seed)
    fit = bradley_terry(battles, 5, prior_sd=5.0)
    assert fit.log_strength.mean() == pytest.approx(0, abs=1e-9)

    swapped = Battles(battles.second, battles.first, 1 - battles.score, battles.cluster)
    other = bradley_terry(swapped, 5, prior_sd=5.0)
    assert np.allclose(other.log_strength, fit.log_strength, atol=1e-8)
    assert np.allclose(other.covariance, fit.covariance, atol=1e-8)

    names = np.random.default_rng(seed + 1).permutation(5)
    renamed = Battles(names[battles.first], names[battles.second], battles.score, battles.cluster)
    permuted = bradley_terry(renamed, 5, prior_sd=5.0)
    assert np.allclose(permuted.log_strength[names], fit.log_strength, atol=1e-8)


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_a_general_optimiser(seed):
    battles = random_battles(seed)

    def loss(theta):
        gap = theta[battles.first] - theta[battles.second]
        win, lose = np.logaddexp(0, -gap), np.logaddexp(0, gap)
        return float((battles.score * win + (1 - battles.score) * lose).sum())

    expected = minimize(loss, np.zeros(5), method="BFGS", options={"gtol": 1e-9}).x
    fit = bradley_terry(battles, 5)
    assert np.allclose(fit.log_strength, expected - expected.mean(), atol=1e-5)


def test_duplicated_data_changes_nothing_where_the_clusters_stay():
    battles = random_battles(3)
    twice = Battles(
        np.tile(battles.first, 2),
        np.tile(battles.second, 2),
        np.tile(battles.score, 2),
        np.tile(battles.cluster, 2),
    )
    one, two = bradley_terry(battles, 5), bradley_terry(twice, 5)
    assert np.allclose(one.log_strength, two.log_strength, atol=1e-9)
    assert np.allclose(one.covariance, two.covariance, atol=1e-9)


def test_an_undefeated_model_is_refused_or_rated_with_a_stated_prior():
    wins = [[0, 3, 4], [0, 0, 2], [0, 1, 0]]
    with pytest.raises(NotRankableError, match="never lost") as refused:
        bradley_terry(from_table(wins), 3)
    assert refused.value.groups == [[0], [1, 2]]
    fit = bradley_terry(from_table(wins), 3, prior_sd=2.0)
    assert fit.prior_sd == 2.0
    assert np.isfinite(fit.log_strength).all()
    assert fit.log_strength.argmax() == 0
    assert len(set(np.round(fit.log_strength, 6))) == 3


@pytest.mark.parametrize("n", [3, 4, 5])
def test_an_unbeaten_model_is_no_surely_better_one_for_a_few_prompts(n):
    # Five wins of five: Elo 1285 [1190, 1380] against 715 [620, 810], "surely" places 1 and 2, where p = .0625.
    fit = bradley_terry(from_table([[0, n], [0, 0]]), 2, prior_sd=3.0)
    low, high = fit.rank_interval()
    assert low.tolist() == [1, 1]
    assert high.tolist() == [2, 2]
    below, above = fit.elo_interval()
    assert above[0] == math.inf
    assert below[1] == -math.inf
    assert below[0] < 1000 < above[1]


@pytest.mark.parametrize("n", [6, 20, 1000])
def test_two_models_of_which_one_won_all_have_the_exact_binomial_limit(n):
    fit = bradley_terry(from_table([[0, n], [0, 0]]), 2, prior_sd=3.0)
    low, high = fit.difference_interval(0, 1)
    assert 1 / (1 + np.exp(-low)) == pytest.approx(0.025 ** (1 / n), rel=1e-5)
    assert high == math.inf
    assert fit.difference_interval(1, 0) == pytest.approx((-math.inf, -low))
    assert fit.p_values()[0, 1] == pytest.approx(min(1, 2 * 0.5**n), rel=1e-5)


@pytest.mark.parametrize("n", [1, 3, 5])
def test_a_record_too_short_to_tell_the_order_sets_no_limit(n):
    """Five of five: given a record without a loss, a model that is weaker by .3 has it in 18 % of cases."""
    fit = bradley_terry(from_table([[0, n], [0, 0]]), 2, prior_sd=3.0)
    assert fit.difference_interval(0, 1) == (-math.inf, math.inf)
    assert fit.elo_interval()[0][0] == -math.inf
    assert fit.elo_interval()[1][1] == math.inf
    assert fit.p_values()[0, 1] == pytest.approx(min(1, 2 * 0.5**n), rel=1e-5)


def test_comparisons_of_one_prompt_are_one_where_nothing_shows_how_they_vary():
    both_orders = np.repeat(np.arange(8), 2)
    twice = bradley_terry(from_table([[0, 16], [0, 0]], both_orders), 2, prior_sd=3.0)
    once = bradley_terry(from_table([[0, 8], [0, 0]]), 2, prior_sd=3.0)
    assert twice.p_values()[0, 1] == pytest.approx(once.p_values()[0, 1], rel=1e-5)
    assert twice.interval()[0][0] == pytest.approx(once.interval()[0][0], rel=1e-5)


def test_the_prior_places_groups_and_touches_nothing_inside_them():
    """A fourth model that beats all three says nothing of the order of the three."""
    three = [[0, 6, 7], [4, 0, 6], [3, 4, 0]]
    alone = bradley_terry(from_table(three), 3, prior_sd=0.1)
    assert alone.prior_sd is None
    assert alone.log_strength == pytest.approx(
        bradley_terry(from_table(three), 3).log_strength, abs=1e-12
    )
    wins = [[*row, 0] for row in three] + [[50, 50, 50, 0]]
    fit = bradley_terry(from_table(wins, np.arange(180) % 30), 4, prior_sd=3.0)
    assert fit.prior_sd == 3.0
    low, high = fit.interval()
    assert np.isfinite(low).all()
    assert np.isfinite(high[:3]).all()
    assert high[3] == math.inf
    assert low[3] > fit.log_strength[:3].max()
    between = fit.log_strength[:3] - fit.log_strength[:3].mean()
    assert between == pytest.approx(alone.log_strength, abs=0.01)
    below, above = alone.interval()
    # The others' limits are those that they have by themselves.
    assert (high - low)[:3] == pytest.approx(above - below, rel=0.01)


def test_soft_verdicts_near_one_are_a_record_without_a_loss():
    """.9995 instead of 1: the sandwich had an interval of no width around a rating of 2600."""
    n = 5
    sure = Battles(np.zeros(n, np.intp), np.ones(n, np.intp), np.full(n, 0.9995), np.arange(n))
    fit = bradley_terry(sure, 2)
    low, high = fit.difference_interval(0, 1)
    assert low < 0
    assert high == math.inf
    assert fit.rank_interval()[1].tolist() == [2, 2]


@pytest.mark.parametrize(("top", "prompts"), [(4.0, 20), (5.0, 50)])
def test_intervals_of_boards_with_an_undefeated_model_cover(top, prompts):
    """Given that the prior was needed; the sandwich alone held no undefeated model's strength in any of these."""
    rng = np.random.default_rng(4)
    theta = np.array([top, 0.5, 0.0, -0.5])
    inside, boards = [], 0
    while boards < 150:
        battles = simulate(theta, prompts, 0.0, rng, ties=0.0)
        fit = bradley_terry(battles, 4, prior_sd=3.0)
        if fit.separation is None or fit.separation.separate[0].sum() != 3:
            continue
        boards += 1
        limits = {
            (i, j): fit.difference_interval(i, j) for i, j in itertools.combinations(range(4), 2)
        }
        inside.append(
            [low <= theta[i] - theta[j] <= high for (i, j), (low, high) in limits.items()]
        )
        assert np.isfinite([limits[i, j] for i, j in limits if i > 0]).all()
    assert np.mean(inside) >= 0.94
    assert np.mean(inside, axis=0).min() >= 0.9


def test_groups_that_never_met_are_refused_or_rated_each_by_itself():
    wins = [[0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 5], [0, 0, 1, 0]]
    with pytest.raises(NotRankableError, match="never compared") as refused:
        bradley_terry(from_table(wins), 4)
    assert refused.value.groups == [[0, 1], [2, 3]]
    fit = bradley_terry(from_table(wins), 4, prior_sd=10.0)
    assert fit.component.tolist() == [0, 0, 1, 1]
    assert np.isnan(fit.win_probability(0, 2))
    assert fit.log_strength[:2].sum() == pytest.approx(0, abs=1e-9)
    assert fit.win_probability(0, 1) == pytest.approx(2 / 3, abs=0.01)


def test_the_arithmetic_board():
    """Values that other code computed; see the docstring of `bradley_terry` for the estimator."""
    prompt, first, second, score = [], [], [], []
    for p in range(30):
        for i, j in itertools.combinations(range(4), 2):
            h = (7 * p + 3 * i + 5 * j + p * i * j) % 11
            prompt.append(p)
            first.append(i)
            second.append(j)
            score.append(1.0 if h < 5 else 0.5 if h < 7 else 0.0)
    columns = (np.array(first), np.array(second), np.array(score))
    fit = bradley_terry(Battles(*columns, np.array(prompt)), 4)
    strengths = [0.134210999868, 0.100618252856, -0.033382546954, -0.201446705770]
    errors = [0.090814385130, 0.124101927881, 0.148548361575, 0.147667240796]
    assert fit.log_strength == pytest.approx(strengths, abs=1e-10)
    assert fit.standard_error == pytest.approx(errors, rel=1e-9)
    difference, error = fit.differences()
    assert difference[0, 3] == pytest.approx(0.335657705639, rel=1e-10)
    assert error[0, 3] == pytest.approx(0.214826859224, rel=1e-10)
    # Names of clusters of any kind are the same clusters.
    for names in (np.array(prompt) * 10**12 - 7, np.array([f"p{p}" for p in prompt])):
        other = bradley_terry(Battles(*columns, names), 4)
        assert other.n_clusters == 30
        assert other.covariance == pytest.approx(fit.covariance, rel=1e-12)


@pytest.mark.parametrize(
    "scores", [(0.5, 0.5), (1.0, 1.0, 0.0)], ids=["draws alone", "alike prompts"]
)
def test_prompts_that_do_not_differ_leave_limits_unknown(scores):
    """The sandwich of clusters without spread is 0, up to rounding errors: that is no certainty."""
    n, each = 50, len(scores)
    prompt = np.repeat(np.arange(n), 2 * each)
    first, second = np.tile(np.repeat([0, 1], each), n), np.tile(np.repeat([1, 2], each), n)
    fit = bradley_terry(Battles(first, second, np.tile(scores, 2 * n), prompt), 3)
    assert np.isnan(fit.interval()).all()
    assert np.isnan(fit.standard_error).all()
    assert np.isnan(fit.differences()[1]).all()
    assert np.isnan(fit.p_values()).all()
    low, high = fit.rank_interval()
    assert (low.tolist(), high.tolist()) == ([1, 1, 1], [3, 3, 3])


def test_one_prompt_gives_no_interval():
    battles = random_battles(0, prompts=1)
    fit = bradley_terry(battles, 5)
    assert fit.n_clusters == 1
    low, high = fit.interval()
    assert np.isnan(low).all()
    assert np.isnan(high).all()


def dominated(rng, groups):
    """Battles of 4 equal models, which each annotator sees in an own way; the first annotator has half of them."""
    size = np.full(groups, 12)
    size[0] = 12 * (groups - 1)
    cluster = np.repeat(np.arange(groups), size)
    taste = rng.normal(0, 0.7, (groups, 4))
    first = rng.integers(4, size=len(cluster))
    second = (first + rng.integers(1, 4, size=len(cluster))) % 4
    p = 1 / (1 + np.exp(taste[cluster, second] - taste[cluster, first]))
    return Battles(first, second, (rng.random(len(p)) < p) * 1.0, cluster)


def test_a_dominant_cluster_leaves_few_degrees_of_freedom():
    """With CR1 and clusters - 1 degrees of freedom .86 and .77 of the limits held the truth at 10 and 30 clusters."""
    rng = np.random.default_rng(8)
    i, j = np.triu_indices(4, 1)
    for groups in (10, 30):
        held = []
        for _ in range(150):
            fit = bradley_terry(dominated(rng, groups), 4, prior_sd=3.0)
            for a, b in zip(i.tolist(), j.tolist(), strict=True):
                low, high = fit.difference_interval(a, b)
                held.append(low <= 0 <= high)
            assert 3 < fit.n_effective < 6
        assert np.mean(held) > 0.93


def test_what_is_no_comparison_is_refused():
    one = np.array([0], dtype=np.intp)
    with pytest.raises(ValueError, match="itself"):
        Battles(one, one, np.ones(1), one)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        Battles(one, one + 1, np.array([np.nan]), one)


def test_ranks_are_certain_only_where_differences_are():
    rng = np.random.default_rng(5)
    theta = np.array([2.0, 0.05, 0.0, -2.0])
    battles = simulate(theta, prompts=150, effect=0.3, rng=rng)
    best, worst = bradley_terry(battles, 4).rank_interval()
    assert best.tolist() == [1, 2, 2, 4]
    assert worst.tolist() == [1, 3, 3, 4]


def simulate(theta, prompts, effect, rng, ties=0.15):
    """A round robin in which every model has an effect of its own on every prompt, which all its games there share."""
    models = len(theta)
    shift = effect * rng.standard_normal((prompts, models))
    i, j = np.triu_indices(models, 1)
    prompt = np.repeat(np.arange(prompts), len(i))
    first, second = np.tile(i, prompts), np.tile(j, prompts)
    gap = theta[first] - theta[second] + shift[prompt, first] - shift[prompt, second]
    score = (rng.random(len(gap)) < 1 / (1 + np.exp(-gap))).astype(float)
    score[rng.random(len(gap)) < ties] = 0.5
    return Battles(first, second, score, prompt)


def coverage(theta, prompts, effect, repeats, rng):
    """How often intervals of differences hold the value that a very large sample gives."""
    truth = bradley_terry(simulate(theta, 40_000, effect, rng), len(theta)).differences()[0]
    upper = np.triu_indices(len(theta), 1)
    inside = []
    for _ in range(repeats):
        fit = bradley_terry(simulate(theta, prompts, effect, rng), len(theta))
        difference, error = fit.differences()
        reach = fit._quantile(0.975) * error
        inside.append(np.abs(difference - truth)[upper] <= reach[upper])
    return float(np.mean(inside))


def test_intervals_cover_where_prompts_matter():
    rng = np.random.default_rng(11)
    covered = coverage(np.linspace(-0.8, 0.8, 5), prompts=60, effect=1.0, repeats=120, rng=rng)
    assert 0.92 <= covered <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize(("prompts", "effect"), [(50, 1.0), (200, 1.0), (200, 0.3), (30, 0.0)])
def test_coverage_at_length(prompts, effect):
    rng = np.random.default_rng(prompts)
    covered = coverage(np.linspace(-1, 1, 8), prompts, effect, repeats=1000, rng=rng)
    assert 0.935 <= covered <= 0.965
