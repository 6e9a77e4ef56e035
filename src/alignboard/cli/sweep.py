"""`alignboard sweep`: recipes trained with several settings and seeds, and the board that compares them."""

from __future__ import annotations

from pathlib import Path

import click

from alignboard.cli.shared import (
    completes,
    json_option,
    machine_of,
    machine_options,
    say_versions,
    terminal_width,
    write_json,
)


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
@click.option(
    "--seeds", type=click.IntRange(1), default=1, show_default=True, help="Seeds per setting."
)
@click.option(
    "--model", metavar="NAME", help="tiny-phi, a folder or an id on the hub; else the recipe's own."
)
@click.option("--data", "data_name", metavar="SOURCE", help="Train on this instead.")
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
    from alignboard.boards.board import read_board
    from alignboard.boards.files import to_text
    from alignboard.pipeline.progress import job_table, showing, time_table
    from alignboard.pipeline.runner import run_resolved
    from alignboard.pipeline.training import SweepRequest, parse_values, sweep_plan

    asked = SweepRequest(
        recipes, parse_values(over), seeds, model, data_name, report_on, select_on, judge, name
    )
    resolved = sweep_plan(asked, Path.cwd())
    machine = machine_of(workers, gpus, executor)
    planned = run_resolved(resolved, dry_run=True, machine=machine)
    if dry_run:
        if json_file is not None:
            write_json(json_file, planned.to_json())
        print(job_table(planned.jobs, planned.done_before, planned.expected, planned.n_workers))
        return
    with showing(len(planned.jobs), n_before=len(planned.done_before)) as listener:
        result = run_resolved(resolved, on_progress=listener, machine=machine)
    say_versions(result)
    if json_file is not None:
        write_json(json_file, result.to_json())
    print(time_table(result.timings, result.seconds))
    if result.board is not None:
        print(f"\n{to_text(read_board(result.board), terminal_width())}")
        print(f"\n{result.board.with_suffix('.html')}")
