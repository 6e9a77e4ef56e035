"""E-processes and confidence sequences: published goldens, martingale, coverage under continuous looking."""

import json

import numpy as np
import pytest

from alignboard.stats.sequential import (
    EProcesses,
    confidence_sequence,
    e_process,
    query_probabilities,
)

JUDGE = "weighted_alpaca_eval_gpt4_turbo"


def scores(released, model):
    path = released / "results" / model / JUDGE / "annotations.json"
    rows = json.loads(path.read_bytes())
    return {row["instruction"]: row["preference"] - 1 for row in rows}


@pytest.mark.parametrize(
    ("a", "b", "final", "first"),
    [
        ("gpt-3.5-turbo-1106", "gpt-3.5-turbo-1106_concise", 1.831280178, 617),
        ("claude-2.1", "OpenHermes-2.5-Mistral-7B", 7.988870869, 92),
    ],
)
def test_goldens_on_released_annotations(released, a, b, final, first):
    one, two = scores(released, a), scores(released, b)
    outputs = json.loads(
        (released / "results" / "gpt4_1106_preview" / "model_outputs.json").read_bytes()
    )
    order = [row["instruction"] for row in outputs]
    found = e_process(
        np.array([one[text] - two[text] for text in order if text in one and text in two])
    )
    assert found[-1] == pytest.approx(final, rel=1e-9)
    assert 1 + int(np.flatnonzero(found >= np.log(20))[0]) == first
    if first == 617:
        assert found.max() == pytest.approx(3.662122272, rel=1e-9)
        assert 1 + int(found.argmax()) == 648


def test_the_wealth_is_a_martingale_under_sign_flips():
    # all sign patterns of ten differences: the mean of the wealth is exactly 1 at every step
    sizes = np.linspace(0.1, 1.0, 10)
    patterns = (np.arange(2**10)[:, None] >> np.arange(10)) % 2 * 2 - 1
    wealth = np.exp([e_process(sizes * signs) for signs in patterns])
    assert np.allclose(wealth.mean(axis=0), 1, atol=1e-12)


def test_pairs_fed_together_are_pairs_fed_alone():
    rng = np.random.default_rng(0)
    difference = rng.uniform(-1, 1, (50, 3))
    together = EProcesses(3)
    for row in difference:
        together.add(np.arange(3), row)
    for pair in range(3):
        alone = e_process(difference[:, pair])
        assert together.log_e[pair] == pytest.approx(alone[-1])
        assert together.highest[pair] == pytest.approx(max(0, alone.max()))
    assert np.allclose(together.mean, difference.mean(axis=0))
    with pytest.raises(ValueError, match="-1, 1"):
        together.add(np.array([0]), np.array([1.1]))
    with pytest.raises(ValueError, match="-1, 1"):
        together.add(np.array([0]), np.array([np.nan]))


def test_looking_all_the_time_claims_falsely_in_at_most_five_percent():
    rng = np.random.default_rng(1)
    runs = 2_000
    false = 0
    for _ in range(runs):
        false += e_process(rng.choice([-1.0, 0.0, 1.0], 200)).max() >= np.log(20)
    assert false / runs <= 0.05


def test_the_confidence_sequence_holds_the_mean_at_every_look_and_shrinks():
    rng = np.random.default_rng(2)
    missed = 0
    for _ in range(60):
        difference = rng.choice([-1.0, 1.0], 100, p=[0.35, 0.65])
        low, high = confidence_sequence(difference)
        missed += not low <= 0.3 <= high
    assert missed <= 7
    assert confidence_sequence(np.zeros(0)) == (-1.0, 1.0)
    few, many = (confidence_sequence(np.tile([1.0, 0.0], n)) for n in (10, 200))
    assert many[1] - many[0] < few[1] - few[0]
    assert many[0] <= 0.5 <= many[1]


def test_people_are_asked_where_the_judge_is_unsure_and_everywhere_a_little():
    preference = np.concatenate([np.full(50, 0.5), np.full(150, 0.999)])
    probability = query_probabilities(preference, 40)
    assert probability.sum() == pytest.approx(40)
    assert probability.min() >= 0.2 * 40 / 200 * 0.99
    assert probability[:50].min() > 2 * probability[-1]
    assert query_probabilities(preference, 200) == pytest.approx(np.ones(200))
