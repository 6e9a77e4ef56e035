"""Keys of the environment: the host that each belongs to, and the user's consent to send one elsewhere.

A file of somebody else may name any variable and any address. What it names is sent only where the variable belongs, or
where the user has agreed to that variable at that host: ``OPENAI_API_KEY@gateway.example``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from alignboard.engines.openai.addresses import split_address
from alignboard.errors import InputError

HOSTS: Final = {
    "ANTHROPIC_API_KEY": "api.anthropic.com",
    "MISTRAL_API_KEY": "api.mistral.ai",
    "OPENAI_API_KEY": "api.openai.com",
    "TOGETHER_API_KEY": "api.together.xyz",
}


def require_consent(
    what: str, variable: str | None, urls: Iterable[str], allowed: Collection[str]
) -> None:
    """Raise `InputError` where ``what`` would send the key in ``variable`` to a host that it does not belong to."""
    if variable is None:
        return
    for url in urls:
        scheme, host, *_ = split_address(url)
        consent, own = f"{variable}@{host}", HOSTS.get(variable)
        if consent not in allowed and (scheme, host) != ("https", own):
            belongs = "no known host" if own is None else f"https://{own}"
            raise InputError(
                f"{what} would send the key in {variable}, which belongs to {belongs}, to {url}; agree to that by "
                f"--allow-key {consent}, or declare api_key_env: null."
            )
