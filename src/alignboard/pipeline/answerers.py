"""Who answers: a model that is loaded here, or one that is served somewhere. Both are asked as the entry says."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from alignboard.engines.openai.endpoint import EndpointEngine
from alignboard.engines.openai.format import Api, Dialect
from alignboard.engines.openai.prices import Rate, load_prices
from alignboard.engines.openai.served import Endpoint, Limits, read_key
from alignboard.engines.rows import Decoding, Prompt
from alignboard.errors import InputError
from alignboard.models.asked import bos_once
from alignboard.models.checks.opened import Opened, open_small
from alignboard.models.checks.rules import context_of
from alignboard.models.own_decoding import OwnDecoding
from alignboard.models.prompting import History, opens_reasoning, prompt_ids, render, stop_token_ids
from alignboard.models.spec import ModelSpec

if TYPE_CHECKING:
    from alignboard.benchmarks.lm import BenchmarkedModel
    from alignboard.benchmarks.served_lm import BenchmarkedEndpoint
    from alignboard.models.loading import LoadedModel


class LocalModels:
    """The models of this process: one load of a base serves every entry on it, their adapters swapped.

    One base is held at a time; ask entries of one base one after the other.
    """

    def __init__(self, *, remote_code: bool = False) -> None:
        from alignboard.models.asked import HeldBase

        self.base = HeldBase(remote_code=remote_code)

    @contextmanager
    def open(self, spec: ModelSpec) -> Iterator[LocalModel]:
        """``spec``, ready to answer inside the block."""
        with self.base.open(spec) as model:
            yield LocalModel(spec, model)


class LocalModel:
    """An entry on a loaded base, whose adapter is in use; make one with `LocalModels.open`."""

    def __init__(self, spec: ModelSpec, model: LoadedModel) -> None:
        from alignboard.engines.local.engine import LocalEngine

        self._spec, self.loaded = spec, model
        self.engine = LocalEngine(self.loaded)
        self.context = min(self.loaded.context, spec.context or self.loaded.context)

    def decoding(self, given: Decoding) -> Decoding:
        """``given``, and the entry's stop tokens as ids of its tokenizer."""
        found = stop_token_ids(
            self.loaded.tokenizer, self._spec.stop_tokens, source=self._spec.name
        )
        return replace(given, stop_tokens=tuple(sorted(found)))

    @property
    def own_decoding(self) -> OwnDecoding:
        """What the model's files say of decoding."""
        return self.loaded.own_decoding

    def prompts(
        self, instructions: Sequence[str], decoding: Decoding, histories: Sequence[History]
    ) -> list[Prompt]:
        """Raises `InputError` for a prompt that leaves no room for an answer."""
        from alignboard.engines.generate import prompts

        found = prompts(self.loaded, instructions, decoding, histories)
        for number, prompt in enumerate(found, start=1):
            if len(prompt.ids) >= self.context:
                raise InputError(too_long(self._spec, number, len(prompt.ids), self.context))
        return found

    def subject(self) -> BenchmarkedModel:
        """What benchmarks are run on."""
        from alignboard.benchmarks.lm import BenchmarkedModel

        return BenchmarkedModel(self.loaded)

    def fits(self, instruction: str, history: History) -> bool:
        """Whether there is room for an answer."""
        return len(render(self.loaded, instruction, history=history)) < self.context


@dataclass(frozen=True)
class Served:
    """Where a model is served, as the command line says it."""

    urls: tuple[str, ...]
    api: Api = "completions"
    """``completions`` sends token ids, rendered here as the entry says; ``chat`` leaves the template to the server"""
    name: str | None = None
    """what the server calls it; None = as the entry's base"""
    api_key_env: str | None = None
    limits: Limits = field(default_factory=Limits)
    rate: Rate | None = None
    """what is paid; None = as `load_prices` says, where it knows the model"""
    base: str | None = None
    """what the server calls the base of its adapter, where it has one"""

    def require_key(self) -> None:
        """Raise `InputError` where a key is named and not set."""
        read_key(self.api_key_env)

    def called(self, spec: ModelSpec) -> str:
        """What the server calls the model of ``spec``."""
        return self.name or spec.base

    def identity(self, spec: ModelSpec) -> dict[str, Any]:
        """What a job's key says of it."""
        return {"urls": sorted(self.urls), "api": self.api, "as": self.called(spec)}

    def rate_of(self, spec: ModelSpec) -> Rate | None:
        """What ``spec`` costs here; None where nobody says."""
        return self.rate or load_prices().of(self.called(spec), urls=self.urls)

    def retirement(self, spec: ModelSpec) -> str | None:
        """Half a sentence where the model has been, or will soon be, switched off."""
        return load_prices().retirement(self.called(spec), dt.datetime.now(dt.UTC).date())


