"""`alignboard track`: a board's numbers in an experiment tracker."""

from __future__ import annotations

from pathlib import Path

import click

from alignboard.cli.options import FOLDER, json_option
from alignboard.cli.shared import write_json


@click.command(epilog="Example: alignboard track demo --to tensorboard --dir runs")
@click.argument("board")
@click.option(
    "--to", "kind", required=True, metavar="KIND", help="tensorboard, wandb, mlflow or trackio."
)
@click.option("--project", metavar="NAME", help="Of the tracker; by default the board's name.")
@click.option(
    "--dir",
    "folder",
    type=FOLDER,
    metavar="DIR",
    help="Where local files go.",
)
@json_option
def track(
    board: str, kind: str, project: str | None, folder: Path | None, json_file: Path | None
) -> None:
    """Log the numbers of a BOARD (a name in leaderboards/ or a json file), one run per model.

    Metrics are named evaluation/COLUMN and stand on an axis of their own, evaluation/step: the training steps of the
    model where the board says them. Nothing is ever sent to a tracker without this command.
    """
    from alignboard.boards.tracking.points import by_model, points
    from alignboard.cli.boards.plot import read_source
    from alignboard.registry import lookup
    from alignboard.text import count

    write = lookup("tracker", kind)
    found, _ = read_source(board)
    made = points(found)
    place = write(made, project or found.name, folder)
    n_runs = len(by_model(made))
    print(f"{count(n_runs, 'run')} in {place}")
    write_json(json_file, {"board": found.name, "runs": n_runs, "place": place})
