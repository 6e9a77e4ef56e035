"""lm-eval's model class of a served model: tokens as lm-eval makes them, posted to an OpenAI-compatible endpoint.

What this module promises
    Requests go out as `engines.openai.requesting` sends them: its limits, its retries, its one sentence. The form of
    log-probabilities (`benchmarks.prompt_logprobs`) is found out by one short request of each before the first
    document. A result is committed as its reply comes. The base of an adapter is asked the first requests, too, so
    that an adapter that the server does not apply is found.
What it never does
    Take a request without a reply for a wrong answer: the run ends, and the next one asks what is missing.

Heavy: imports torch, transformers and lm-eval.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs

from alignboard.benchmarks.journaled import JournaledLM, Tokens, answer_of, stops_of
from alignboard.benchmarks.prompt_logprobs import FORMS, Form, LogProb
from alignboard.benchmarks.request_rows import RequestRows
from alignboard.engines.generate import library_versions
from alignboard.engines.openai.format import (
    UnreadableError,
    read_body,
    read_reply,
    read_usage,
)
from alignboard.engines.openai.requesting import Requester
from alignboard.engines.openai.requests import FailedRequest, Request
from alignboard.engines.openai.served import Endpoint
from alignboard.engines.rows import Decoding, Prompt
from alignboard.errors import InputError, SourceError

_SEED: Final = 1234
"""lm-eval's own for endpoints"""
_OWN: Final = frozenset({"until", "max_gen_toks", "do_sample", "temperature", "top_p"})
"""of lm-eval's generation arguments, those that `Decoding` holds"""


