"""`alignboard label`: a person's verdicts, blind."""

from __future__ import annotations

from pathlib import Path

import click

from alignboard.cli.options import FILE, json_option, limit_option, port_options
from alignboard.cli.shared import write_json
from alignboard.errors import InputError


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
