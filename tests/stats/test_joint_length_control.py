"""Joint length control: identical responses, few models, missing support, models without a fit, and coverage."""

import numpy as np
import pytest

from alignboard.stats.joint_length_control import JudgedLengths, joint_length_control, lacks_support


def expit(z):
    return 1 / (1 + np.exp(-z))


def board(rng, models, n, *, mean=0.5, soft=True, bias=None, identical=0.0):
    """Verdicts with a length effect of .8 and shared difficulties; lengths differ by ``mean`` sd on average."""
    difficulty = rng.normal(0, 1, n)
    bias = np.linspace(-1, 1, models) if bias is None else np.asarray(bias)
    rows = {}
    for m in range(models):
        u = rng.normal(mean, 1, n)
        rate = expit(bias[m] - 0.8 * np.tanh(u) + difficulty)
        score = rng.beta(2 * rate, 2 * (1 - rate)) if soft else (rng.random(n) < rate) * 1.0
        same = rng.random(n) < identical
        rows[f"m{m}"] = JudgedLengths(
            np.arange(n), np.where(same, 0.5, score), np.where(same, 0, 400 * u), same
        )
    return rows


def rate_of(found):
    assert not isinstance(found, str), found
    return found.found


def test_identical_responses_are_added_back_and_decide_nothing():
    rng = np.random.default_rng(0)
    rows = board(rng, 3, 600, mean=2.0, bias=[2.5, 2.0, 1.5])
    alone = rate_of(joint_length_control(rows)["m0"])
    with_same = {
        name: JudgedLengths(
            np.concatenate([one.instruction, np.arange(600, 700)]),
            np.concatenate([one.score, np.full(100, 0.5)]),
            np.concatenate([one.length_difference, np.zeros(100)]),
            np.concatenate([one.identical, np.ones(100, dtype=bool)]),
        )
        for name, one in rows.items()
    }
    found = joint_length_control(with_same)["m0"]
    both = rate_of(found)
    # Fitted together, a hundred forced draws at equal lengths said what the judge would say there: about one half.
    assert both.win_rate == pytest.approx((600 * alone.win_rate + 100 * 0.5) / 700, abs=1e-9)
    assert not isinstance(found, str)
    assert found.n_identical == 100
    assert both.interval.low < both.win_rate < both.interval.high


def test_two_models_use_no_difficulties():
    rows = board(np.random.default_rng(1), 2, 400)
    one = rate_of(joint_length_control(rows)["m0"])
    flipped = rows | {"m1": JudgedLengths(**(vars(rows["m1"]) | {"score": 1 - rows["m1"].score}))}
    assert rate_of(joint_length_control(flipped)["m0"]).win_rate == one.win_rate


def test_support_is_rows_near_equal_lengths():
    """5 of 100 rows within a quarter of a standard deviation; identical responses do not count."""
    for n_near, expected in ((5, False), (4, True)):
        length = np.concatenate([np.zeros(n_near), np.tile([900.0, 1100.0], 50)])[:100]
        rows = JudgedLengths(np.arange(100), np.ones(100), length, np.zeros(100, dtype=bool))
        assert lacks_support(rows) is expected
    same = JudgedLengths(np.arange(100), np.ones(100), length, length == 0)
    assert lacks_support(same)
    assert not lacks_support(JudgedLengths(np.arange(3), np.ones(3), np.ones(3), np.zeros(3) > 0))


def test_a_rate_outside_of_the_data_says_so():
    rng = np.random.default_rng(2)
    near = joint_length_control(board(rng, 3, 300))["m0"]
    far = joint_length_control(board(rng, 3, 300, mean=3.0))["m0"]
    assert not isinstance(near, str)
    assert not isinstance(far, str)
    assert (near.extrapolated, far.extrapolated) == (False, True)
    # A few rows decide what is said of equal lengths, and the limits are as wide as so few make them.
    assert far.found.interval.n_effective < 50 < near.found.interval.n_effective
    psi = far.found.influence
    freedom = (psi @ psi) ** 2 / (psi**2 @ psi**2)
    assert far.found.interval.n_effective == pytest.approx(1 + freedom)


def test_a_model_without_a_fit_costs_no_other_model():
    rows = board(np.random.default_rng(3), 3, 100)
    nothing = JudgedLengths(**(vars(rows["m1"]) | {"score": np.full(100, np.nan)}))
    same = JudgedLengths(**(vars(rows["m2"]) | {"length_difference": np.full(100, 7.0)}))
    found = joint_length_control(rows | {"unparsed": nothing, "same length": same})
    assert isinstance(found["unparsed"], str)
    assert "equal" in str(found["same length"])
    assert 0 < rate_of(found["m0"]).win_rate < 1


@pytest.mark.parametrize(
    ("models", "soft", "mean"), [(2, True, 0.5), (2, False, 0.0), (4, True, 0.5)]
)
def test_intervals_of_few_models_cover(models, soft, mean):
    """With two models 72 % of intervals held the truth at 805 prompts: each verdict was in its own difficulty."""
    rng = np.random.default_rng(8)
    bias = np.linspace(-1, 1, models)
    grid = np.random.default_rng(9).normal(0, 1, 200_000)
    truth = [expit(b + grid).mean() for b in bias]
    held = []
    for _ in range(100):
        found = joint_length_control(board(rng, models, 400, mean=mean, soft=soft))
        for m in range(models):
            limits = rate_of(found[f"m{m}"]).interval
            held.append(limits.low <= truth[m] <= limits.high)
    assert np.mean(held) >= 0.91
