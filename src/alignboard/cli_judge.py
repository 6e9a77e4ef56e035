"""`alignboard judge`: outputs are judged; `alignboard judge report`: how far judgments can be trusted."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alignboard.cli_judge_report import report
from alignboard.cli_judging import judge_options
from alignboard.cli_shared import json_option

if TYPE_CHECKING:
    from alignboard.evaluate.judging.spec import Order

EXIT_FOUND = 3


class _Judge(click.Group):
    """A group whose first argument is a subcommand, or else the outputs to be judged."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in {"--help", "-h"}:
            args = ["outputs", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Judge, subcommand_metavar="OUTPUTS... --judge NAME | report PATH... | list")
def judge() -> None:
    """Judge outputs against a baseline, or report on judgments.

    `alignboard judge OUTPUTS.json --judge NAME` is short for `alignboard judge outputs`, whose --help has the options.
    """


judge.add_command(report)


@judge.command(name="list")
def list_judges() -> None:
    """The judges that there are, and AlpacaEval's evaluators: which can be asked, and if not, why."""
    from alignboard.evaluate.judging.load import judge_names, load_judge
    from alignboard.evaluate.judging.upstream import evaluator_names, read_evaluator

    for name in judge_names():
        declared = load_judge(name)
        print(f"{name:48s} {getattr(declared, 'title', '')}")
    for name in evaluator_names():
        pool = read_evaluator(name)
        why = pool.unsupported or pool.retired
        models = ", ".join(dict.fromkeys(one.model for one in pool.members))
        print(f"{name:48s} AlpacaEval's, {models}{f' - {why}' if why else ''}")


@judge.command()
@click.argument(
    "outputs",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="OUTPUTS...",
)
@click.option(
    "--judge",
    "name",
    required=True,
    metavar="NAME",
    help="A judge of `alignboard judge list`, or a yaml file.",
)
@click.option(
    "--baseline",
    default="gpt4_1106_preview",
    show_default=True,
    metavar="NAME",
    help="Outputs to compare with: a file, a model in results/, or a published suite's baseline.",
)
@click.option(
    "--fields",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Reference answers, rubrics, second turns: rows of instruction, reference, rubric, ...",
)
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N instructions."
)
@judge_options
@click.option(
    "--reparse", is_flag=True, help="Read the kept replies again and write the files; ask nobody."
)
@click.option(
    "--dry-run", is_flag=True, help="Say what would be asked and what it costs; ask nobody."
)
@json_option
def outputs(
    outputs: tuple[Path, ...],
    name: str,
    baseline: str,
    fields: Path | None,
    limit: int | None,
    order: Order | None,
    *,
    hardened: bool,
    reparse: bool,
    dry_run: bool,
    json_file: Path | None,
    **access: Any,
) -> None:
    """Judge model_outputs files and write results/<model>/<judge>/annotations.json, in AlpacaEval's format.

    Replies are kept as they come: interrupt it at any moment and start it again, and only what is missing is asked.
    Exit code 3 where a verdict is missing in the end.
    """
    from alignboard.cli_judging import (
        access_of,
        cost_text,
        judge_and_print,
        warn,
        write_summaries,
    )
    from alignboard.records import Generation
    from alignboard.results.formats import read_rows
    from alignboard.results.journal import Journal
    from alignboard.results.sources import rich_progress
    from alignboard.run.evaluation import (
        Evaluation,
        compare,
        declared_judge,
        hardening_secret,
        load_baseline,
        read_fields,
    )
    from alignboard.run.judges import Judges
    from alignboard.run.store import Places, lock

    places = Places(Path.cwd())
    declared = declared_judge(name, places.workspace, order, hardened=hardened)
    with rich_progress() as downloading:
        against = load_baseline(baseline, places.workspace, downloading)
    more = None if fields is None else read_fields(fields)
    compared = [compare(read_rows(path, Generation), against, limit, more) for path in outputs]
    found = []
    with lock(places), Journal(places.journal, "judge") as journal:
        judges = Judges(
            access_of(**access, journal=places.journal),
            places.workspace,
            secret=hardening_secret(places.journal),
        )
        warn(judges, declared, ask=not (dry_run or reparse))
        evaluation = Evaluation(judges, journal, places.workspace)
        for one in compared:
            if dry_run:
                print(cost_text(evaluation.costs(declared, one), one.model))
                continue
            found.append(judge_and_print(evaluation, declared, one, ask=not reparse))
    if json_file is not None:
        write_summaries(json_file, found)
    if any(one.statuses.get("scored", 0) < one.n for one in found):
        sys.exit(EXIT_FOUND)
