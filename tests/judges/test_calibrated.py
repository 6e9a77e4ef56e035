"""Calibrated win rates: no judge, a useless one, a good one, and coverage."""

import numpy as np
import pytest

from alignboard.stats.calibrated import (
    calibrated_difference,
    calibrated_mean,
    calibrated_strengths,
    rectified,
)
from alignboard.stats.intervals import bounded_mean
from alignboard.stats.paired import paired_difference
from alignboard.stats.rating.battles import Battles
from alignboard.stats.rating.bradley_terry import bradley_terry


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


def test_lambda_of_zero_is_the_mean_of_the_people():
    human = np.where(np.arange(100) < 40, np.arange(100) % 2 * 1.0, np.nan)
    found = rectified(np.full(100, 0.7), human)
    assert found.weight == 0
    assert found.values.mean() == pytest.approx(np.nanmean(human))
    with pytest.raises(ValueError, match="human label"):
        rectified(human, np.full(100, np.nan))
    with pytest.raises(ValueError, match="probabilities"):
        rectified(human, human, np.zeros(100))


def test_labels_drawn_with_known_probabilities_leave_the_mean_unbiased():
    rng = np.random.default_rng(3)
    truth = rng.random(600) < 0.35
    judge = np.where(rng.random(600) < 0.8, truth, ~truth) * 1.0
    probability = np.where(
        judge == 1, 0.35, 0.1
    )  # people are asked more often where the judge says yes
    found, held = [], 0
    for _ in range(400):
        drawn = rng.random(600) < probability
        labels = np.where(drawn, truth * 1.0, np.nan)
        one = calibrated_mean(judge, labels, probability=probability)
        found.append(one.rate.estimate)
        held += one.rate.low <= truth.mean() <= one.rate.high
    assert np.mean(found) == pytest.approx(truth.mean(), abs=0.01)
    assert held / 400 >= 0.93
    plain = np.nanmean(np.where(rng.random(600) < probability, truth * 1.0, np.nan))
    assert abs(plain - truth.mean()) > 0.05  # without the probabilities the labels mislead


def test_calibrated_differences_hold_the_peoples_difference():
    rng = np.random.default_rng(4)
    held, gains = 0, []
    for _ in range(300):
        a, b = rng.random((2, 805)) < np.array([[0.5], [0.4]])
        right = rng.random((2, 805)) < 0.9
        judge = np.where(right[0], a, ~a) * 1.0, np.where(right[1], b, ~b) * 1.0
        drawn = np.zeros(805, dtype=bool)
        drawn[rng.choice(805, 100, replace=False)] = True
        human = np.where(drawn, a * 1.0, np.nan), np.where(drawn, b * 1.0, np.nan)
        one = calibrated_difference(judge, human)
        held += one.found.low <= 0.1 <= one.found.high
        alone = paired_difference(*human)
        gains.append(one.found.standard_error / alone.standard_error)
        assert one.found.n_effective == 100
    assert 0.92 <= held / 300 <= 0.98
    assert np.mean(gains) < 0.8


def test_calibrated_strengths_undo_the_judges_taste():
    rng = np.random.default_rng(5)
    theta, taste = np.array([0.5, 0.0, -0.5]), np.array([-0.8, 0.0, 0.8])
    held, naive = 0, 0
    for _ in range(120):
        i, j = (np.tile(x, 400) for x in np.triu_indices(3, 1))
        u = rng.random(len(i))  # judge and people agree where both decide by the same draw
        people = (u < 1 / (1 + np.exp(theta[j] - theta[i]))) * 1.0
        own = theta + taste
        judge = (u < 1 / (1 + np.exp(own[j] - own[i]))) * 1.0
        drawn = rng.random(len(i)) < 0.2
        battles = Battles(i, j, judge.astype(np.float64), np.repeat(np.arange(400), 3))
        found = calibrated_strengths(
            battles, np.where(drawn, people, np.nan), 3, probability=np.full(len(i), 0.2)
        ).fit
        low, high = found.interval()
        held += low[0] <= 0.5 <= high[0]
        naive += abs(bradley_terry(battles, 3).log_strength[0] - 0.5) > 0.4
    assert held / 120 >= 0.9
    assert naive == 120


def test_tuned_estimates_are_those_of_ppi_python():
    """Figures of ppi_python 0.2.3 (`ppi_mean_pointestimate`, `ppi_mean_ci`), which is no dependency of the tests.

    It tunes one weight on all labels, and we one for each fold on the others: the two meet up to 1 / labels.
    """
    rng = np.random.default_rng(26)
    truth = (rng.random(20_000) < 0.4).astype(np.float64)
    right = np.where(rng.random(20_000) < 0.85, truth, 1 - truth)
    judge = right * 0.8 + 0.2 * rng.random(20_000)
    human = np.full(20_000, np.nan)
    chosen = rng.choice(20_000, 1_000, replace=False)
    human[chosen] = truth[chosen]
    found = calibrated_mean(judge, human).rate
    theirs, low, high = 0.38939586, 0.36673848, 0.41205323
    assert abs(found.estimate - theirs) < 0.05 * found.standard_error
    assert found.high - found.low == pytest.approx(high - low, rel=0.01)
