"""How the command line asks judges: the options of endpoints, progress, and what came of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alignboard.cli_shared import progress

if TYPE_CHECKING:
    from alignboard.evaluate.judging.pairs import Judged
    from alignboard.evaluate.judging.pricing import Cost
    from alignboard.evaluate.judging.runner import Counts, OnProgress
    from alignboard.run.evaluation import Comparison, Evaluation
    from alignboard.run.judges import Access, Declared, Judges
    from alignboard.run.judging import Summary

_SHOWN = 5
"""failures that are named; the file has all of them"""

_OPTIONS = (
    click.option(
        "--judge-engine",
        metavar="URL,URL",
        help="Addresses of OpenAI-compatible endpoints, up to /v1, in place of the judge's own.",
    ),
    click.option(
        "--judge-key-env",
        metavar="VARIABLE",
        help="The environment variable with the key for --judge-engine (the judge's own key is not sent there).",
    ),
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
    click.option(
        "--order",
        type=click.Choice(["coin", "both", "adaptive"]),
        help="In place of the judge's own: one order by a seeded coin, both, or both where it matters.",
    ),
    click.option(
        "--hardened",
        is_flag=True,
        help="Show outputs escaped, between marks that nobody can guess; the judge's name then says so.",
    ),
)


def judge_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that every command has that asks a judge."""
    return reduce(lambda found, option: option(found), reversed(_OPTIONS), command)


def access_of(
    judge_engine: str | None,
    judge_key_env: str | None,
    concurrency: int,
    requests_per_minute: float | None,
    tokens_per_minute: float | None,
    price: tuple[float, float] | None,
    *,
    batch_api: bool,
    journal: Path,
) -> Access:
    """The options as `alignboard.run.judges.Access`."""
    from alignboard.evaluate.engines.prices import Rate
    from alignboard.evaluate.engines.served import Limits
    from alignboard.run.judges import Access

    urls = [url.strip() for url in (judge_engine or "").split(",") if url.strip()]
    return Access(
        tuple(urls),
        judge_key_env,
        Limits(concurrency, requests_per_minute, tokens_per_minute),
        None if price is None else Rate(*price),
        journal / "batches" if batch_api else None,
    )


def warn(judges: Judges, declared: Declared, *, ask: bool) -> None:
    """Say which judges are being switched off, before any money is spent; raises `InputError` where nobody answers."""
    import datetime as dt

    today = dt.datetime.now(dt.UTC).date()
    judges.require_supported(declared, today if ask else None)
    for line in judges.warnings(declared, today):
        print(f"alignboard: {line}.", file=sys.stderr)


def cost_text(costs: list[Cost], model: str) -> str:
    """What a dry run says of one model."""
    lines = []
    for one in costs:
        known = f"{one.n_known} replies known"
        if one.n_known is None:
            known = "those included whose reply is known, which only the judge's weights could tell"
        tokens = ""
        if one.n_prompt:
            how = "" if one.counted else "about "
            tokens = f", {how}{one.n_prompt} prompt tokens, at most {one.n_answer} of replies"
        price = ""
        if one.price is not None:
            price = f", {'at most' if one.counted else 'about'} {one.price:.2f} US dollars"
        lines.append(f"{one.judge} on {model}: {one.n_calls} calls, {known}{tokens}{price}")
    if len(costs) > 1 and any(one.price is not None for one in costs):
        total = sum(one.price or 0.0 for one in costs)
        lines.append(f"together {total:.2f} US dollars")
    return "\n".join(lines)


def summary_text(found: Summary, judged: list[Judged]) -> str:
    """What came of one model."""
    lines = [f"{found.model} against {found.baseline}, judged by {found.judge}:"]
    if found.win_rate is None:
        lines.append("  no verdict")
    else:
        lines.append(
            f"  win rate {100 * found.win_rate:.2f} % ({found.level:.0%} interval {_percent(found.low)} to "
            f"{_percent(found.high)}), order: {found.order}; {found.n_wins} wins, {found.n_wins_base} losses, "
            f"{found.n_draws} draws; mean length {found.avg_length}"
        )
    others = {name: n for name, n in found.statuses.items() if name != "scored"}
    if others:
        counts = ", ".join(f"{n} {name}" for name, n in sorted(others.items()))
        lines.append(f"  {counts} of {found.n}: left out of the win rate")
        unsaid = [one for one in judged if one.status != "scored"]
        lines += [f"    {one.pair.instruction[:50]!r}: {one.reason}" for one in unsaid[:_SHOWN]]
    paid = "" if found.price is None else f", {found.price:.4f} US dollars"
    saved = "" if found.saving is None else f", {found.saving:.0%} fewer than in both orders"
    lines.append(f"  {found.n_calls} replies{saved}{paid}")
    if found.n_flagged:
        lines.append(f"  {found.n_flagged} rows are flagged; see flags in the file")
    if found.signals:
        lines.append(f"  the outputs look written for the judge: {', '.join(found.signals)}")
    lines.append(f"  {found.annotations}")
    return "\n".join(lines)


def _percent(rate: float | None) -> str:
    return "unknown" if rate is None else f"{100 * rate:.2f}"


@contextmanager
def judging(label: str) -> Iterator[OnProgress]:
    """Calls, calls per second, time left."""
    started = time.monotonic()
    with progress(f"loading {label}") as show:

        def told(now: Counts) -> None:
            rate = now.asked / max(time.monotonic() - started, 1e-3)
            show(label, now.known + now.asked, now.total, f"{rate:.1f} calls/s")

        yield told


def judge_and_print(
    evaluation: Evaluation, declared: Declared, compared: Comparison, *, ask: bool = True
) -> Summary:
    """Judge one model, with progress, and print what came of it."""
    with judging(f"{declared.name} on {compared.model}") as listener:
        summary, judged = evaluation.judge(declared, compared, listener, ask=ask)
    print(summary_text(summary, judged))
    return summary


def write_summaries(path: Path, found: list[Summary]) -> None:
    """The summaries as JSON."""
    import msgspec

    from alignboard.results.files import write_atomically

    write_atomically(path, msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
