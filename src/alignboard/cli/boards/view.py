"""`alignboard view`, `publish` and `label`: where boards are looked at, and a person's verdicts, blind."""

from __future__ import annotations

import sys
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import click

from alignboard.cli.options import (
    FILE,
    FOLDER,
    json_option,
    limit_option,
    port_options,
    results_option,
)
from alignboard.cli.shared import write_json
from alignboard.errors import InputError, nearest

if TYPE_CHECKING:
    from alignboard.boards.serving import Route

_FOLDER = Path("leaderboards")


@click.command(epilog="Example: alignboard view --from results --serve")
@click.argument("board", required=False)
@results_option("Show the board of this results folder in place of a written one.")
@click.option(
    "--serve",
    is_flag=True,
    help="Serve the page on 127.0.0.1 under a random address, made again as results come; ends with Ctrl-C.",
)
@port_options
@json_option
def view(
    board: str | None,
    results: Path | None,
    *,
    serve: bool,
    port: int,
    no_browser: bool,
    json_file: Path | None,
) -> None:
    """Open the page of a BOARD: a name in leaderboards/ or a page's file; without one the newest."""
    if results is not None and not serve:
        raise InputError("--from needs --serve; or write the board: alignboard board --from DIR.")
    if results is not None and board is not None:
        raise InputError("Give a BOARD or --from DIR, not both.")
    if serve:
        from alignboard.boards.serving import REFRESH_SECONDS

        routes = _of_file(_page(board)) if results is None else _of_results(results)
        serve_until_interrupted(routes, port, no_browser=no_browser, refresh=REFRESH_SECONDS)
        return
    address = _page(board).resolve().as_uri()
    _open(address, no_browser=no_browser)
    write_json(json_file, {"address": address})


def _page(board: str | None) -> Path:
    pages = sorted(_FOLDER.glob("*.html"), key=lambda path: path.stat().st_mtime)
    if board is None:
        if not pages:
            raise InputError("There is no page in leaderboards/; write one: alignboard board.")
        return pages[-1]
    path = Path(board) if board.endswith(".html") else _FOLDER / f"{board}.html"
    if not path.is_file():
        known = [page.stem for page in pages]
        raise InputError(f"There is no page {path}{nearest(board, known) or '.'}")
    return path


def _of_file(page: Path) -> dict[tuple[str, str], Route]:
    from alignboard.boards.files import TEXTS
    from alignboard.boards.serving import Pages

    pages = Pages(lambda: page.read_text(encoding="utf-8"), lambda: page.stat().st_mtime_ns)
    texts = sorted(page.with_suffix(f".{TEXTS}").glob("*.css"))
    return {("GET", ""): pages.newest} | {
        ("GET", quote(f"{text.parent.name}/{text.name}")): _style_sheet(text) for text in texts
    }


def _style_sheet(path: Path) -> Route:
    return lambda _: ("text/css", path.read_bytes())


def _of_results(results: Path) -> dict[tuple[str, str], Route]:
    from alignboard.boards.serving import Pages

    def make() -> str:
        from alignboard.boards.of_results import results_board
        from alignboard.boards.page import to_html
        from alignboard.boards.results_examples import with_examples

        made = results_board(results)
        return to_html(*with_examples(results, made))

    def state() -> Hashable:
        return tuple(
            (str(path), path.stat().st_mtime_ns)
            for name in ("annotations.*", "model_outputs.*", "results_*.json", "judging.json")
            for path in sorted(results.rglob(name))
        )

    return {("GET", ""): Pages(make, state).newest}


def serve_until_interrupted(
    routes: Mapping[tuple[str, str], Route],
    port: int,
    *,
    no_browser: bool,
    refresh: int | None = None,
) -> None:
    """Print the address, open it, and serve ``routes`` until Ctrl-C."""
    from alignboard.boards.serving import server

    made, address = server(routes, port, refresh=refresh)
    _open(address, no_browser=no_browser)
    print("Ctrl-C ends.", file=sys.stderr)
    with made:
        try:
            made.serve_forever()
        except KeyboardInterrupt:
            print(file=sys.stderr)


def _open(address: str, *, no_browser: bool) -> None:
    import webbrowser

    print(address, flush=True)
    if not no_browser and sys.stdout.isatty():
        webbrowser.open(address)


@click.command(epilog="Example: alignboard publish public --title 'Our models'")
@click.argument("folder", type=FOLDER)
@click.argument("boards", nargs=-1)
@click.option("--title", default="Leaderboards", show_default=True, help="Heading of the index.")
@json_option
def publish(folder: Path, boards: tuple[str, ...], title: str, json_file: Path | None) -> None:
    """Write the BOARDS of leaderboards/ (all by default) into FOLDER with an index, for any static host."""
    from alignboard.boards.site import board_files
    from alignboard.boards.site import publish as write

    index = write(board_files(_FOLDER, list(boards) or None), folder, title)
    print(index)
    write_json(json_file, {"index": str(index)})


@click.command(
    epilog="Example: alignboard label results/dpo/model_outputs.json --baseline sft --annotator ada"
)
@click.argument("outputs", type=FILE)
@click.option(
    "--baseline",
    required=True,
    metavar="NAME",
    help="Outputs to compare with: a file, or a model in results/.",
)
@click.option(
    "--annotator", required=True, metavar="NAME", help="Who labels; the judge's name on boards."
)
@limit_option
@port_options
@json_option
def label(
    outputs: Path,
    baseline: str,
    annotator: str,
    limit: int | None,
    port: int,
    *,
    no_browser: bool,
    json_file: Path | None,
) -> None:
    """Show pairs of responses in random order and without names, and keep a person's verdicts.

    Serves a page on 127.0.0.1. Verdicts go to <annotator>-vs-<baseline>/annotations.jsonl beside OUTPUTS, where boards,
    `compare` and `judge report` read them like any judge's. Start it again to go on.
    """
    from alignboard.boards.labelling import Labels
    from alignboard.cli.boards.view import serve_until_interrupted
    from alignboard.cli.judge.judging import reader
    from alignboard.fetch.sources import rich_progress
    from alignboard.records import Judgment
    from alignboard.results.verdict_paths import judge_folder

    with rich_progress() as downloading:
        compared = reader("alpaca-eval", baseline, None, limit, None, downloading)(outputs)
    if any(len(turns) > 1 for pair in compared.pairs for turns in pair.turns):
        raise InputError(f"{outputs} holds answers of two turns, which cannot be labelled.")
    rows = [
        Judgment(
            instruction=pair.instruction,
            output_1=pair.output_1,
            generator_1=pair.generator_1,
            output_2=pair.output_2,
            generator_2=pair.generator_2,
            preference=None,
            dataset=compared.datasets.get(pair.instruction),
        )
        for pair in compared.pairs
    ]
    folder = compared.place / judge_folder(annotator, compared.baseline)
    labels = Labels(rows, folder, annotator)
    routes = {
        ("GET", ""): labels.page,
        ("GET", "next"): labels.next_pair,
        ("POST", "verdict"): labels.take,
    }
    serve_until_interrupted(routes, port, no_browser=no_browser)
    done, n = labels.counts()
    print(f"{done} of {n} done: {labels.path}")
    write_json(json_file, {"done": done, "n": n, "file": str(labels.path)})
