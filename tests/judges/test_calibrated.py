"""Calibrated win rates: no judge, a useless one, a good one, and coverage."""

import numpy as np
import pytest

from alignboard.stats.calibrated import calibrated_mean
from alignboard.stats.intervals import bounded_mean


def labels(rng, n, labelled, p, sensitivity, specificity):
    """Binary human scores, a judge with the two rates, and a random part of the rows labelled."""
    human = (rng.random(n) < p).astype(float)
    right = np.where(human > 0, rng.random(n) < sensitivity, rng.random(n) < specificity)
    judge = np.where(right, human, 1 - human)
    seen = np.full(n, np.nan)
    chosen = rng.choice(n, labelled, replace=False)
    seen[chosen] = human[chosen]
    return judge, seen


def test_a_judge_that_says_nothing_leaves_the_humans_alone():
    rng = np.random.default_rng(0)
    human = np.where(np.arange(200) < 60, (rng.random(200) < 0.4).astype(float), np.nan)
    found = calibrated_mean(np.full(200, 0.5), human)
    assert found.weight == 0
    assert found.rate.estimate == pytest.approx(bounded_mean(human[:60]).estimate)
    assert found.gain == pytest.approx(0, abs=1e-9)


def test_few_labels_and_full_labels_are_the_human_mean():
    rng = np.random.default_rng(1)
    judge, human = labels(rng, 100, 5, 0.5, 0.9, 0.9)
    assert calibrated_mean(judge, human).rate == bounded_mean(human)
    full = (rng.random(100) < 0.5).astype(float)
    assert calibrated_mean(judge, full).rate == bounded_mean(full)


def test_a_good_judge_saves_width_and_a_weak_one_hardly_any():
    rng = np.random.default_rng(2)
    good = [calibrated_mean(*labels(rng, 805, 100, 0.4, 0.95, 0.95)).gain for _ in range(50)]
    weak = [calibrated_mean(*labels(rng, 805, 100, 0.4, 0.7, 0.6)).gain for _ in range(50)]
    assert np.mean(good) > 0.35
    assert (
        0 <= np.mean(weak) < 0.1
    )  # an untuned weight of 1 would be a third wider than the humans alone


@pytest.mark.parametrize(("p", "n"), [(0.3, 50), (0.5, 100), (0.1, 100)])
@pytest.mark.parametrize("judge", [(0.7, 0.6), (0.85, 0.8)])
def test_calibrated_intervals_cover(p, n, judge):
    rng = np.random.default_rng(3)
    held = []
    for _ in range(500):
        found = calibrated_mean(*labels(rng, 805, n, p, *judge)).rate
        held.append(found.low <= p <= found.high)
    assert np.mean(held) >= 0.925
