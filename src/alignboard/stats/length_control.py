"""The length-controlled win rate: what the judge would say if both answers were equally long.

The generalised linear model of AlpacaEval 2 for model m against the baseline on instruction i::

    logit P(m preferred) = w_len * tanh(dlen_i / sd(dlen)) + w_diff * difficulty_i + w_bias * not_gamed_i

with dlen the baseline's length minus the model's, in characters. It is fitted to the model's own rows and, with
weight lambda/2 each, to the rows of two "gamed" versions of the baseline (verbose and concise), for which
not_gamed is 0: they hold the length effect to what it is when nothing but length changes. The length-controlled
win rate is the mean prediction at length difference zero.

References: Dubois et al., Length-Controlled AlpacaEval, arXiv 2404.04475, section 3; AlpacaEval
``metrics/glm_winrate.py`` (``length_controlled_v1``), on which the constants below are read off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from alignboard.stats import l1_logistic, liblinear
from alignboard.stats.intervals import Estimate, Interval, rate_interval
from alignboard.stats.logistic import expit

Array = NDArray[np.float64]

GAMED_WEIGHT = 0.1
"""weight of a gamed row: lambda = 0.2 over two gamed baselines"""
N_FOLDS = 5

_LEN, _DIFF, _BIAS = range(3)

# Half of the released fits that are at the same C are met to 1e-5; neighbouring Cs are 1e-4 apart and more.
_MET = 2e-5


@dataclass(frozen=True)
class GamedRows:
    """The calibration rows; every array is (g,)."""

    preference: Array
    """in [0, 1]"""
    standardised_length: Array
    """length difference over its standard deviation, before tanh"""
    difficulty: Array


@dataclass(frozen=True)
class LengthControlled:
    """A length-controlled win rate with the fit that made it; rates are fractions in [0, 1]."""

    win_rate: float
    interval: Interval
    """for new instructions, given the judge and the calibration rows"""
    spread: float
    """upstream's ``lc_standard_error``: the standard error of the mean prediction, that is, the spread of the
    difficulties; it says nothing about how well the model's weights are known"""
    weights: Array
    """(3,) w_len, w_diff, w_bias"""
    C: float
    kkt_violation: float
    influence: Array
    """(n,) each instruction's influence on ``win_rate``, to first order; differences of two models are built on it"""
    win_rate_at_liblinear_stop: float | None
    """the same with the weights at which upstream's solver stops short of the optimum"""


def length_controlled_win_rate(
    preference: Array,
    length_difference: NDArray[np.integer] | Array,
    difficulty: Array,
    gamed: GamedRows | None,
    *,
    liblinear_stop: bool = False,
    level: float = 0.95,
) -> LengthControlled:
    """Fit the model and predict at equal lengths.

    ``preference`` is (n,) in [1, 2] with NaN for unparsed rows, which are predicted but not fitted;
    ``length_difference`` is (n,) the baseline's characters minus the model's; ``difficulty`` is (n,). Without
    ``gamed`` nothing holds the length effect (upstream's ``length_controlled_noreg``). ``liblinear_stop`` asks for
    `LengthControlled.win_rate_at_liblinear_stop`, which takes another fit.

    Raises `l1_logistic.ConvergenceError` where there is nothing to fit.
    """
    x_model, x, y, weight = _design(preference, length_difference, difficulty, gamed)
    C, start = l1_logistic.cross_validated_C(x, y, weight, group_folds(len(y)))
    fit = l1_logistic.fit(x, y, weight, C, start)
    prediction = _predict(x_model, fit.weights)
    lever, unpenalised = _levers(fit.weights, x_model, prediction, x, y, weight)
    influence = _influence(
        fit.weights, lever, x_model, prediction, preference - 1, length_difference
    )
    estimate = float(prediction.mean())
    n = len(prediction)
    error = math.sqrt(n / (n - 1) * float(influence @ influence))
    # The penalty pulls models near a tie to exactly 0.5: the limits lie around the rate without its pull.
    centre = float(_predict(x_model, unpenalised).mean())
    scores = preference[~np.isnan(preference)] - 1
    same = scores.max() == 0 or scores.min() == 1
    limits = rate_interval(  # without any spread of verdicts, those of a win rate
        Estimate.of_equal_clusters(*((scores[0], 0.0) if same else (centre, error)), n),
        level,
        units=scores,
    )
    return LengthControlled(
        win_rate=estimate,
        interval=replace(limits, estimate=estimate, standard_error=error),
        spread=float(prediction.std(ddof=1)) / math.sqrt(n),
        weights=fit.weights,
        C=C,
        kkt_violation=fit.kkt_violation,
        influence=influence,
        win_rate_at_liblinear_stop=(
            _stopped_win_rate(x_model, x, y, weight, C) if liblinear_stop else None
        ),
    )


