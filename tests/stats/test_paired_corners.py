"""p-values and limits of paired differences where few prompts can tell how rare the contrary ones are."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignboard.stats.paired import mcnemar, paired_difference
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
