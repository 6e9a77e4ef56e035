"""`alignboard judge rate`: outputs are rated by themselves, as MT-bench's single-answer grading does."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alignboard.cli.judge.judging import outputs_options, rate_options
from alignboard.cli.shared import json_option, write_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from alignboard.fetch.sources import DownloadProgress
    from alignboard.pipeline.judged_outputs import Answers

EXIT_FOUND = 3


@click.command(
    epilog="Example: alignboard judge rate results/dpo/model_outputs.json --judge skywork-reward"
)
@outputs_options
@rate_options
@json_option
def rate(
    outputs: tuple[Path, ...],
    name: str,
    set_name: str,
    fields: Path | None,
    limit: int | None,
    out: Path | None,
    *,
    hardened: bool,
    reparse: bool,
    dry_run: bool,
    replace: bool,
    json_file: Path | None,
    **access: Any,
) -> None:
    """Rate outputs by themselves and write <judge>/ratings.json and their mean beside each.

    The judge says rates: true (mt-bench-single, prometheus-2-absolute) or is a reward model. OUTPUTS are model_outputs
    files, or answers of two turns (MT-bench's model_answer.jsonl), which are rated turn by turn. Exit code 3 where a
    rating is missing in the end.
    """
    from alignboard.cli.judge.judging import checking, judge_urls, run_judging
    from alignboard.cli.judge.text import cost_text
    from alignboard.fetch.sources import rich_progress
    from alignboard.pipeline.evaluation import declared_judge

    urls = judge_urls(access["judge_engine"])
    declared = declared_judge(name, Path.cwd(), hardened=hardened, urls=urls)
    with rich_progress() as downloading:
        read = _reader(set_name, fields, limit, out, downloading)
        answers = [read(path) for path in outputs]
    found, priced = [], []
    ask = not (dry_run or reparse)
    with checking(access, declared, ask=ask, replace=replace) as evaluation:
        if ask:
            evaluation.require_ready_to_rate(declared, answers)
        for one in answers if dry_run else ():
            costs = evaluation.rating_costs(declared, one)
            print(cost_text(costs, one.model))
            priced += [{"model": one.model, "costs": costs}]
    if not dry_run:
        found = run_judging(declared, answers, access, ask=ask, replace=replace)
    if json_file is not None:
        write_json(json_file, priced if dry_run else found)
    if any(one.statuses.get("scored", 0) < one.n for one in found):
        sys.exit(EXIT_FOUND)


def _reader(
    set_name: str,
    fields: Path | None,
    limit: int | None,
    out: Path | None,
    progress: DownloadProgress,
) -> Callable[[Path], Answers]:
    """From a file of outputs to what is rated."""
    from functools import cache

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

    def read(path: Path) -> Answers:
        if is_conversations(path):
            answers = read_conversations(path)
            place = beside(path, answers[0].model_id, out)
            return conversations.conversation_answers(questions(), answers, place)
        rows = read_rows(path, Generation)
        place = beside(path, rows[0].generator, out)
        return comparison.answers(rows, place, limit, more)

    return read
