"""The mean of repeated runs over prompts: an interval for new prompts and new runs, and what a rerun would give.

A run draws a training seed, a response to every prompt, and a verdict on every response. Each is repeated within the
one before it, so that the variance between repetitions splits into training, decoding and judging.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from alignboard.stats.student import student_quantile


@dataclass(frozen=True)
class RepeatedMean:
    """A mean over a table of prompts by runs, each prompt seen in each run."""

    value: float
    low: float
    """limits for new prompts and new runs"""
    high: float
    standard_error: float
    """NaN for fewer than two prompts"""
    spread: float
    """standard deviation between the seeds' means; NaN for one seed"""
    parts: dict[str, float]
    """by name (prompts, training, decoding, judging): the standard deviation that a single run's mean owes to it; what
    was not repeated has none, and its variance is part of the one before it"""
    rerun_low: float
    """limits for the mean of one further run on the same prompts, which draws anew what was repeated; NaN where nothing
    was"""
    rerun_high: float
    n_prompts: int
    n_seeds: int


@dataclass(frozen=True)
class _Level:
    part: str
    mean_square: float
    """of single values"""
    freedom: int
    below: int
    """values in one draw of it"""
    so_far: int
    """draws of it for one prompt"""


@dataclass(frozen=True)
class _Split:
    parts: dict[str, float]
    reach: float


def repeated_mean(values: np.ndarray) -> RepeatedMean:
    """Estimate the mean of ``values`` (prompts, seeds, responses, verdicts).

    Prompts and seeds are crossed, responses are nested in both, verdicts in responses. The variance of the mean is
    s_p^2/P + s_s^2/S + s_e^2/(PS), estimated by (MS_p + MS_s - MS_e) / (PS) from the mean squares of the layout of
    prompts by seeds; degrees of freedom by Satterthwaite. Mean squares are not taken below those of the next finer
    level, which keeps the variances positive.

    References
    ----------
    Brennan 2001, "Generalizability Theory", section 6 (prompts by seeds); Miller, arXiv 2411.00640 (prompts and
    sampling); Wang, arXiv 2512.21326 (data and prediction noise). Differs from them: bounded mean squares.

    >>> table = np.array([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [1.0, 1.0]])
    >>> found = repeated_mean(table[:, :, None, None])
    >>> found.value, round(found.standard_error, 3), round(found.spread, 3)
    (0.625, 0.239, 0.177)
    """
    n_prompts, n_seeds = values.shape[:2]
    mean, table = float(values.mean()), values.mean(axis=(2, 3))
    by_seed = table.mean(axis=0)
    spread = float(by_seed.std(ddof=1)) if n_seeds > 1 else math.nan
    if n_prompts < 2:
        nan = math.nan
        return RepeatedMean(mean, nan, nan, nan, spread, {}, nan, nan, n_prompts, n_seeds)
    ms_prompt = n_seeds * float(table.mean(axis=1).var(ddof=1))
    parts, ms_rest = [(ms_prompt, n_prompts - 1)], 0.0
    if n_seeds > 1:
        rest = table - table.mean(axis=1)[:, None] - by_seed + mean
        df_rest = (n_prompts - 1) * (n_seeds - 1)
        ms_rest = float((rest**2).sum()) / df_rest
        ms_seed = n_prompts * float(by_seed.var(ddof=1))
        parts = [
            (max(ms_prompt, ms_rest), n_prompts - 1),
            (max(ms_seed, ms_rest), n_seeds - 1),
            (-ms_rest, df_rest),
        ]
    variance, half = _reach(parts)
    scale = n_prompts * n_seeds
    split = _split(values, table, values[0, 0].size * ms_rest)
    return RepeatedMean(
        mean,
        mean - half / math.sqrt(scale),
        mean + half / math.sqrt(scale),
        math.sqrt(variance / scale),
        spread,
        split.parts,
        mean - split.reach,
        mean + split.reach,
        n_prompts,
        n_seeds,
    )


def _split(values: np.ndarray, table: np.ndarray, next_to_prompts: float) -> _Split:
    """What a single run's mean owes to each part, and how far a further run on the same prompts may be from the mean.

    References: Searle, Casella and McCulloch, Variance Components (1992), section 3 (nested, balanced).
    """
    n_prompts = len(values)
    levels = _levels(values, table)
    squares = np.maximum.accumulate([one.mean_square for one in levels][::-1] or [0.0])[::-1]
    finer = np.append(squares[1:], 0.0)
    parts = {
        one.part: math.sqrt((square - below) / one.below / n_prompts)
        for one, square, below in zip(levels, squares, finer, strict=False)
    }
    per_prompt = values[0].size
    own = per_prompt * float(table.mean(axis=1).var(ddof=1))
    own -= next_to_prompts if table.shape[1] > 1 else float(squares[0])
    parts = {"prompts": math.sqrt(max(own, 0.0) / per_prompt / n_prompts), **parts}
    # A further run, and the mean of those there, owe (1 + 1/N) times the part's variance to N draws of it.
    weight = [(1 + 1 / one.so_far) / one.below for one in levels]
    known = [
        ((own - coarser) * float(square), one.freedom)
        for one, square, own, coarser in zip(levels, squares, weight, [0.0, *weight], strict=False)
    ]
    return _Split(parts, _reach(known)[1] / math.sqrt(n_prompts) if known else math.nan)


def _levels(values: np.ndarray, table: np.ndarray) -> list[_Level]:
    """What was repeated, the coarsest first."""
    n_prompts, n_seeds, n_responses, n_verdicts = values.shape
    found = []
    if n_seeds > 1:
        below = n_responses * n_verdicts
        square = below * n_prompts * float(table.mean(axis=0).var(ddof=1))
        found.append(_Level("training", square, n_seeds - 1, below, n_seeds))
    if n_responses > 1:
        square = n_verdicts * float(values.mean(axis=3).var(axis=2, ddof=1).mean())
        freedom = n_prompts * n_seeds * (n_responses - 1)
        found.append(_Level("decoding", square, freedom, n_verdicts, n_seeds * n_responses))
    if n_verdicts > 1:
        square = float(values.var(axis=3, ddof=1).mean())
        freedom = n_prompts * n_seeds * n_responses * (n_verdicts - 1)
        found.append(_Level("judging", square, freedom, 1, values[0].size))
    return found


def _reach(parts: list[tuple[float, int]]) -> tuple[float, float]:
    """The sum of mean squares, and half of the interval of 95 % in its root; freedom by Satterthwaite."""
    total = sum(square for square, _ in parts)
    if not total > 0:
        return 0.0, 0.0
    freedom = total**2 / sum(square**2 / own for square, own in parts)
    return total, student_quantile(0.975, freedom) * math.sqrt(total)