class ServedLM(JournaledLM):
    """A model behind an endpoint."""

    _rolling_at_once = 64

    def __init__(self, settings: BenchmarkedEndpoint, rows: RequestRows) -> None:
        # Not HFLM's own, which loads weights.
        TemplateLM.__init__(self)
        self._settings, self._rows = settings, rows
        self.tokenizer = settings.tokenizer
        self.backend = "causal"
        self.add_bos_token = self.custom_prefix_token_id = self.enable_thinking = None
        self.chat_template_args: dict[str, Any] = {}
        self.batch_sizes: dict[int, int] = {}
        self.batch_size_per_gpu = 1024  # windows of a perplexity task that are under way together
        # One token is generated, and the last one scored is part of the prompt.
        self._max_length = settings.context - 2
        self._rank, self._world_size = 0, 1
        self._form: Form | None = None
        self._adapter_tried = settings.base is None

    @property
    def tokenizer_name(self) -> str:
        """See lm-eval's."""
        return self._settings.name

    def get_model_info(self) -> dict[str, Any]:
        """See lm-eval's: nothing is known of weights here."""
        return {}

    def stamp(self) -> dict[str, Any]:
        """See `JournaledLM`."""
        passes = "endpoint" if self._form is None else f"endpoint ({self._form.name})"
        found = super().stamp() | {"passes": passes}
        if self._settings.base is not None and self.adapter_moved is None:
            found["adapter_untried"] = True
        return found

    def apply_chat_template(
        self,
        chat_history: list[dict[str, str]],
        add_generation_prompt: bool = True,  # noqa: FBT001, FBT002 - lm-eval's signature
    ) -> str:
        """See lm-eval's; messages that the server renders travel as JSON."""
        if self.tokenizer is None:
            return json.dumps(chat_history)
        return super().apply_chat_template(chat_history, add_generation_prompt)

    # Log-likelihoods.

    def _loglikelihood_tokens(
        self, requests: Sequence[Tokens], **_how: Any
    ) -> list[tuple[float, bool]]:
        """See lm-eval's."""
        self._note_cuts(requests)
        self._try_adapter(requests)
        found: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        for index, result in self._scores(requests):
            found[index] = result
            texts = requests[index][0]
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, result)
        return found

    def _scores(
        self, requests: Sequence[Tokens], model: str | None = None
    ) -> Iterator[tuple[int, LogProb]]:
        """The result of every request as soon as it is there; raises `SourceError` where one has none."""
        texts = [self._read(one) for one in requests]
        if self._form is None and texts:
            self._form = self._found_form(texts[0][0][-8:])
        form, name = self._form, model or self._settings.endpoint.dialect.model
        asked: list[Request] = []
        left: list[int] = []
        for index, (ids, targets) in enumerate(texts):
            assert form is not None  # noqa: S101 - set above
            parts = form.requests(ids, len(targets))
            left.append(len(parts))
            asked += [self._request(name, f"{index} {k}", part) for k, part in enumerate(parts)]
        sums: dict[int, LogProb] = {}
        failures: list[str] = []
        for request, reply in self._bodies(asked):
            index = int(request.key.partition(" ")[0])
            try:
                assert form is not None  # noqa: S101 - as above
                logprob, greedy = _read(form, request, reply, len(texts[index][1]))
            except UnreadableError as error:
                failures.append(str(error))
                continue
            before = sums.get(index, (0.0, True))
            sums[index] = before[0] + logprob, before[1] and greedy
            left[index] -= 1
            if not left[index]:
                yield index, sums[index]
        self._require_whole(failures, len(asked))

    def _request(self, model: str, key: str, fields: dict[str, Any]) -> Request:
        dialect = self._settings.endpoint.dialect
        body = {"model": model, **fields, **dialect.extra}
        kept = {name: body[name] for name in body if name not in dialect.omit}
        return Request(key, kept, len(fields["prompt"]) + 1)

    def _bodies(
        self, asked: Sequence[Request]
    ) -> Iterator[tuple[Request, dict[str, Any] | FailedRequest]]:
        endpoint = self._settings.endpoint
        requester = Requester(
            endpoint, "completions", read_body, lambda body: read_usage(body.get("usage"))
        )
        for request, found in requester.replies(asked):
            yield request, found if isinstance(found, FailedRequest) else found.reply

    def _found_form(self, ids: Sequence[int]) -> Form:
        """The first form that the server answers; raises `InputError` where it has none."""
        said: list[str] = []
        for form in FORMS:
            request = self._request(
                self._settings.endpoint.dialect.model, "form", form.requests(ids, 1)[0]
            )
            try:
                ((_, reply),) = self._bodies([request])
                _read(form, request, reply, 1)
            except UnreadableError as error:
                said.append(f"{form.name}: {error}")
            except SourceError as error:
                if not any(field in str(error) for field in form.fields):
                    raise
                said.append(f"{form.name}: {str(error).rstrip('.')}")
            else:
                return form
        raise InputError(
            f"{self._settings.endpoint.urls[0]} gives no log-probabilities of given tokens, which tasks of choices and "
            f"perplexity need ({'; '.join(said)}); leave those tasks out, or serve {self._settings.name} by vLLM, "
            "SGLang or llama.cpp."
        )

    def _moved(self, some: Sequence[Tokens]) -> float | None:
        """See `JournaledLM`; None also where the base cannot be asked here."""
        if not some or self.tokenizer is None:
            return None
        with_adapter = dict(self._scores(some))
        try:
            without = dict(self._scores(some, self._settings.base))
        except SourceError:
            return None
        return max(abs(with_adapter[k][0] - without[k][0]) for k in with_adapter)

    def _require_whole(self, failures: Sequence[str], n: int) -> None:
        if failures:
            raise SourceError(
                f"{self._settings.name}: {len(failures)} of {n} requests have no usable reply, the first: "
                f"{failures[0]}; run it again to ask for those."
            )

    # Generations.

    def _generate(self, requests: list[Any]) -> None:
        if self.tokenizer is not None:
            self._counted(requests)
        endpoint = self._settings.endpoint
        read = partial(read_reply, api=endpoint.dialect.api)
        path = "chat/completions" if endpoint.dialect.api == "chat" else "completions"
        requester = Requester(endpoint, path, read, lambda reply: reply.usage)
        seeds: dict[str, int] = {}
        asked = []
        for number, one in enumerate(requests):
            text = json.dumps(one.args, sort_keys=True)
            seeds[text] = seeds.get(text, _SEED - 1) + 1  # a repeat is another draw
            context, given = one.args
            asked.append(self._generation(str(number), context, given, seeds[text]))
        failures: list[str] = []
        for request, found in requester.replies(asked):
            arguments = requests[int(request.key)].args
            if isinstance(found, FailedRequest):
                failures.append(found.reason)
                continue
            reply = "" if found.reply.finish == "refused" else found.reply.text
            text = answer_of(reply, *arguments)
            self.cache_hook.add_partial("generate_until", arguments, text)
        self._require_whole(failures, len(asked))

    def _generate_answers(self, requests: list[Any]) -> None:
        """See `JournaledLM`: stop texts are not sent, and reasoning is removed from every reply."""
        self._generate(requests)

    def _generation(self, key: str, context: str, given: dict[str, Any], seed: int) -> Request:
        kwargs: dict[str, Any] = dict(normalize_gen_kwargs(given, self.max_gen_toks))
        limit = kwargs["max_gen_toks"]
        decoding = Decoding(
            max_new_tokens=limit,
            temperature=kwargs.get("temperature") or 0.0,
            top_p=kwargs.get("top_p") or 1.0,
            seed=seed,
            stop=() if self._thinks(context) else stops_of(given),
        )
        dialect = self._settings.endpoint.dialect
        extra = {name: value for name, value in kwargs.items() if name not in _OWN}
        dialect = replace(dialect, extra={**extra, **dialect.extra})
        ids: tuple[int, ...] = ()
        if self.tokenizer is not None:
            ids = tuple(self.tok_encode(context, left_truncate_len=self._settings.context - limit))
        body = dialect.body(Prompt(context, ids, key), decoding)
        if self.tokenizer is None:
            body["messages"] = json.loads(context)
        return Request(key, body, (len(ids) or len(context) // 4) + limit)


def _read(form: Form, request: Request, reply: dict[str, Any] | FailedRequest, n: int) -> LogProb:
    """What a reply says; raises `UnreadableError`."""
    if isinstance(reply, FailedRequest):
        raise UnreadableError(reply.reason)
    return form.read(reply, request.body, n)


@dataclass(frozen=True)
class BenchmarkedEndpoint:
    """A model behind an endpoint."""

    name: str
    endpoint: Endpoint
    context: int
    """tokens of prompt and generation together"""
    tokenizer: Any
    """with the chat template in use; None where the server renders messages"""
    base: str | None
    """what the server calls the base of its adapter; None where it has none"""

    @property
    def template_hash(self) -> str | None:
        """See `alignboard.benchmarks.run.Subject`."""
        template = getattr(self.tokenizer, "chat_template", None)
        return template and hashlib.sha256(template.encode()).hexdigest()

    def lm(self, rows: RequestRows) -> ServedLM:
        """See `alignboard.benchmarks.run.Subject`."""
        return ServedLM(self, rows)

    def identity(self) -> dict[str, Any]:
        """See `alignboard.benchmarks.run.Subject`."""
        endpoint = self.endpoint
        return {
            "scheme": "benchmark-served-1",
            "weights": endpoint.weights or sorted(url.rstrip("/") for url in endpoint.urls),
            "dialect": endpoint.dialect.identity(),
            "context": self.context,
        }

    def arguments(self) -> dict[str, str]:
        """See `alignboard.benchmarks.run.Subject`."""
        return {"model": self.endpoint.dialect.model, "base_url": ",".join(self.endpoint.urls)}

    def provenance(self) -> dict[str, Any]:
        """What is known of a model that somebody else holds: where, under which name, and what the user says it is."""
        return {
            "served_at": list(self.endpoint.urls),
            "served_as": self.endpoint.dialect.model,
            "weights": self.endpoint.weights,
            "libraries": library_versions("lm_eval"),
        }
