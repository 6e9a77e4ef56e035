"""`alignboard judge rate`: outputs are rated by themselves, as MT-bench's single-answer grading does."""

from __future__ import annotations

from typing import Any

import click

from alignboard.cli.judge.judging import judge_files, outputs_options, rate_options
from alignboard.cli.options import json_option


@click.command(
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
