"""`alignboard judge`: outputs are compared with a baseline's; and the group of `rate`, `report`, `list`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from alignboard.cli.judge.judging import BASELINE, judge_files, judge_options, outputs_options
from alignboard.cli.judge.rate import rate
from alignboard.cli.judge.report import report
from alignboard.cli.options import json_option
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
