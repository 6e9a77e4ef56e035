"""The page docs/coverage.md: what each cell of coverage.json is, and how often its limits held the truth."""

from __future__ import annotations

import textwrap
from typing import Any

from coverage_cells import Cell
from coverage_widths import LIMIT, SMALL, VALID, Width, size_of, widths

_HEAD = """
Simulated with `benchmarks/interval_coverage.py`: own seeds, the same draws for all methods of a line. A cell is the
share of repetitions whose limits held the truth, in percent, ± its Monte-Carlo standard error, and in parentheses the
mean width of the interval in the quantity's own unit (rates: 0 to 1), left out where a limit is infinite. *Former*
rules are those of earlier versions; *rows, 1.96 SE* is what evaluation libraries print, *Wilson* the score interval of
binary verdicts.
"""
_NARROW = """
Where fewer than {small} prompts, labels or clusters are known: our mean width over that of the narrowest other method
that is valid, which is one whose coverage is not below 93 % by more than two Monte-Carlo errors (a doubt that helps the
other method). *At this size*: valid in all designs of the quantity with as many prompts, labels or clusters, which is
what a user knows. *In this cell*: valid in the one design, which is more than anybody knows; where rows are in truth
independent, those who take them for independent have the narrowest limits.
"""
_WIDER = """
At most {limit} is aimed at. Above it at this size: {above}. All cells where a method that is valid in the cell alone is
narrower by more:
"""
_WHAT = {
    "win rate": """The mean of n independent verdicts: *binary* with rate p; *half ties*, where half of them are draws;
*soft*, scores of .0005 and .9995 in place of 0 and 1.""",
    "clustered rate": """Binary verdicts in G clusters, each with a rate of its own (uniform on 0 to 1), around a mean
of .5: clusters of 10 rows, of 1 to 20 rows, or one that holds half of all rows.""",
    "rating difference, separate groups": """Log-strength of the first model less that of the last on boards where the
first one's group never lost to the last one's, or never won: the repetitions are drawn until that is so. Where such a
record is so short that equal models would have it more often than once in 20 times, no limit is set.""",
    "rating differences, round robin": """All differences of log-strengths of a board. Every pair meets on every prompt,
in both orders; prompts favour some models (normal, this sd in log odds). The truth is that of endless prompts.""",
    "rating differences, baseline only": """The same where eight models are compared with one baseline on every prompt,
and never with each other.""",
    "rating differences, clusters": """All differences of log-strengths of four equal models. Annotators have tastes of
their own (normal, sd .7); one of them gave half of the comparisons.""",
    "rating differences, prompts and annotators": """All differences of log-strengths of four equal models on 60
prompts, clustered both ways. Prompts and G annotators have tastes of their own (normal, sd .7);
annotators gave comparisons in equal shares, or one of them gave half.""",
    "rank sets, all at once": """Whether the rank sets of ten models hold all true ranks at once; equal models share
their ranks. In parentheses: ranks in a set, less one.""",
    "win rate by people, with a judge": """The rate p of people's verdicts on 805 rows, of which few are labelled; a
judge with this sensitivity and specificity scored all of them. *Rogan-Gladen* corrects the judge's rate by sensitivity
and specificity as the labels show them.""",
    "LC difference": """Difference of two length-controlled win rates. Verdicts follow the model that is fitted, with
difficulties of prompts that models share: *calibrated* by rows as AlpacaEval's, or in a *joint fit* without any.""",
    "LC win rate, joint fit": """Length-controlled win rates of all models of a board of 805 prompts, without
calibration. The mean length difference is in standard deviations of it.""",
    "position gap": """Rate of a response where it is shown first less where it is shown second. *Both*: every prompt in
both orders; *coin*: one order, drawn; *adaptive 30 %*: the second order where the judge seems unsure.""",
    "swap consistency": """Share of prompts with the same verdict in both orders, all of which were asked, or 30 %.""",
    "a rerun of everything on these prompts": """The mean of one further run on the same prompts, whose training seed,
responses and verdicts are drawn anew.""",
    "win rate, released": """Win rates of released AlpacaEval 2 verdicts of 23 models, n drawn with replacement: the
model whose rate is held least often, with the mean width of all.""",
    "paired difference, released": """Differences of released models on n shared prompts, drawn anew: 22 pairs of
neighbours and 20 of models three places apart; the pair that is held least often, with the mean width of all.""",
    "paired difference, no claim where signs are flipped": """The same pairs, whose two models change places on a random
half of the prompts, so that both are equal: what does not hold 0 is a false claim.""",
}


def markdown(cells: list[Cell], looking: dict[str, Any] | None = None) -> str:
    """The page: one table per quantity, a line per design, coverage and width of each method.

    ``looking`` is the content of sequential.json.
    """
    lines = ["# Do 95 % intervals hold the truth?", "", *_wrapped(_HEAD)]
    for quantity in dict.fromkeys(cell.quantity for cell in cells):
        own = [cell for cell in cells if cell.quantity == quantity]
        lines += ["", f"## {quantity[0].upper()}{quantity[1:]}", "", *_wrapped(_WHAT[quantity]), ""]
        lines += [*_wrapped(_precision(own)), "", *_table(own)]
    return "\n".join([*lines, *_widths(cells), *_looking(looking)]) + "\n"


