"""How the command line generates responses: the models that are asked, their run, and what came of it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from alignboard.text import shown

if TYPE_CHECKING:
    from alignboard.pipeline.answering import GenerationReport
    from alignboard.pipeline.executors.work import Event
    from alignboard.pipeline.plans.consent import Consent
    from alignboard.pipeline.plans.resolved import ResolvedPlan
    from alignboard.pipeline.plans.schema import PlanModel
    from alignboard.pipeline.runner import RunResult


def entries_of(
    models: Sequence[str], names: str | None, *, trust_remote_code: bool, **endpoint: Any
) -> dict[str, PlanModel]:
    """The models of a command as entries of a plan, by name; ``endpoint`` are the fields of `PlanModel` for one."""
    from alignboard.models.asked import require_agreed
    from alignboard.models.registry import load_model
    from alignboard.pipeline.model_names import named
    from alignboard.pipeline.plans.schema import PlanModel

    specs = named([load_model(name) for name in models], names)
    found = {}
    for spec, source in zip(specs, models, strict=True):
        if not endpoint:
            require_agreed(spec, remote_code=trust_remote_code)
        trusted = spec.trust_remote_code and not endpoint
        found[spec.name] = PlanModel(source=source, trust_remote_code=trusted, **endpoint)
    return found


def consent_of(endpoint: Mapping[str, Any], *, replace: bool = False) -> Consent:
    """What the options agree to: whoever names an address and a key's variable has it sent there."""
    from alignboard.engines.openai.addresses import split_address
    from alignboard.pipeline.plans.consent import Consent

    variable, urls = endpoint.get("api_key_env"), endpoint.get("engine", "").split(",")
    given = [url.strip() for url in urls if variable and url.strip()]
    keys = {f"{variable}@{split_address(url).netloc}" for url in given}
    return Consent(frozenset(keys), replace=replace)


def planned_generation(resolved: ResolvedPlan) -> RunResult:
    """What a run of the plan would do; says of served models whether they are being switched off."""
    from alignboard.pipeline.runner import run_resolved

    for entry in resolved.entries.values():
        ends = entry.served.retirement(entry.spec) if entry.served and entry.spec else None
        if ends is not None:
            print(f"alignboard: {shown(ends)}.", file=sys.stderr)
    return run_resolved(resolved, dry_run=True)


def run_generation(planned: RunResult, redo: Sequence[str] = ()) -> list[GenerationReport]:
    """Generate what is missing, print what came of each model as it comes, and return it."""
    from alignboard.pipeline.answering import read_report
    from alignboard.pipeline.executors.machine import Machine
    from alignboard.pipeline.executors.work import RunFailedError
    from alignboard.pipeline.progress import showing
    from alignboard.pipeline.runner import run_resolved

    resolved, stdout = planned.plan, sys.stdout  # libraries print to a log meanwhile
    jobs = [job for job in planned.jobs if job.kind == "generate"]
    found: dict[str, GenerationReport] = {}

    def take(name: str, report: Mapping[str, Any], *, known: bool) -> None:
        one = read_report(report, resolved.workspace, resolved.sets[0].name)
        if known:
            one = replace(one, n_known=one.n_rows, n_tokens=0, price=0.0, seconds=0.0)
        found[name] = one
        print(generation_text(one), file=stdout)

    # What an endpoint refused before is asked again.
    refused = any(report.get("failures") for report in planned.reports.values())
    redo = [*redo, *(["generate"] if refused else [])]
    with showing(len(planned.jobs), n_before=len(planned.done_before)) as show:

        def listen(event: Event) -> None:
            show(event)
            if event.report and event.job in jobs:
                take(event.job.name, event.report, known=False)

        try:
            machine = Machine(executor="in-process")
            result = run_resolved(resolved, on_progress=listen, machine=machine, redo=redo)
        except RunFailedError as error:
            if not error.only_incomplete:
                raise
            result = planned
    for job in jobs:
        if job.name not in found and job.name in result.reports:
            take(job.name, result.reports[job.name], known=True)
    return [found[job.name] for job in jobs]


def generation_text(one: GenerationReport) -> str:
    """What came of one model, for the terminal."""
    n_new = one.n_rows - one.n_known - len(one.failures)
    speed = (
        f", {one.n_tokens / one.seconds:.0f} tokens/s" if one.n_tokens and one.seconds > 0 else ""
    )
    price = f", {one.price:.4f} US dollars" if one.price else ""
    lines = [
        f"{one.model}: {n_new} answered now in {one.seconds:.1f} s{speed}{price}, {one.n_known} known before"
    ]
    lines += [*_own_decoding(one), *_unfinished(one)]
    lines += [f"  left out, too long: {text[:60]!r}" for text in one.too_long]
    lines += [
        f"  no answer to {fail.instruction[:60]!r}: {fail.reason} ({fail.tries} tries)"
        for fail in one.failures
    ]
    lines.append(
        f"  {one.path}"
        if one.is_written
        else f"  {len(one.failures)} to ask again, no file written"
    )
    return "\n".join(map(shown, lines))


def _own_decoding(one: GenerationReport) -> list[str]:
    """What is printed of the model's own generation configuration."""
    from alignboard.models.own_decoding import in_words

    lines = []
    if one.followed:
        lines.append(f"  as its generation configuration says: {in_words(one.followed)}")
    if one.not_followed:
        said = in_words(one.not_followed)
        lines.append(f"  BEWARE: its generation configuration says {said}, which is not followed")
    return lines


def _unfinished(one: GenerationReport) -> list[str]:
    """What is printed of responses that are empty or were cut off."""
    counts = ((one.n_empty, "empty"), (one.n_cut, "cut off at the limit of new tokens"))
    parts = [
        f"{n} of {one.n_rows} responses {'is' if n == 1 else 'are'} {what}"
        for n, what in counts
        if n
    ]
    if not parts:
        return []
    beware = "BEWARE: " if 2 * max(one.n_empty, one.n_cut) > one.n_rows else ""
    return [f"  {beware}{', '.join(parts)}; a higher --max-new-tokens may mend it"]
