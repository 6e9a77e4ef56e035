"""`alignboard fetch`: data of the hub, for machines without a network."""

from __future__ import annotations

from pathlib import Path

import click

from alignboard.cli.options import FOLDER, completes, json_option
from alignboard.cli.shared import write_json


@click.group()
def fetch() -> None:
    """Download what later commands read from a folder."""


@fetch.command(epilog="Example: alignboard fetch suite open-llm-v1 --to mirror")
@click.argument("name", shell_complete=completes("evaluate/suites"))
@click.option(
    "--to",
    "folder",
    type=FOLDER,
    required=True,
    metavar="DIR",
    help="The mirror: data sets by their ids, and mirror.json with the sha256 of every file.",
)
@json_option
def suite(name: str, folder: Path, json_file: Path | None) -> None:
    """Write the data sets of the benchmarks of suite NAME to DIR, at the revisions that the suite pins.

    `alignboard benchmark --data-root DIR` reads them without a network.
    """
    from alignboard.benchmarks.declared import declared_tasks
    from alignboard.benchmarks.mirror import called, fetch
    from alignboard.suites import load_evaluation

    declared = load_evaluation(name)
    tasks = [task for one in declared.benchmarks for task in declared_tasks(one, Path.cwd())]
    found = fetch(tasks, declared.revisions, folder)
    for (dataset, config), n_rows in found.items():
        pinned = declared.revisions.get(dataset, "no revision pinned")
        print(f"{called(dataset, config)}: {n_rows:,} rows ({pinned})")
    rows = {called(dataset, config): n_rows for (dataset, config), n_rows in found.items()}
    write_json(json_file, {"suite": name, "mirror": str(folder), "rows": rows})
