"""How the command line asks judges: the options, the workspace, progress."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alignboard.cli.judge.text import cost_text, rating_text, summary_text
from alignboard.cli.shared import allow_key_option, completes, progress, replace_option

if TYPE_CHECKING:
    from alignboard.judges.annotations import Summary
    from alignboard.judges.runner import Counts, OnProgress
    from alignboard.judges.spec import JudgeSpec
    from alignboard.pipeline.evaluation import Evaluation
    from alignboard.pipeline.judged_outputs import Answers, PairedOutputs
    from alignboard.pipeline.judges import Access, Judges
    from alignboard.pipeline.single_ratings import RatingSummary

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


def access_of(
    judge_engine: str | None,
    judge_key_env: str | None,
    allow_key: tuple[str, ...],
    concurrency: int,
    requests_per_minute: float | None,
    tokens_per_minute: float | None,
    price: tuple[float, float] | None,
    *,
    batch_api: bool,
    journal: Path,
) -> Access:
    """The options as `alignboard.pipeline.judges.Access`."""
    from alignboard.engines.openai.prices import Rate
    from alignboard.engines.openai.served import Limits
    from alignboard.pipeline.judges import Access

    return Access(
        judge_urls(judge_engine),
        judge_key_env,
        frozenset(allow_key),
        Limits(concurrency, requests_per_minute, tokens_per_minute),
        None if price is None else Rate(*price),
        journal / "batches" if batch_api else None,
    )


def warn(judges: Judges, declared: JudgeSpec, *, ask: bool) -> None:
    """Say which judges are being switched off, before any money is spent; raises `InputError` where nobody answers."""
    import datetime as dt

    today = dt.datetime.now(dt.UTC).date()
    judges.require_supported(declared, today if ask else None)
    for line in judges.warnings(declared, today):
        print(f"alignboard: {line}.", file=sys.stderr)


@contextmanager
def judging_here(
    access: dict[str, Any], declared: JudgeSpec, command: str, *, ask: bool, replace: bool
) -> Iterator[Evaluation]:
    """Judging in this folder; says which judges are being switched off. Without ``ask`` nothing is locked."""
    from alignboard.pipeline.evaluation import Evaluation, hardening_secret
    from alignboard.pipeline.judges import Judges
    from alignboard.pipeline.locks import in_use
    from alignboard.pipeline.store import Places
    from alignboard.results.journal import Journal

    places = Places(Path.cwd())
    journal = Journal(places.journal, command if ask else None)
    with in_use(places) if ask else nullcontext(), journal:
        judges = Judges(
            access_of(**access, journal=places.journal),
            places.workspace,
            secret=hardening_secret(places.journal),
        )
        warn(judges, declared, ask=ask)
        yield Evaluation(judges, journal, replace=replace)


@contextmanager
def judging(label: str) -> Iterator[OnProgress]:
    """Calls, calls per second, time left."""
    started = time.monotonic()
    with progress(f"loading {label}") as show:

        def show_counts(now: Counts) -> None:
            rate = now.asked / max(time.monotonic() - started, 1e-3)
            show(label, now.known + now.asked, now.total, f"{rate:.1f} calls/s")

        yield show_counts


def judge_and_print(
    evaluation: Evaluation, declared: JudgeSpec, compared: PairedOutputs, *, ask: bool = True
) -> Summary:
    """Judge one model, with progress, and print what came of it."""
    from alignboard.results.verdict_places import judge_folder

    folder = compared.place / judge_folder(declared.name, compared.baseline)
    with _making(folder, ask=ask), judging(f"{declared.name} on {compared.model}") as listener:
        summary, judged = evaluation.judge(declared, compared, listener, ask=ask)
    print(summary_text(summary, judged))
    return summary


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


def rate_and_print(
    evaluation: Evaluation, declared: JudgeSpec, answers: Answers, *, ask: bool = True
) -> RatingSummary:
    """Rate one model, with progress, and print what came of it."""
    from alignboard.results.verdict_places import judge_folder

    folder = answers.place / judge_folder(declared.name, None)
    with _making(folder, ask=ask), judging(f"{declared.name} on {answers.model}") as listener:
        summary, rated = evaluation.rate(declared, answers, listener, ask=ask)
    print(rating_text(summary, rated))
    return summary


def _making(folder: Path, *, ask: bool) -> AbstractContextManager[None]:
    """The lock of a judge's verdicts on a model; none where nobody is asked."""
    from alignboard.pipeline.locks import held
    from alignboard.pipeline.store import Places

    return held(Places(Path.cwd()), str(folder)) if ask else nullcontext()
