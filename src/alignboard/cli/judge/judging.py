"""How the command line asks judges: the options, the workspace, progress."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alignboard.cli.boundary import EXIT_FOUND
from alignboard.cli.judge.text import cost_text, rating_text, summary_text
from alignboard.cli.options import (
    FOLDER,
    READABLE_FILE,
    allow_key_option,
    judge_option,
    limit_option,
    parts,
    redo_option,
    replace_option,
    request_options,
    together,
)
from alignboard.cli.shared import write_json
from alignboard.text import shown

if TYPE_CHECKING:
    from alignboard.fetch.sources import DownloadProgress
    from alignboard.judges.annotations import Summary
    from alignboard.judges.spec import JudgeSpec, Order
    from alignboard.pipeline.evaluation import Evaluation
    from alignboard.pipeline.executors.work import Event
    from alignboard.pipeline.graph import Job
    from alignboard.pipeline.judged_outputs import Answers, PairedOutputs
    from alignboard.pipeline.plans.schema import PlanJudge
    from alignboard.pipeline.single_ratings import RatingSummary

BASELINE = "gpt4_1106_preview"
"""whose outputs are compared with where no baseline is named"""
_HARDENED = click.option(
    "--hardened",
    is_flag=True,
    help="Show outputs escaped, between marks that nobody can guess; the judge's name then says so.",
)
rate_options = together(
    click.option(
        "--judge-engine",
        metavar="URL,URL",
        help="Addresses of OpenAI-compatible endpoints, up to /v1, in place of the judge's own; the judge's name then "
        "says so.",
    ),
    click.option(
        "--judge-key-env",
        metavar="VARIABLE",
        help="The environment variable with the key for --judge-engine (the judge's own key is not sent there).",
    ),
    allow_key_option,
    request_options,
    click.option(
        "--batch-api",
        is_flag=True,
        help="Ask through the batch interface: half the price, and up to a day. A stopped run goes on with its batch.",
    ),
    _HARDENED,
)
"""how a judge is asked"""
judge_options = together(
    rate_options,
    click.option(
        "--order",
        type=click.Choice(["coin", "both", "adaptive"]),
        help="In place of the judge's own: one order by a seeded coin, both, or both where it matters.",
    ),
)
"""the same, of a judge that compares"""
outputs_options = together(
    click.argument("outputs", nargs=-1, required=True, type=READABLE_FILE, metavar="OUTPUTS..."),
    judge_option,
    click.option(
        "--set",
        "set_name",
        default="mt-bench",
        show_default=True,
        metavar="NAME",
        help="Of answers of two turns (model_answer.jsonl): the set, or file of questions, that they answer.",
    ),
    click.option(
        "--fields",
        type=READABLE_FILE,
        metavar="FILE",
        help="Reference answers, rubrics, second turns: rows of instruction, reference, rubric, ...",
    ),
    limit_option,
    click.option(
        "--out",
        type=FOLDER,
        metavar="DIR",
        help="Write DIR/<model>/<judge>/ (default: <judge>/ beside the outputs).",
    ),
    click.option(
        "--reparse",
        is_flag=True,
        help="Read the kept replies again and write the files; ask nobody.",
    ),
    click.option(
        "--dry-run", is_flag=True, help="Say what would be asked and what it costs; ask nobody."
    ),
    redo_option,
    replace_option,
)
"""which outputs are judged, and by whom"""


def judge_files(
    outputs: Sequence[Path],
    name: str,
    set_name: str,
    fields: Path | None,
    limit: int | None,
    out: Path | None,
    order: Order | None = None,
    baseline: str | None = None,
    *,
    rated: bool,
    hardened: bool,
    reparse: bool,
    dry_run: bool,
    redo: Sequence[str],
    replace: bool,
    json_file: Path | None,
    **access: Any,
) -> None:
    """Judge files of outputs against ``baseline``, or have them ``rated`` by themselves, as the options ask."""
    from alignboard.fetch.sources import rich_progress
    from alignboard.pipeline.evaluation import declared_judge

    urls = tuple(parts(access["judge_engine"]))
    declared = declared_judge(name, Path.cwd(), order, hardened=hardened, urls=urls)
    with rich_progress() as downloading:
        read = reader(set_name, baseline, fields, limit, out, downloading, rated=rated)
        given = [read(path) for path in outputs]
    priced, found = [], []
    ask = not (dry_run or reparse)
    with checking(access, declared, ask=ask, replace=replace) as evaluation:
        run = JudgingRun(declared, given, access, ask=not reparse, redo=redo, replace=replace)
        if dry_run:
            priced = print_costs(evaluation, run)
        elif ask:
            evaluation.require_ready(declared, given, run.missing)
    if not dry_run:
        found = run.run()
    write_json(json_file, priced if dry_run else found)
    if any(one.statuses.get("scored", 0) < one.n for one in found):
        sys.exit(EXIT_FOUND)


def reader(
    set_name: str,
    baseline: str | None,
    fields: Path | None,
    limit: int | None,
    out: Path | None,
    progress: DownloadProgress,
    *,
    rated: bool = False,
) -> Callable[[Path], Any]:
    """From a file of outputs to its pairs with the baseline's (`PairedOutputs`), or to what is rated (`Answers`)."""
    from alignboard.errors import InputError
    from alignboard.pipeline import conversations, judged_outputs
    from alignboard.records import Generation
    from alignboard.results.conversations import is_conversations, read_conversations
    from alignboard.results.formats import read_rows
    from alignboard.results.verdict_paths import beside

    workspace = Path.cwd()
    more = None if fields is None else judged_outputs.read_fields(fields)
    questions = cache(
        lambda: conversations.load_questions(set_name, workspace, limit, fields, progress)
    )

    def read(path: Path) -> PairedOutputs | Answers:
        if is_conversations(path):
            answers = read_conversations(path)
            place = beside(path, answers[0].model_id, out)
            if rated:
                return conversations.conversation_answers(questions(), answers, place)
            if baseline is None:
                raise InputError(
                    f"{path} holds answers of two turns, which have no usual baseline: name one by --baseline, or have "
                    "them rated by themselves (`alignboard judge rate`)."
                )
            against = conversations.load_baseline(baseline, questions(), workspace)
            return conversations.compare_conversations(questions(), answers, against, place)
        rows = read_rows(path, Generation)
        place = beside(path, rows[0].generator, out)
        if rated:
            return judged_outputs.answers(rows, place, limit, more)
        folder = judged_outputs.set_folder(path.parent, rows[0].generator)
        other = judged_outputs.load_baseline(baseline or BASELINE, workspace, folder, progress)
        return judged_outputs.compare(rows, other, place, limit, more)

    return read


