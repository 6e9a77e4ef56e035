"""What is wrong with how a checkpoint would be asked, rule by rule; `report` puts them together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from alignboard.errors import InputError
from alignboard.models.adapters import require_same_base
from alignboard.models.checks.opened import Opened
from alignboard.models.formats import not_generating, text_config
from alignboard.models.hub import is_repository
from alignboard.models.identity import fingerprint
from alignboard.models.own_decoding import in_words, not_followed
from alignboard.models.prompting import (
    adds_bos,
    bos_fault,
    control_tokens,
    require_training_template,
    stop_token_ids,
)
from alignboard.models.spec import ModelSpec
from alignboard.models.turns import (
    instruction_fault,
    reads_the_clock,
    start_fault,
    turn_fault,
    unread_marks,
)
from alignboard.results.files import read_json_object

PROBE: Final = "What is the capital of France?"
_REPLY: Final = "Paris"
_SHOWN: Final = 4
"""marks that a finding names"""
REFUSED: Final = frozenset(
    {
        *("unsupported", "format", "architecture", "template", "bos", "stop-token", "end-of-turn"),
        *("vocabulary", "adapter", "training-template", "decoding"),
    }
)
"""kinds of findings that loading refuses where they are wrong; the others make worse responses"""


@dataclass(frozen=True)
class CheckFinding:
    """One thing that is wrong, or that others have stumbled over."""

    kind: str
    level: Literal["wrong", "beware"]
    text: str


def of_entry(spec: ModelSpec) -> Iterator[CheckFinding]:
    """An entry may say itself that it cannot be loaded."""
    if spec.unsupported is not None:
        yield CheckFinding(
            "unsupported", "wrong", f"{spec.base} cannot be loaded: {spec.unsupported}."
        )


def of_checkpoint(opened: Opened) -> Iterator[CheckFinding]:
    """The files are of the format that the entry says, and of an architecture that can be loaded."""
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    )

    spec, checkpoint = opened.spec, opened.checkpoint
    if spec.format not in {None, checkpoint.format}:
        text = f"format is {spec.format!r}, but the files are {checkpoint.format!r}; say so in the entry."
        yield CheckFinding("format", "wrong", text)
    kind = checkpoint.config.get("model_type")
    if (other := not_generating(checkpoint.config)) is not None:
        text = f"config.json says that it is a {other}, which is no causal language model; mend architectures if it is."
        yield CheckFinding("architecture", "wrong", text)
    elif (
        checkpoint.format in {"transformers", "gptq"}
        and kind not in CONFIG_MAPPING
        and not spec.trust_remote_code
    ):
        text = f"config.json says model_type {kind!r}, which transformers does not have."
        yield CheckFinding("architecture", "wrong", text)
    elif checkpoint.format == "transformers" and not (
        spec.trust_remote_code
        or kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        or (
            kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
            and not checkpoint.config.get("is_encoder_decoder")
        )
    ):
        text = f"config.json says model_type {kind!r}, which is no causal language model."
        yield CheckFinding("architecture", "wrong", text)


def of_bos(opened: Opened, ids: list[int], template: str) -> Iterator[CheckFinding]:
    """BOS is there as often as the policy says, and the policy is what the tokenizer expects."""
    spec, tokenizer = opened.spec, opened.tokenizer
    fault = bos_fault(tokenizer, ids, spec.bos, template)
    if fault is not None:
        yield CheckFinding("bos", "wrong", fault)
    first = tokenizer.bos_token_id
    if spec.bos == "never" and first is not None and adds_bos(tokenizer):
        text = "the tokenizer begins every text with BOS, and the prompt has none; say bos: once."
        yield CheckFinding("bos", "wrong", text)
    stated = _states_bos(tokenizer) if first is not None and spec.bos == "auto" else None
    written = "bos_token" in template or str(tokenizer.bos_token) in template
    if stated is not None and not written and stated != adds_bos(tokenizer):
        does, way = ("puts none", "once") if stated else ("puts BOS", "never")
        text = (
            f"tokenizer_config.json says add_bos_token: {str(stated).lower()}, but tokenizer.json {does} before texts, "
            f"which is followed; where the model was trained otherwise, say bos: {way}."
        )
        yield CheckFinding("bos-stated", "beware", text)
    if first is not None and first == tokenizer.eos_token_id:
        text = f"BOS and EOS are one token ({tokenizer.eos_token!r}): a second BOS reads as the end of a text."
        yield CheckFinding("bos-is-eos", "beware", text)


def _states_bos(tokenizer: Any) -> bool | None:
    """What the folder of ``tokenizer`` says of BOS, which transformers reads only where there is no tokenizer.json."""
    file = Path(str(tokenizer.name_or_path)) / "tokenizer_config.json"
    stated = read_json_object(file).get("add_bos_token") if file.is_file() else None
    return stated if isinstance(stated, bool) else None


def of_decoding(opened: Opened) -> Iterator[CheckFinding]:
    """What the generation configuration says is followed, left to entry and command, or neither."""
    own = opened.decoding
    if own.shaping:
        text = (
            f"its generation configuration says {in_words(own.shaping)}, which is followed here as transformers does "
            "it; a server of it may not."
        )
        yield CheckFinding("decoding", "beware", text)
    if own.otherwise:
        yield CheckFinding("decoding", "beware", not_followed(own))


def of_stops(opened: Opened, ends: dict[int, str]) -> Iterator[CheckFinding]:
    """Something ends a reply, and each stop can be found in one."""
    spec, tokenizer = opened.spec, opened.tokenizer
    if not ends and not spec.stop and not opened.decoding.stop:
        text = (
            "no token and no string is known to end a reply: every answer would run to its limit."
        )
        yield CheckFinding("eos", "wrong", text)
    for spelling in spec.stop_tokens:
        try:
            stop_token_ids(tokenizer, [spelling], source=spec.name)
        except InputError as error:
            yield CheckFinding("stop-token", "wrong", str(error))
    control = control_tokens(tokenizer)
    for stop in spec.stop:
        alone = tokenizer.encode(stop, add_special_tokens=False)
        inside = tokenizer.encode(_REPLY + stop, add_special_tokens=False)
        if stop in control:
            text = f"stop has {stop!r}, a special token, which decoding leaves out; give it under stop_tokens."
            yield CheckFinding("stop", "wrong", text)
        elif inside[-len(alone) :] != alone:
            text = f"the stop string {stop!r} has other tokens inside a text than alone: look for its text."
            yield CheckFinding("stop", "beware", text)
    pad, eos = tokenizer.pad_token_id, tokenizer.eos_token_id
    if pad is None or pad == eos:
        what = "there is no pad token" if pad is None else "the pad token is EOS"
        text = f"{what}: training code that masks padding by token never teaches the model to stop."
        yield CheckFinding("pad", "beware", text)


def of_turn(opened: Opened, template: str, ends: dict[int, str]) -> Iterator[CheckFinding]:
    """What the template writes after a reply: if it is a token, then that is what the model has learnt to end with."""
    fault = turn_fault(opened.tokenizer, template, ends)
    if fault is not None:
        spec = opened.spec
        stops = spec.stop or opened.decoding.stop
        level = "beware" if spec.end_of_turn == "allow" or stops else "wrong"
        yield CheckFinding("end-of-turn", level, fault)


def of_instruction(opened: Opened, template: str) -> Iterator[CheckFinding]:
    """The prompt holds the instruction, and ends where a reply begins."""
    fault = instruction_fault(opened.tokenizer, template)
    if fault is not None:
        yield CheckFinding("template", "wrong", fault)
        return
    fault = start_fault(opened.tokenizer, template)
    if fault is not None:
        yield CheckFinding("generation-prompt", "beware", fault)


def of_marks(opened: Opened, template: str) -> Iterator[CheckFinding]:
    """The template and the tokenizer belong together: what one writes for a token the other reads as one."""
    marks = unread_marks(opened.tokenizer, template)
    if marks:
        text = (
            f"the template writes {', '.join(map(repr, marks[:_SHOWN]))}, which the tokenizer reads as letters: right "
            "only where the model was trained so; if not, give the tokenizer that belongs to the template."
        )
        yield CheckFinding("marks", "beware", text)


def of_clock(opened: Opened, template: str) -> Iterator[CheckFinding]:
    """A prompt that holds today's date is another one tomorrow, and so are the responses."""
    if reads_the_clock(opened.tokenizer, template):
        text = (
            "the template writes the date of the day, so the same instruction is generated anew on another day; set it "
            "in the entry, as prompt: {variables: {strftime_now: 26 Jul 2024}}."
        )
        yield CheckFinding("clock", "beware", text)


