"""`alignboard benchmark`: lm-eval's tasks on models, and their board."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from alignboard.cli.endpoint import endpoint_fields, endpoint_options
from alignboard.cli.options import (
    FOLDER,
    POSITIVE,
    completes,
    json_option,
    names_option,
    parts,
    redo_option,
    trust_tasks_option,
)
from alignboard.cli.shared import show_run


@click.command(
    epilog="Example: alignboard benchmark my-base my-dpo/adapter --suite open-llm-v1 --data-root mirror"
)
@click.argument("models", nargs=-1)
@click.option(
    "--tasks", metavar="T,T", help="Tasks of lm-eval, or of evaluate/tasks; every metric is shown."
)
@click.option(
    "--suite",
    metavar="NAME",
    shell_complete=completes("evaluate/suites"),
    help="A suite: open-llm-v1, open-llm-v2, nous, quick, smoke, or one of evaluate/suites.",
)
@names_option
@click.option(
    "--limit",
    type=POSITIVE,
    metavar="N",
    help="Only the first N documents of each task (default: all).",
)
@click.option(
    "--data-root",
    metavar="DIR",
    help="A mirror of the hub's data sets: a folder as `alignboard fetch suite` writes it, or package:NAME.",
)
@click.option(
    "--chat-template/--no-chat-template",
    default=None,
    help="Ask in the models' chat templates, examples as turns (default: as the suite; for --tasks plain text).",
)
@click.option(
    "--checkpoints",
    type=FOLDER,
    metavar="DIR",
    help="Ask every checkpoint-<step> of this training, too, a row for each.",
)
@endpoint_options
@trust_tasks_option
@click.option("--dry-run", is_flag=True, help="Print the jobs and their tasks; load no weights.")
@redo_option
@json_option
def benchmark(
    models: tuple[str, ...],
    tasks: str | None,
    suite: str | None,
    model_names: str | None,
    limit: int | None,
    data_root: str | None,
    *,
    chat_template: bool | None,
    checkpoints: Path | None,
    trust_tasks: bool,
    dry_run: bool,
    redo: tuple[str, ...],
    json_file: Path | None,
    **given: Any,
) -> None:
    """Run lm-eval's tasks on every MODEL and show the scores on a board.

    A MODEL is a name of `alignboard models list`, a folder (a checkpoint or an adapter), an id on the hub, or
    package:NAME. Models on one base are loaded once. Interrupt it at any moment and start it again.
    """
    from alignboard.cli.answering import consent_of
    from alignboard.pipeline.executors.machine import Machine
    from alignboard.pipeline.plans.benchmark import BenchmarkRequest
    from alignboard.pipeline.runner import benchmark_models

    asked = BenchmarkRequest(
        models,
        parts(tasks),
        suite,
        parts(model_names),
        limit,
        data_root,
        chat_template,
        checkpoints,
        endpoint_fields(**given),
    )
    run = partial(
        benchmark_models,
        asked,
        machine=Machine(executor="in-process"),
        redo=redo,
        consent=replace(consent_of(asked.endpoint), tasks=trust_tasks),
    )
    show_run(run, json_file, dry_run=dry_run)
