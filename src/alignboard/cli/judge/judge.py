"""`alignboard judge`: outputs are compared with a baseline's; and `rate`, `report` and `list`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from alignboard.cli.judge.judging import (
    BASELINE,
    judge_files,
    judge_options,
    outputs_options,
    rate_options,
)
from alignboard.cli.options import PATH, json_option
from alignboard.cli.shared import write_json


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
    f"(default: {BASELINE}; of answers of two turns there is none).",
)
@judge_options
@json_option
def outputs(**given: Any) -> None:
    """Judge model_outputs files and write <judge>/annotations.json beside each, in AlpacaEval's format.

    Verdicts against another baseline than the judge's usual one go to <judge>-vs-<baseline>/.

    Answers of two turns (MT-bench's model_answer.jsonl) are judged turn by turn. Replies are kept as they come:
    interrupt it at any moment and start it again, and only what is missing is asked. Exit code 3 where a verdict is
    missing in the end.
    """
    judge_files(**given, rated=False)


@judge.command(
    epilog="Example: alignboard judge rate results/dpo/model_outputs.json --judge skywork-reward"
)
@outputs_options
@rate_options
@json_option
def rate(**given: Any) -> None:
    """Rate outputs by themselves and write <judge>/ratings.json and their mean beside each.

    The judge says rates: true (mt-bench-single, prometheus-2-absolute) or is a reward model. OUTPUTS are model_outputs
    files, or answers of two turns (MT-bench's model_answer.jsonl), which are rated turn by turn. Exit code 3 where a
    rating is missing in the end.
    """
    judge_files(**given, rated=True)


@judge.command(epilog="Example: alignboard judge report results")
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
