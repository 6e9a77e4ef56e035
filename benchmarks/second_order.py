"""The adaptive second order against both orders and against one, on simulated judges with known position bias.

Run:  python benchmarks/second_order.py [--runs 500] [--json FILE]
      python benchmarks/second_order.py --example DIR   (two annotations.json for `alignboard judge report`; no runs)

A judge's verdict on an instruction is ``logistic(quality + shift * side + noise)``: ``quality`` differs between
instructions (mean 0.8), ``shift`` is set so that a model scores 0, 5, 10 or 20 points more when shown first, ``noise``
is drawn per call. `soft` and `sharp` judges give that probability (AlpacaEval 2's judge is sharp: 82 % of its verdicts
are within 0.02 of 0 or 1), `greedy` ones its larger side, `sampled` ones a draw. All designs see the same 805
instructions, verdicts, coins and uniforms in each run. The truth is integrated numerically.

Columns: calls in percent of both orders; standard error relative to both orders; mean error over the runs in its
own standard errors, against the truth (bias) and, much sharper, against both orders on the same instructions (to both);
coverage of the 95 % interval; calls at equal standard error, where more instructions of the kind
can be had (calls times the squared ratio). `difference` is the pure difference estimator with the design of
`adaptive 30 %`.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alignboard.stats.intervals import Interval, bounded_mean
from alignboard.stats.second_order import estimate
from alignboard.stats.second_order_design import (
    FirstOrders,
    SecondOrderDesign,
    first_wave,
    inclusion,
)

Array = NDArray[np.float64]

N_INSTRUCTIONS = 805
MEAN_QUALITY = 0.8
_GRID = np.linspace(-9, 9, 40_001)
_DENSITY = np.exp(-(_GRID**2) / 2) / np.exp(-(_GRID**2) / 2).sum()
GAPS = (0.0, 0.05, 0.1, 0.2)
DESIGNS = {
    "adaptive 10 %": SecondOrderDesign(share=0.1, audit=0.1),
    "adaptive 30 %": SecondOrderDesign(share=0.3, audit=0.1),
    "at random 30 %": SecondOrderDesign(share=0.3, audit=0.3),
    "adaptive 60 %": SecondOrderDesign(share=0.6, audit=0.1),
}


@dataclass(frozen=True)
class Judge:
    """Spread of quality and noise on the logit scale, and how a probability becomes a verdict."""

    name: str
    quality: float
    noise: float
    verdict: str = "weighted"

    def draw(self, rng: np.random.Generator, n: int, shift: float) -> tuple[Array, Array]:
        """Verdicts for the model when it is shown first and when it is shown second, each (n,)."""
        quality = MEAN_QUALITY + self.quality * rng.standard_normal(n)
        first, second = (
            1 / (1 + np.exp(-(quality + side * shift + self.noise * rng.standard_normal(n))))
            for side in (1, -1)
        )
        if self.verdict == "greedy":
            return np.round(first), np.round(second)
        if self.verdict == "sampled":
            return (rng.random(n) < first).astype(float), (rng.random(n) < second).astype(float)
        return first, second

    def mean(self, shift: float) -> float:
        """The expected verdict for the model in a place that moves it by ``shift``."""
        logit = MEAN_QUALITY + shift + math.hypot(self.quality, self.noise) * _GRID
        verdict = (logit > 0) if self.verdict == "greedy" else 1 / (1 + np.exp(-logit))
        return float(_DENSITY @ verdict)

    def shift_for(self, gap: float) -> float:
        """The shift with which the mean difference of the two orders is ``gap``, by bisection."""
        low, high = 0.0, 20.0
        for _ in range(40):
            middle = (low + high) / 2
            below = self.mean(middle) - self.mean(-middle) < gap
            low, high = (middle, high) if below else (low, middle)
        return low if gap else 0.0


JUDGES = (
    Judge("soft", quality=2.5, noise=0.7),
    Judge("sharp", quality=8.0, noise=2.0),
    Judge("greedy", quality=8.0, noise=2.0, verdict="greedy"),
    Judge("sampled", quality=2.5, noise=0.7, verdict="sampled"),
)


@dataclass(frozen=True)
class Line:
    """One way of asking one judge, over all runs."""

    judge: str
    gap: float
    way: str
    consistency: float
    """share of instructions on which both orders name the same winner"""
    calls: float
    """share of the calls of both orders"""
    relative_error: float
    """mean standard error relative to that of both orders"""
    relative_spread: float
    """standard deviation of the estimates over the runs relative to that of both orders"""
    bias: float
    """mean error in standard errors of that mean"""
    to_both: float
    """the same, of the difference from both orders on the same instructions"""
    coverage: float

    @property
    def equal_calls(self) -> float:
        """Share of the calls of both orders at equal standard error, with more instructions."""
        return self.calls * self.relative_error**2


def simulate(judge: Judge, gap: float, runs: int) -> list[Line]:
    """All ways of asking one judge."""
    shift = judge.shift_for(gap)
    first, second = judge.draw(np.random.default_rng(2), 400_000, shift)
    truth = (judge.mean(shift) + judge.mean(-shift)) / 2
    consistency = float(np.mean((first > 0.5) == (second > 0.5)))
    rng = np.random.default_rng([JUDGES.index(judge), round(100 * gap)])
    found: dict[str, list[tuple[Interval, float]]] = {}
    for _ in range(runs):
        for way, interval, calls in _ways(rng, *judge.draw(rng, N_INSTRUCTIONS, shift)):
            found.setdefault(way, []).append((interval, calls))
    errors = {
        way: np.array([one.estimate - truth for one, _ in rows]) for way, rows in found.items()
    }
    mean_error = {
        way: float(np.mean([one.standard_error for one, _ in rows])) for way, rows in found.items()
    }
    return [
        Line(
            judge=judge.name,
            gap=gap,
            way=way,
            consistency=consistency,
            calls=float(np.mean([calls for _, calls in rows])),
            relative_error=mean_error[way] / mean_error["both orders"],
            relative_spread=float(errors[way].std() / errors["both orders"].std()),
            bias=_in_errors(errors[way]),
            to_both=_in_errors(errors[way] - errors["both orders"]),
            coverage=float(np.mean([one.low <= truth <= one.high for one, _ in rows])),
        )
        for way, rows in found.items()
    ]


def _ways(
    rng: np.random.Generator, shown_first: Array, shown_second: Array
) -> Iterator[tuple[str, Interval, float]]:
    """Name, estimate and share of calls of each way of asking about one draw of instructions."""
    coin = rng.random(N_INSTRUCTIONS) < 0.5
    x = np.where(coin, shown_first, shown_second)
    y = np.where(coin, shown_second, shown_first)
    orders = FirstOrders(x, coin, rng.random(N_INSTRUCTIONS))
    yield "both orders", _mean((x + y) / 2), 1.0
    yield "one order", _mean(x), 0.5
    for way, design in DESIGNS.items():
        pilot = np.where(first_wave(orders, design), y, np.nan)
        probability = inclusion(orders, pilot, design)
        asked = orders.uniform < probability
        found = estimate(orders, np.where(asked, y, np.nan), probability, design)
        yield way, found.win_rate, 1 - found.saving
        if way == "adaptive 30 %":
            yield (
                "difference",
                _mean(x + np.where(asked, (y - x) / 2 / probability, 0)),
                1 - found.saving,
            )


def _in_errors(values: Array) -> float:
    spread = float(values.std(ddof=1))
    return float(values.mean()) / spread * math.sqrt(len(values)) if spread else 0.0


def _mean(values: Array) -> Interval:
    return bounded_mean(values)


def write_example(folder: Path) -> None:
    """The soft judge in both orders and the greedy one in one order on the same pairs, both with a gap of 10 points."""
    for name, orders in (("soft", 2), ("greedy", 1)):
        judge = next(one for one in JUDGES if one.name == name)
        drawn = judge.draw(np.random.default_rng(4), N_INSTRUCTIONS, judge.shift_for(0.1))
        coin = np.random.default_rng(5).random(N_INSTRUCTIONS) < 0.5
        length = np.random.default_rng(6).integers(20, 400, size=(N_INSTRUCTIONS, 2))
        rows = []
        for k in range(N_INSTRUCTIONS):
            switched = [bool(coin[k]), not coin[k]][:orders]
            preferences = [1 + float(drawn[0 if side else 1][k]) for side in switched]
            rows.append(
                {
                    "instruction": f"Instruction {k}",
                    "output_1": f"Base {k}".ljust(int(length[k, 0]), "."),
                    "generator_1": "base",
                    "output_2": f"Tuned {k}".ljust(int(length[k, 1]), "."),
                    "generator_2": "tuned",
                    "annotator": name,
                    "preference": float(np.mean(preferences)),
                    "switched": switched,
                    "order_preferences": preferences,
                    "status": "scored",
                }
            )
        path = folder / "tuned" / name / "annotations.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(rows))


def main() -> None:
    """Simulate, print a table, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/second_order.json"))
    parser.add_argument("--example", type=Path, metavar="DIR")
    arguments = parser.parse_args()
    if arguments.example is not None:
        write_example(arguments.example)
        return
    lines = [
        line for judge in JUDGES for gap in GAPS for line in simulate(judge, gap, arguments.runs)
    ]
    print(f"{arguments.runs} runs of {N_INSTRUCTIONS} instructions")
    print(
        "judge    gap  consistent  way             calls  SE ratio  spread   bias  to both  coverage  equal"
    )
    for line in lines:
        print(
            f"{line.judge:8s} {100 * line.gap:2.0f}      {100 * line.consistency:5.1f} %  {line.way:14s} "
            f"{100 * line.calls:5.1f} %     {line.relative_error:5.3f}   {line.relative_spread:5.3f}  "
            f"{line.bias:+5.2f}    {line.to_both:+5.2f}    "
            f"{100 * line.coverage:5.1f} %  {100 * line.equal_calls:4.1f} %"
        )
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    rows = [{**asdict(line), "equal_calls": line.equal_calls} for line in lines]
    content = {"runs": arguments.runs, "instructions": N_INSTRUCTIONS, "lines": rows}
    arguments.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
