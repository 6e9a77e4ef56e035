"""`alignboard train`, `sweep` and `export`: adapters from recipes, and one merged into its base."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from alignboard.cli.options import (
    PATH,
    POSITIVE,
    completes,
    json_option,
    launcher_option,
    machine_of,
    machine_options,
    redo_option,
    trained_model_option,
    training_data_option,
)
from alignboard.cli.shared import show_run, write_json
from alignboard.errors import AlignboardError, InputError

if TYPE_CHECKING:
    from alignboard.models.arithmetic import Dtype
    from alignboard.pipeline.runner import RunResult


@click.command(epilog="Example: alignboard train demo/dpo --model tiny-phi --set loss.beta=0.2")
@click.argument("recipe", shell_complete=completes("train"))
@trained_model_option
@training_data_option
@click.option(
    "--set",
    "settings",
    metavar="FIELD=VALUE",
    multiple=True,
    help="Set a field of the recipe, such as loss.beta=0.2; may be given several times.",
)
@click.option("--seed", type=int, metavar="N", help="The seed, instead of the recipe's.")
@click.option(
    "--name",
    metavar="NAME",
    help="The trained model's folder in results/ (default: <base>-<last part of the recipe's name>).",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print the jobs, steps, tokens, memory and two rows as tokens; read no weights.",
)
@machine_options
@launcher_option
@redo_option
@json_option
def train(
    recipe: str,
    *,
    model: str | None,
    data_name: str | None,
    settings: tuple[str, ...],
    seed: int | None,
    name: str | None,
    dry_run: bool,
    workers: int | None,
    gpus: str | None,
    executor: str,
    launcher: str,
    redo: tuple[str, ...],
    json_file: Path | None,
) -> None:
    """Train RECIPE (a name such as demo/dpo or mistral-7b/sft-qlora), and first whatever it starts from."""
    from functools import partial

    from alignboard.pipeline.runner import run_resolved
    from alignboard.pipeline.training import (
        TrainingRequest,
        adapter_folder,
        parse_settings,
        training_plan,
    )

    changes = parse_settings(settings)
    changes |= {} if seed is None else {"seed": seed}
    changes |= {} if data_name is None else _data_of(changes, data_name)
    asked = TrainingRequest(recipe, model, changes, name)
    resolved = training_plan(asked, Path.cwd().resolve())
    machine = machine_of(workers, gpus, executor, launcher)
    run = partial(run_resolved, resolved, machine=machine, redo=redo)
    if dry_run:
        show_run(run, json_file, dry_run=True, more=_looked)
        return
    adapter = adapter_folder(resolved)
    show_run(run, json_file, dry_run=False, more=lambda _: {"adapter": str(adapter)})
    print(adapter)


def _data_of(changes: Mapping[str, Any], name: str) -> dict[str, Any]:
    """``--data`` beside what ``--set data.columns=...`` and its like say of it."""
    given = changes.get("data", {})
    if not isinstance(given, dict) or "name" in given:
        raise InputError("--data and --set data name two sources; leave one out.")
    return {"data": {**given, "name": name}, "pairs": None}


def _looked(planned: RunResult) -> dict[str, Any]:
    """Print what a run would train on, and what would stop it before its first job."""
    from alignboard.pipeline.training_preflight import require_trainings

    found: dict[str, Any] = {"preview": _look(planned), "refused": None}
    try:
        require_trainings(
            planned.plan, [job for job in planned.jobs if job.name not in planned.done_before]
        )
    except AlignboardError as error:
        found["refused"] = str(error)
        print(f"Would be refused: {error}", file=sys.stderr)
    return found


def _look(planned: RunResult) -> dict[str, Any] | None:
    """Print what the rows of the recipe are; None where they, or the tokenizer, are made by jobs of the run."""
    from alignboard.cli.data import print_data
    from alignboard.pipeline.training import training_rows
    from alignboard.text import shown
    from alignboard.training.preview import open_for_training, preview

    trained = planned.plan.models[-1]
    recipe = planned.plan.recipes[str(trained.recipe)]
    found = training_rows(planned.plan)
    if found is None:
        return None
    rows, reports = found
    for report in reports:
        print_data(rows, report)
    source = planned.plan.entries[trained.base].spec
    if source is None:
        return None
    looked = preview(recipe, open_for_training(recipe, source), rows)
    for line in looked.lines():
        print(shown(line))
    return looked.to_json()


@click.command(epilog="Example: alignboard export results/tiny-phi-dpo/adapter --to merged")
@click.argument("adapter", type=PATH)
@click.option("--to", required=True, type=PATH, help="The new folder of the checkpoint.")
@click.option(
    "--base", metavar="MODEL", help="The base model (default: the one that ADAPTER names)."
)
@click.option(
    "--dtype",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    help="Of the merged weights.",
)
@json_option
def export(
    adapter: Path, *, to: Path, base: str | None, dtype: str, json_file: Path | None
) -> None:
    """Merge ADAPTER into its base model, as safetensors with tokenizer and model card, and prove it.

    The merged model is loaded anew and compared with the adapter on its base: the largest difference of a logit, and
    the KL divergence. For an adapter that was trained on a base in few bits both comparisons are printed. The card has
    the scores (model-index) that the boards in leaderboards/ give to the model of results/<model>/adapter.
    """
    from alignboard.extras import require

    require("torch", "transformers", "peft")
    from alignboard.boards.exports.hub import results_of
    from alignboard.text import shown
    from alignboard.training.export import export_adapter

    results = results_of(adapter.absolute().parent.name, Path("leaderboards"))
    report = export_adapter(adapter, to, base=base, dtype=cast("Dtype", dtype), results=results)
    write_json(json_file, asdict(report))
    for line in report.lines():
        print(shown(line))


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
@launcher_option
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
    launcher: str,
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
    machine = machine_of(workers, gpus, executor, launcher)
    show_run(partial(run_resolved, resolved, machine=machine), json_file, dry_run=dry_run)
