"""liblinear's stopping point: equal to scikit-learn's, which upstream used, to rounding."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from alignboard.stats import l1_logistic, length_control, liblinear
from builders import length_difference, released_annotations, released_calibration


def scikit_learn(x, y, weight, C):
    """Upstream's call: every row twice, label 1 with weight y and label 0 with weight 1 - y."""
    model = LogisticRegression(
        penalty="l1", solver="liblinear", random_state=123, fit_intercept=False, C=C
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn retires `penalty`
        model.fit(
            np.vstack([x, x]),
            np.repeat([1, 0], len(y)),
            sample_weight=np.concatenate([weight * y, weight * (1 - y)]),
        )
    return model.coef_[0]


def problem(seed, labels):
    rng = np.random.default_rng(seed)
    n, k = int(rng.integers(6, 300)), int(rng.integers(1, 6))
    x = rng.normal(size=(n, k)) * 10.0 ** rng.uniform(-1.5, 1, size=k)
    y = rng.random(n)
    if labels == "hard":
        y = np.round(y)
        y[:2] = 0, 1
    elif labels == "mixed":
        y = np.where(rng.random(n) < 0.7, np.round(y), y)
    return x, y, rng.random(n) + 0.01, 10.0 ** rng.uniform(-4, 4)


@pytest.mark.parametrize("labels", ["soft", "hard", "mixed"])
@settings(max_examples=120, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_the_weights_are_those_of_scikit_learn(labels, seed):
    x, y, weight, C = problem(seed, labels)
    assert liblinear.fit(x, y, weight, C) == pytest.approx(scikit_learn(x, y, weight, C), abs=1e-9)


def test_the_problems_above_include_weights_that_are_shrunk_to_zero():
    zeros = 0
    for seed in range(60):
        w = scikit_learn(*problem(seed, "soft"))
        zeros += int(w.any() and not w.all())
    assert zeros > 5


def test_it_stops_short_of_the_optimum():
    x, y, weight, _ = problem(1, "soft")
    distance = np.abs(
        liblinear.fit(x, y, weight, 10.0) - l1_logistic.fit(x, y, weight, 10.0).weights
    )
    assert 0 < distance.max() < 0.05


@pytest.mark.parametrize("annotator", ["weighted_alpaca_eval_gpt4_turbo", "alpaca_eval_gpt4"])
def test_the_weights_are_those_of_scikit_learn_on_released_verdicts(released, annotator):
    difficulty, gamed = released_calibration(released)
    compared = 0
    for model, table in released_annotations(released, annotator).items():
        if table.generator == table.baseline:
            continue
        rows = (table.preference, length_difference(table), difficulty[: len(table)], gamed)
        _, x, y, weight = length_control._design(*rows)
        for C in l1_logistic.DEFAULT_CS[[2, 5, 6, 9]]:
            ours, theirs = liblinear.fit(x, y, weight, C), scikit_learn(x, y, weight, C)
            assert ours == pytest.approx(theirs, abs=1e-9), (model, C)
            compared += 1
    assert compared >= 76
