"""p-values and limits of paired differences where few prompts can tell how rare the contrary ones are."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignboard.stats.paired import equivalence_p_value, mcnemar, paired_difference
from alignboard.stats.ranks import paired_rank_sets
from alignboard.stats.student import student_p_value

UNITS = st.sampled_from([-1.0, -0.6, -0.1, 0.0, 0.2, 0.3, 1.0])


@given(st.lists(UNITS, min_size=2, max_size=40))
def test_p_is_below_five_percent_where_the_interval_excludes_0(units: list[float]) -> None:
    delta = np.array(units)
    score = np.maximum(delta, 0), np.maximum(-delta, 0)
    found = paired_difference(*score)
    assert (found.p_value < 0.05) == (found.low > 0 or found.high < 0)
    low, high = paired_rank_sets(np.column_stack(score))
    assert (low[0] == high[0]) == (found.p_value < 0.05)


def test_units_that_are_all_1_have_the_exact_test_of_signs() -> None:
    found = paired_difference(np.ones(9), np.zeros(9))
    assert math.isnan(found.standard_error)
    assert found.p_value == pytest.approx(mcnemar(9, 0).exact)


def test_a_rare_prompt_that_is_not_among_few_is_no_certainty() -> None:
    """Nine prompts in ten favour A by about .1, the tenth B by .9: A and B are as good, and t is large without it."""
    rng = np.random.default_rng(0)
    claims = by_t = 0
    for _ in range(1000):
        delta = np.where(rng.random(10) < 0.1, -0.9, 0.1) + rng.uniform(-0.01, 0.01, 10)
        found = paired_difference(np.maximum(delta, 0), np.maximum(-delta, 0))
        claims += found.p_value < 0.05
        by_t += student_p_value(found.t, 9) < 0.05
    assert claims / 1000 <= 0.05
    assert by_t / 1000 > 0.3


@given(st.lists(UNITS, min_size=2, max_size=60), st.sampled_from([0.02, 0.1, 0.3]))
def test_models_are_equivalent_where_limits_of_90_percent_are_within_the_margin(
    units: list[float], margin: float
) -> None:
    delta = np.array(units)
    found = paired_difference(np.maximum(delta, 0), np.maximum(-delta, 0), level=0.9)
    p = equivalence_p_value(found, margin)
    if not math.isnan(p):
        assert (p < 0.05) == (-margin < found.low and found.high < margin)


def test_few_prompts_without_a_difference_show_no_equivalence() -> None:
    delta = np.resize([0.001, -0.001], 300)
    few, many = (paired_difference(0.5 + delta[:n], np.full(n, 0.5)) for n in (100, 300))
    assert equivalence_p_value(few, 0.02) > 0.05 > equivalence_p_value(many, 0.02)
