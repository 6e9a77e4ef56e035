"""`alignboard train`: an adapter from a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alignboard.cli.shared import completes, json_option, redo_option, say_versions, write_json

if TYPE_CHECKING:
    from alignboard.pipeline.runner import RunResult


@click.command(epilog="Example: alignboard train demo/dpo --model tiny-phi --set loss.beta=0.2")
@click.argument("recipe", shell_complete=completes("train"))
@click.option(
    "--model", metavar="NAME", help="tiny-phi, a folder or an id on the hub; else the recipe's own."
)
@click.option(
    "--data",
    "data_name",
    metavar="SOURCE",
    help="Train on this instead: a json, jsonl, csv or parquet file, a folder of `datasets`, a hub id.",
)
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
    redo: tuple[str, ...],
    json_file: Path | None,
) -> None:
    """Train RECIPE (a name such as demo/dpo or mistral-7b/sft-qlora), and first whatever it starts from."""
    from alignboard.pipeline.progress import job_table, showing, time_table
    from alignboard.pipeline.training import TrainingRequest, parse_settings, train_recipe

    changes = parse_settings(settings)
    changes |= {} if seed is None else {"seed": seed}
    changes |= {} if data_name is None else {"data": {"name": data_name}, "pairs": None}
    asked = TrainingRequest(recipe, model, changes, name)
    _, planned = train_recipe(asked, dry_run=True, redo=redo)
    if dry_run:
        looked = _look(planned)
        if json_file is not None:
            write_json(json_file, planned.to_json() | {"preview": looked})
        print(job_table(planned.jobs, planned.done_before, planned.expected, planned.n_workers))
        return
    with showing(len(planned.jobs), n_before=len(planned.done_before)) as listener:
        adapter, result = train_recipe(asked, on_progress=listener, redo=redo)
    say_versions(result)
    if json_file is not None:
        write_json(json_file, result.to_json() | {"adapter": str(adapter)})
    print(time_table(result.timings, result.seconds))
    print(adapter)


def _look(planned: RunResult) -> dict[str, Any] | None:
    """Print what the rows of the recipe are; None where they, or the tokenizer, are made by jobs of the run."""
    from alignboard.cli.data import print_data
    from alignboard.pipeline.training import training_rows
    from alignboard.text import shown
    from alignboard.train.preview import open_for_training, preview

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
