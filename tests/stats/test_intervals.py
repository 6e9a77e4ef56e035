"""Intervals of rates: against scipy, against the definition, and at the edges."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from alignboard.stats.binomial import binomial_tail, least_rate
from alignboard.stats.intervals import (
    Estimate,
    bounded_mean,
    clustered_mean,
    rate_interval,
    student_interval,
)


def known(value, error, n):
    return Estimate.of_equal_clusters(value, error, n)


def test_limits_are_the_delta_method_on_the_logit_scale():
    interval = rate_interval(known(0.2, 0.03, 50))
    reach = stats.t.ppf(0.975, 49) * 0.03 / (0.2 * 0.8)
    assert math.log(interval.high / (1 - interval.high)) == pytest.approx(
        math.log(0.25) + reach, rel=1e-9
    )
    assert math.log(interval.low / (1 - interval.low)) == pytest.approx(
        math.log(0.25) - reach, rel=1e-9
    )
    assert (interval.estimate, interval.standard_error, interval.n_clusters) == (0.2, 0.03, 50)


@given(st.floats(1e-6, 1 - 1e-6), st.floats(1e-6, 0.5), st.integers(2, 5000), st.floats(0.5, 0.999))
def test_limits_stay_inside_and_hold_the_estimate(estimate, error, n, level):
    interval = rate_interval(known(estimate, error, n), level)
    assert 0 <= interval.low <= estimate <= interval.high <= 1
    wider = rate_interval(known(estimate, error, n), (1 + level) / 2)
    assert wider.low <= interval.low
    assert wider.high >= interval.high


@pytest.mark.parametrize(
    ("estimate", "error", "n"),
    [(math.nan, 0.1, 10), (0.5, math.nan, 10), (0.5, math.inf, 10), (0.5, 0.1, 1), (0.5, 0.1, 0)],
)
def test_unknown_is_not_zero(estimate, error, n):
    interval = rate_interval(known(estimate, error, n))
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)
    assert math.isnan(interval.standard_error)


@given(st.integers(1, 2000))
def test_extremes_have_the_exact_one_sided_limit(n):
    lowest, highest = rate_interval(known(0.0, 0.0, n)), rate_interval(known(1.0, 0.0, n))
    assert lowest.low == 0
    assert highest.high == 1
    # The chance of n losses in a row at the upper limit is half of what is left out.
    assert stats.binom.pmf(0, n, lowest.high) == pytest.approx(0.025, rel=1e-6)
    assert highest.low == pytest.approx(1 - lowest.high)


rows = st.lists(st.tuples(st.floats(-5, 5), st.integers(0, 6)), min_size=1, max_size=60)


@given(rows)
def test_clustered_mean_against_the_definition(pairs):
    """CR2 and Satterthwaite's degrees of freedom, by matrices: Bell and McCaffrey 2002."""
    values, clusters = (np.array(column) for column in zip(*pairs, strict=True))
    n, names = len(values), np.unique(clusters)
    found, units = clustered_mean(values.astype(float), clusters)
    assert found.n_clusters == len(names)
    assert found.value == pytest.approx(values.mean(), abs=1e-12)
    assert units == pytest.approx([values[clusters == name].mean() for name in names])
    if len(names) < 2:
        assert math.isnan(found.standard_error)
        return
    annihilator = np.eye(n) - 1 / n
    columns = []
    for name in names:
        own = clusters == name
        values_of, vectors = np.linalg.eigh(annihilator[np.ix_(own, own)])
        root = vectors @ np.diag(values_of**-0.5) @ vectors.T
        columns.append(annihilator[own].T @ root @ np.ones(own.sum()) / n)
    forms = np.array(columns)
    variance = float(((forms @ values) ** 2).sum())
    assert found.standard_error == pytest.approx(math.sqrt(variance), abs=1e-10)
    gram = forms @ forms.T
    freedom = np.trace(gram) ** 2 / (gram**2).sum()
    assert found.n_effective == pytest.approx(1 + freedom, rel=1e-8)


@given(rows)
def test_single_rows_give_the_standard_error_of_the_mean(pairs):
    values = np.array([value for value, _ in pairs])
    found, _ = clustered_mean(values)
    assert found.n_clusters == found.n_effective == len(values)
    if len(values) > 1:
        assert found.standard_error == pytest.approx(stats.sem(values), abs=1e-12)
        assert clustered_mean(values, np.arange(len(values)))[0] == found
    else:
        assert math.isnan(found.standard_error)


def test_names_of_clusters_may_be_anything():
    values = np.array([0.1, 0.7, 0.4, 0.9])
    by_number, _ = clustered_mean(values, np.array([3, 3, 1, 2]))
    by_text, _ = clustered_mean(values, np.array(["b", "b", "z", "a"]))
    by_id, _ = clustered_mean(values, np.array([2**64 - 1, 2**64 - 1, 0, 7], dtype=np.uint64))
    assert by_number.standard_error == pytest.approx(by_text.standard_error, rel=1e-12)
    assert by_number.standard_error == pytest.approx(by_id.standard_error, rel=1e-12)


