"""Do 95 % intervals hold the truth 95 times in 100? Simulated boards whose truth is known.

The default suite simulates a thousand boards of each kind; the slow one two thousand of every setting. At a true
coverage of 95 % a thousand boards show 93 to 97 % with a chance of 99.6 %; the seeds are fixed.
"""

from functools import lru_cache

import numpy as np
import pytest

from alignboard.stats.length_control import GamedRows, length_controlled_win_rate
from alignboard.stats.win_rate import win_rate

LOW, HIGH = 0.93, 0.97
N = 805


def expit(z):
    return 1 / (1 + np.exp(-z))


# Win rates.


def binary(rng, rate):
    return (rng.random(N) < rate) * 1.0, None


def weighted(rng, rate):
    """Like the weighted judge's: most verdicts near 0 or 1, some between."""
    return rng.beta(0.5 * rate, 0.5 * (1 - rate), size=N), None


def clustered(rng, rate):
    """300 prompts with one to five answers each; the prompt's own rate varies."""
    size = rng.integers(1, 6, size=300)
    prompt = np.repeat(np.arange(300), size)
    own_rate = rng.beta(2 * rate, 2 * (1 - rate), size=300)
    return (rng.random(len(prompt)) < own_rate[prompt]) * 1.0, prompt


def coverage_of_win_rate(draw, rate, boards, seed):
    rng = np.random.default_rng(seed)
    held = 0
    for _ in range(boards):
        score, clusters = draw(rng, rate)
        interval = win_rate(np.asarray(score + 1, dtype=np.float64), clusters).interval
        held += interval.low <= rate <= interval.high
    return held / boards


RATES = [0.02, 0.05, 0.2, 0.5, 0.8, 0.95]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("draw", [binary, weighted, clustered])
def test_win_rate_intervals_cover(draw, rate):
    assert LOW <= coverage_of_win_rate(draw, rate, boards=1000, seed=20) <= HIGH


@pytest.mark.slow
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("draw", [binary, weighted, clustered])
def test_win_rate_intervals_cover_on_many_boards(draw, rate):
    assert LOW <= coverage_of_win_rate(draw, rate, boards=10_000, seed=21) <= HIGH


def test_ignoring_clusters_covers_far_less():
    rng = np.random.default_rng(22)
    held = 0
    for _ in range(1000):
        score, _ = clustered(rng, 0.5)
        interval = win_rate(np.asarray(score + 1, dtype=np.float64)).interval
        held += interval.low <= 0.5 <= interval.high
    assert held / 1000 < 0.90


# Length-controlled win rates. Verdicts come from the GLM itself; the calibration rows follow the same weights of
# length and difficulty and are the same for every board, as AlpacaEval's are.


def instructions(rng, n):
    """Difficulties and length differences of the spread that AlpacaEval's have; a few lengths are extreme."""
    difficulty = rng.normal(-0.06, 1.48, size=n)
    return difficulty, np.round(rng.normal(250, 500, size=n) * np.exp(rng.normal(0, 0.5, size=n)))


@lru_cache(maxsize=1)
def population():
    return instructions(np.random.default_rng(30), 1_000_000)


@lru_cache(maxsize=1)
def calibration_rows():
    rng = np.random.default_rng(31)
    verbose, concise = rng.normal(-1.2, 1, size=N), rng.normal(0.9, 1, size=N)
    return np.concatenate([verbose, concise]), np.tile(rng.normal(-0.06, 1.48, size=N), 2)


# (w_len, w_diff, w_bias), and whether verdicts are binary.
SETTINGS = {
    "4 %": (-0.8, 0.7, -3.5, True),
    "9 %": (-1.2, 1.0, -3.0, False),
    "22 %": (-0.8, 0.7, -1.5, False),
    "close to a tie": (-0.8, 0.3, 0.05, False),
    "53 %": (-0.5, 0.2, 0.15, True),
    "79 %": (-0.5, 0.5, 1.5, False),
    "94 %": (-1.0, 0.8, 3.2, True),
}


def coverage_of_length_control(setting, boards, seed):
    """Shares of boards whose interval holds the truth: ours, and upstream's ``lc_standard_error`` used as one."""
    w_len, w_diff, w_bias, is_binary = SETTINGS[setting]
    difficulty, length = population()
    truth, sd = expit(w_diff * difficulty + w_bias).mean(), length.std(ddof=1)
    gamed_length, gamed_difficulty = calibration_rows()
    gamed_rate = expit(w_len * np.tanh(gamed_length) + w_diff * gamed_difficulty)
    gamed = GamedRows(gamed_rate, gamed_length, gamed_difficulty)
    rng = np.random.default_rng(seed)
    held = held_by_spread = 0
    for _ in range(boards):
        difficulty, length = instructions(rng, N)
        rate = expit(w_len * np.tanh(length / sd) + w_diff * difficulty + w_bias)
        score = (
            (rng.random(N) < rate) * 1.0 if is_binary else rng.beta(0.6 * rate, 0.6 * (1 - rate))
        )
        board = length_controlled_win_rate(score + 1, length, difficulty, gamed)
        held += board.interval.low <= truth <= board.interval.high
        held_by_spread += abs(board.win_rate - truth) <= 1.96 * board.spread
    return held / boards, held_by_spread / boards


def test_length_controlled_intervals_cover():
    found = [
        coverage_of_length_control(setting, 143, seed) for seed, setting in enumerate(SETTINGS)
    ]
    ours, spread = np.mean(found, axis=0)
    assert LOW <= ours <= HIGH
    assert min(one for one, _ in found) >= 0.90
    assert spread < 0.6, "lc_standard_error would be a sampling error after all"


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
def test_length_controlled_intervals_cover_on_many_boards(setting):
    ours, spread = coverage_of_length_control(setting, 2000, seed=40)
    assert LOW <= ours <= HIGH
    assert spread < 0.75
