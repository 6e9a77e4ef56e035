"""`alignboard judge`: outputs are compared with a baseline's; and the group of `rate`, `report`, `list`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alignboard.cli.judge.judging import judge_options, outputs_options
from alignboard.cli.judge.rate import rate
from alignboard.cli.judge.report import report
from alignboard.cli.shared import json_option, write_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from alignboard.fetch.sources import DownloadProgress
    from alignboard.judges.spec import Order
    from alignboard.pipeline.judged_outputs import PairedOutputs

EXIT_FOUND = 3
_BASELINE = "gpt4_1106_preview"


class _Judge(click.Group):
    """A group whose first argument is a subcommand, or else the outputs to be judged."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in {"--help", "-h"}:
            args = ["outputs", *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=_Judge,
    subcommand_metavar="OUTPUTS... --judge NAME | rate OUTPUTS... | report PATH... | list",
)
def judge() -> None:
    """Judge outputs against a baseline, rate them by themselves, or report on judgments.

    `alignboard judge OUTPUTS.json --judge NAME` is short for `alignboard judge outputs`, whose --help has the options.
    """


judge.add_command(rate)
judge.add_command(report)


@judge.command(name="list", epilog="Example: alignboard judge list")
@json_option
def list_judges(json_file: Path | None) -> None:
    """The judges that there are, and AlpacaEval's evaluators: which can be asked, and if not, why."""
    from alignboard.judges.alpaca_eval.configs import evaluator_names, read_evaluator
    from alignboard.judges.load import judge_names, load_judge
    from alignboard.text import table

    found = []
    for name in judge_names():
        declared = load_judge(name)
        why = getattr(declared, "unsupported", None) or getattr(declared, "retired", None)
        models = [one] if (one := getattr(declared, "model", None)) else []
        title = getattr(declared, "title", "")
        found.append({"name": name, "title": title, "models": models, "not_asked_because": why})
    for name in evaluator_names():
        pool = read_evaluator(name)
        models = list(dict.fromkeys(one.model for one in pool.members))
        why = pool.unsupported or pool.retired
        found.append(
            {"name": name, "title": pool.title, "models": models, "not_asked_because": why}
        )
    if json_file is not None:
        write_json(json_file, found)
    rows = [
        [one["name"], one["title"] + (f" - {why}" if (why := one["not_asked_because"]) else "")]
        for one in found
    ]
    print(table(("judge", "what it is"), rows, left=(0, 1)))


@judge.command(
    epilog="Example: alignboard judge results/dpo/model_outputs.json --judge pairrm --baseline sft"
)
@outputs_options
@click.option(
    "--baseline",
    metavar="NAME",
    help="Outputs to compare with: a file, a model in results/, or a published suite's baseline "
    f"(default: {_BASELINE}; of answers of two turns there is none).",
)
@judge_options
@json_option
def outputs(
    outputs: tuple[Path, ...],
    name: str,
    set_name: str,
    baseline: str | None,
    fields: Path | None,
    limit: int | None,
    out: Path | None,
    order: Order | None,
    *,
    hardened: bool,
    reparse: bool,
    dry_run: bool,
    replace: bool,
    json_file: Path | None,
    **access: Any,
) -> None:
    """Judge model_outputs files and write <judge>/annotations.json beside each, in AlpacaEval's format.

    Verdicts against another baseline than the judge's usual one go to <judge>-vs-<baseline>/.

    Answers of two turns (MT-bench's model_answer.jsonl) are judged turn by turn. Replies are kept as they come:
    interrupt it at any moment and start it again, and only what is missing is asked. Exit code 3 where a verdict is
    missing in the end.
    """
    from alignboard.cli.judge.judging import checking, judge_urls, print_costs, run_judging
    from alignboard.fetch.sources import rich_progress
    from alignboard.pipeline.evaluation import declared_judge

    urls = judge_urls(access["judge_engine"])
    declared = declared_judge(name, Path.cwd(), order, hardened=hardened, urls=urls)
    with rich_progress() as downloading:
        read = pair_reader(set_name, baseline, fields, limit, out, downloading)
        compared = [read(path) for path in outputs]
    priced, found = [], []
    ask = not (dry_run or reparse)
    with checking(access, declared, ask=ask, replace=replace) as evaluation:
        if dry_run:
            priced = print_costs(evaluation, declared, compared)
        elif ask:
            evaluation.require_ready(declared, compared)
    if not dry_run:
        found = run_judging(declared, compared, access, ask=ask, replace=replace)
    if json_file is not None:
        write_json(json_file, priced if dry_run else found)
    if any(one.statuses.get("scored", 0) < one.n for one in found):
        sys.exit(EXIT_FOUND)


def pair_reader(
    set_name: str,
    baseline: str | None,
    fields: Path | None,
    limit: int | None,
    out: Path | None,
    progress: DownloadProgress,
) -> Callable[[Path], PairedOutputs]:
    """From a file of outputs to the pairs that are judged."""
    from functools import cache

    from alignboard.errors import InputError
    from alignboard.pipeline import conversations
    from alignboard.pipeline import judged_outputs as comparison
    from alignboard.records import Generation
    from alignboard.results.conversations import is_conversations, read_conversations
    from alignboard.results.formats import read_rows
    from alignboard.results.verdict_places import beside

    workspace = Path.cwd()
    more = None if fields is None else comparison.read_fields(fields)
    questions = cache(
        lambda: conversations.load_questions(set_name, workspace, limit, fields, progress)
    )

    def read(path: Path) -> PairedOutputs:
        if is_conversations(path):
            if baseline is None:
                raise InputError(
                    f"{path} holds answers of two turns, which have no usual baseline: name one by --baseline, or have "
                    "them rated by themselves (`alignboard judge rate`)."
                )
            against = conversations.load_baseline(baseline, questions(), workspace)
            answers = read_conversations(path)
            return conversations.compare_conversations(
                questions(), answers, against, beside(path, answers[0].model_id, out)
            )
        rows = read_rows(path, Generation)
        place = beside(path, rows[0].generator, out)
        folder = comparison.set_folder(path.parent, rows[0].generator)
        other = comparison.load_baseline(baseline or _BASELINE, workspace, folder, progress)
        return comparison.compare(rows, other, place, limit, more)

    return read
