"""From a registry entry to a model in memory that is asked as the entry says.

The template in use then holds everything that decides a prompt: the form, the system turn, and BOS where the entry
wants one. So whoever asks the model through its chat template asks it right, and the template's hash names the prompt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from alignboard.errors import InputError
from alignboard.models.adapters import needs_own_load, taught_ends
from alignboard.models.arithmetic import Attention
from alignboard.models.ends import ends_of
from alignboard.models.formats import identify
from alignboard.models.hub import base_of_adapter, locate_adapter
from alignboard.models.loading import LoadedModel
from alignboard.models.prompting import (
    bos_fault,
    encode,
    prompt_text,
    require_training_template,
    stop_token_ids,
)
from alignboard.models.spec import ModelSpec
from alignboard.models.templates import with_bos
from alignboard.models.turns import instruction_fault, turn_fault


def load_spec(
    spec: ModelSpec,
    *,
    device: str = "auto",
    attn_implementation: Attention = "auto",
    remote_code: bool = False,
) -> tuple[LoadedModel, str | None]:
    """The model of ``spec``, and the name of its adapter for ``model.using(name)``; None where it has none.

    ``remote_code`` is the user's consent to run the repository's own Python; an entry that needs it is refused
    without. Raises `InputError` for everything that `alignboard models check` calls wrong about prompt, BOS, stop
    tokens, tokenizer, format and adapter.
    """
    model = load_base(
        spec, device=device, attn_implementation=attn_implementation, remote_code=remote_code
    )
    return model, ask_as(model, spec, model.base_chat_template)


def load_base(
    spec: ModelSpec,
    *,
    device: str = "auto",
    attn_implementation: Attention = "auto",
    remote_code: bool = False,
) -> LoadedModel:
    """The base of ``spec``, as it is; see `load_spec`. It serves every entry with the same `base_of`."""
    require_agreed(spec, remote_code=remote_code)
    with base_of_adapter(spec.base, spec.adapter):
        return LoadedModel.load(
            spec.base,
            dtype=spec.dtype,
            quantization=spec.quantization,
            device=device,
            format=spec.format,
            gguf_file=spec.gguf_file,
            revision=spec.revision,
            tokenizer=spec.tokenizer,
            attn_implementation=attn_implementation,
            trust_remote_code=spec.trust_remote_code,
        )


class HeldBase:
    """The base in memory, one at a time: it serves every entry on it, whose adapters are swapped."""

    def __init__(self, *, remote_code: bool = False) -> None:
        self._remote_code = remote_code
        self._held: tuple[Any, LoadedModel, str | None] | None = None

    def holds(self, spec: ModelSpec) -> bool:
        """Whether the base of ``spec`` is in memory."""
        return self._held is not None and self._held[0] == base_of(spec)

    def load(self, spec: ModelSpec) -> tuple[LoadedModel, str | None]:
        """As `load_spec`, from the base that is held; the model is asked as ``spec`` says until another one is."""
        if self._held is None or not self.holds(spec):
            self._held = None  # two bases need not fit
            model = load_base(spec, remote_code=self._remote_code)
            self._held = base_of(spec), model, model.base_chat_template
        _, model, own = self._held
        return model, ask_as(model, spec, own)

    @contextmanager
    def open(self, spec: ModelSpec) -> Iterator[LoadedModel]:
        """The model of ``spec``, asked as it says inside the block."""
        model, adapter = self.load(spec)
        with model.using(adapter):
            yield model


def require_agreed(spec: ModelSpec, *, remote_code: bool) -> None:
    """Raise `InputError` for an entry that cannot be loaded, or that runs code without the user's consent."""
    if spec.unsupported is not None:
        raise InputError(f"{spec.name}: {spec.base} cannot be loaded: {spec.unsupported}.")
    if spec.trust_remote_code and not remote_code:
        raise InputError(
            f"{spec.name} runs Python of its own repository ({spec.base}); read that, then agree to it by a flag."
        )


