"""`alignboard generate`: models answer an instruction set."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from alignboard.cli.shared import completes, json_option, name_option, replace_option, write_json

if TYPE_CHECKING:
    from alignboard.data.instruction_sets import InstructionSet
    from alignboard.engines.rows import Decoding
    from alignboard.models.spec import ModelSpec
    from alignboard.pipeline.answerers import Served
    from alignboard.pipeline.answering import Answered
    from alignboard.pipeline.costs import GenerationCost

EXIT_FOUND = 3
_LINE_SECONDS = 10.0


@click.command(epilog="Example: alignboard generate runs/dpo --set prompts.jsonl")
@click.argument(
    "models",
    nargs=-1,
    required=True,
    metavar="MODEL...",
    shell_complete=completes("evaluate/models"),
)
@name_option
@click.option(
    "--set",
    "set_name",
    default="alpaca-eval",
    show_default=True,
    metavar="NAME",
    help="An instruction set, or a json, jsonl or csv file with a column of instructions.",
)
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N instructions."
)
@click.option(
    "--engine",
    default="local",
    show_default=True,
    metavar="URL,URL",
    help="local, or the addresses of OpenAI-compatible endpoints, up to /v1.",
)
@click.option(
    "--api",
    type=click.Choice(["completions", "chat"]),
    default="completions",
    show_default=True,
    help="Of endpoints: token ids rendered here, or chat rendered by the server.",
)
@click.option(
    "--served-as",
    metavar="NAME",
    help="What the endpoint calls the model (else its id on the hub).",
)
@click.option(
    "--api-key-env",
    metavar="VARIABLE",
    help="The environment variable that holds the endpoint's key.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="Requests at a time, per endpoint.",
)
@click.option(
    "--requests-per-minute",
    type=click.FloatRange(min=0, min_open=True),
    metavar="N",
    help="The limit of the endpoint's account, per address.",
)
@click.option(
    "--tokens-per-minute",
    type=click.FloatRange(min=0, min_open=True),
    metavar="N",
    help="The same, of prompts and answers together.",
)
@click.option(
    "--price",
    type=(click.FloatRange(min=0), click.FloatRange(min=0)),
    metavar="PROMPT ANSWER",
    help="US dollars per million tokens (else from evaluate/prices.yaml, where the model is there).",
)
@click.option(
    "--max-new-tokens", type=click.IntRange(min=1), metavar="N", help="In place of the entry's."
)
@click.option(
    "--temperature",
    type=click.FloatRange(min=0),
    metavar="T",
    help="In place of the entry's; 0 is greedy.",
)
@click.option("--seed", type=int, metavar="N", help="Of sampling.")
@click.option(
    "--trust-remote-code",
    is_flag=True,
    help="Agree to run the repository's own Python where an entry asks.",
)
@click.option(
    "--dry-run", is_flag=True, help="Say what would be asked of whom; load no weights, ask nobody."
)
@replace_option
@json_option
def generate(
    models: tuple[str, ...],
    model_names: str | None,
    set_name: str,
    limit: int | None,
    engine: str,
    api: Literal["completions", "chat"],
    served_as: str | None,
    api_key_env: str | None,
    concurrency: int,
    requests_per_minute: float | None,
    tokens_per_minute: float | None,
    price: tuple[float, float] | None,
    max_new_tokens: int | None,
    temperature: float | None,
    seed: int | None,
    *,
    trust_remote_code: bool,
    dry_run: bool,
    replace: bool,
    json_file: Path | None,
) -> None:
    """Let every MODEL answer an instruction set and write its model_outputs.json.

    A MODEL is a name of `alignboard models list`, an id on the hub, or a folder. Answers are kept as they finish:
    interrupt it at any moment and start it again, and only what is missing is asked. Exit code 3 where an endpoint
    left something unanswered in the end, or where all responses of a model are empty.
    """
    from alignboard.cli.answering import answered_text, answering
    from alignboard.data.instruction_sets import load_set
    from alignboard.fetch.sources import rich_progress
    from alignboard.models.registry import load_model
    from alignboard.pipeline.answerers import by_base
    from alignboard.pipeline.answering import decoding_of
    from alignboard.pipeline.costs import generation_cost
    from alignboard.pipeline.locks import in_use
    from alignboard.pipeline.model_names import claim, named
    from alignboard.pipeline.preflight import require_generation
    from alignboard.pipeline.store import Places
    from alignboard.results.journal import Journal

    specs = by_base(named([load_model(name) for name in models], model_names))
    limits = (concurrency, requests_per_minute, tokens_per_minute)
    served = served_at(engine, api, served_as, api_key_env, limits, price)
    with rich_progress() as downloading:
        asked = load_set(set_name, progress=downloading).first(limit)
    if temperature is not None:
        asked = asked.at_one_temperature()
    given = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
    decodings = [decoding_of(spec, **given) for spec in specs]
    if dry_run:
        with Journal(Places(Path.cwd()).journal) as journal:
            costs = [
                generation_cost(spec, decoding, asked, served, journal)
                for spec, decoding in zip(specs, decodings, strict=True)
            ]
        for cost, spec, decoding in zip(costs, specs, decodings, strict=True):
            print(_cost_text(cost, spec, decoding, asked, engine))
        if json_file is not None:
            write_json(json_file, costs)
        return
    results = []
    places = Places(Path.cwd())
    with in_use(places), Journal(places.journal, "generate") as journal:
        require_generation(
            *(specs, asked, places.workspace, served),
            remote_code=trust_remote_code,
            replace=replace,
        )
        claim(places.workspace, specs)
        answer = answering(
            served,
            asked,
            journal,
            places.workspace,
            remote_code=trust_remote_code,
            replace=replace,
        )
        for spec, decoding in zip(specs, decodings, strict=True):
            one = answer(spec, decoding)
            results.append(one)
            print(answered_text(one))
    if json_file is not None:
        _write(json_file, results)
    if any(one.failures or 0 < one.n_rows == one.n_empty for one in results):
        sys.exit(EXIT_FOUND)


def served_at(
    engine: str,
    api: Literal["completions", "chat"],
    served_as: str | None,
    api_key_env: str | None,
    limits: tuple[int, float | None, float | None],
    price: tuple[float, float] | None,
) -> Served | None:
    """Where the models are served; None: here. Raises `InputError` for options of an endpoint without one."""
    from alignboard.engines.openai.prices import Rate
    from alignboard.engines.openai.served import Limits
    from alignboard.errors import InputError
    from alignboard.pipeline.answerers import Served

    if engine == "local":
        if served_as or api_key_env or price or any(limits[1:]):
            raise InputError(
                "--served-as, --api-key-env, --price and limits per minute belong to an endpoint; give its address "
                "as --engine."
            )
        return None
    return Served(
        tuple(url.strip() for url in engine.split(",") if url.strip()),
        api,
        served_as,
        api_key_env,
        Limits(*limits),
        None if price is None else Rate(*price),
    )


def _cost_text(
    cost: GenerationCost, spec: ModelSpec, decoding: Decoding, asked: InstructionSet, engine: str
) -> str:
    """What a dry run says of one model."""
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


def _write(path: Path, results: list[Answered]) -> None:
    import msgspec

    fields = ("model", "n_rows", "n_known", "n_tokens", "price", "seconds", "too_long")
    content = [
        {
            **{name: getattr(one, name) for name in fields},
            "path": None if one.failures else str(one.path),
            "failures": msgspec.to_builtins(one.failures),
        }
        for one in results
    ]
    write_json(path, content)
