"""Coverage of length control, position effects and reruns."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np

from alignboard.published.audit.judge import position_gap
from alignboard.stats.intervals import Interval
from alignboard.stats.joint_length_control import (
    JointlyControlled,
    JudgedLengths,
    joint_length_control,
)
from alignboard.stats.length_control import GamedRows, length_controlled_win_rate
from alignboard.stats.paired import influence_difference
from alignboard.stats.repeats import repeated_mean
from alignboard.stats.second_order import SecondOrderEstimate, estimate
from alignboard.stats.second_order_design import (
    FirstOrders,
    SecondOrderDesign,
    first_wave,
    inclusion,
)
from alignboard.stats.student import student_quantile
from coverage_cells import Array, Design, Labels, Limits

_GRID = np.linspace(-9, 9, 4_001)
_DENSITY = np.exp(-(_GRID**2) / 2) / np.exp(-(_GRID**2) / 2).sum()
_DIFFICULT, _LENGTH_WEIGHT, _SAME = 1.0, -0.8, 0.15


def _logistic(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def _verdicts(rng: np.random.Generator, rate: Array, *, soft: bool) -> Array:
    """Binary verdicts of this expectation, or soft ones, most of them near 0 or 1."""
    if soft:
        return rng.beta(0.6 * rate, 0.6 * (1 - rate))
    return (rng.random(rate.shape) < rate).astype(np.float64)


# Length control.


def _joint(
    rng: np.random.Generator, bias: Array, n: int, apart: float, *, soft: bool, same: float
) -> dict[str, JudgedLengths]:
    """Verdicts of the model that is fitted, with difficulties that the models share."""
    difficulty = rng.standard_normal(n)
    found = {}
    for k, own in enumerate(bias):
        length = np.round(rng.normal(500 * apart, 500, n))
        identical = rng.random(n) < same
        length[identical] = 0
        sd = float(length[~identical].std(ddof=1))
        rate = _logistic(_LENGTH_WEIGHT * np.tanh(length / sd) + _DIFFICULT * difficulty + own)
        score = np.where(identical, 0.5, _verdicts(rng, rate, soft=soft))
        found[str(k)] = JudgedLengths(np.arange(n), score, length, identical)
    return found


def _controlled_rate(bias: Array, same: float) -> Array:
    """(models,) the rate at equal lengths over all prompts, draws of identical responses counted."""
    rate = (_logistic(bias[:, None] + _DIFFICULT * _GRID) * _DENSITY).sum(axis=1)
    return np.asarray((1 - same) * rate + same / 2)


def jointly_controlled() -> Iterator[Design]:
    """Length-controlled win rates of a joint fit, all models of a board at once."""
    for models, soft, apart in itertools.product((2, 4, 8, 20), (False, True), (0.0, 0.5, 3.0)):
        bias = np.linspace(-1.5, 0.8, models)

        def draw(
            rng: np.random.Generator, *, bias: Array = bias, soft: bool = soft, apart: float = apart
        ) -> tuple[dict[str, JointlyControlled | str]]:
            board = _joint(rng, bias, 805, apart, soft=soft, same=_SAME)
            return (joint_length_control(board),)

        def ours(found: dict[str, JointlyControlled | str]) -> Limits:
            # A model that is not fitted claims nothing.
            limits = [
                (-np.inf, np.inf)
                if isinstance(one, str)
                else (one.found.interval.low, one.found.interval.high)
                for one in found.values()
            ]
            low, high = np.array(limits).T
            return low, high

        verdicts = "soft" if soft else "binary"
        yield Design(
            "LC win rate, joint fit",
            f"{models} models, {verdicts}, mean length difference {apart:g} sd, 15 % identical",
            _controlled_rate(bias, _SAME), draw, {"alignboard": ours},
        )  # fmt: skip


def controlled_differences() -> Iterator[Design]:
    """Differences of two length-controlled win rates: calibrated, and of a joint fit of four models."""
    bias = np.array([-0.6, -1.0])
    calibration = np.random.default_rng(31)
    lengths = np.concatenate(
        [calibration.normal(-1.2, 1, size=805), calibration.normal(0.9, 1, size=805)]
    )
    hard = np.tile(calibration.standard_normal(805), 2)
    rate = _logistic(_LENGTH_WEIGHT * np.tanh(lengths) + _DIFFICULT * hard)
    gamed = GamedRows(rate, lengths, hard)

    def calibrated(rng: np.random.Generator, n: int) -> tuple[float, float, Array, Array]:
        difficulty = rng.standard_normal(n)
        fits = []
        for own in bias:
            length = np.round(rng.normal(250, 500, n))
            sd = float(length.std(ddof=1))
            p = _logistic(_LENGTH_WEIGHT * np.tanh(length / sd) + _DIFFICULT * difficulty + own)
            score = _verdicts(rng, p, soft=False)
            fits.append(length_controlled_win_rate(score + 1, length, difficulty, gamed))
        a, b = fits
        return a.win_rate, b.win_rate, a.influence, b.influence

    four = np.array([-0.6, -1.0, 0.2, -1.6])

    def joint(rng: np.random.Generator, n: int) -> tuple[float, float, Array, Array]:
        while True:
            board = _joint(rng, four, n, 0.5, soft=False, same=0.0)
            a, b = list(joint_length_control(board).values())[:2]
            if not isinstance(a, str) and not isinstance(b, str):
                return a.found.win_rate, b.found.win_rate, a.found.influence, b.found.influence

    def ours(a: float, b: float, psi_a: Array, psi_b: Array) -> Limits:
        found = influence_difference(a, b, psi_a, psi_b)
        return found.low, found.high

    def rows(a: float, b: float, psi_a: Array, psi_b: Array) -> Limits:
        reach = 1.96 * math.sqrt(float(psi_a @ psi_a) + float(psi_b @ psi_b))
        return a - b - reach, a - b + reach

    truth = _controlled_rate(bias, 0.0)
    for (name, draw), n in itertools.product(
        {"calibrated": calibrated, "joint fit of 4 models": joint}.items(), (50, 200, 805)
    ):
        yield Design(
            "LC difference", f"{name}, n = {n}", float(truth[0] - truth[1]),
            lambda rng, draw=draw, n=n: draw(rng, n),
            {"alignboard": ours, "rows, 1.96 SE": rows},
        )  # fmt: skip


# Position.

_SIZES = (10, 20, 50, 200, 805)
_SHIFT, _SPREAD, _QUALITY = 0.4, 2.0, 0.8


def _drawn(rng: np.random.Generator, n: int) -> tuple[Array, Array, Array]:
    """Verdicts where the response is shown first, where it is shown second, and the second draw."""
    quality = _QUALITY + _SPREAD * rng.standard_normal(n)
    shown = [
        (rng.random(n) < _logistic(quality + side * _SHIFT)).astype(np.float64) for side in (1, -1)
    ]
    return np.asarray(shown[0]), np.asarray(shown[1]), rng.random(n)


def _true_gap_and_consistency() -> tuple[float, float]:
    first, second = (_logistic(_QUALITY + side * _SHIFT + _SPREAD * _GRID) for side in (1, -1))
    same = first * second + (1 - first) * (1 - second)
    return float(((first - second) * _DENSITY).sum()), float((same * _DENSITY).sum())


def _asked(rng: np.random.Generator, n: int, share: float) -> SecondOrderEstimate:
    audit = min(share, 0.1) if share < 1 else 1.0
    design = SecondOrderDesign(share=share, audit=audit)
    a, b, uniform = _drawn(rng, n)
    coin = rng.random(n) < 0.5
    x, y = np.where(coin, a, b), np.where(coin, b, a)
    orders = FirstOrders(x, coin, uniform)
    pilot = np.where(first_wave(orders, design), y, np.nan)
    probability = inclusion(orders, pilot, design)
    second = np.where(uniform < probability, y, np.nan)
    return estimate(orders, second, probability, design)


def _known(found: Interval) -> Limits:
    """Limits that are unknown claim nothing."""
    return (-1.0, 1.0) if math.isnan(found.low) else (found.low, found.high)


def _plain(found: Interval) -> Limits:
    """The same estimate, plus and minus 1.96 of its standard errors."""
    if math.isnan(found.estimate):
        return (-1.0, 1.0)
    reach = 1.96 * float(np.nan_to_num(found.standard_error))
    return found.estimate - reach, found.estimate + reach


def _two_means(score: Array, coin: Labels) -> Limits:
    """Both positions' means, plus and minus 1.96 standard errors of their difference."""
    first, second = score[coin > 0], score[coin == 0]
    if min(len(first), len(second)) < 2:
        return (-1.0, 1.0)
    centre = float(first.mean() - second.mean())
    reach = 1.96 * math.sqrt(first.var(ddof=1) / len(first) + second.var(ddof=1) / len(second))
    return centre - reach, centre + reach