def win_rate_at_liblinear_stop(
    preference: Array,
    length_difference: NDArray[np.integer] | Array,
    difficulty: Array,
    gamed: GamedRows | None,
) -> float:
    """`LengthControlled.win_rate_at_liblinear_stop` alone, for two thirds of the time; arguments as above."""
    x_model, x, y, weight = _design(preference, length_difference, difficulty, gamed)
    C, _ = l1_logistic.cross_validated_C(x, y, weight, group_folds(len(y)))
    return _stopped_win_rate(x_model, x, y, weight, C)


def win_rate_by_folds(
    preference: Array,
    length_difference: NDArray[np.integer] | Array,
    difficulty: Array,
    gamed: GamedRows | None,
) -> float:
    """The win rate with the mean of the folds' weights in place of a fit to all rows: nearly the same, for less.

    On the released models it is within 0.2 points. Arguments as above.
    """
    x_model, x, y, weight = _design(preference, length_difference, difficulty, gamed)
    _, weights = l1_logistic.cross_validated_C(x, y, weight, group_folds(len(y)))
    return float(_predict(x_model, weights).mean())


def _stopped_win_rate(x_model: Array, x: Array, y: Array, weight: Array, C: float) -> float:
    return float(_predict(x_model, liblinear.fit(x, y, weight, C)).mean())


def nearest_C(
    preference: Array,
    length_difference: NDArray[np.integer] | Array,
    difficulty: Array,
    gamed: GamedRows | None,
    *,
    target: float,
    start: float = 1.0,
) -> tuple[float, float]:
    """The C of the grid at which liblinear's stop comes nearest to the win rate ``target``, and the rate there.

    What a published figure was made with, where cross-validation chooses another C. The search goes outwards from
    ``start`` and ends where the rate is met as closely as released figures can be. Arguments as above.
    """
    x_model, x, y, weight = _design(preference, length_difference, difficulty, gamed)
    best = (math.nan, math.inf)
    for C in sorted(l1_logistic.DEFAULT_CS.tolist(), key=lambda C: abs(math.log(C / start))):
        rate = float(_predict(x_model, liblinear.fit(x, y, weight, C)).mean())
        if abs(rate - target) < abs(best[1] - target):
            best = (C, rate)
        if abs(rate - target) <= _MET:
            break
    return best


def length_feature(length_difference: NDArray) -> tuple[Array, float]:
    """(n,) tanh of the standardised difference, and the standard deviation (ddof 1) in characters."""
    sd = float(np.std(length_difference, ddof=1)) if len(length_difference) > 1 else math.nan
    if not sd > 0:
        raise l1_logistic.ConvergenceError(
            "All length differences are equal: a length effect cannot be told from the bias."
        )
    return np.tanh(length_difference / sd), sd


