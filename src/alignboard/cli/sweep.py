"""`alignboard sweep`: recipes trained with several settings and seeds, and the board that compares them."""

from __future__ import annotations

from pathlib import Path

import click

from alignboard.cli.options import (
    POSITIVE,
    completes,
    json_option,
    machine_of,
    machine_options,
    trained_model_option,
    training_data_option,
)
from alignboard.cli.shared import show_run


@click.command(
    epilog="Example: alignboard sweep demo/dpo --model tiny-phi --over loss.beta=0.1,1 --seeds 3 --judge demo-simulated"
)
@click.argument("recipes", nargs=-1, required=True, shell_complete=completes("train"))
@click.option(
    "--over",
    metavar="FIELD=VALUE,...",
    multiple=True,
    help="Values of a field of the recipes, such as loss.beta=0.01,0.1; of several fields all combinations.",
)
@click.option("--seeds", type=POSITIVE, default=1, show_default=True, help="Seeds per setting.")
@trained_model_option
@training_data_option
@click.option(
    "--report-on",
    metavar="SUITE",
    default="demo",
    show_default=True,
    help="The suite with the instructions that the board reports.",
)
@click.option(
    "--select-on", metavar="SUITE", help="The suite that chooses settings (default: the same)."
)
@click.option("--judge", metavar="NAME", help="The judge (default: the suite's own).")
@click.option(
    "--name", metavar="NAME", default="sweep", show_default=True, help="The board's name."
)
@click.option("--dry-run", is_flag=True, help="Print the jobs; read no weights.")
@machine_options
@json_option
def sweep(
    recipes: tuple[str, ...],
    *,
    over: tuple[str, ...],
    seeds: int,
    model: str | None,
    data_name: str | None,
    report_on: str,
    select_on: str | None,
    judge: str | None,
    name: str,
    dry_run: bool,
    workers: int | None,
    gpus: str | None,
    executor: str,
    json_file: Path | None,
) -> None:
    """Train RECIPES with each setting and seed, and first what they start from; compare them with that on a board.

    Settings and seeds on one base and one file share rows, tokens and reference. A setting that is chosen on the
    prompts that are reported is marked so; --select-on keeps the two apart.
    """
    from functools import partial

    from alignboard.pipeline.runner import run_resolved
    from alignboard.pipeline.training import SweepRequest, parse_values, sweep_plan

    asked = SweepRequest(
        recipes, parse_values(over), seeds, model, data_name, report_on, select_on, judge, name
    )
    resolved = sweep_plan(asked, Path.cwd())
    machine = machine_of(workers, gpus, executor)
    show_run(partial(run_resolved, resolved, machine=machine), json_file, dry_run=dry_run)
