"""Options of models behind OpenAI-compatible endpoints, and what they mean in a plan."""

from __future__ import annotations

from typing import Any

import click

from alignboard.cli.options import api_key_env_option, engine_option, request_options, together

endpoint_options = together(
    engine_option,
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
    api_key_env_option,
    request_options,
)
"""where a command's models are served; `endpoint_fields` takes them"""


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