def _table(cells: list[Cell]) -> list[str]:
    """A line per design, with its repetitions where these differ."""
    methods = list(dict.fromkeys(cell.method for cell in cells))
    uneven = len({cell.repetitions for cell in cells}) > 1
    columns = ["design", *(["repetitions"] if uneven else []), *methods]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for design in dict.fromkeys(cell.design for cell in cells):
        found = {cell.method: cell for cell in cells if cell.design == design}
        texts = [_text(found[m]) if m in found else "-" for m in methods]
        times = [f"{next(iter(found.values())).repetitions:,}"] if uneven else []
        lines.append(f"| {' | '.join([design, *times, *texts])} |")
    return lines


def _precision(cells: list[Cell]) -> str:
    """How often a table's cells were simulated, and where it falls short."""
    n = sorted({cell.repetitions for cell in cells})
    times = f"{n[0]:,}" if len(n) == 1 else f"{n[0]:,} to {n[-1]:,}"
    low = [
        cell.design
        for cell in cells
        if cell.method == "alignboard" and cell.coverage + 2 * cell.error < VALID
    ]
    said = f"{times} repetitions a cell."
    return f"{said} Below 93 % beyond two errors: {'; '.join(low)}." if low else said


def _widths(cells: list[Cell]) -> list[str]:
    """How much wider the limits of small samples are than those of the best other method."""
    at_size, in_cell = widths(cells, at_size=True), widths(cells, at_size=False)
    small = [
        one
        for one in cells
        if one.method == "alignboard" and one.width and (size_of(one) or SMALL) < SMALL
    ]
    lines = ["", f"## Widths below n = {SMALL}", "", *_wrapped(_NARROW.format(small=SMALL)), ""]
    lines += [
        "| quantity | cells | largest at this size | largest in this cell |",
        "|---|---|---|---|",
    ]
    for quantity in dict.fromkeys(one.quantity for one in small):
        own = [one for one in small if one.quantity == quantity]
        lines.append(
            f"| {quantity} | {len(own)} | {_largest(at_size, quantity)} | {_largest(in_cell, quantity)} |"
        )
    above = [
        f"{one.ours.design} ({one.ratio:.2f}, {one.other.method})"
        for one in at_size
        if one.ratio > LIMIT
    ]
    lines += ["", *_wrapped(_WIDER.format(limit=LIMIT, above="; ".join(above) or "none")), ""]
    lines += [
        "| design | ratio | other method | its coverage here | its lowest at this size |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.ours.quantity}: {one.ours.design} | {one.ratio:.2f} | {one.other.method} | "
        f"{100 * one.other.coverage:.1f} ± {100 * one.other.error:.1f} | {100 * one.lowest.coverage:.1f} |"
        for one in sorted(in_cell, key=lambda one: -one.ratio)
        if one.ratio > LIMIT
    ]
    return lines


def _largest(found: list[Width], quantity: str) -> str:
    ratios = [one.ratio for one in found if one.ours.quantity == quantity]
    return f"{max(ratios):.2f}" if ratios else "no other"


def _looking(found: dict[str, Any] | None) -> list[str]:
    """False claims of comparisons that are looked at after every prompt."""
    if found is None:
        return []
    flips, runs = found["sign flips"], found["repetitions"]
    lines = ["", "## Error rate under continuous looking", ""]
    lines += _wrapped(
        f"""Share of runs with any false claim at 5 %, looking after every prompt, in percent ± its Monte-Carlo standard
        error (`benchmarks/sequential.py`): {flips:,} sign flips of each of 22 adjacent pairs of released models, and
        {runs} tournaments."""
    )
    lines += [
        "",
        "| design | e-process | t test at every look |",
        "|---|---|---|",
    ]
    pairs = found["released"]["false claims, 22 adjacent pairs with flipped signs"]
    by_t = found["released"]["the same by a t test after every prompt from the 10th"]
    lines += [
        f"| 22 released pairs with flipped signs, {which} | {_share(pairs[which], n)} | {_share(by_t[which], n)} |"
        for which, n in (("mean", 22 * flips), ("worst", flips))
    ]
    lines += [
        f"| 20 equal models in a tournament, `{policy}` | {_share(share, runs)} | - |"
        for policy, share in found["20 equal models, runs with a claim"].items()
    ]
    return lines


def _share(share: float, n: int) -> str:
    return f"{100 * share:.1f} ± {100 * (share * (1 - share) / n) ** 0.5:.1f}"


def _text(cell: Cell) -> str:
    width = f" ({cell.width:.2f})" if cell.width else ""
    return f"{100 * cell.coverage:.1f} ± {100 * cell.error:.1f}{width}"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), 118)
