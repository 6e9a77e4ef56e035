"""Judges behind OpenAI-compatible endpoints, asked as `engines.openai.requesting` asks."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from alignboard.engines.openai.addresses import split_address
from alignboard.engines.openai.format import Dialect
from alignboard.engines.openai.limits import Clock
from alignboard.engines.openai.prices import Rate
from alignboard.engines.openai.requesting import Requester
from alignboard.engines.openai.requests import FailedRequest, Request
from alignboard.engines.openai.served import Endpoint, Limits
from alignboard.judges.backends.chat_format import read_judge_reply, request_body, settings, used
from alignboard.judges.rows import Call, FailedCall, Reply
from alignboard.judges.spec import PromptedSpec

OPENAI: Final = "https://api.openai.com/v1"
_LONGEST_SUFFIX: Final = 60


def endpoint_of(
    spec: PromptedSpec,
    urls: Sequence[str] = (),
    limits: Limits | None = None,
    api_key_env: str | None = None,
    allowed_keys: frozenset[str] | None = frozenset(),
) -> Endpoint:
    """Where ``spec`` is asked: ``urls`` where the user says some, else its own address, else OpenAI's.

    The judge's key is for its own address and is sent to no other, and there only where it belongs or ``allowed_keys``
    has it; ``api_key_env`` names the one for ``urls``.
    """
    if urls:
        chosen, key, allowed_keys = tuple(urls), api_key_env, None
    else:
        chosen, key = (spec.base_url or OPENAI,), api_key_env or spec.api_key_env
    return Endpoint(chosen, Dialect(spec.model), key, allowed_keys, limits or Limits())


def judge_suffix(urls: Sequence[str]) -> str:
    """What the name of a judge has after it that is asked at ``urls`` in place of its own address.

    >>> judge_suffix(["http://127.0.0.1:8000/v1"]), judge_suffix(["https://judges.example.org/a/v1"])
    ('-at-127.0.0.1-8000', '-at-judges.example.org-a')
    """
    hosts = [re.sub(r"[^A-Za-z0-9.]+", "-", _short(url)).strip("-") for url in sorted(set(urls))]
    joined = "+".join(hosts)
    if len(joined) <= _LONGEST_SUFFIX:
        return f"-at-{joined}"
    digest = hashlib.blake2b("\n".join(sorted(set(urls))).encode(), digest_size=4).hexdigest()
    return f"-at-{hosts[0][:_LONGEST_SUFFIX]}-{digest}"


def _short(url: str) -> str:
    """Host, port and path; the port of plain http is named, because https has none."""
    parts = split_address(url.rstrip("/"))
    port = parts.port or (80 if parts.scheme == "http" else None)
    host = parts.hostname or ""
    return f"{host}{'' if port is None else f':{port}'}{parts.path.removesuffix('/v1')}"


def endpoint_identity(spec: PromptedSpec, endpoint: Endpoint) -> Mapping[str, Any]:
    """Model, address and settings. OpenAI's own address is left out: there a model's name says which it is."""
    urls = sorted(url.rstrip("/") for url in endpoint.urls)
    return {
        "scheme": "endpoint-1",
        "urls": [] if urls == [OPENAI] else urls,
        "settings": settings(spec),
        "seed": spec.sampling.seed if spec.sampling.temperature > 0 else None,
        "extra": spec.endpoint.extra,
    }


class EndpointJudge:
    """A judge that is asked over HTTP; see `Backend`. ``clock`` is for tests."""

    def __init__(
        self,
        spec: PromptedSpec,
        endpoint: Endpoint,
        rate: Rate | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._spec, self._rate = spec, rate
        self.identity = endpoint_identity(spec, endpoint)
        self._requester = Requester(endpoint, "chat/completions", read_judge_reply, used, clock)

    def ask(self, calls: Sequence[Call]) -> Iterator[tuple[Call, Reply | FailedCall]]:
        """Replies as they come. Raises `SourceError` for what no try can mend."""
        by_key = {call.key: call for call in calls}
        requests = [self._request(call) for call in by_key.values()]
        for request, found in self._requester.replies(requests):
            call = by_key[request.key]
            if isinstance(found, FailedRequest):
                yield call, FailedCall(call.key, found.reason, found.tries)
            else:
                price = None if self._rate is None else self._rate.of(used(found.reply))
                seconds = round(found.seconds, 4)
                yield call, msgspec.structs.replace(found.reply, price=price, seconds=seconds)

    def _request(self, call: Call) -> Request:
        body = request_body(self._spec, call)
        return Request(call.key, body, prompt_tokens(call) + self._spec.sampling.max_new_tokens)


def prompt_tokens(call: Call) -> int:
    """About how many tokens a prompt has: four bytes to a token, and what chat formats put around each turn."""
    return sum(len(one.content.encode("utf-8", "replace")) // 4 + 5 for one in call.messages)
