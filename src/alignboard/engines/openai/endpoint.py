"""The engine of OpenAI-compatible endpoints: answers of served models, asked as `engines.openai.requesting` asks.

What it never does
    Take an error, or a reply without text, for an empty answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from alignboard.engines.local.ending import cut
from alignboard.engines.openai.format import EndpointReply, read_reply
from alignboard.engines.openai.limits import Clock
from alignboard.engines.openai.prices import Rate
from alignboard.engines.openai.requesting import Requester
from alignboard.engines.openai.requests import FailedRequest, Request
from alignboard.engines.openai.served import Endpoint
from alignboard.engines.rows import Answer, Decoding, Failure, Prompt
from alignboard.models.reasoning import split


class EndpointEngine:
    """Answers of a served model; see `Engine`. ``clock`` is for tests."""

    def __init__(
        self, endpoint: Endpoint, rate: Rate | None = None, clock: Clock | None = None
    ) -> None:
        endpoint.key()  # a key that is not set is said before anything is prepared
        self._endpoint, self._rate = endpoint, rate
        api = endpoint.dialect.api
        path = "chat/completions" if api == "chat" else "completions"
        read = partial(read_reply, api=api)
        self._requester = Requester(endpoint, path, read, lambda reply: reply.usage, clock)

    def answers(self, asked: Sequence[Prompt], decoding: Decoding) -> Iterator[Answer | Failure]:
        """See `Engine`. Raises `SourceError` for what no try can mend."""
        unique = {prompt.key: prompt for prompt in asked}
        requests = [self._request(prompt, decoding) for prompt in unique.values()]
        for request, found in self._requester.replies(requests):
            prompt = unique[request.key]
            if isinstance(found, FailedRequest):
                kind = "refused" if found.refused else "error"
                yield Failure(prompt.key, prompt.instruction, kind, found.reason, found.tries)
            else:
                yield self._answer(prompt, found.reply, decoding)

    def _request(self, prompt: Prompt, decoding: Decoding) -> Request:
        # Four bytes a token is the usual guess; the difference to what was used is given back.
        guess = len(prompt.ids) or len(prompt.instruction.encode()) // 4 + 1
        body = self._endpoint.dialect.body(prompt, decoding)
        return Request(prompt.key, body, guess + prompt.limit(decoding))

    def _answer(self, prompt: Prompt, reply: EndpointReply, decoding: Decoding) -> Answer | Failure:
        if reply.finish == "refused":
            reason = reply.reason or "the endpoint refused to answer"
            return Failure(prompt.key, prompt.instruction, "refused", reason, 1)
        # Servers leave the stop out; one that does not must not change the answer.
        text, stopped = cut(reply.text, decoding.stop)
        parts = split(text, opened=prompt.opens_reasoning and not reply.reasoning)
        return Answer(
            prompt.key,
            prompt.instruction,
            parts.response.strip(),
            reply.usage.n_prompt,
            reply.usage.n_answer,
            "stop" if stopped else reply.finish,
            None if self._rate is None else self._rate.of(reply.usage),
            reply.reasoning or parts.reasoning,
        )
