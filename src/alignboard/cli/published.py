"""What the commands on published suites share: options, released results and calibration files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from alignboard.cli.options import PATH, parts
from alignboard.errors import SourceError
from alignboard.text import shown

if TYPE_CHECKING:
    from alignboard.published.calibration import Calibration
    from alignboard.suites import Suite

from_option = click.option(
    "--from",
    "results",
    type=PATH,
    metavar="SOURCE",
    help="A results folder (<model>/[<set>/]<judge>/annotations.json), or for `board` also a board's json file.",
)
mode_option = click.option(
    "--mode",
    type=click.Choice(["compat", "aligned"]),
    default="compat",
    show_default=True,
    help="Length control as upstream computes it, or with every difficulty at its own instruction.",
)


def names_of(models: str | None) -> list[str] | None:
    """``A,B`` as a list; names are checked before they become paths."""
    from alignboard.workspace import model_name

    return None if models is None else [model_name(name) for name in parts(models)]


def released(suite: Suite, models: list[str] | None) -> Path:
    """The folder of the released results of ``suite``, downloaded once."""
    from alignboard.fetch.sources import released_results, rich_progress

    with rich_progress() as progress:
        return released_results(
            suite, annotators=[suite.annotator], models=models, progress=progress
        )


def calibration(suite: Suite, assets: Path | None) -> Calibration | None:
    """The calibration files: from ``--assets``, else from the hub; None, said on stderr, where neither is to be had."""
    from alignboard.published.calibration import read_calibration

    if assets is not None:
        return read_calibration(assets)
    from alignboard.fetch.sources import calibration_folder, rich_progress

    try:
        with rich_progress() as progress:
            return read_calibration(calibration_folder(suite, progress=progress))
    except SourceError as error:
        print(f"alignboard: {shown(str(error))}", file=sys.stderr)
        print(
            "alignboard: length control goes on with difficulties fitted jointly to these models; "
            "give --assets DIR for AlpacaEval's own.",
            file=sys.stderr,
        )
        return None
