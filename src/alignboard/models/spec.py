"""What a registry entry declares: ``evaluate/models/<name>.yaml``, validated.

An entry says everything that decides how a released checkpoint is asked: which weights, in which format, with which
prompt, BOS and end of reply, decoded how and on whose word. It is data: nothing here loads a model.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from alignboard.errors import InputError, nearest
from alignboard.models.formats import Format
from alignboard.models.prompting import BosPolicy
from alignboard.models.templates import (
    INSTRUCTION,
    TEMPLATES,
    from_text,
    with_system,
    with_variables,
)
from alignboard.suites import convert, read_yaml

OWN: Final = "own"
_OWN_IF_ANY: Final = "own, if any"
"""no word of an entry: see `unrendered`"""


class PromptFormat(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How an instruction becomes a prompt: one of ``chat``, ``template`` and ``chat_template``."""

    chat: str = OWN
    """``own``: the chat template of the tokenizer, or of the adapter where there is one; otherwise the name of a form
    in `alignboard.models.templates`, such as ``chatml``"""
    template: str | None = None
    """a text with ``{instruction}`` in it, for prompts of one turn"""
    chat_template: str | None = None
    """a Jinja chat template"""
    system: str | None = None
    """the system turn. null: there is none; ``''``: there is one, and it is empty, which is not the same prompt"""
    variables: dict[str, str | bool | int] = {}
    """variables of the chat template, such as ``enable_thinking: false`` or ``date_string: 26 Jul 2024``;
    ``strftime_now`` is what a template that reads the clock gets for it"""

    def jinja(self, own: str | None, source: str) -> str:
        """The chat template that this means, its system turn included.

        ``own`` is the template that the tokenizer brings, or the adapter where there is one. Raises `InputError` where
        it is asked for and there is none; ``source`` names the checkpoint.
        """
        if self.chat_template is not None:
            template = self.chat_template
        elif self.template is not None:
            template = from_text(self.template)
        elif self.chat not in {OWN, _OWN_IF_ANY}:
            template = TEMPLATES[self.chat]
        elif own is not None:
            template = own
        elif self.chat == _OWN_IF_ANY:
            template = from_text(INSTRUCTION)
        else:
            raise InputError(
                f"{source} has no chat template of its own; say prompt: {{chat: NAME}} in its entry, with one of "
                f"{', '.join(TEMPLATES)}, or give a template."
            )
        template = template if self.system is None else with_system(template, self.system)
        return with_variables(template, self.variables)


