"""`alignboard plot`: one figure of a board, for a paper."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from alignboard.cli.options import FILE, json_option, models_option, parts
from alignboard.cli.shared import write_json
from alignboard.errors import InputError, nearest

if TYPE_CHECKING:
    from alignboard.boards.board import Board
    from alignboard.boards.examples import Examples
    from alignboard.boards.plots.style import Font

_SIZE = re.compile(r"(\d+(?:\.\d+)?)x(\d+(?:\.\d+)?)")
_LEAST, _MOST = 1.0, 40.0


def _kinds(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    from alignboard.boards.plots.figures import kinds

    return [name for name in kinds() if name.startswith(incomplete)]


@click.command(epilog='Example: alignboard plot "win rates" demo -o win-rates.pdf --size 3.3x2.5')
@click.argument("kind", shell_complete=_kinds)
@click.argument("board")
@click.option(
    "-o",
    "--out",
    type=FILE,
    required=True,
    metavar="FILE",
    help="FILE.svg, FILE.pdf or FILE.png; a kind with several panels writes FILE-1, FILE-2, ...",
)
@click.option(
    "--size", metavar="WxH", help="Width and height in inches, such as 3.3x2.5 for a column."
)
@click.option(
    "--font",
    metavar="NAME",
    help="Font of the texts, such as 'Times New Roman'; default: DejaVu Sans.",
)
@click.option(
    "--font-size",
    type=click.FloatRange(4, 24),
    help="Points of names and numbers; headings are larger. Default: 7.5.",
)
@models_option
@json_option
def plot(
    kind: str,
    board: str,
    out: Path,
    size: str | None,
    font: str | None,
    font_size: float | None,
    models: str | None,
    json_file: Path | None,
) -> None:
    """Draw one KIND of plot of a BOARD: a name in leaderboards/ or a board's json file.

    Kinds: ranking, win rates, lengths, families, benchmarks, ratings, curves (of checkpoints), settings (of sweeps,
    against KL); pairs, tests (paired, of all pairs), agreement and difficulty (of boards with prompts behind them);
    alignment tax, frontier, length control, radar; and those of plug-ins.
    """
    from alignboard.boards.plots.figure import FORMATS, save_panel
    from alignboard.boards.plots.figures import figure_panels

    if out.suffix[1:].lower() not in FORMATS:
        raise InputError(
            f"{out}: plots are written as .{', .'.join(FORMATS)}; give -o one of these."
        )
    inches, texts = _inches(size), _font(font, font_size)
    found, examples = read_source(board)
    if models is not None:
        wanted = parts(models)
        found = found.only(wanted)
        examples = None if examples is None else examples.only(wanted)
    panels = figure_panels(kind, found, examples)
    written = []
    for k, panel in enumerate(panels, start=1):
        path = out if len(panels) == 1 else out.with_stem(f"{out.stem}-{k}")
        save_panel(panel, path, inches, texts)
        print(path)
        written.append({"heading": panel.heading, "file": str(path)})
    write_json(json_file, {"figures": written})


def _inches(size: str | None) -> tuple[float, float] | None:
    if size is None:
        return None
    match = _SIZE.fullmatch(size.strip())
    inches = (float(match[1]), float(match[2])) if match else (0.0, 0.0)
    if not all(_LEAST <= side <= _MOST for side in inches):
        raise InputError(
            f"--size {size}: expected width x height in inches, each from {_LEAST:g} to {_MOST:g}, such as 6.4x4."
        )
    return inches


def _font(family: str | None, size: float | None) -> Font:
    from alignboard.boards.plots.style import Font, font_families

    default = Font()
    if family is not None and family not in font_families():
        close = nearest(family, font_families()) or ": install it, or leave --font out."
        raise InputError(f"--font {family}: matplotlib finds no such font on this machine{close}")
    return Font(family or default.family, size or default.size)


def read_source(source: str) -> tuple[Board, Examples | None]:
    """A board and the examples beside it: a name in leaderboards/, a json file, or a folder of another tool's files.

    Folders are those of Every Eval Ever and of Inspect's logs.
    """
    from alignboard.boards.board import read_board
    from alignboard.boards.examples import EXAMPLES, read_examples
    from alignboard.boards.exports.every_eval_ever import read_folder
    from alignboard.boards.exports.inspect_logs import is_log, read_logs
    from alignboard.results.files import paths_under

    path = Path(source)
    if path.is_dir():
        if any(one.is_file() and is_log(one) for one in paths_under(path)):
            return read_logs(path), None
        return read_folder(path), None
    if path.suffix != ".json":
        path = Path("leaderboards", f"{source}.json")
    if not path.is_file():
        raise InputError(
            f"There is no board {path}; write it first: alignboard board, or give a board's json file."
        )
    return read_board(path), read_examples(path.with_name(f"{path.stem}.{EXAMPLES}"))
