"""How often 95 % intervals hold the truth: present rules beside those that they replaced, or that others use.

Run ``python benchmarks/interval_coverage.py --json benchmarks/coverage.json`` for the simulation, and add ``--docs
docs/coverage.md`` for the page. Repetitions that the file has are kept, and those that lack are added, the cheapest
first, so that a run can be stopped at any time; delete the lines of a method that changed, or name the part with
``--redo``. ``ALIGNBOARD_RELEASED_DATA`` adds the released verdicts.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from alignboard.stats.calibrated import calibrated_mean
from alignboard.stats.intervals import bounded_mean, clustered_mean
from alignboard.stats.paired import paired_difference, sign_flip_p_value
from alignboard.stats.ranks import paired_rank_sets
from alignboard.stats.student import student_quantile
from coverage_cells import (
    BLOCK,
    Array,
    Cell,
    Design,
    Found,
    Labels,
    Limits,
    add,
    as_found,
    missing,
)
from coverage_judges import controlled_differences, jointly_controlled, positions, reruns
from coverage_page import markdown
from coverage_ratings import baseline_only, dominated, round_robins, separate, two_ways

REPETITIONS = 2_000
JUDGE = "weighted_alpaca_eval_gpt4_turbo"
SIZES = (5, 10, 20, 50, 100, 200, 805)
PLACES_APART = (1, 3)
"""on the board, of the pairs of released models: 22 and 20 pairs"""
_PORTION_SECONDS = 30.0


# Methods.


def ours(values: Array, clusters: Labels | None = None) -> Limits:
    """The present interval of a rate."""
    found = bounded_mean(values, clusters)
    return found.low, found.high


def logit_t(values: Array) -> Limits:
    """The former rule: the delta method on the logit scale, the exact bound at 0 and 1 alone."""
    found, _ = clustered_mean(values)
    m, n = found.value, len(values)
    bound = 1 - 0.025 ** (1 / n)
    if m in {0.0, 1.0}:
        return (0.0, bound) if m == 0 else (1 - bound, 1.0)
    reach = student_quantile(0.975, n - 1) * found.standard_error / (m * (1 - m))
    centre = math.log(m / (1 - m))
    low, high = (
        1 / (1 + math.exp(-min(max(x, -700), 700))) for x in (centre - reach, centre + reach)
    )
    return low, high


def rows_t(values: Array, clusters: Labels | None = None) -> Limits:
    """Rows taken for independent, plus and minus 1.96 standard errors: what evaluation libraries print."""
    del clusters
    reach = 1.96 * float(values.std(ddof=1)) / math.sqrt(len(values))
    return float(values.mean()) - reach, float(values.mean()) + reach


def wilson(values: Array) -> Limits:
    """Wilson's score interval, which takes the variance of binary verdicts for that of any."""
    n, z = len(values), 1.959963984540054
    m = float(values.mean())
    centre = (m + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(m * (1 - m) / n + z * z / (4 * n * n))
    return centre - reach, centre + reach


def cr1_t(values: Array, clusters: Labels) -> Limits:
    """The former clustered rule: CR1 with G - 1 degrees of freedom."""
    codes = np.unique(clusters, return_inverse=True)[1]
    mean, groups = float(values.mean()), int(codes.max()) + 1
    sums = np.bincount(codes, values - mean) / len(values)
    reach = student_quantile(0.975, groups - 1) * math.sqrt(
        groups / (groups - 1) * float(sums @ sums)
    )
    return mean - reach, mean + reach


def rogan_gladen(judge: Array, human: Array) -> Limits:
    """The judge's rate, corrected by sensitivity and specificity as the labels show them; by the delta method."""
    known = ~np.isnan(human)
    true, said = human[known] > 0.5, judge[known] > 0.5
    ones, zeros = int(true.sum()), int((~true).sum())
    if not ones or not zeros:
        return 0.0, 1.0
    hit, spared, rate = float(said[true].mean()), float((~said)[~true].mean()), float(judge.mean())
    sharp = hit + spared - 1
    if sharp <= 0:
        return 0.0, 1.0
    p = (rate + spared - 1) / sharp
    variance = rate * (1 - rate) / len(judge)
    variance += p**2 * hit * (1 - hit) / ones + (1 - p) ** 2 * spared * (1 - spared) / zeros
    reach = 1.96 * math.sqrt(variance) / sharp
    return max(0.0, p - reach), min(1.0, p + reach)


def paired(a: Array, b: Array) -> Limits:
    """The present interval of a paired difference."""
    found = paired_difference(a, b)
    return found.low, found.high


def paired_t(a: Array, b: Array) -> Limits:
    """Student's interval of a paired difference without corners."""
    delta = a - b
    reach = student_quantile(0.975, len(a) - 1) * float(delta.std(ddof=1)) / math.sqrt(len(a))
    return float(delta.mean()) - reach, float(delta.mean()) + reach


# Designs.


def rates() -> Iterator[Design]:
    """Win rates of binary, half-tied and soft saturated verdicts."""

    def binary(rng: np.random.Generator, n: int, p: float) -> Array:
        return (rng.random(n) < p).astype(np.float64)

    def half_ties(rng: np.random.Generator, n: int, p: float) -> Array:
        return np.asarray(np.where(rng.random(n) < 0.5, 0.5, binary(rng, n, p)), np.float64)

    def soft(rng: np.random.Generator, n: int, p: float) -> Array:
        return np.asarray(0.0005 + 0.999 * binary(rng, n, p), np.float64)

    drawn = {
        "binary": (binary, lambda p: p),
        "half ties": (half_ties, lambda p: 0.25 + p / 2),
        "soft": (soft, lambda p: 0.0005 + 0.999 * p),
    }
    for (name, (draw, truth)), p, n in itertools.product(
        drawn.items(), (0.02, 0.1, 0.5, 0.98), SIZES
    ):
        methods = {
            "alignboard": ours,
            "logit-t (former)": logit_t,
            "rows, 1.96 SE": rows_t,
            "Wilson": wilson,
        }
        yield Design(
            "win rate",
            f"{name}, p = {p}, n = {n}",
            truth(p),
            lambda rng, draw=draw, n=n, p=p: (draw(rng, n, p),),
            methods,
        )


def clusters() -> Iterator[Design]:
    """Clustered rates: clusters of one size, of 1 to 20 rows, and one that holds half of all rows."""
    shapes: dict[str, Callable[[int], list[int]]] = {
        "equal": lambda g: [10] * g,
        "1 to 20": lambda g: [1 + (7 * k) % 20 for k in range(g)],
        "one with half": lambda g: [10 * (g - 1)] + [10] * (g - 1),
    }
    for (name, shape), g in itertools.product(shapes.items(), (5, 10, 20, 50)):
        label = np.repeat(np.arange(g), shape(g))

        def draw(
            rng: np.random.Generator, label: Labels = label, g: int = g
        ) -> tuple[Array, Labels]:
            own = rng.beta(1, 1, g)[label]
            return (rng.random(len(label)) < own).astype(np.float64), label

        methods = {"alignboard": ours, "CR1, G - 1 (former)": cr1_t, "rows, 1.96 SE": rows_t}
        yield Design("clustered rate", f"{name}, G = {g}", 0.5, draw, methods)


def rank_families() -> Iterator[Design]:
    """Whether all rank sets of ten models hold their models' ranks at once."""
    designs = {
        "all equal": np.zeros(10),
        "one gap": np.repeat([0.15, 0.0], 5),
        "ladder": np.linspace(0.2, -0.2, 10),
    }
    for (name, shift), prompts in itertools.product(designs.items(), (50, 200)):
        better = (shift[:, None] < shift).sum(axis=1)
        worse = (shift[:, None] > shift).sum(axis=1)

        def draw(
            rng: np.random.Generator, shift: Array = shift, prompts: int = prompts
        ) -> tuple[Array]:
            hard = rng.normal(0, 0.15, (prompts, 1))
            return (np.clip(0.5 + shift + hard + rng.normal(0, 0.2, (prompts, len(shift))), 0, 1),)

        def holds(
            score: Array, *, each: bool, better: Array = better, worse: Array = worse
        ) -> Limits:
            low, high = _single_ranks(score) if each else paired_rank_sets(score)
            models = len(better)
            all_hold = bool(((low <= 1 + better) & (high >= models - worse)).all())
            return (
                (0.0, float((high - low).mean()))
                if all_hold
                else (1.0, 1.0 + float((high - low).mean()))
            )

        methods = {
            "alignboard": lambda score, holds=holds: holds(score, each=False),
            "tests without correction": lambda score, holds=holds: holds(score, each=True),
        }
        yield Design("rank sets, all at once", f"{name}, {prompts} prompts", 0.0, draw, methods)


def _single_ranks(score: Array) -> tuple[Labels, Labels]:
    n, models = score.shape
    delta = score[:, :, None] - score[:, None, :]
    with np.errstate(invalid="ignore", divide="ignore"):
        t = delta.mean(axis=0) / (delta.std(axis=0, ddof=1) / math.sqrt(n))
    bar = student_quantile(0.975, n - 1)
    return 1 + (t < -bar).sum(axis=1), models - (t > bar).sum(axis=1)


def people() -> Iterator[Design]:
    """Win rates by few human labels beside a judge's on 805 rows."""
    judges = itertools.product(((0.7, 0.6), (0.85, 0.8)), (0.1, 0.3, 0.5), (20, 50, 100, 200))
    for (sensitivity, specificity), p, labels in judges:

        def draw(
            rng: np.random.Generator,
            p: float = p,
            labels: int = labels,
            right: tuple[float, float] = (sensitivity, specificity),
        ) -> tuple[Array, Array]:
            truth = rng.random(805) < p
            judge = rng.random(805) < np.where(truth, right[0], 1 - right[1])
            human = np.full(805, np.nan)
            chosen = rng.choice(805, labels, replace=False)
            human[chosen] = truth[chosen]
            return judge.astype(np.float64), human

        def calibrated(judge: Array, human: Array) -> Limits:
            found = calibrated_mean(judge, human).rate
            return found.low, found.high

        def untuned(judge: Array, human: Array) -> Limits:
            known = ~np.isnan(human)
            rest = human[known] - judge[known]
            centre = float(judge.mean() + rest.mean())
            reach = 1.96 * math.sqrt(judge.var() / 805 + rest.var(ddof=1) / len(rest))
            return centre - reach, centre + reach

        methods = {
            "alignboard": calibrated,
            "people alone": lambda _, human: ours(human),
            "weight 1 (PPI), 1.96 SE": untuned,
            "Rogan-Gladen": rogan_gladen,
            "judge alone": lambda judge, _: ours(judge),
        }
        yield Design(
            "win rate by people, with a judge",
            f"sens {sensitivity}, spec {specificity}, p = {p}, {labels} labels",
            p, draw, methods,
        )  # fmt: skip


def released(root: Path) -> Iterator[Design]:
    """Released verdicts drawn anew with replacement: 23 models, 42 pairs; and pairs whose signs are flipped."""
    from alignboard.results.folder import ResultsFolder

    with ResultsFolder(root / "results") as folder:
        models = [m for m in folder.annotated_models(JUDGE) if m != "gpt4_1106_preview"]
        tables = folder.tables(models, JUDGE)
    rows = {
        m: dict(zip(t.instruction.tolist(), (t.preference - 1).tolist(), strict=True))
        for m, t in tables.items()
    }
    order = sorted(models, key=lambda m: -float(np.nanmean(list(rows[m].values()))))
    score = [_scored(np.array(list(rows[m].values()))) for m in order]
    apart = [(k, k + step) for step in PLACES_APART for k in range(len(order) - step)]
    both = [_common(rows[order[i]], rows[order[j]]) for i, j in apart]
    truth = np.array([one.mean() for one in score])
    gap = np.array([(one[:, 0] - one[:, 1]).mean() for one in both])
    for n in SIZES:
        yield Design(
            "win rate, released", f"worst of {len(score)} models, n = {n}", truth,
            lambda rng, n=n: ([rng.choice(one, n) for one in score],),
            {
                "alignboard": _of_each(ours),
                "logit-t (former)": _of_each(logit_t),
                "Wilson": _of_each(wilson),
            },
            worst=True,
        )  # fmt: skip
        yield Design(
            "paired difference, released", f"worst of {len(both)} pairs, n = {n}", gap,
            lambda rng, n=n: ([one[rng.integers(0, len(one), n)].T for one in both],),
            {
                "alignboard": _of_each(lambda pair: paired(*pair)),
                "Student's t": _of_each(lambda pair: paired_t(*pair)),
            },
            worst=True,
        )  # fmt: skip
    for n in SIZES:
        yield Design(
            "paired difference, no claim where signs are flipped", f"worst of {len(both)} pairs, n = {n}", 0.0,
            lambda rng, n=n: ([_flipped(rng, one[rng.integers(0, len(one), n)]) for one in both],),
            {
                "alignboard": _of_each(lambda pair: paired(*pair)),
                "Student's t": _of_each(lambda pair: paired_t(*pair)),
                **({"sign-flip test": _of_each(_where_flips_allow)} if n < 50 else {}),
            },
            worst=True,
        )  # fmt: skip


def _where_flips_allow(pair: Array) -> Limits:
    """No limits but 0 itself, unless the test by sign flips claims a difference."""
    p = sign_flip_p_value(pair[0] - pair[1], rng=np.random.default_rng(0))
    return (1.0, math.inf) if p <= 0.05 else (-math.inf, math.inf)


def _scored(values: Array) -> Array:
    return values[~np.isnan(values)]


def _common(a: dict[int, float], b: dict[int, float]) -> Array:
    """(n, 2) the scores of two models on the prompts that both have."""
    pairs = np.array([(x, b[k]) for k, x in a.items() if k in b])
    return pairs[~np.isnan(pairs).any(axis=1)]


def _flipped(rng: np.random.Generator, pairs: Array) -> Array:
    """(2, n) the scores of two models that change places on a random half of the prompts: equal by construction."""
    swap = rng.random(len(pairs)) < 0.5
    return np.where(swap[:, None], pairs[:, ::-1], pairs).T


def _of_each(method: Callable[[Any], Limits]) -> Callable[[list[Any]], Limits]:
    """The limits of every model or pair of a draw."""

    def limits(drawn: list[Any]) -> Limits:
        low, high = np.array([method(one) for one in drawn]).T
        return low, high

    return limits


PARTS: dict[str, Callable[[], Iterator[Design]]] = {
    "rates": rates,
    "clusters": clusters,
    "separate": separate,
    "round-robins": round_robins,
    "baseline-only": baseline_only,
    "dominated": dominated,
    "two-ways": two_ways,
    "ranks": rank_families,
    "people": people,
    "controlled": controlled_differences,
    "joint": jointly_controlled,
    "positions": positions,
    "reruns": reruns,
}


def simulate(designs: list[Design], found: Found, repetitions: int) -> Iterator[None]:
    """Add the repetitions that designs lack, the cheapest first; yields after each portion.

    Those of which the worst counts are run in one piece, and tried on one repetition before.
    """
    seconds = {k: _seconds(one) if one.worst else 0.0 for k, one in enumerate(designs)}
    while lacking := {k: n for k in seconds if (n := missing(designs[k], found, repetitions))}:
        k = min(lacking, key=lambda k: (seconds[k] * lacking[k], k))
        blocks = max(1, int(_PORTION_SECONDS / seconds[k] / BLOCK)) if seconds[k] else 1
        more = lacking[k] if designs[k].worst else min(lacking[k], blocks * BLOCK)
        start = time.process_time()
        add(designs[k], found, repetitions, more)
        seconds[k] = (time.process_time() - start) / more
        yield


def _seconds(design: Design) -> float:
    start = time.process_time()
    design.cells(1)
    return time.process_time() - start


def main() -> None:
    """Simulate what is missing, and write what was found."""
    names = [*PARTS, "released"]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--docs", type=Path)
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    parser.add_argument("--only", nargs="*", choices=names, default=names, help="parts to add to")
    parser.add_argument("--redo", nargs="*", choices=names, default=[], help="parts to do again")
    arguments = parser.parse_args()
    parts = dict(PARTS)
    data = os.environ.get("ALIGNBOARD_RELEASED_DATA")
    if data:
        parts["released"] = lambda: released(Path(data))
    designs = {name: list(part()) for name, part in parts.items()}
    again = {d.quantity for name in arguments.redo for d in designs[name]}
    cells: list[Cell] = []
    if arguments.json.is_file():
        cells = [Cell(**one) for one in json.loads(arguments.json.read_text())]
    found = as_found(cell for cell in cells if cell.quantity not in again)
    place = {(d.quantity, d.name): k for k, d in enumerate(itertools.chain(*designs.values()))}
    wanted = [d for name in arguments.only if name in designs for d in designs[name]]
    for _ in simulate(wanted, found, arguments.repetitions):
        _write(arguments.json, found, place)
    _write(arguments.json, found, place)
    beside = arguments.json.with_name("sequential.json")
    page = markdown(
        [
            cell
            for key in sorted(found, key=lambda key: place.get(key, len(place)))
            for cell in found[key]
        ],
        json.loads(beside.read_text()) if beside.is_file() else None,
    )
    if arguments.docs:
        arguments.docs.write_text(page)
    print(page)


def _write(path: Path, found: Found, place: dict[tuple[str, str], int]) -> None:
    """Cells in the order of their designs; the file is whole at any time."""
    order = sorted(found, key=lambda key: place.get(key, len(place)))
    lines = ",\n".join(json.dumps(asdict(cell)) for key in order for cell in found[key])
    part = path.with_suffix(".part")
    part.write_text(f"[\n{lines}\n]\n")
    part.replace(path)


if __name__ == "__main__":
    main()
