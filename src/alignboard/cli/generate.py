"""`alignboard generate`: models answer an instruction set."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alignboard.cli.boundary import EXIT_FOUND
from alignboard.cli.endpoint import endpoint_fields, endpoint_options
from alignboard.cli.options import (
    POSITIVE,
    json_option,
    limit_option,
    max_new_tokens_option,
    model_arguments,
    names_option,
    redo_option,
    replace_option,
    trust_remote_code_option,
)
from alignboard.cli.shared import write_json

if TYPE_CHECKING:
    from alignboard.data.instruction_sets import InstructionSet
    from alignboard.models.spec import ModelSpec
    from alignboard.pipeline.answering import GenerationReport
    from alignboard.pipeline.costs import GenerationCost
    from alignboard.suites import Instructions


@click.command(epilog="Example: alignboard generate runs/dpo --set prompts.jsonl")
@model_arguments
@names_option
@click.option(
    "--set",
    "set_name",
    default="alpaca-eval",
    show_default=True,
    metavar="NAME",
    help="An instruction set, or a json, jsonl or csv file with a column of instructions.",
)
@limit_option
@endpoint_options
@max_new_tokens_option
@click.option(
    "--temperature",
    type=click.FloatRange(min=0),
    metavar="T",
    help="In place of the entry's; 0 is greedy.",
)
@click.option("--seed", type=int, metavar="N", help="Of sampling.")
@click.option(
    "--repeats",
    type=POSITIVE,
    default=1,
    show_default=True,
    help="Responses to every prompt, each with a seed of its own, as <model>-response0 and so on.",
)
@trust_remote_code_option
@click.option(
    "--dry-run", is_flag=True, help="Say what would be asked of whom; load no weights, ask nobody."
)
@redo_option
@replace_option
@json_option
def generate(
    models: tuple[str, ...],
    model_names: str | None,
    set_name: str,
    limit: int | None,
    max_new_tokens: int | None,
    temperature: float | None,
    seed: int | None,
    repeats: int,
    *,
    trust_remote_code: bool,
    dry_run: bool,
    redo: tuple[str, ...],
    replace: bool,
    json_file: Path | None,
    **given: Any,
) -> None:
    """Let every MODEL answer an instruction set and write its model_outputs.json.

    A MODEL is a name of `alignboard models list`, an id on the hub, or a folder. Answers are kept as they finish:
    interrupt it at any moment and start it again, and only what is missing is asked. Exit code 3 where an endpoint
    left something unanswered in the end, or where all responses of a model are empty.
    """
    import msgspec

    from alignboard.cli.answering import consent_of, entries_of, planned_generation, run_generation
    from alignboard.fetch.sources import rich_progress
    from alignboard.pipeline.plan_costs import generation_costs
    from alignboard.pipeline.plans.single import generation_plan
    from alignboard.suites import Instructions

    endpoint = endpoint_fields(**given)
    entries = entries_of(models, model_names, trust_remote_code=trust_remote_code, **endpoint)
    declared = Instructions(
        set=set_name,
        limit=limit,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
    )
    with rich_progress() as downloading:
        resolved = generation_plan(
            "alignboard generate",
            entries,
            declared,
            Path.cwd(),
            consent=consent_of(endpoint, replace=replace),
            progress=downloading,
            repeats=repeats,
        )
    planned = planned_generation(resolved)
    if dry_run:
        costs = generation_costs(resolved, planned.jobs, planned.done_before)
        for cost, model in zip(costs, resolved.models, strict=True):
            spec = resolved.entries[model.base].spec
            if spec is not None:
                named = msgspec.structs.replace(spec, name=model.name)
                print(_cost_text(cost, named, declared, resolved.sets[0].asked, given["engine"]))
        write_json(json_file, costs)
        return
    results = run_generation(planned, redo)
    _write(json_file, results)
    if any(one.failures or 0 < one.n_rows == one.n_empty for one in results):
        sys.exit(EXIT_FOUND)


def _cost_text(
    cost: GenerationCost,
    spec: ModelSpec,
    declared: Instructions,
    asked: InstructionSet,
    engine: str,
) -> str:
    """What a dry run prints of one model."""
    from alignboard.pipeline.answering import decoding_of

    decoding = decoding_of(spec, temperature=declared.temperature)
    known = "" if cost.n_known is None else f" ({cost.n_known} responses known)"
    tokens = "prompt tokens unknown"
    if cost.n_prompt is not None:
        tokens = f"{cost.n_prompt} prompt tokens (longest {cost.longest})"
    how = "greedy"
    if any(row.temperature is not None for row in asked.rows):
        how = "at the set's own temperatures"
    elif decoding.temperature:
        how = f"temperature {decoding.temperature:g}, top_p {decoding.top_p:g}"
    price = f", at most {cost.price:.2f} US dollars" if cost.price else ""
    unknown = [f"Not known: {reason}" for reason in cost.unknown]
    line = (
        f"{spec.name}: {spec.base}, {len(asked.rows)} instructions{known}, {tokens}, at most "
        f"{cost.n_new} new tokens, {how}, engine {engine}{price}"
    )
    return "\n".join([*unknown, line])


def _write(path: Path | None, results: list[GenerationReport]) -> None:
    import msgspec

    fields = ("model", "n_rows", "n_known", "n_tokens", "price", "seconds", "too_long")
    content = [
        {
            **{name: getattr(one, name) for name in fields},
            "path": str(one.path) if one.is_written else None,
            "failures": msgspec.to_builtins(one.failures),
        }
        for one in results
    ]
    write_json(path, content)
