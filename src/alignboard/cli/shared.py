"""What several commands have alike: the option ``--json``, and progress on long work."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

_LINE_SECONDS = 10.0

json_option = click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the result as JSON too.",
)

name_option = click.option(
    "--name",
    "model_names",
    metavar="A,B",
    help="Names for the MODELs, in their order: their folders in results/ (default: an entry's name, or the folder's).",
)

replace_option = click.option(
    "--replace",
    is_flag=True,
    help="Write a file of results also where the one there has more scored rows; the old one is kept beside it.",
)

Show = Callable[[str, int, int, str], None]
"""(what, done, total, how fast)"""


@contextmanager
def progress(label: str) -> Iterator[Show]:
    """A bar on a terminal, with the time left; a line now and then in a pipe."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task(label, total=None, speed="")

        def show(what: str, done: int, total: int, speed: str) -> None:
            bars.update(bar, description=what, completed=done, total=total, speed=speed)

        yield show


def _lines() -> Show:
    last = time.monotonic()

    def show(what: str, done: int, total: int, speed: str) -> None:
        nonlocal last
        if time.monotonic() - last > _LINE_SECONDS:
            last = time.monotonic()
            print(f"{what}: {done}/{total} {speed}", file=sys.stderr, flush=True)

    return show
