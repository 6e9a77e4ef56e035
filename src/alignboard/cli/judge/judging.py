"""How the command line asks judges: the options, the workspace, progress."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alignboard.cli.judge.text import cost_text, rating_text, summary_text
from alignboard.cli.shared import allow_key_option, completes, replace_option

if TYPE_CHECKING:
    from alignboard.judges.spec import JudgeSpec
    from alignboard.pipeline.evaluation import Evaluation
    from alignboard.pipeline.executors.work import Event
    from alignboard.pipeline.judged_outputs import Answers, PairedOutputs
    from alignboard.pipeline.judges import Judges
    from alignboard.pipeline.plans.schema import PlanJudge

_ACCESS = (
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
    click.option(
        "--concurrency",
        type=click.IntRange(min=1),
        default=16,
        show_default=True,
        help="Requests at a time, per address.",
    ),
    click.option(
        "--requests-per-minute",
        type=click.FloatRange(min=0, min_open=True),
        metavar="N",
        help="The limit of the account, per address.",
    ),
    click.option(
        "--tokens-per-minute",
        type=click.FloatRange(min=0, min_open=True),
        metavar="N",
        help="The same, of prompts and replies together.",
    ),
    click.option(
        "--price",
        type=(click.FloatRange(min=0), click.FloatRange(min=0)),
        metavar="PROMPT REPLY",
        help="US dollars per million tokens (else from evaluate/prices.yaml, where the model is there).",
    ),
    click.option(
        "--batch-api",
        is_flag=True,
        help="Ask through the batch interface: half the price, and up to a day. A stopped run goes on with its batch.",
    ),
)
_ORDER = click.option(
    "--order",
    type=click.Choice(["coin", "both", "adaptive"]),
    help="In place of the judge's own: one order by a seeded coin, both, or both where it matters.",
)
_HARDENED = click.option(
    "--hardened",
    is_flag=True,
    help="Show outputs escaped, between marks that nobody can guess; the judge's name then says so.",
)


_OUTPUTS = (
    click.argument(
        "outputs",
        nargs=-1,
        required=True,
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        metavar="OUTPUTS...",
    ),
    click.option(
        "--judge",
        "name",
        required=True,
        metavar="NAME",
        shell_complete=completes("evaluate/judges"),
        help="A judge of `alignboard judge list`, or a yaml file.",
    ),
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
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        metavar="FILE",
        help="Reference answers, rubrics, second turns: rows of instruction, reference, rubric, ...",
    ),
    click.option(
        "--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N instructions."
    ),
    click.option(
        "--out",
        type=click.Path(path_type=Path, file_okay=False),
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
    replace_option,
)


def outputs_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that every command has that reads outputs and has them judged."""
    return _all(_OUTPUTS, command)


def judge_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that every command has that has outputs compared."""
    return _all((*_ACCESS, _ORDER, _HARDENED), command)


def rate_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same, of one that has them rated by themselves."""
    return _all((*_ACCESS, _HARDENED), command)


def _all(options: Sequence[Callable[..., Any]], command: Callable[..., Any]) -> Callable[..., Any]:
    return reduce(lambda found, option: option(found), reversed(options), command)


def judge_urls(judge_engine: str | None) -> tuple[str, ...]:
    """The addresses in ``--judge-engine``."""
    return tuple(url.strip() for url in (judge_engine or "").split(",") if url.strip())


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


def warn(judges: Judges, declared: JudgeSpec, *, ask: bool) -> None:
    """Say which judges are being switched off, before any money is spent; raises `InputError` where nobody answers."""
    import datetime as dt

    today = dt.datetime.now(dt.UTC).date()
    judges.require_supported(declared, today if ask else None)
    for line in judges.warnings(declared, today):
        print(f"alignboard: {line}.", file=sys.stderr)


@contextmanager
def checking(
    access: Mapping[str, Any],
    declared: JudgeSpec,
    *,
    ask: bool,
    replace: bool,
) -> Iterator[Evaluation]:
    """What is known before anybody is asked: judges that are being switched off, costs, and what is missing."""
    from alignboard.pipeline.evaluation import Evaluation, hardening_secret
    from alignboard.pipeline.judges import Judges
    from alignboard.pipeline.plans.plan import access_of
    from alignboard.pipeline.store import Places
    from alignboard.results.journal import Journal

    places = Places(Path.cwd())
    given = access_of(plan_judge(access), places.journal)
    given = dataclasses.replace(given, allowed_keys=frozenset(access["allow_key"]))
    with Journal(places.journal) as journal:
        judges = Judges(given, places.workspace, secret=hardening_secret(places.journal))
        warn(judges, declared, ask=ask)
        yield Evaluation(judges, journal, replace=replace)


def print_costs(
    evaluation: Evaluation, declared: JudgeSpec, compared: Sequence[PairedOutputs]
) -> list[dict[str, Any]]:
    """Print what judging each model would cost, and return it for ``--json``."""
    found = []
    for one in compared:
        costs = evaluation.costs(declared, one)
        print(cost_text(costs, one.model))
        found.append({"model": one.model, "costs": costs})
    return found


def run_judging(
    declared: JudgeSpec,
    judged: Sequence[PairedOutputs] | Sequence[Answers],
    access: Mapping[str, Any],
    *,
    ask: bool,
    replace: bool,
) -> list[Any]:
    """Judge or rate what is missing, print what came of each model as it comes, and return the summaries."""
    import msgspec

    from alignboard.judges.annotations import Summary
    from alignboard.pipeline.plans.single import judging_graph
    from alignboard.pipeline.progress import showing
    from alignboard.pipeline.runner import run_graph
    from alignboard.pipeline.single_ratings import RatingSummary

    graph = judging_graph(declared, judged, plan_judge(access), ask=ask, replace=replace)
    stdout, found = sys.stdout, list[Any]()  # libraries print to a log meanwhile
    with showing(len(graph)) as show:

        def listen(event: Event) -> None:
            show(event)
            if event.kind != "done":
                return
            summary, unscored = event.report["summary"], event.report["unscored"]
            if event.job.kind == "judge":
                found.append(msgspec.convert(summary, Summary))
                print(summary_text(found[-1], unscored), file=stdout)
            else:
                found.append(msgspec.convert(summary, RatingSummary))
                print(rating_text(found[-1], unscored), file=stdout)

        run_graph(graph, Path.cwd(), listen)
    return found