def test_nothing_has_no_mean():
    found, units = clustered_mean(np.array([]), np.array([]))
    assert math.isnan(found.value)
    assert math.isnan(found.standard_error)
    assert found.n_clusters == len(units) == 0
    assert math.isnan(bounded_mean(np.array([math.nan])).low)


@pytest.mark.parametrize("n", [2, 5, 20])
def test_draws_alone_leave_room_on_both_sides(n):
    found = bounded_mean(np.full(n, 0.5))
    room = (1 - 0.025 ** (1 / n)) / 2
    assert (found.low, found.high) == pytest.approx((0.5 - room, 0.5 + room))


def test_a_soft_judge_has_the_limits_of_a_sharp_one():
    # Twenty losses at .0005 in place of 0: the logit-t interval alone has a width of 1e-16.
    assert bounded_mean(np.full(20, 0.0005)).high == pytest.approx(
        bounded_mean(np.zeros(20)).high, abs=1e-3
    )


@pytest.mark.parametrize("n", [10, 20, 50])
@pytest.mark.parametrize("rate", [0.02, 0.1, 0.9])
def test_soft_saturated_verdicts_are_covered(n, rate):
    rng = np.random.default_rng(7)
    low, high = 0.0005, 0.9995
    truth = low + rate * (high - low)
    boards = 800
    held = 0
    for _ in range(boards):
        found = bounded_mean(np.where(rng.random(n) < rate, high, low))
        held += found.low <= truth <= found.high
    assert (
        held / boards >= 0.92
    )  # .93 less a Monte-Carlo error; .27 for n = 20, rate .02 without the corners


def test_the_interval_of_a_mean_is_students():
    values = np.array([7.0, 8.0, 3.0, 10.0, 6.5])
    estimate, _ = clustered_mean(values)
    found = student_interval(estimate)
    expected = stats.t.interval(0.95, 4, loc=values.mean(), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-9)
    cut = student_interval(estimate, within=(1.0, 7.0))
    assert (cut.low, cut.high) == (found.low, 7.0)


@pytest.mark.parametrize(
    ("error", "n"), [(math.nan, 5), (0.0, 5), (1e-14, 5), (0.5, 1), (math.inf, 5)]
)
def test_a_mean_without_spread_has_unknown_limits(error, n):
    found = student_interval(known(8.0, error, n))
    assert found.estimate == 8.0
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert math.isnan(found.standard_error)


@given(st.integers(1, 300), st.data())
def test_binomial_limits_are_clopper_and_pearsons(n, data):
    wins = data.draw(st.integers(1, n))
    rate = data.draw(st.floats(1e-6, 1 - 1e-6))
    assert binomial_tail(wins, n, rate) == pytest.approx(
        stats.binom.sf(wins - 1, n, rate), rel=1e-8, abs=1e-14
    )
    exact = stats.binomtest(wins, n).proportion_ci(0.95, "exact")
    assert least_rate(wins, n, 0.025) == pytest.approx(exact.low, rel=1e-8)


@given(st.integers(2, 60), st.data(), st.sampled_from([0.8, 0.95, 0.99]))
def test_binary_units_have_limits_inside_of_the_exact_ones(n, data, level):
    """Where the logit scale reaches further, the limit is the exact one; elsewhere it is as it was."""
    wins = data.draw(st.integers(1, n - 1))
    values = np.repeat([1.0, 0.0], [wins, n - wins])
    found = bounded_mean(values, level=level)
    exact = stats.binomtest(wins, n).proportion_ci(level, "exact")
    estimate, units = clustered_mean(values)
    before = rate_interval(estimate, level, units=units)
    assert found.low == pytest.approx(max(before.low, exact.low), rel=1e-8)
    assert found.high == pytest.approx(min(before.high, exact.high), rel=1e-8)


def test_one_win_of_ten_reaches_no_further_than_the_exact_limit():
    found = bounded_mean(np.repeat([1.0, 0.0], [1, 9]))
    assert found.high == pytest.approx(
        0.4450161, abs=1e-7
    )  # Clopper and Pearson; .578 by the logit scale
    twice = bounded_mean(np.repeat([1.0, 0.0], [2, 18]), np.repeat(np.arange(10), 2))
    assert twice.high == pytest.approx(found.high, rel=1e-9), "clusters of one size are units, too"


def test_one_unit_between_0_and_1_has_no_limits():
    found = bounded_mean(np.array([0.5]))
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_only_units_in_0_to_1_of_one_size_have_exact_limits():
    """Estimates may leave [0, 1], and clusters of several sizes are no binomial sample."""
    beyond = np.array([1.4, 0.6, *[-0.2] * 4, *[0.1] * 2])
    assert bounded_mean(beyond) == rate_interval(
        clustered_mean(beyond)[0], units=clustered_mean(beyond)[1]
    )
    values, clusters = np.repeat([1.0, 0.0], [3, 8]), np.repeat([0, 1, 2, 3, 4], [3, 2, 2, 2, 2])
    estimate, units = clustered_mean(values, clusters)
    assert bounded_mean(values, clusters) == rate_interval(estimate, units=units)