class ServedModel:
    """A model behind one OpenAI-compatible endpoint or several."""

    def __init__(self, spec: ModelSpec, served: Served) -> None:
        self._spec, self._served = spec, served
        self.opened: Opened | None = open_small(spec) if served.api == "completions" else None
        """the small files, where prompts are rendered here"""
        given = spec.endpoint
        dialect = Dialect(
            model=served.called(spec),
            api=served.api,
            system=_system(spec, served),
            limit_field=given.limit_field,
            omit=tuple(given.omit),
            extra=given.extra,
        )
        self._endpoint = Endpoint(
            served.urls,
            dialect,
            api_key_env=served.api_key_env,
            limits=served.limits,
            weights=spec.revision,
        )
        self.engine = EndpointEngine(self._endpoint, served.rate_of(spec))

    def decoding(self, given: Decoding) -> Decoding:
        """``given``, with stop tokens of the entry and stop texts of the model's files, which every server takes."""
        own = () if self.opened is None else self.opened.decoding.stop
        stops = (*given.stop, *self._spec.stop_tokens, *own)
        return replace(given, stop=tuple(dict.fromkeys(stops)))

    @property
    def own_decoding(self) -> OwnDecoding:
        """Nothing: what a model's files say of decoding is for its server to follow."""
        return OwnDecoding()

    def prompts(
        self, instructions: Sequence[str], decoding: Decoding, histories: Sequence[History]
    ) -> list[Prompt]:
        """Raises `InputError` for a prompt that leaves no room for an answer, where the context is known."""
        found = self._endpoint.prompts(
            instructions, decoding, None if self.opened is None else self._ids, histories
        )
        for number, prompt in enumerate(found, start=1):
            if self._spec.context is not None and len(prompt.ids) >= self._spec.context:
                wrong = too_long(self._spec, number, len(prompt.ids), self._spec.context)
                raise InputError(wrong)
        if self.opened is None:
            return found
        tokenizer = self.opened.tokenizer
        return [replace(one, opens_reasoning=opens_reasoning(tokenizer, one.ids)) for one in found]

    def subject(self) -> BenchmarkedEndpoint:
        """What benchmarks are run on. Raises `InputError` where nothing says how long a context may be."""
        from alignboard.benchmarks.served_lm import BenchmarkedEndpoint

        spec, opened = self._spec, self.opened
        context, tokenizer = spec.context, None
        if opened is not None:
            known = (context, context_of(opened.checkpoint.config))
            context = min((one for one in known if one is not None), default=None)
            tokenizer = opened.tokenizer
            template = spec.prompt.jinja(opened.own_template, spec.base)
            tokenizer.chat_template = bos_once(spec, tokenizer, template)
            if context is None:
                raise InputError(
                    f"{spec.name}: neither the entry nor config.json says how long a context may be; say context: in "
                    "the entry."
                )
        return BenchmarkedEndpoint(
            spec.name, self._endpoint, context or 2**31, tokenizer, self._served.base
        )

    def fits(self, instruction: str, history: History) -> bool:
        """Whether there is room for an answer, as far as that is known here."""
        if self.opened is None or self._spec.context is None:
            return True
        return len(self._ids(instruction, history)) < self._spec.context

    def _ids(self, instruction: str, history: History = ()) -> list[int]:
        opened: Any = self.opened
        return rendered(opened, instruction, history)


def rendered(opened: Opened, instruction: str, history: History = ()) -> list[int]:
    """The token ids of a prompt, from a checkpoint's small files."""
    spec = opened.spec
    template = spec.prompt.jinja(opened.own_template, spec.base)
    return prompt_ids(
        opened.tokenizer, template, instruction, bos=spec.bos, source=spec.name, history=history
    )


def _system(spec: ModelSpec, served: Served) -> str | None:
    return spec.prompt.system if served.api == "chat" else None


def too_long(spec: ModelSpec, number: int, n_tokens: int, context: int) -> str:
    """What is said of a prompt that leaves no room for a response."""
    return (
        f"Instruction {number} has {n_tokens} tokens as {spec.name} reads it, which takes {context} in all; "
        "say too_long: skip in its entry to leave such instructions out."
    )
