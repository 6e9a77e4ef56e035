"""Who answers: a model that is loaded here, or one that is served somewhere. Both are asked as the entry says."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from alignboard.errors import InputError
from alignboard.evaluate.engines.endpoint import Endpoint, EndpointEngine
from alignboard.evaluate.engines.limits import Patience
from alignboard.evaluate.engines.openai_format import Api, Dialect
from alignboard.evaluate.engines.rows import Decoding, Prompt
from alignboard.models.opened import Opened, open_small
from alignboard.models.prompting import History, prompt_ids, render, stop_token_ids
from alignboard.models.spec import ModelSpec


class LocalModel:
    """A model in this process; one load for everything that is asked of it."""

    def __init__(self, spec: ModelSpec, *, remote_code: bool = False) -> None:
        from alignboard.evaluate.engines.local import LocalEngine
        from alignboard.models.asked import load_spec

        self._spec = spec
        self._model, adapter = load_spec(spec, remote_code=remote_code)
        self._using = ExitStack()
        self._using.enter_context(self._model.using(adapter))
        self.engine = LocalEngine(self._model)
        self.context = min(self._model.context, spec.context or self._model.context)

    def decoding(self, given: Decoding) -> Decoding:
        """``given``, and the entry's stop tokens as ids of its tokenizer."""
        found = stop_token_ids(
            self._model.tokenizer, self._spec.stop_tokens, source=self._spec.name
        )
        return replace(given, stop_tokens=tuple(sorted(found)))

    def prompts(
        self, instructions: Sequence[str], decoding: Decoding, histories: Sequence[History]
    ) -> list[Prompt]:
        """Raises `InputError` for a prompt that leaves no room for an answer."""
        from alignboard.evaluate.generate import prompts

        found = prompts(self._model, instructions, decoding, histories)
        for number, prompt in enumerate(found, start=1):
            if len(prompt.ids) >= self.context:
                raise InputError(_too_long(self._spec, number, len(prompt.ids), self.context))
        return found

    def fits(self, instruction: str, history: History) -> bool:
        """Whether there is room for an answer."""
        return len(render(self._model, instruction, history=history)) < self.context


@dataclass(frozen=True)
class Served:
    """Where a model is served, as the command line says it."""

    urls: tuple[str, ...]
    api: Api = "completions"
    """``completions`` sends token ids, rendered here as the entry says; ``chat`` leaves the template to the server"""
    name: str | None = None
    """what the server calls it; None = as the entry's base"""
    api_key_env: str | None = None
    concurrency: int = 16
    patience: Patience = field(default_factory=Patience)


class ServedModel:
    """A model behind one OpenAI-compatible endpoint or several."""

    def __init__(self, spec: ModelSpec, served: Served) -> None:
        self._spec = spec
        self._opened: Opened | None = open_small(spec) if served.api == "completions" else None
        dialect = Dialect(
            model=served.name or spec.base, api=served.api, system=_system(spec, served)
        )
        self._endpoint = Endpoint(
            served.urls,
            dialect,
            api_key_env=served.api_key_env,
            concurrency=served.concurrency,
            patience=served.patience,
            weights=spec.revision,
        )
        self.engine = EndpointEngine(self._endpoint)

    def decoding(self, given: Decoding) -> Decoding:
        """``given``, and the entry's stop tokens as texts, which every server understands."""
        return replace(given, stop=tuple(dict.fromkeys((*given.stop, *self._spec.stop_tokens))))

    def prompts(
        self, instructions: Sequence[str], decoding: Decoding, histories: Sequence[History]
    ) -> list[Prompt]:
        """Raises `InputError` for a prompt that leaves no room for an answer, where the context is known."""
        found = self._endpoint.prompts(
            instructions, decoding, None if self._opened is None else self._ids, histories
        )
        for number, prompt in enumerate(found, start=1):
            if self._spec.context is not None and len(prompt.ids) >= self._spec.context:
                wrong = _too_long(self._spec, number, len(prompt.ids), self._spec.context)
                raise InputError(wrong)
        return found

    def fits(self, instruction: str, history: History) -> bool:
        """Whether there is room for an answer, as far as that is known here."""
        if self._opened is None or self._spec.context is None:
            return True
        return len(self._ids(instruction, history)) < self._spec.context

    def _ids(self, instruction: str, history: History = ()) -> list[int]:
        opened: Any = self._opened
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


def _too_long(spec: ModelSpec, number: int, n_tokens: int, context: int) -> str:
    return (
        f"Instruction {number} has {n_tokens} tokens as {spec.name} reads it, which takes {context} in all; "
        "say too_long: skip in its entry to leave such instructions out."
    )