def plan_judge(access: Mapping[str, Any]) -> PlanJudge:
    """The options as a plan has them."""
    from alignboard.engines.openai.prices import Rate
    from alignboard.errors import InputError
    from alignboard.pipeline.plans.schema import PlanJudge

    if access["judge_key_env"] and not access["judge_engine"]:
        raise InputError(
            "--judge-key-env belongs to an endpoint; give its address as --judge-engine."
        )
    price = access["price"]
    return PlanJudge(
        judge="",
        engine=access["judge_engine"],
        api_key_env=access["judge_key_env"],
        concurrency=access["concurrency"],
        requests_per_minute=access["requests_per_minute"],
        tokens_per_minute=access["tokens_per_minute"],
        price=None if price is None else Rate(*price),
        batch_api=access["batch_api"],
    )


@contextmanager
def checking(
    access: Mapping[str, Any],
    declared: JudgeSpec,
    *,
    ask: bool,
    replace: bool,
) -> Iterator[Evaluation]:
    """What is known before anybody is asked: judges that are being switched off, costs, and what is missing.

    Raises `InputError` where nobody answers.
    """
    import datetime as dt

    from alignboard.pipeline.evaluation import Evaluation, hardening_secret
    from alignboard.pipeline.judges import Judges
    from alignboard.pipeline.plans.plan import access_of
    from alignboard.pipeline.store import WorkspacePaths
    from alignboard.results.journal import Journal

    paths = WorkspacePaths(Path.cwd())
    given = access_of(plan_judge(access), paths.journal)
    given = dataclasses.replace(given, allowed_keys=frozenset(access["allow_key"]))
    with Journal(paths.journal) as journal:
        judges = Judges(given, paths.workspace, secret=hardening_secret(paths.journal))
        today = dt.datetime.now(dt.UTC).date()
        judges.require_supported(declared, today if ask else None)
        for line in judges.warnings(declared, today):
            print(f"alignboard: {shown(line)}.", file=sys.stderr)
        yield Evaluation(judges, journal, replace=replace)