def group_folds(n: int, n_folds: int = N_FOLDS) -> NDArray[np.intp]:
    """(n,) the fold of every row, as scikit-learn's GroupKFold dealt n groups of equal size to the published board.

    It deals them, round robin, in the reverse of ``np.argsort`` over equal keys. Before scikit-learn sorted stably,
    that order was numpy's own and not the same on every processor: equal keys keep their places with AVX2 or AVX-512,
    and not without. The published values are those of kept places, which are written out here.
    """
    return np.arange(n - 1, -1, -1, dtype=np.intp) % n_folds


def _design(
    preference: Array, length_difference: NDArray, difficulty: Array, gamed: GamedRows | None
) -> tuple[Array, Array, Array, Array]:
    """The model's rows (n, 3); then design matrix, labels and weights of the rows that are fitted.

    The gamed rows come first, as in upstream's frame.
    """
    t, _ = length_feature(length_difference)
    parsed = ~np.isnan(preference)
    if not parsed.any():
        raise l1_logistic.ConvergenceError("No verdict could be parsed: there is nothing to fit.")
    x_model = np.column_stack([t, difficulty, np.ones(len(t))])
    x, y, weight = x_model[parsed], preference[parsed] - 1, np.ones(int(parsed.sum()))
    if gamed is not None:
        zero = np.zeros(len(gamed.preference))
        x_gamed = np.column_stack([np.tanh(gamed.standardised_length), gamed.difficulty, zero])
        x = np.vstack([x_gamed, x])
        y = np.concatenate([gamed.preference, y])
        weight = np.concatenate([zero + GAMED_WEIGHT, weight])
    return x_model, x, y, weight


def _levers(
    w: Array, x_model: Array, prediction: Array, x: Array, y: Array, weight: Array
) -> tuple[Array, Array]:
    """(k,) how the mean prediction moves with a row's score, per unit of its features; and (k,) the weights one
    Newton step on the unpenalised likelihood away from the optimum ``w``.

    Weights that the penalty holds at zero count as free: taken as known, they would leave a model close to a tie,
    whose w_bias is often exactly zero, an interval far too short.
    """
    p = expit(x @ w)
    hessian = (x.T * (weight * p * (1 - p))) @ x
    slope = np.zeros(len(w))
    slope[_DIFF:] = (prediction * (1 - prediction)) @ x_model[:, _DIFF:] / len(prediction)
    # Least squares, not solve: a constant difficulty leaves the Hessian singular and the answer well defined.
    lever, step = np.linalg.lstsq(hessian, np.column_stack([slope, x.T @ (weight * (y - p))]))[0].T
    return lever, w + step


def _influence(
    w: Array,
    lever: Array,
    x_model: Array,
    prediction: Array,
    score: Array,
    length_difference: NDArray,
) -> Array:
    """(n,) each instruction's influence on the length-controlled win rate, to first order.

    Three ways in which an instruction acts: its own prediction enters the mean, its verdict (``score`` (n,) in
    [0, 1], NaN = none) moves the weights, and its length difference moves the standard deviation that scales all of
    them. The calibration rows and C are taken as given.
    """
    n = len(prediction)
    influence = (prediction - prediction.mean()) / n
    parsed = ~np.isnan(score)
    own = x_model[parsed]
    p_own = expit(own @ w)
    residual = score[parsed] - p_own
    influence[parsed] += residual * (own @ lever)
    # How the mean moves with log(sd): the feature t = tanh(u) changes by -u * (1 - t^2).
    standardised = length_difference / np.std(length_difference, ddof=1)
    change = -standardised[parsed] * (1 - own[:, _LEN] ** 2)
    by_log_sd = float(
        (change * (residual * lever[_LEN] - p_own * (1 - p_own) * w[_LEN] * (own @ lever))).sum()
    )
    deviation = standardised - standardised.mean()
    return influence + by_log_sd * (deviation**2 - 1) / (2 * n)


def _predict(x: Array, weights: Array) -> Array:
    """(n,) the model's preference at length difference zero."""
    return expit(x[:, _DIFF:] @ weights[_DIFF:])
