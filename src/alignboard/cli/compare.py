"""`alignboard compare` and `power`: paired differences on shared prompts, and how many prompts they need."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from alignboard.cli.options import (
    FILE,
    PATH,
    POSITIVE,
    all_pairs_option,
    json_option,
    results_option,
)
from alignboard.cli.shared import write_json
from alignboard.errors import InputError

if TYPE_CHECKING:
    from alignboard.reports.comparison import Correction
    from alignboard.reports.power import PromptCost

EXIT_NOTHING_SHARED = 3
_CLUSTER = (
    "A column of the annotations, or a field of the task's documents: rows with the same value (a conversation, a "
    "passage) are dependent (default for lm-eval: a passage or subject that documents share)."
)
_MARGIN = "Percentage points below which two models count as equivalent; adds two one-sided tests."
_ANY_PROMPT = (
    "Allow prompts of lm-eval that differ between models, such as each in its own chat template."
)


@click.command(
    epilog="Example: alignboard compare my-dpo my-simpo --from results --judge hardened-pair"
)
@click.argument("models", nargs=-1)
@results_option("A results folder; MODELS are then names of models in it.")
@click.option(
    "--plan",
    metavar="PLAN",
    help="A plan that was run here, or its file: MODELS are its own (default: all of them).",
)
@click.option(
    "--judge",
    metavar="NAME",
    help="The judge whose verdicts, and ratings of single outputs, are compared.",
)
@click.option(
    "--suite",
    metavar="NAME",
    help="The suite whose benchmarks are compared; a published suite stands for its judge.",
)
@click.option(
    "--set", "set_name", metavar="NAME", help="The instruction set, where there are several."
)
@click.option("--baseline", metavar="NAME", help="The baseline, where there are several.")
@click.option(
    "--assets",
    type=PATH,
    metavar="DIR",
    help="Folder of df_gamed.csv and instruction_difficulty.csv: adds length-controlled win rates.",
)
@click.option(
    "--correction",
    type=click.Choice(["holm", "maxt", "bh", "none"]),
    default="holm",
    show_default=True,
    help="Correction of the p-values for the number of pairs.",
)
@all_pairs_option
@click.option("--cluster", metavar="FIELD", help=_CLUSTER)
@click.option("--margin", type=float, metavar="POINTS", help=_MARGIN)
@click.option("--any-prompt", is_flag=True, help=_ANY_PROMPT)
@click.option(
    "--csv", "csv_file", type=FILE, metavar="FILE", help="Write the pairs as CSV to FILE."
)
@click.option(
    "--latex", "latex_file", type=FILE, metavar="FILE", help="Write the pairs as LaTeX to FILE."
)
@json_option
def compare(
    models: tuple[str, ...],
    results: Path | None,
    plan: str | None,
    judge: str | None,
    suite: str | None,
    set_name: str | None,
    baseline: str | None,
    assets: Path | None,
    correction: Correction,
    *,
    all_pairs: bool,
    cluster: str | None,
    margin: float | None,
    any_prompt: bool,
    csv_file: Path | None,
    latex_file: Path | None,
    json_file: Path | None,
) -> None:
    """Compare the first of MODELS with the others on the prompts that both have.

    MODELS are names of models in --from DIR with --judge NAME or --suite NAME; or models of --plan PLAN; or annotations
    or ratings files of one judge; or samples or results files, or output folders, of lm-eval. Exit code 3 where no pair
    has a prompt in common.
    """
    from alignboard.reports import compare as compared
    from alignboard.reports.comparison_text import to_csv, to_latex, to_text
    from alignboard.results.files import write_atomically

    declared = None
    if plan is not None:
        from alignboard.pipeline.plans.plan import load_plan

        declared = load_plan(plan)
    found = compared.compare(
        *models,
        results=results,
        plan=declared,
        judge=judge,
        suite=suite,
        set_name=set_name,
        baseline=baseline,
        assets=assets,
        cluster=cluster,
        correction=correction,
        margin=_as_fraction("--margin", margin),
        all_pairs=all_pairs,
        any_prompt=any_prompt,
    )
    write_json(json_file, found.to_json())
    for path, text in ((csv_file, to_csv), (latex_file, to_latex)):
        if path is not None:
            write_atomically(path, text(found).encode())
    print(to_text(found))
    if not found.shared:
        print("alignboard: the models have no scored prompt in common.", file=sys.stderr)
        sys.exit(EXIT_NOTHING_SHARED)


@click.command(
    epilog="Example: alignboard power my-dpo my-simpo --from results --judge hardened-pair"
)
@click.argument("models", nargs=-1)
@results_option()
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
    type=POSITIVE,
    default=1,
    show_default=True,
    help="Tests that share the error rate of .05, as in Holm's first step.",
)
@all_pairs_option
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

    wanted = _as_fraction("--difference", difference)
    if bool(models) == (sd is not None):
        raise InputError("Give MODELS, a pilot, or --sd POINTS with --difference POINTS.")
    if sd is not None:
        if wanted is None or not sd > 0:
            raise InputError("--sd POINTS, above 0, needs --difference POINTS.")
        needed = prompts_needed(wanted, sd / 100, target, ALPHA / tests)
        write_json(json_file, {"needed": needed})
        print(f"{needed} prompts separate {difference:g} points in {target:.0%} of runs.")
        return
    from alignboard.reports.compare import compare

    pilot = compare(
        *models, results=results, judge=judge, suite=suite, cluster=cluster, all_pairs=all_pairs
    )
    costs = _costs(models, results, judge) if results is not None and judge is not None else {}
    rows = pair_powers(pilot, wanted, target, tests, costs)
    write_json(json_file, to_json(rows))
    print(to_text(rows, wanted, target))


def _costs(models: tuple[str, ...], results: Path, judge: str) -> dict[str, PromptCost]:
    """What judging takes per prompt, by model; empty where the judge is declared nowhere here, or has only ratings."""
    from alignboard.judges.load import load_judge
    from alignboard.judges.opening import Access
    from alignboard.judges.pairs import Pair
    from alignboard.pipeline.judges import Judges
    from alignboard.records import Judgment
    from alignboard.reports.power import PromptCost
    from alignboard.results.formats import read_rows
    from alignboard.results.verdict_paths import one_column

    try:
        declared, verdicts = load_judge(judge), one_column(results, models, judge)
    except InputError:
        return {}
    judges, found = Judges(Access(), Path.cwd()), {}
    for model, path in verdicts.items():
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


def _as_fraction(option: str, points: float | None) -> float | None:
    """Percentage points as a fraction; what no two rates can differ by is refused in the unit that was given."""
    if points is not None and not 0 < points < 100:
        raise InputError(
            f"{option} {points:g} is no difference of rates; give points above 0, below 100."
        )
    return None if points is None else points / 100
