"""`alignboard judge report`: how far a set of judgments can be trusted."""

from __future__ import annotations

from pathlib import Path

import click

from alignboard.cli.options import PATH, json_option
from alignboard.cli.shared import write_json


@click.command(epilog="Example: alignboard judge report results")
@click.argument("paths", nargs=-1, required=True, type=PATH, metavar="PATH...")
@click.option(
    "--human",
    type=PATH,
    metavar="FILE",
    help="Labels of humans: a json list of instruction, output_1, output_2, preference, annotator_index.",
)
@json_option
def report(paths: tuple[Path, ...], human: Path | None, json_file: Path | None) -> None:
    """Position, length and self-preference of judges, and their agreement with each other and with humans.

    PATH is an annotations.json or a results folder; all judges found are reported, each by itself.
    """
    from alignboard.reports.judges.humans import read_human
    from alignboard.reports.judges.report import judge_report
    from alignboard.reports.judges.rows import read_judgments
    from alignboard.reports.judges.text import report_text

    labels = None if human is None else read_human(human)
    found = judge_report(read_judgments(paths), labels)
    write_json(json_file, found.to_json())
    print(report_text(found))
