"""Where a model is served, and how hard it may be asked: what a `Requester` is given."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from alignboard.engines.openai.addresses import require_address
from alignboard.engines.openai.format import Dialect
from alignboard.engines.openai.keys import require_consent
from alignboard.engines.rows import Decoding, Prompt
from alignboard.errors import InputError
from alignboard.fetch.http import Patience


@dataclass(frozen=True)
class Limits:
    """How hard each address may be asked."""

    concurrency: int = 16
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    patience: Patience = field(default_factory=Patience)


@dataclass(frozen=True)
class Endpoint:
    """Where a model is served, and how hard it may be asked."""

    urls: tuple[str, ...]
    """up to ``/v1``, such as http://127.0.0.1:8000/v1"""
    dialect: Dialect
    api_key_env: str | None = None
    """the environment variable that holds the key"""
    allowed_keys: frozenset[str] | None = None
    """where a file names address or variable: which keys the user lets it send (`engines.openai.keys`); None: the user
    has named both"""
    limits: Limits = field(default_factory=Limits)
    weights: str | None = None
    """what is served, such as a revision; without it the addresses stand for it in an answer's key"""

    def __post_init__(self) -> None:
        if not self.urls or self.limits.concurrency < 1 or self.limits.patience.tries < 1:
            raise InputError("An endpoint needs an address, a concurrency and tries of at least 1.")
        for url in self.urls:
            require_address(url)

    def prompts(
        self,
        instructions: Sequence[str],
        decoding: Decoding,
        render: Callable[..., Sequence[int]] | None = None,
        histories: Sequence[tuple[tuple[str, str], ...]] | None = None,
    ) -> list[Prompt]:
        """Every instruction with the key of its answer, as token ids where ``render`` makes them.

        ``render`` takes an instruction, and its history where it has one.
        """
        identity = {
            "scheme": "endpoint-1",
            "weights": self.weights or sorted(url.rstrip("/") for url in self.urls),
            "dialect": self.dialect.identity(),
            "decoding": decoding.identity() | {"stop_tokens": sorted(decoding.stop_tokens)},
        }
        found = []
        for instruction, history in zip(
            instructions, histories or ((),) * len(instructions), strict=True
        ):
            turns = (instruction, history) if history else (instruction,)
            ids = () if render is None else tuple(render(*turns))
            content = json.dumps([identity, *turns, ids], sort_keys=True).encode()
            key = hashlib.blake2b(content, digest_size=16).hexdigest()
            found.append(Prompt(instruction, ids, key, history=history))
        return found

    def key(self) -> str | None:
        """The key in an environment variable; raises `InputError` where it is not set, or not to be sent there."""
        if self.api_key_env is not None and self.allowed_keys is not None:
            what = f"The model {self.dialect.model}"
            require_consent(what, self.api_key_env, self.urls, self.allowed_keys)
        return read_key(self.api_key_env)


def read_key(variable: str | None) -> str | None:
    """The key in the environment variable, where one is named; raises `InputError` where it holds none."""
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise InputError(
            f"The environment variable {variable}, which is to hold the key, is not set."
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise InputError(
            f"The environment variable {variable} holds white space or characters that no key has (one line of ASCII "
            "letters, digits and marks is expected)."
        )
    return key