class Number(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A number and on whose word it stands here."""

    value: float
    source: str
    """a card, a configuration file, a paper"""


class Count(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """As `Number`, for whole numbers."""

    value: int
    source: str


class DecodingDefaults(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How a model decodes unless the user says otherwise; what is null is the command's own default."""

    max_new_tokens: Count | None = None
    temperature: Number | None = None
    """0 is greedy"""
    top_p: Number | None = None
    seed: Count | None = None


class EndpointOptions(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What the body of a request looks like where a server wants it otherwise than most."""

    limit_field: str = "max_tokens"
    """what the server calls the limit of new tokens; OpenAI's models since o1 want ``max_completion_tokens``"""
    omit: list[str] = []
    """fields that the server refuses, such as ``temperature``, ``seed`` or ``stop``"""
    extra: dict[str, Any] = {}
    """more fields of the body"""

    def fault(self) -> str | None:
        """What is wrong with it as a whole, as half a sentence."""
        needed = [
            name for name in (*self.omit, *self.extra) if name in {"model", "messages", "prompt"}
        ]
        if needed:
            return f"endpoint cannot omit or replace {needed[0]}, which every request has"
        if self.limit_field in self.omit:
            return f"endpoint.omit leaves out {self.limit_field}, the limit of new tokens"
        return None


class Notes(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How far each statement of an entry can be trusted; sentences for people."""

    verified: list[str] = []
    """held by a test of ours, or read in a file that is here"""
    from_card: list[str] = []
    """read on the model's page, its configuration or its repository, and not tried"""
    unverified: list[str] = []
    """believed, and neither tried nor read at the source"""


class ModelSpec(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One released checkpoint, and how it is asked."""

    name: str
    """the entry's own name, which is its file's, and the folder of its results"""
    base: str
    """the checkpoint: an id on the hub, or a folder"""
    revision: str | None = None
    """a branch, a tag or a full commit of the hub; null: its main branch"""
    tokenizer: str | None = None
    """where the tokenizer is if not with ``base``, such as for a GGUF file that transformers cannot read"""
    adapter: str | None = None
    """a PEFT adapter on ``base``: an id on the hub, or a folder"""
    format: Format | None = None
    """how the weights lie in the files; null: found out from them. transformers = as that library expects them; gptq;
    gguf; phi-msft = Microsoft's first layout of Phi, converted on loading; phixtral = its mixture of experts"""
    gguf_file: str | None = None
    """which file of the repository, for ``format: gguf``; of a split checkpoint the first part"""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto: float32 on the CPU; on a GPU the checkpoint's own, with bfloat16 in place of float16"""
    quantization: Literal["4bit", "8bit"] | None = None
    """linear layers through bitsandbytes"""
    prompt: PromptFormat = PromptFormat()
    bos: BosPolicy = "auto"
    """how often BOS begins a prompt, counted on ids. auto: once if the tokenizer adds one or the template writes it"""
    stop: list[str] = []
    """strings that end a reply wherever they appear in its text"""
    stop_tokens: list[str] = []
    """tokens, by spelling, that end a reply beside the EOS of tokenizer and generation configuration"""
    context: int | None = None
    """how many tokens prompt and reply may have together; null: as the configuration says"""
    too_long: Literal["error", "skip"] = "error"
    """a prompt that leaves no room for a reply. error: nothing is generated; skip: that instruction is left out and
    reported. None is ever truncated"""
    any_base: bool = False
    """the adapter says that it was trained on another base, and the two are known to have the same weights"""
    template_mismatch: Literal["error", "allow"] = "error"
    """an adapter that was trained with another prompt than it would be asked with"""
    end_of_turn: Literal["error", "allow"] = "error"
    """a template whose end of turn does not end a reply, so that replies run on to their limit"""
    decoding: DecodingDefaults = DecodingDefaults()
    endpoint: EndpointOptions = EndpointOptions()
    """where it is served: how requests are written"""
    licence: str | None = None
    gated: bool = False
    """the hub hands it out only to accounts that have accepted its licence"""
    trust_remote_code: bool = False
    """the checkpoint needs code from its own repository; it is run only if the user agrees by a flag, too"""
    unsupported: str | None = None
    """why this checkpoint cannot be loaded here, if it cannot"""
    notes: Notes = Notes()
    aliases: list[str] = []
    """other names that mean this entry"""


def unrendered(spec: ModelSpec) -> ModelSpec:
    """``spec`` for requests in plain text, for which a base model needs no chat template."""
    prompt = spec.prompt
    if prompt.chat != OWN or prompt.template is not None or prompt.chat_template is not None:
        return spec
    return msgspec.structs.replace(spec, prompt=msgspec.structs.replace(prompt, chat=_OWN_IF_ANY))


def read_spec(path: Path) -> ModelSpec:
    """The entry in a YAML file; raises `InputError` that names the file and the key."""
    try:
        seen = path.stat()
    except OSError as error:
        raise InputError(f"{path} is not readable YAML: {error}.") from error
    return _read_spec(path, (seen.st_dev, seen.st_ino, seen.st_mtime_ns, seen.st_size))


@functools.lru_cache(maxsize=1024)
def _read_spec(path: Path, _state: tuple[int, ...]) -> ModelSpec:
    """The entry in a file of this state: a command looks through all entries for each model that it is given."""
    spec = convert(path, read_yaml(path), ModelSpec, "a model")
    wrong = _fault(spec)
    if spec.name != path.stem:
        wrong = f"name is {spec.name!r}; it must be that of the file, {path.stem!r}"
    if wrong is not None:
        raise InputError(f"{path}: {wrong}.")
    return spec


def _fault(spec: ModelSpec) -> str | None:
    """What is wrong with an entry as a whole, each key being right by itself."""
    if (spec.format == "gguf") != (spec.gguf_file is not None):
        return "gguf_file belongs to format: gguf, and is needed there"
    if spec.quantization is not None and spec.format in {"gptq", "gguf"}:
        return f"quantization is for whole weights, and {spec.format} is quantised already"
    if any(not stop for stop in (*spec.stop, *spec.stop_tokens)):
        return "stop and stop_tokens must not hold an empty text"
    return _prompt_fault(spec.prompt) or _number_fault(spec) or spec.endpoint.fault()


def _prompt_fault(prompt: PromptFormat) -> str | None:
    chosen = [prompt.chat != OWN, prompt.template is not None, prompt.chat_template is not None]
    if sum(chosen) > 1:
        return "prompt takes one of chat, template and chat_template"
    if prompt.chat not in {OWN, *TEMPLATES}:
        hint = nearest(prompt.chat, TEMPLATES)
        return f"prompt.chat is {prompt.chat!r}{hint} (known: own, {', '.join(TEMPLATES)})"
    if prompt.template is not None and prompt.template.count(INSTRUCTION) != 1:
        return f"prompt.template needs {INSTRUCTION} once"
    odd = [name for name in prompt.variables if not name.isidentifier()]
    if odd:
        return f"prompt.variables has {odd[0]!r}, which is no name of a variable"
    if prompt.template is not None and prompt.system is not None:
        return "prompt.system has no place in a prompt.template; write it into the text"
    return None


def _number_fault(spec: ModelSpec) -> str | None:
    if spec.context is not None and spec.context <= 0:
        return f"context is {spec.context}; a number of tokens was expected"
    decoding = spec.decoding
    if decoding.max_new_tokens is not None and decoding.max_new_tokens.value <= 0:
        return "decoding.max_new_tokens must be above 0"
    if decoding.temperature is not None and decoding.temperature.value < 0:
        return "decoding.temperature must not be negative"
    if decoding.top_p is not None and not 0 < decoding.top_p.value <= 1:
        return "decoding.top_p must be above 0 and at most 1"
    return None
