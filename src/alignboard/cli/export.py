"""`alignboard export`: an adapter merged into its base."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from alignboard.cli.shared import json_option, write_json

if TYPE_CHECKING:
    from alignboard.models.arithmetic import Dtype


@click.command(epilog="Example: alignboard export results/tiny-phi-dpo/adapter --to merged")
@click.argument("adapter", type=click.Path(path_type=Path))
@click.option(
    "--to", required=True, type=click.Path(path_type=Path), help="The new folder of the checkpoint."
)
@click.option(
    "--base", metavar="MODEL", help="The base model (default: the one that ADAPTER names)."
)
@click.option(
    "--dtype",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    help="Of the merged weights.",
)
@json_option
def export(
    adapter: Path, *, to: Path, base: str | None, dtype: str, json_file: Path | None
) -> None:
    """Merge ADAPTER into its base model, as safetensors with tokenizer and model card, and prove it.

    The merged model is loaded anew and compared with the adapter on its base: the largest difference of a logit, and
    the KL divergence. For an adapter that was trained on a base in few bits both comparisons are printed. The card has
    the scores (model-index) that the boards in leaderboards/ give to the model of results/<model>/adapter.
    """
    from alignboard.extras import require

    require("torch", "transformers", "peft")
    from alignboard.boards.exports.hub import results_of
    from alignboard.text import shown
    from alignboard.train.export import export_adapter

    results = results_of(adapter.absolute().parent.name, Path("leaderboards"))
    report = export_adapter(adapter, to, base=base, dtype=cast("Dtype", dtype), results=results)
    if json_file is not None:
        write_json(json_file, asdict(report))
    for line in report.lines():
        print(shown(line))
