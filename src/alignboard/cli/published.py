"""What the commands on published suites share: options, released results and calibration files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from alignboard.errors import SourceError

if TYPE_CHECKING:
    from alignboard.published.calibration import Calibration
    from alignboard.suites import Suite

from_option = click.option(
    "--from",
    "results",
    type=click.Path(path_type=Path),
    metavar="SOURCE",
    help="A results folder (<model>/[<set>/]<judge>/annotations.json), or for `board` also a board's json file.",
)
assets_option = click.option(
    "--assets",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where df_gamed.csv and instruction_difficulty.csv are (else: from the hub, once).",
)
models_option = click.option("--models", metavar="A,B", help="Only these models.")
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

    if models is None:
        return None
    return [model_name(name.strip()) for name in models.split(",") if name.strip()]


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
        print(f"alignboard: {error}", file=sys.stderr)
        print(
            "alignboard: length control goes on with difficulties fitted jointly to these models; "
            "give --assets DIR for AlpacaEval's own.",
            file=sys.stderr,
        )
        return None
