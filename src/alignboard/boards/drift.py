"""Columns of checkpoints: the step of training, and how far they are from what training started from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from alignboard.boards.columns import Column, Score
from alignboard.stats.student import student_quantile

STEP: Final = "step"
"""the key of the column that makes a board one of curves"""
STEP_COLUMN: Final = Column(
    key=STEP, name="step", kind="diagnostic", source="training", better="none", digits=0
)
KL: Final = "kl"
KL_COLUMN: Final = Column(
    key=KL,
    name="KL",
    kind="diagnostic",
    unit="nats",
    source="responses",
    estimator="mean over the model's own replies of log pi - log pi_ref, pi_ref what training started from",
    conditional_on="new prompts drawn like these; the replies as they were decoded",
    better="none",
    digits=2,
)


def kl_score(ratios: Sequence[float | None]) -> Score:
    """The mean of log pi - log pi_ref over replies, with its 95 % interval; None is an empty reply.

    >>> kl_score([1.0, 3.0, None]).value
    2.0
    """
    values = np.array([one for one in ratios if one is not None], dtype=np.float64)
    if len(values) < 2:
        return Score(float(values[0]) if len(values) else None, n=len(values))
    mean = float(values.mean())
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    half = student_quantile(0.975, len(values) - 1) * error
    return Score(mean, mean - half, mean + half, error, n=len(values))
