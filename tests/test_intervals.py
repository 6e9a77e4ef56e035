"""Intervals of rates: against scipy, against the definition, and at the edges."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from alignboard.stats.intervals import (
    clustered_mean,
    rate_interval,
    student_interval,
    student_quantile,
)


@pytest.mark.parametrize("probability", [0.025, 0.1, 0.5, 0.9, 0.975])
@pytest.mark.parametrize(
    ("freedom", "relative"),
    [(1, 1e-12), (2, 1e-12), (3, 2e-3), (5, 2e-4), (8, 2e-5), (20, 1e-6), (804, 1e-12)],
)
def test_student_quantile_against_scipy(probability, freedom, relative):
    expected = stats.t.ppf(probability, freedom)
    assert student_quantile(probability, freedom) == pytest.approx(
        expected, rel=relative, abs=1e-12
    )


def test_far_tail_of_student_quantile():
    assert student_quantile(0.995, 10) == pytest.approx(stats.t.ppf(0.995, 10), rel=1e-4)


def test_limits_are_the_delta_method_on_the_logit_scale():
    interval = rate_interval(0.2, 0.03, 50)
    reach = stats.t.ppf(0.975, 49) * 0.03 / (0.2 * 0.8)
    assert math.log(interval.high / (1 - interval.high)) == pytest.approx(
        math.log(0.25) + reach, rel=1e-7
    )
    assert math.log(interval.low / (1 - interval.low)) == pytest.approx(
        math.log(0.25) - reach, rel=1e-7
    )
    assert (interval.estimate, interval.standard_error, interval.n_clusters) == (0.2, 0.03, 50)


@given(st.floats(1e-6, 1 - 1e-6), st.floats(1e-6, 0.5), st.integers(2, 5000), st.floats(0.5, 0.999))
def test_limits_stay_inside_and_hold_the_estimate(estimate, error, n, level):
    interval = rate_interval(estimate, error, n, level)
    assert 0 <= interval.low <= estimate <= interval.high <= 1
    wider = rate_interval(estimate, error, n, (1 + level) / 2)
    assert wider.low <= interval.low
    assert wider.high >= interval.high


@pytest.mark.parametrize(
    ("estimate", "error", "n"),
    [(math.nan, 0.1, 10), (0.5, math.nan, 10), (0.5, math.inf, 10), (0.5, 0.1, 1), (0.5, 0.1, 0)],
)
def test_unknown_is_not_zero(estimate, error, n):
    interval = rate_interval(estimate, error, n)
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)
    assert math.isnan(interval.standard_error)


@given(st.integers(1, 2000))
def test_extremes_have_the_exact_one_sided_limit(n):
    lowest, highest = rate_interval(0.0, 0.0, n), rate_interval(1.0, 0.0, n)
    assert lowest.low == 0
    assert highest.high == 1
    # The chance of n losses in a row at the upper limit is half of what is left out.
    assert stats.binom.pmf(0, n, lowest.high) == pytest.approx(0.025, rel=1e-6)
    assert highest.low == pytest.approx(1 - lowest.high)


rows = st.lists(st.tuples(st.floats(-5, 5), st.integers(0, 6)), min_size=1, max_size=60)


@given(rows)
def test_clustered_mean_against_the_definition(pairs):
    values, clusters = (
        np.array([value for value, _ in pairs]),
        np.array([group for _, group in pairs]),
    )
    mean, error, groups = clustered_mean(values, clusters)
    names = sorted(set(clusters.tolist()))
    assert groups == len(names)
    assert mean == pytest.approx(sum(values) / len(values), abs=1e-12)
    if groups < 2:
        assert math.isnan(error)
        return
    squares = sum(
        sum(value - mean for value, group in pairs if group == name) ** 2 for name in names
    )
    assert error == pytest.approx(
        math.sqrt(groups / (groups - 1) * squares) / len(values), abs=1e-12
    )


@given(rows)
def test_single_rows_give_the_standard_error_of_the_mean(pairs):
    values = np.array([value for value, _ in pairs])
    mean, error, groups = clustered_mean(values)
    assert groups == len(values)
    if len(values) > 1:
        assert error == pytest.approx(stats.sem(values), abs=1e-12)
        assert clustered_mean(values, np.arange(len(values))) == pytest.approx(
            (mean, error, groups)
        )
    else:
        assert math.isnan(error)


def test_names_of_clusters_may_be_anything():
    values = np.array([0.1, 0.7, 0.4, 0.9])
    by_number = clustered_mean(values, np.array([3, 3, 1, 2]))
    by_text = clustered_mean(values, np.array(["b", "b", "z", "a"]))
    by_id = clustered_mean(values, np.array([2**64 - 1, 2**64 - 1, 0, 7], dtype=np.uint64))
    assert by_number == pytest.approx(by_text)
    assert by_number == pytest.approx(by_id)


def test_nothing_has_no_mean():
    mean, error, groups = clustered_mean(np.array([]), np.array([]))
    assert math.isnan(mean)
    assert math.isnan(error)
    assert groups == 0


def test_the_interval_of_a_mean_is_students():
    values = np.array([7.0, 8.0, 3.0, 10.0, 6.5])
    mean, error, n = clustered_mean(values)
    found = student_interval(mean, error, n)
    expected = stats.t.interval(0.95, 4, loc=values.mean(), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-3)
    cut = student_interval(mean, error, n, within=(1.0, 7.0))
    assert (cut.low, cut.high) == (found.low, 7.0)


@pytest.mark.parametrize(
    ("error", "n"), [(math.nan, 5), (0.0, 5), (1e-14, 5), (0.5, 1), (math.inf, 5)]
)
def test_a_mean_without_spread_has_unknown_limits(error, n):
    found = student_interval(8.0, error, n)
    assert found.estimate == 8.0
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert math.isnan(found.standard_error)
