"""The mean over prompts and training seeds, with an interval for new prompts and new seeds at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from alignboard.stats.student import student_quantile


@dataclass(frozen=True)
class SeedMean:
    """A mean over a table of prompts by seeds, each prompt seen with each seed."""

    value: float
    low: float
    high: float
    standard_error: float
    """NaN for fewer than two prompts"""
    spread: float
    """standard deviation between the seeds' means; NaN for one seed"""
    n_prompts: int
    n_seeds: int


def seed_mean(values: np.ndarray) -> SeedMean:
    """Estimate the mean of ``values`` (prompts x seeds) where both are drawn at random and crossed.

    The variance of the mean is s_p^2/P + s_s^2/S + s_e^2/(PS), estimated by (MS_p + MS_s - MS_e) / (PS) from the mean
    squares of a two-way layout without replication; degrees of freedom by Satterthwaite. MS_p and MS_s are not taken
    below MS_e, which keeps the variance positive.

    References
    ----------
    Brennan 2001, "Generalizability Theory", section 6: the p x i design. Differs from it: mean squares are bounded from
    below by MS_e.

    >>> found = seed_mean(np.array([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [1.0, 1.0]]))
    >>> found.value, round(found.standard_error, 3), round(found.spread, 3)
    (0.625, 0.239, 0.177)
    """
    n_prompts, n_seeds = values.shape
    mean = float(values.mean())
    by_prompt, by_seed = values.mean(axis=1), values.mean(axis=0)
    spread = float(by_seed.std(ddof=1)) if n_seeds > 1 else math.nan
    if n_prompts < 2:
        return SeedMean(mean, math.nan, math.nan, math.nan, spread, n_prompts, n_seeds)
    ms_prompt = n_seeds * float(by_prompt.var(ddof=1))
    if n_seeds == 1:
        parts = [(ms_prompt, n_prompts - 1)]
    else:
        rest = values - by_prompt[:, None] - by_seed[None, :] + mean
        df_rest = (n_prompts - 1) * (n_seeds - 1)
        ms_rest = float((rest**2).sum()) / df_rest
        ms_seed = n_prompts * float(by_seed.var(ddof=1))
        parts = [
            (max(ms_prompt, ms_rest), n_prompts - 1),
            (max(ms_seed, ms_rest), n_seeds - 1),
            (-ms_rest, df_rest),
        ]
    total = sum(ms for ms, _ in parts)
    error = math.sqrt(total / (n_prompts * n_seeds))
    if error == 0:
        return SeedMean(mean, mean, mean, 0.0, spread, n_prompts, n_seeds)
    freedom = total**2 / sum(ms**2 / df for ms, df in parts)
    half = student_quantile(0.975, freedom) * error
    return SeedMean(mean, mean - half, mean + half, error, spread, n_prompts, n_seeds)
