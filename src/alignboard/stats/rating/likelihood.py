"""The Bradley-Terry log-likelihood with its derivatives."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alignboard.stats.logistic import expit

Array = NDArray[np.float64]


def log_likelihood(theta: Array, wins: Array) -> tuple[float, Array, Array]:
    """Log-likelihood of log-strengths (models,), its gradient, and the information, which fixes no mean.

    ``wins`` (models, models) holds the points of the row's model against the column's.
    """
    gap = theta[:, None] - theta
    p = expit(gap)
    games = wins + wins.T
    weight = games * p * (1 - p)
    value = float(-(wins * np.logaddexp(0, -gap)).sum())
    return value, (wins - games * p).sum(axis=1), np.diag(weight.sum(axis=1)) - weight
