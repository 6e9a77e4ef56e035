"""`alignboard power`: how many prompts a comparison needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from alignboard.cli.shared import json_option, write_json
from alignboard.errors import InputError

if TYPE_CHECKING:
    from alignboard.reports.power import PromptCost


@click.command(
    epilog="Example: alignboard power my-dpo my-simpo --from results --judge hardened-pair"
)
@click.argument("models", nargs=-1)
@click.option(
    "--from", "results", type=click.Path(path_type=Path), metavar="DIR", help="A results folder."
)
@click.option("--judge", metavar="NAME", help="The judge of the pilot.")
@click.option(
    "--suite", metavar="NAME", help="The suite of the pilot, whose benchmarks are compared."
)
@click.option(
    "--cluster", metavar="FIELD", help="A column: rows with the same value are dependent."
)
@click.option(
    "--sd",
    type=float,
    metavar="POINTS",
    help="Without a pilot: standard deviation of the differences of prompts.",
)
@click.option(
    "--difference",
    type=float,
    metavar="POINTS",
    help="The difference to separate (default: what the pilot saw).",
)
@click.option(
    "--power",
    "target",
    type=click.FloatRange(0.05, 0.999),
    default=0.8,
    show_default=True,
    help="The wanted probability of separating it.",
)
@click.option(
    "--tests",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Tests that share the error rate of .05, as in Holm's first step.",
)
@click.option(
    "--all-pairs", is_flag=True, help="All pairs of MODELS, not only the first with the others."
)
@json_option
def power(
    models: tuple[str, ...],
    results: Path | None,
    judge: str | None,
    suite: str | None,
    cluster: str | None,
    sd: float | None,
    difference: float | None,
    target: float,
    tests: int,
    *,
    all_pairs: bool,
    json_file: Path | None,
) -> None:
    """Compute how many prompts separate two models, from a pilot or from assumptions.

    MODELS are a pilot, as `alignboard compare` takes it; without them, --sd and --difference are assumed. Prints the
    smallest difference that the pilot's prompts separate, the prompts needed, and n / n*: below 1, the pair is not
    resolved by the prompts at hand. With --judge also the judge's calls for the prompts needed, and what they cost at
    most by evaluate/prices.yaml, with responses as long as the pilot's.
    """
    from alignboard.reports.power import ALPHA, pair_powers, to_json, to_text
    from alignboard.stats.power import prompts_needed

    wanted = None if difference is None else difference / 100
    if wanted is not None and not 0 < wanted < 1:
        raise InputError(
            f"--difference {difference:g} is no difference of rates; give points above 0, below 100."
        )
    if bool(models) == (sd is not None):
        raise InputError("Give MODELS, a pilot, or --sd POINTS with --difference POINTS.")
    if sd is not None:
        if wanted is None or not sd > 0:
            raise InputError("--sd POINTS, above 0, needs --difference POINTS.")
        needed = prompts_needed(wanted, sd / 100, target, ALPHA / tests)
        if json_file is not None:
            write_json(json_file, {"needed": needed})
        print(f"{needed} prompts separate {difference:g} points in {target:.0%} of runs.")
        return
    from alignboard.reports.compare import compare

    pilot = compare(
        *models, results=results, judge=judge, suite=suite, cluster=cluster, all_pairs=all_pairs
    )
    costs = _costs(models, results, judge) if results is not None and judge is not None else {}
    rows = pair_powers(pilot, wanted, target, tests, costs)
    if json_file is not None:
        write_json(json_file, to_json(rows))
    print(to_text(rows, wanted, target))


def _costs(models: tuple[str, ...], results: Path, judge: str) -> dict[str, PromptCost]:
    """What judging takes per prompt, by model; empty where the judge is declared nowhere here."""
    from alignboard.judges.load import load_judge
    from alignboard.judges.pairs import Pair
    from alignboard.pipeline.judges import Access, Judges
    from alignboard.records import Judgment
    from alignboard.reports.power import PromptCost
    from alignboard.results.formats import read_rows
    from alignboard.results.verdict_places import one_column

    try:
        declared = load_judge(judge)
    except InputError:
        return {}
    judges, found = Judges(Access(), Path.cwd()), {}
    for model, path in one_column(results, models, judge).items():
        rows = read_rows(path, Judgment)
        pairs = [
            Pair(row.instruction, row.output_1, row.generator_1, row.output_2, row.generator_2)
            for row in rows
        ]
        costs = judges.whole_costs(declared, pairs)
        prices = [one.price for one in costs if one.price is not None]
        dollars = sum(prices) / len(rows) if len(prices) == len(costs) else None
        found[model] = PromptCost(sum(one.n_calls for one in costs) / len(rows), dollars)
    return found