def of_sizes(opened: Opened) -> Iterator[CheckFinding]:
    """The context is known, and every token has an embedding."""
    spec, config = opened.spec, opened.checkpoint.config
    known = context_of(config)
    if spec.context is None and known is None:
        text = "neither the entry nor config.json says how long a context may be; say context: in the entry."
        yield CheckFinding("context", "wrong", text)
    if spec.context is not None and known is not None and spec.context > known:
        text = f"context is {spec.context}, but config.json says {known}."
        yield CheckFinding("context", "wrong", text)
    size, n_tokens = opened.n_embedded, len(opened.tokenizer)
    if size is not None and n_tokens > size:
        text = f"the tokenizer has {n_tokens} tokens, but the model only {size}; give the tokenizer that belongs to it."
        yield CheckFinding("vocabulary", "wrong", text)


def of_adapter(opened: Opened) -> Iterator[CheckFinding]:
    """An adapter stands on the base that it was trained on."""
    adapter, spec = opened.adapter, opened.spec
    if adapter is None:
        return
    config = msgspec.json.decode((adapter / "adapter_config.json").read_bytes())
    trained_on = str(config.get("base_model_name_or_path"))
    if not opened.here and not is_repository(trained_on):
        text = f"the adapter says it was trained on {trained_on}; whether that is {spec.base} cannot be known."
        yield CheckFinding("adapter", "beware", text)
        return
    digest = fingerprint(opened.checkpoint.path) if opened.here else ""
    if spec.any_base:
        return
    try:
        require_same_base(adapter, opened.checkpoint.path, spec.base, digest)
    except InputError as error:
        yield CheckFinding("adapter", "wrong", str(error))


def of_training(opened: Opened, template: str) -> Iterator[CheckFinding]:
    """An adapter is asked as it was trained."""
    if opened.adapter is None:
        return
    try:
        require_training_template(opened.adapter, opened.tokenizer, template, bos=opened.spec.bos)
    except InputError as error:
        level = "beware" if opened.spec.template_mismatch == "allow" else "wrong"
        yield CheckFinding("training-template", level, str(error))


def context_of(config: Mapping[str, Any]) -> int | None:
    """How many tokens a configuration says the model was made for."""
    own = text_config(config)
    found = own.get("max_position_embeddings", own.get("n_positions"))
    return found if isinstance(found, int) else None
