"""Ratings and calibrated means beside arena-rank, leaderbot and ppi-python, which are no dependencies of the suite.

Their figures are in peers.json, which benchmarks/peers.py makes.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from alignboard.stats.calibrated import calibrated_mean
from alignboard.stats.rating.battles import Battles
from alignboard.stats.rating.bradley_terry import bradley_terry
from alignboard.stats.rating.ties import TieModel, with_ties
from rating_boards import arithmetic

PEERS = json.loads(Path(__file__).with_name("peers.json").read_text())
ARENA_RANK, LEADERBOT = PEERS["arena-rank 0.1.1"], PEERS["leaderbot 0.4.3"]


def test_bradley_terry_is_arena_ranks():
    battles = arithmetic()
    n = len(battles.score)
    fit = bradley_terry(Battles(battles.first, battles.second, battles.score, np.arange(n)), 4)
    assert fit.log_strength == pytest.approx(ARENA_RANK["log_strength"], abs=1e-10)
    # Its interval takes rows for independent (HC0), with a ridge of 1e-7 for each row in the Hessian.
    hc0 = np.diag(fit.covariance) * (n - 1) / n
    assert hc0 == pytest.approx(ARENA_RANK["variance"], rel=3e-5)


def test_leaderbots_bradley_terry_has_a_win_and_a_loss_more_for_every_model():
    """Draws count half, as here; strengths are shrunk by two games each against a player of log-strength 0.

    That is the prior of Newman 2023 (JMLR 24). leaderbot centres the strengths after every step, which moves its fixed
    point away from the maximum: by up to 3e-7 here.
    """
    battles = arithmetic()
    each, player = np.arange(4), np.full(4, 4)
    with_player = Battles(
        np.concatenate([battles.first, each, each]),
        np.concatenate([battles.second, player, player]),
        np.concatenate([battles.score, np.ones(4), np.zeros(4)]),
        np.arange(len(battles.score) + 8),
    )
    found = bradley_terry(with_player, 5).log_strength[:4]
    assert found - found.mean() == pytest.approx(LEADERBOT["bradley-terry"], abs=5e-7)
    # Without the two games it is another estimate, not a rounding error away.
    plain = bradley_terry(battles, 4).log_strength
    assert np.abs(plain - LEADERBOT["bradley-terry"]).max() > 1e-3


@pytest.mark.parametrize("method", ["davidson", "rao-kupper"])
def test_tie_models_are_leaderbots(method: TieModel):
    *expected, tie = LEADERBOT[method]
    found = with_ties(arithmetic(), 4, method)
    assert found.log_strength == pytest.approx(expected, abs=1e-8)
    assert np.log(found.tie) == pytest.approx(tie, abs=1e-7)


def test_calibrated_means_are_ppi_pythons():
    """It tunes one weight on all labels, here one a fold on the other folds: close, and not the same."""
    i = np.arange(200)
    judge = 37 * i % 101 / 100
    human = np.where(29 * i % 10 < 3, judge + 53 * i % 97 / 97 > 1, np.nan)
    found = calibrated_mean(judge, human)
    expected = PEERS["ppi-python 0.2.3"]
    error = np.diff(expected["limits"])[0] / (2 * 1.959963984540054)
    assert found.n_labels == 60
    assert found.weight > 0.5
    assert found.rate.estimate == pytest.approx(expected["mean"], abs=0.1 * error)
    assert found.rate.standard_error == pytest.approx(error * math.sqrt(60 / 59), rel=0.05)
