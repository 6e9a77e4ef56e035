"""`alignboard board`: boards from published figures, from results folders and from plans."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from alignboard.cli.options import PATH, assets_option, completes, json_option, models_option
from alignboard.cli.published import calibration, from_option, mode_option, names_of
from alignboard.cli.shared import terminal_width, write_json
from alignboard.errors import InputError, nearest
from alignboard.workspace import PUBLISHED

if TYPE_CHECKING:
    from alignboard.boards.board import Board


@click.command(
    epilog="Example: alignboard board --from results --judge hardened-pair --models dpo,ipo"
)
@click.argument("name", required=False, shell_complete=completes("evaluate/suites"))
@from_option
@click.option("--judge", metavar="NAME", help="Only the verdicts of this judge (with --from).")
@click.option(
    "--people",
    metavar="NAME",
    help="Correct the judges' win rates by the labels of this annotator (with --from; see `alignboard label`).",
)
@click.option(
    "--estimates",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Show the official scores that `alignboard bridge --json FILE` estimated (with --from).",
)
@assets_option
@models_option
@mode_option
@click.option(
    "--out",
    type=PATH,
    default="leaderboards",
    metavar="DIR",
    help="Folder of the files, by default leaderboards/.",
)
@json_option
def board(
    name: str | None,
    results: Path | None,
    judge: str | None,
    people: str | None,
    estimates: Path | None,
    assets: Path | None,
    models: str | None,
    mode: str,
    out: Path,
    json_file: Path | None,
) -> None:
    """Write a board as csv, md, tex, json, png and html.

    NAME is a suite with a published board (alpaca-eval-2), a plan whose board has been made (demo), or with --from an
    instruction set or a preset of leaderboards/ (methods, open-llm, ratings, everything). With --from DIR the board
    holds the verdicts of every judge, set and baseline in DIR, each in a column of its own, and lm-eval results. A
    suite with --from DIR is recomputed from the verdicts of its own judge, where DIR has them. Without --from a
    suite's board has the published figures. --from also takes a board's json file, which a preset shows in its way.
    """
    from functools import partial

    from alignboard.boards.estimates import with_bridge
    from alignboard.boards.files import to_text
    from alignboard.parallel import fork_map

    if results is None and any((judge, people, estimates, assets)):
        raise InputError(
            "--judge, --people, --estimates and --assets need --from DIR: a folder of results."
        )
    wanted = names_of(models)
    if results is not None and results.is_file():
        if any((judge, people, estimates, assets)):
            raise InputError(
                f"--judge, --people, --estimates and --assets belong to a folder of results; {results} is a board."
            )
        made = [_of_file(results, name, wanted)]
    elif results is not None:
        made = _of_results(name, results, judge, people, assets, wanted, mode)
        if estimates is not None:
            made = [with_bridge(one, estimates) for one in made]
    else:
        made = _without_results(name, wanted)
    made = [_laid_out(one, name) for one in made]
    # Two processes load matplotlib and draw side by side.
    write = partial(_write, folder=out, source=results or Path("leaderboards", f"{name}.json"))
    written = list(fork_map(write, made, least=2))
    if len(made) == 1 and (results is not None or wanted is not None):
        print(f"{to_text(made[0], terminal_width())}\n")
    for paths in written:
        print(*paths, sep="\n")
    files = [str(path) for paths in written for path in paths]
    write_json(json_file, {"boards": [one.name for one in made], "files": files})


def _write(board: Board, folder: Path, source: Path) -> list[Path]:
    """The files of ``board``, with the examples of the results, or beside the board, that it was made of."""
    from alignboard.boards.examples import EXAMPLES, read_examples
    from alignboard.boards.files import write_board
    from alignboard.boards.results_examples import with_examples

    if source.is_dir():
        board, examples = with_examples(source, board)
        return write_board(board, folder, examples)
    kept = read_examples(source.with_name(f"{source.stem}.{EXAMPLES}"))
    models = [row.model for row in board.rows]
    return write_board(board, folder, None if kept is None else kept.only(models))


def _laid_out(board: Board, name: str | None) -> Board:
    """``board`` as the preset ``name`` shows it, or as its own suite's preset does."""
    from alignboard.boards.presets import ROOM, apply_preset, load_preset
    from alignboard.workspace import find

    suite = board.provenance.get("suite")
    wanted = name if name is not None and find(ROOM, name) is not None else suite
    if wanted is None or find(ROOM, wanted) is None:
        return board
    preset = load_preset(wanted)
    if preset.suite is not None:
        return apply_preset(board, preset)
    return apply_preset(
        board, preset, wanted if board.name == "results" else f"{board.name}-{wanted}"
    )