def print_costs(evaluation: Evaluation, run: JudgingRun) -> list[dict[str, Any]]:
    """Print what judging each model would cost, and return it for ``--json``."""
    found = []
    for one in run.judged:
        costs = evaluation.costs(run.declared, one, is_done=one not in run.missing)
        print(cost_text(costs, one.model))
        found.append({"model": one.model, "costs": costs})
    return found


class JudgingRun:
    """The jobs that judge or rate each model's outputs; what was done before is not done again."""

    def __init__(
        self,
        declared: JudgeSpec,
        judged: Sequence[PairedOutputs | Answers],
        access: Mapping[str, Any],
        *,
        ask: bool = True,
        redo: Sequence[str],
        replace: bool,
    ) -> None:
        from alignboard.pipeline.finished import known_reports
        from alignboard.pipeline.plans.single import judging_graph

        self.declared, self.judged, self._redo, self._replace = declared, judged, redo, replace
        given = plan_judge(access)
        self._graph = judging_graph(declared, judged, given, Path.cwd(), ask=ask, replace=replace)
        self._known = known_reports(self._graph, Path.cwd(), redo)

    @property
    def missing(self) -> list[PairedOutputs | Answers]:
        """What is not done."""
        jobs = zip(self.judged, self._graph, strict=True)
        return [one for one, job in jobs if job.name not in self._known]

    def run(self) -> list[Any]:
        """Do what is missing, print what came of each model as it comes, and return the summaries."""
        from alignboard.pipeline.executors.work import RunFailedError
        from alignboard.pipeline.progress import showing
        from alignboard.pipeline.runner import run_graph

        stdout, found = sys.stdout, dict[str, Any]()  # libraries print to a log meanwhile

        def take(job: Job, report: Mapping[str, Any]) -> None:
            found[job.name], text = _summary_of(job.kind, report)
            print(text, file=stdout)

        jobs = list(self._graph)
        with showing(len(jobs), n_before=len(self._known)) as show:

            def listen(event: Event) -> None:
                show(event)
                if event.report:
                    take(event.job, event.report)

            for job in jobs:
                if job.name in self._known:
                    take(job, self._known[job.name])
            try:
                given = {"redo": self._redo, "replace": self._replace}
                run_graph(self._graph, Path.cwd(), listen, **given)
            except RunFailedError as error:
                if not error.only_incomplete:
                    raise
        return [found[job.name] for job in jobs]


def _summary_of(kind: str, report: Mapping[str, Any]) -> tuple[Summary | RatingSummary, str]:
    """(the summary that a job reported, as text)."""
    import msgspec

    from alignboard.judges.annotations import Summary
    from alignboard.pipeline.single_ratings import RatingSummary

    if kind == "judge":
        compared = msgspec.convert(report["summary"], Summary)
        return compared, summary_text(compared, report["unscored"])
    rated = msgspec.convert(report["summary"], RatingSummary)
    return rated, rating_text(rated, report["unscored"])
