"""Options of models behind OpenAI-compatible endpoints, and what they mean in a plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import click

_OPTIONS: Final = (
    click.option(
        "--engine",
        default="local",
        show_default=True,
        metavar="URL,URL",
        help="local, or the addresses of OpenAI-compatible endpoints, up to /v1.",
    ),
    click.option(
        "--api",
        type=click.Choice(["completions", "chat"]),
        default="completions",
        show_default=True,
        help="Of endpoints: token ids rendered here, or chat rendered by the server.",
    ),
    click.option(
        "--served-as",
        metavar="NAME",
        help="What the endpoint calls the model (else its id on the hub).",
    ),
    click.option(
        "--api-key-env",
        metavar="VARIABLE",
        help="The environment variable that holds the endpoint's key.",
    ),
    click.option(
        "--concurrency",
        type=click.IntRange(min=1),
        default=16,
        show_default=True,
        help="Requests at a time, per endpoint.",
    ),
    click.option(
        "--requests-per-minute",
        type=click.FloatRange(min=0, min_open=True),
        metavar="N",
        help="The limit of the endpoint's account, per address.",
    ),
    click.option(
        "--tokens-per-minute",
        type=click.FloatRange(min=0, min_open=True),
        metavar="N",
        help="The same, of prompts and answers together.",
    ),
    click.option(
        "--price",
        type=(click.FloatRange(min=0), click.FloatRange(min=0)),
        metavar="PROMPT ANSWER",
        help="US dollars per million tokens (else from evaluate/prices.yaml, where the model is there).",
    ),
)


def endpoint_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of where a command's models are served; `endpoint_fields` takes them."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def endpoint_fields(
    engine: str,
    *,
    price: tuple[float, float] | None = None,
    served_as: str | None = None,
    api_key_env: str | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Where the models are served, as fields of a plan's model; none: here.

    Raises `InputError` for options of an endpoint without one.
    """
    from alignboard.engines.openai.prices import Rate
    from alignboard.errors import InputError

    if engine == "local":
        limits = (settings.get(f"{one}_per_minute") for one in ("requests", "tokens"))
        if served_as or api_key_env or price or any(limits):
            raise InputError(
                "--served-as, --api-key-env, --price and limits per minute belong to an endpoint; give its address "
                "as --engine."
            )
        return {}
    return {
        "engine": engine,
        "served_as": served_as,
        "api_key_env": api_key_env,
        "price": None if price is None else Rate(*price),
        **settings,
    }