def _by_coin(score: Array, coin: Labels) -> Limits:
    found = position_gap(score, coin > 0)
    return (-1.0, 1.0) if found is None else (found.low / 100, found.high / 100)


def positions() -> Iterator[Design]:
    """Position gap and swap consistency of judges asked in both orders, in one order by coin, and adaptively."""
    gap, same = _true_gap_and_consistency()
    for n, (name, share) in itertools.product(_SIZES, {"both": 1.0, "adaptive 30 %": 0.3}.items()):
        for quantity, truth, of in (
            ("position gap", gap, lambda found: found.position_gap),
            ("swap consistency", same, lambda found: found.swap_consistency),
        ):
            yield Design(
                quantity, f"{name}, n = {n}", truth,
                lambda rng, n=n, share=share: (_asked(rng, n, share),),
                {
                    "alignboard": lambda found, of=of: _known(of(found)),
                    "1.96 SE": lambda found, of=of: _plain(of(found)),
                },
            )  # fmt: skip
    for n in _SIZES:

        def one_order(rng: np.random.Generator, n: int = n) -> tuple[Array, Labels]:
            a, b, _ = _drawn(rng, n)
            coin = rng.integers(0, 2, n)
            return np.where(coin > 0, a, b), coin

        methods = {"alignboard": _by_coin, "1.96 SE": _two_means}
        yield Design("position gap", f"coin, n = {n}", gap, one_order, methods)