def base_of(spec: ModelSpec) -> tuple[str | bool | None, ...]:
    """What of ``spec`` decides which weights are loaded, and how: also an adapter that needs a load of its own.

    A folder is the same one by any of its names, and has its own format whether the entry says so or not.
    """
    base, found = spec.base, spec.format
    if Path(base).is_dir():
        base, found = str(Path(base).resolve()), found or _format_of(spec)
    weights = (base, spec.revision, found, spec.gguf_file, spec.tokenizer)
    alone = spec.adapter if spec.adapter is not None and _needs_own_load(spec.adapter) else None
    return (*weights, spec.dtype, spec.quantization, spec.trust_remote_code, alone)


def _format_of(spec: ModelSpec) -> str | None:
    try:
        return identify(Path(spec.base), spec.gguf_file).format
    except InputError:
        return None  # said where it is opened


def _needs_own_load(adapter: str) -> bool:
    try:
        folder = locate_adapter(adapter)
    except InputError:
        return False  # said where it is opened
    return (folder / "adapter_config.json").is_file() and needs_own_load(folder)


def ask_as(model: LoadedModel, spec: ModelSpec, own: str | None) -> str | None:
    """Let a loaded base be asked as ``spec`` says; returns the name of the adapter for ``model.using(name)``.

    ``own`` is the chat template that the base brought. Raises as `load_spec` does.
    """
    if spec.adapter is None:
        stop_token_ids(model.tokenizer, spec.stop_tokens, source=spec.name)
        model.base_chat_template = _template(spec, model, model.tokenizer, own)
        model.tokenizer.chat_template = model.base_chat_template
        return None
    # PEFT makes modules of this name, which may hold neither a dot nor a slash.
    name = f"adapter-{hashlib.blake2b(spec.adapter.encode(), digest_size=8).hexdigest()}"
    adapter = model.add_adapter(name, spec.adapter, any_base=spec.any_base)
    brought = adapter.chat_template
    words = adapter.tokenizer or model.base_tokenizer
    stop_token_ids(words, spec.stop_tokens, source=spec.name)
    template = _template(spec, model, words, own if brought is None else brought, adapter.path)
    model.adapters[name] = replace(adapter, chat_template=template)
    return name


def _template(
    spec: ModelSpec,
    model: LoadedModel,
    tokenizer: Any,
    own: str | None,
    adapter: Path | None = None,
) -> str:
    """The template in use, after the questions that only this tokenizer can answer."""
    template = spec.prompt.jinja(own, spec.base)
    text = prompt_text(tokenizer, template, "a", source=spec.name)
    ids = encode(tokenizer, text, spec.bos)
    fault = bos_fault(tokenizer, ids, spec.bos, template)
    fault = fault or instruction_fault(tokenizer, template)
    if fault is not None:
        raise InputError(f"{spec.name}: {fault}")
    if spec.end_of_turn == "error" and not spec.stop and not model.own_decoding.stop:
        taught = () if adapter is None else taught_ends(adapter)
        configured: Any = model.model.generation_config.eos_token_id
        ends = ends_of(tokenizer, configured, spec.stop_tokens, taught)
        fault = turn_fault(tokenizer, template, ends)
        if fault is not None:
            raise InputError(f"{spec.name}: {fault}")
    if adapter is not None and spec.template_mismatch == "error":
        require_training_template(adapter, tokenizer, template, bos=spec.bos)
    if spec.bos == "never" and encode(tokenizer, text, "auto") != ids:
        raise InputError(
            f"{spec.name}: bos is 'never', but its tokenizer begins every text with BOS; say bos: once."
        )
    return bos_once(spec, tokenizer, template)


def bos_once(spec: ModelSpec, tokenizer: Any, template: str) -> str:
    """``template``, which writes BOS where the entry wants one and neither template nor tokenizer gives it."""
    if spec.bos != "once":
        return template
    text = prompt_text(tokenizer, template, "a", source=spec.name)
    written = tokenizer.encode(text, add_special_tokens=False)[:1] == [tokenizer.bos_token_id]
    return template if written else with_bos(template)
