"""`alignboard convert` and `track`: boards in the formats of other tools, and in experiment trackers."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from alignboard.cli.options import FOLDER, assets_option, json_option
from alignboard.cli.published import calibration
from alignboard.cli.shared import write_json
from alignboard.errors import InputError

if TYPE_CHECKING:
    from alignboard.boards.board import Board

_KINDS = ("every-eval-ever", "eval-results", "model-index", "alpaca-eval", "board")
_SUITE = "alpaca-eval-2"
_RELATIONS = ("first_party", "third_party", "collaborative", "other")


@click.command(
    epilog="Example: alignboard convert demo --to every-eval-ever --out eee --organization 'My lab'"
)
@click.argument("source")
@click.option("--to", "kind", type=click.Choice(_KINDS), required=True, help="The format to write.")
@click.option("--out", type=FOLDER, required=True, metavar="DIR")
@click.option("--organization", help="Who evaluated; every-eval-ever needs it.")
@click.option(
    "--relationship",
    type=click.Choice(_RELATIONS),
    default="third_party",
    show_default=True,
    help="Of who evaluated to the models.",
)
@click.option(
    "--dataset",
    "datasets",
    multiple=True,
    metavar="NAME=ID",
    help="For an instruction set or column: the Hub's benchmark (eval-results, ID[:TASK]), or the address of its "
    "texts (every-eval-ever; the board's name for all that are not known); several times.",
)
@assets_option
@json_option
def convert(
    source: str,
    kind: str,
    out: Path,
    organization: str | None,
    relationship: str,
    datasets: tuple[str, ...],
    assets: Path | None,
    json_file: Path | None,
) -> None:
    """Write the board SOURCE in another format.

    SOURCE is a name in leaderboards/, a board's json file, a folder of Every Eval Ever that alignboard wrote, or a
    folder of Inspect's logs.
    every-eval-ever writes one JSON per model with a row per verdict; eval-results writes .eval_results/ for a model's
    repository on the Hub; model-index writes the head of a model card; board writes a board's usual files. alpaca-eval
    takes a model's folder of results in place of a board, and writes what a submission to its leaderboard holds.
    """
    if kind == "alpaca-eval":
        paths = _submission(Path(source), assets, out)
        print(*paths, sep="\n")
        write_json(json_file, {"model": Path(source).name, "files": list(map(str, paths))})
        return
    from alignboard.boards.exports.every_eval_ever import Source, write_folder
    from alignboard.boards.exports.hub import write_eval_results, write_model_index
    from alignboard.boards.files import write_board
    from alignboard.cli.boards.plot import read_source

    board, examples = read_source(source)
    if kind == "every-eval-ever":
        if organization is None:
            raise InputError("every-eval-ever names who evaluated: give --organization NAME.")
        when = int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
        given = _addresses(board) | _pairs(datasets)
        source_of = Source(organization, relationship, when, given)
        paths = write_folder(board, out, source_of, examples)
    elif kind == "eval-results":
        if not datasets:
            raise InputError(
                "eval-results names the benchmark on the Hub: give --dataset NAME=ID, such as "
                "--dataset alpaca-eval-2=tatsu-lab/alpaca_eval."
            )
        paths = write_eval_results(board, out, _pairs(datasets))
    elif kind == "model-index":
        paths = write_model_index(board, out)
    else:
        paths = write_board(board, out, examples)
    if not paths:
        raise InputError(f"The board {board.name!r} has no score that {kind} would hold.")
    print(*paths, sep="\n")
    write_json(json_file, {"board": board.name, "files": [str(path) for path in paths]})


def _addresses(board: Board) -> dict[str, str]:
    """Where the texts of the board's sets and suites are released, as their declarations say."""
    names = {column.set for column in board.columns if column.set}
    return {name: url for name in sorted(names) if (url := _address(name)) is not None}


def _address(name: str) -> str | None:
    from alignboard.data.instruction_sets import set_url
    from alignboard.suites import load_evaluation

    try:
        suite = load_evaluation(name)
    except InputError:  # no suite: a set, or a file of one's own
        with contextlib.suppress(InputError):
            return set_url(name)
        return None
    if suite.source is not None or suite.instructions is None:
        return suite.source
    return set_url(suite.instructions.set)


def _pairs(datasets: tuple[str, ...]) -> dict[str, str]:
    pairs = [one.partition("=") for one in datasets]
    wrong = next(
        (
            one
            for one, (name, _, value) in zip(datasets, pairs, strict=True)
            if not (name and value)
        ),
        None,
    )
    if wrong is not None:
        raise InputError(f"--dataset {wrong}: expected NAME=ID or NAME=ID:TASK.")
    return {name: value for name, _, value in pairs}


def _submission(model: Path, assets: Path | None, out: Path) -> list[Path]:
    from alignboard.boards.exports.alpaca_eval import write_submission
    from alignboard.suites import load_suite

    if not model.is_dir():
        raise InputError(
            f"There is no folder {model}; alpaca-eval takes a model's results: results/MODEL."
        )
    suite = load_suite(_SUITE)
    return write_submission(model, suite, calibration(suite, assets), out)


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
    try:
        place = write(made, project or found.name, folder)
    except Exception as error:
        # A tracker's own exceptions speak of its settings (where it keeps runs, who is logged in).
        if type(error).__module__.partition(".")[0] != kind:
            raise
        said = str(error).strip().partition("\n")[0]
        raise InputError(f"{kind} did not take the runs: {said}") from error
    n_runs = len(by_model(made))
    print(f"{count(n_runs, 'run')} in {place}")
    write_json(json_file, {"board": found.name, "runs": n_runs, "place": place})
