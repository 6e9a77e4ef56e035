"""Signal and step-to-step noise of a benchmark along one training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SignalNoise:
    """How far scores lie apart, and how far they move from one checkpoint to the next for no reason, in their unit."""

    signal: float
    noise: float
    n_steps: int

    @property
    def ratio(self) -> float:
        """Signal to noise; NaN where neither is above zero."""
        if self.noise:
            return self.signal / self.noise
        return math.inf if self.signal else math.nan


def signal_noise(checkpoints: Sequence[float], others: Sequence[float] = ()) -> SignalNoise:
    """Signal and noise of scores in the order of steps; ``others`` are the scores of models beside the training.

    Differs from the paper
        Noise is the standard deviation over the last of many checkpoints there; here, where a training has few, it is
        that of the differences between neighbours over the square root of two, so that a trend is no noise. Both are
        not divided by the mean, which cancels in the ratio.

    References
    ----------
    Heineman et al., Signal and Noise, arXiv 2508.13144.

    >>> found = signal_noise([10.0, 12.0, 12.0, 14.0])
    >>> found.signal, round(found.noise, 3)
    (4.0, 0.816)
    """
    values = np.array([*checkpoints, *others], dtype=np.float64)
    steps = np.diff(np.array(checkpoints, dtype=np.float64))
    if len(steps) < 2:
        return SignalNoise(float(np.ptp(values)) if len(values) else math.nan, math.nan, len(steps))
    noise = float(np.std(steps, ddof=1)) / math.sqrt(2)
    return SignalNoise(float(np.ptp(values)), noise, len(steps))
