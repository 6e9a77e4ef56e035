"""`alignboard evaluate`: models answer, are judged and scored: AlpacaEval from end to end."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alignboard.cli.boundary import EXIT_FOUND
from alignboard.cli.endpoint import endpoint_fields
from alignboard.cli.judge.judging import judge_options
from alignboard.cli.options import (
    api_key_env_option,
    assets_option,
    engine_option,
    json_option,
    limit_option,
    max_new_tokens_option,
    model_arguments,
    names_option,
    parts,
    redo_option,
    replace_option,
    trust_remote_code_option,
)
from alignboard.cli.shared import write_json

if TYPE_CHECKING:
    from alignboard.judges.spec import Order


@click.command(epilog="Example: alignboard evaluate runs/dpo --judge hardened-pair")
@model_arguments
@names_option
@click.option(
    "--suite",
    default="alpaca-eval-2",
    show_default=True,
    metavar="NAME",
    help="Whose instructions and baseline: alpaca-eval-2 or alpaca-eval-1.",
)
@click.option(
    "--judge", "name", metavar="NAME", help="In place of the suite's own, with columns of its own."
)
@limit_option
@engine_option
@api_key_env_option
@max_new_tokens_option
@assets_option
@judge_options
@trust_remote_code_option
@click.option(
    "--dry-run", is_flag=True, help="Say what would be asked of the judge and what it costs."
)
@redo_option
@replace_option
@json_option
def evaluate(
    models: tuple[str, ...],
    model_names: str | None,
    suite: str,
    name: str | None,
    limit: int | None,
    engine: str,
    api_key_env: str | None,
    max_new_tokens: int | None,
    assets: Path | None,
    order: Order | None,
    *,
    hardened: bool,
    trust_remote_code: bool,
    dry_run: bool,
    redo: tuple[str, ...],
    replace: bool,
    json_file: Path | None,
    **access: Any,
) -> None:
    """Let every MODEL answer the suite's instructions, have the answers judged, and say where it stands.

    Answers go to results/<model>/model_outputs.json, verdicts to results/<model>/<judge>/annotations.json (against
    another baseline than the judge's usual one: <judge>-vs-<baseline>/). Both are kept as they come: a run that was
    stopped goes on where it was. Exit code 3 where something is missing in the end.
    """
    from alignboard.cli.answering import consent_of, entries_of, planned_generation, run_generation
    from alignboard.cli.judge.judging import JudgingRun, checking, print_costs
    from alignboard.fetch.sources import rich_progress
    from alignboard.pipeline.answering import decoding_of, outputs_path
    from alignboard.pipeline.evaluation import declared_judge
    from alignboard.pipeline.judged_outputs import compare, load_baseline, shared_rows
    from alignboard.pipeline.plans.single import generation_plan
    from alignboard.pipeline.suite_evaluation import expected, instructions_of, suite_of
    from alignboard.records import Generation
    from alignboard.results.formats import read_rows
    from alignboard.results.verdict_paths import beside
    from alignboard.suites import Instructions

    workspace, declared_suite = Path.cwd(), suite_of(suite)
    generated_anew, judged_anew = (
        [kind for kind in redo if (kind == "generate") is wanted] for wanted in (True, False)
    )
    chosen = name or declared_suite.annotator
    judge_at = tuple(parts(access["judge_engine"]))
    declared = declared_judge(chosen, workspace, order, hardened=hardened, urls=judge_at)
    endpoint = endpoint_fields(
        engine, api="chat", api_key_env=api_key_env, concurrency=access["concurrency"]
    )
    entries = entries_of(models, model_names, trust_remote_code=trust_remote_code, **endpoint)
    with rich_progress() as downloading:
        against = load_baseline(declared_suite.baseline, workspace, progress=downloading)
    asked = instructions_of(declared_suite, against).first(limit)
    resolved = generation_plan(
        "alignboard evaluate",
        entries,
        Instructions(set=asked.name, max_new_tokens=max_new_tokens),
        workspace,
        asked,
        consent=consent_of(endpoint, replace=replace),
    )
    with checking(access, declared, ask=not dry_run, replace=replace) as evaluation:
        planned = []
        for model, entry in resolved.entries.items():
            assert entry.spec is not None  # noqa: S101 - the models of a command are there
            decoding = decoding_of(entry.spec, max_new_tokens=max_new_tokens)
            path = outputs_path(workspace, model, asked, decoding)
            planned.append(expected(model, asked, against, path))
        run = JudgingRun(declared, planned, access, redo=judged_anew, replace=replace)
        if dry_run:
            priced = print_costs(evaluation, run)
            print(f"if answers are as long as those of {declared_suite.baseline}")
            write_json(json_file, priced)
            return
        evaluation.require_ready(declared, planned, run.missing)
    answered = run_generation(planned_generation(resolved), generated_anew)
    compared = [
        compare(
            *shared_rows(read_rows(one.path, Generation), against[: len(asked)]),
            beside(one.path, one.model),
        )
        for one in answered
        if one.is_written
    ]
    whole = [one for one in answered if not one.failures]
    found = JudgingRun(declared, compared, access, redo=judged_anew, replace=replace).run()
    if not limit and declared.name == declared_suite.annotator:
        for one in whole:
            print(f"{one.model}:{_length_control(workspace, declared_suite, one.model, assets)}")
    write_json(json_file, found)
    if len(whole) < len(answered) or any(one.statuses.get("scored", 0) < one.n for one in found):
        sys.exit(EXIT_FOUND)


def _length_control(workspace: Path, suite: Any, model: str, assets: Path | None) -> str:
    """The board row's length-controlled win rate, or why there is none."""
    from alignboard.errors import SourceError
    from alignboard.fetch.sources import calibration_folder, rich_progress
    from alignboard.pipeline.suite_evaluation import length_controlled
    from alignboard.published.calibration import read_calibration

    try:
        if assets is None:
            with rich_progress() as progress:
                assets = calibration_folder(suite, progress=progress)
        score = length_controlled(workspace, suite, model, read_calibration(assets))
    except SourceError as error:
        return f" no length-controlled win rate: {error}"
    return (
        f" length-controlled win rate {100 * score.win_rate:.2f} % ({100 * score.interval.low:.2f} to "
        f"{100 * score.interval.high:.2f}{f'; {score.note}' if score.note else ''})"
    )