# Repeated runs.


def _runs(
    rng: np.random.Generator, shape: tuple[int, ...], prompts: Array, *, several: bool
) -> Array:
    """Scores of ``shape``; several training seeds differ, too."""
    sd = (0.03 if several else 0.0, 0.1 if several else 0.0, 0.2, 0.1)
    axes = ((1,), (0, 1), (0, 1, 2), (0, 1, 2, 3))
    noise = [
        rng.normal(0, one, tuple(n if k in own else 1 for k, n in enumerate(shape)))
        for one, own in zip(sd, axes, strict=True)
    ]
    return np.asarray(prompts + sum(noise))


def reruns() -> Iterator[Design]:
    """The mean of one further run on the same prompts: its training seed, responses and verdicts are drawn anew."""
    shapes = ((50, 1, 3, 1), (200, 1, 3, 2), (805, 1, 2, 1), (200, 2, 1, 1), (50, 3, 1, 1))
    for shape in (*shapes, (200, 3, 2, 2), (805, 5, 1, 1)):

        def draw(rng: np.random.Generator, shape: tuple[int, ...] = shape) -> tuple[Array, float]:
            prompts = rng.normal(0.5, 0.3, (shape[0], 1, 1, 1))
            several = shape[1] > 1
            again = float(_runs(rng, (shape[0], 1, 1, 1), prompts, several=several).mean())
            return _runs(rng, shape, prompts, several=several), again

        def ours(values: Array) -> Limits:
            found = repeated_mean(values)
            return found.rerun_low, found.rerun_high

        def new_prompts(values: Array) -> Limits:
            """The interval of the first run, as boards of one run print it."""
            found = repeated_mean(values[:, :1, :1, :1])
            return found.low, found.high

        def between(values: Array) -> Limits:
            """Student's prediction limits from the runs' means alone."""
            means = values.mean(axis=0).ravel()
            reach = student_quantile(0.975, len(means) - 1) * float(means.std(ddof=1))
            reach *= math.sqrt(1 + 1 / len(means))
            return float(means.mean()) - reach, float(means.mean()) + reach

        n, s, r, v = shape
        yield Design(
            "a rerun of everything on these prompts",
            f"{n} prompts, {s} training seeds, {r} responses, {v} verdicts", None, draw,
            {"alignboard": ours, "one run's interval": new_prompts, "means of runs": between},
        )  # fmt: skip