def _of_file(path: Path, name: str | None, models: list[str] | None) -> Board:
    """The board of a json file, which the preset ``name`` shows."""
    from alignboard.boards.board import read_board
    from alignboard.boards.presets import load_preset

    if name is None:
        raise InputError(
            f"{path} is a board already: name a preset that shows it in its way, such as methods."
        )
    load_preset(name)
    board = read_board(path)
    return board if models is None else board.only(models)


def _without_results(name: str | None, models: list[str] | None) -> list[Board]:
    """Published boards, or the board of a plan from its json file."""
    from alignboard.boards.board import read_board
    from alignboard.boards.of_alpaca_eval import published_board
    from alignboard.boards.presets import ROOM
    from alignboard.suites import load_suite
    from alignboard.workspace import find

    if name is None:
        if models is not None:
            raise InputError("--models needs the name of a suite or a plan, or --from DIR.")
        return [published_board(load_suite(suite)) for suite in PUBLISHED]
    if name not in PUBLISHED and find(ROOM, name) is not None:
        raise InputError(
            f"{name} is a preset: give what it shows, --from a folder of results or --from leaderboards/BOARD.json."
        )
    if name not in PUBLISHED and find("evaluate/plans", name) is not None:
        path = Path("leaderboards", f"{name}.json")
        if not path.is_file():
            raise InputError(f"The plan {name!r} has no board yet; run: alignboard run {name}")
        made = read_board(path)
        return [made if models is None else made.only(models)]
    return [published_board(load_suite(name), models=models)]


def _of_results(
    name: str | None,
    results: Path,
    judge: str | None,
    people: str | None,
    assets: Path | None,
    models: list[str] | None,
    mode: str,
) -> list[Board]:
    """The boards of a results folder: recomputed ones of known suites, else one of everything that it holds."""
    from alignboard.boards.of_results import results_board
    from alignboard.boards.presets import ROOM
    from alignboard.workspace import find

    if name is not None and name not in PUBLISHED and find(ROOM, name) is not None:
        name = None
    # What is corrected by people's labels are the verdicts, not the published figures.
    suites = [] if people else [one for one in PUBLISHED if name in (None, one)]
    recomputed = _recomputed(suites, results, judge, assets, models, mode)
    if recomputed:
        return recomputed
    if assets is not None:
        raise InputError(
            f"--assets are calibration files for the judges of {' and '.join(PUBLISHED)}; {results} holds no "
            "annotations by them."
        )
    set_name = None if name is None or name in PUBLISHED else name
    if set_name is not None and find("evaluate/sets", set_name) is None:
        known = [path.name for path in results.glob("*/*") if path.is_dir()]
        if set_name not in known:
            raise InputError(
                f"{results} holds no verdicts on a set {set_name!r}{nearest(set_name, known) or '.'}"
            )
    parts = [name or "results", *([judge] if judge else [])]
    return [
        results_board(
            results,
            name="-".join(parts),
            judge=judge,
            set_name=set_name,
            models=models,
            people=people,
        )
    ]


def _recomputed(
    suites: list[str],
    results: Path,
    judge: str | None,
    assets: Path | None,
    models: list[str] | None,
    mode: str,
) -> list[Board]:
    """The boards of the suites whose own judge has verdicts in ``results``."""
    from alignboard.boards.of_alpaca_eval import recomputed_board
    from alignboard.published.reproduce import reproduce
    from alignboard.results.folder import ResultsFolder
    from alignboard.suites import load_suite

    declared = [load_suite(suite) for suite in suites]
    if not declared or (judge is not None and judge not in {one.annotator for one in declared}):
        return []
    try:
        folder = ResultsFolder(results)
    except InputError:
        return []
    with folder:
        wanted = [
            one
            for one in declared
            if judge in (None, one.annotator) and folder.annotated_models(one.annotator)
        ]
        for one in wanted:
            folder.require(models or [], one.annotator)
        return [
            recomputed_board(
                reproduce(one, folder, calibration(one, assets), models=models, mode=mode), one
            )
            for one in wanted
        ]
