"""`alignboard models check`: what a checkpoint would read and where its reply would end, and what is wrong with that.

Needs the tokenizer and the configuration only: of a repository of the hub nothing else is downloaded, and no weight is
read. What is *wrong* makes answers of other quality than the model's own; *beware* is right here and a trap elsewhere.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec

from alignboard.errors import InputError
from alignboard.models.checks.opened import Opened, open_small
from alignboard.models.checks.rules import (
    PROBE,
    REFUSED,
    CheckFinding,
    context_of,
    of_adapter,
    of_bos,
    of_checkpoint,
    of_clock,
    of_decoding,
    of_entry,
    of_instruction,
    of_marks,
    of_sizes,
    of_stops,
    of_training,
    of_turn,
)
from alignboard.models.own_decoding import in_words
from alignboard.models.prompting import control_tokens, defused, encode, prompt_text
from alignboard.models.spec import ModelSpec


@dataclass(frozen=True)
class ShownToken:
    """One token of the prompt. ``role`` is BOS, end (it would end a reply), control, or empty."""

    id: int
    text: str
    role: str = ""


@dataclass
class Check:
    """What `check_model` saw."""

    spec: ModelSpec
    prompt: str | None = None
    """the rendered text; None where it could not be rendered"""
    tokens: list[ShownToken] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    findings: list[CheckFinding] = field(default_factory=list)
    opened: Opened | None = None
    """the small files; None where the entry says that it cannot be loaded"""

    @property
    def wrong(self) -> list[CheckFinding]:
        """The findings that have to be mended."""
        return [one for one in self.findings if one.level == "wrong"]

    def require_loadable(self) -> Opened:
        """Raise `InputError` for the first finding that loading would refuse; returns the small files."""
        refused = [one for one in self.wrong if one.kind in REFUSED]
        if refused or self.opened is None:
            why = refused[0].text if refused else f"{self.spec.base} cannot be loaded."
            raise InputError(f"{self.spec.name}: {why}")
        return self.opened

    def to_json(self) -> dict[str, Any]:
        """Everything, for a file."""
        return {
            "model": msgspec.to_builtins(self.spec),
            "prompt": self.prompt,
            "tokens": [asdict(one) for one in self.tokens],
            "facts": self.facts,
            "findings": [asdict(one) for one in self.findings],
        }


def check_model(spec: ModelSpec, instruction: str = PROBE) -> Check:
    """Render ``instruction`` as this model would read it, and judge what there is.

    Raises `InputError` where tokenizer or configuration cannot be had: no such folder, a gated repository without
    access, no network.
    """
    check = Check(spec)
    found = check.findings
    found += of_entry(spec)
    if found:
        return check
    check.opened = opened = open_small(spec)
    found += of_checkpoint(opened)
    ends = opened.ends()
    try:
        check.facts = _facts(opened, ends)
        found += [*of_decoding(opened), *of_stops(opened, ends)]
    except InputError as error:
        found.append(CheckFinding("decoding", "wrong", str(error)))
        return check
    found += [*of_sizes(opened), *of_adapter(opened)]
    try:
        template = spec.prompt.jinja(opened.own_template, spec.base)
        shown = defused(opened.tokenizer, instruction, template)
        check.prompt = prompt_text(opened.tokenizer, template, shown, source=spec.base)
    except InputError as error:
        found.append(CheckFinding("template", "wrong", str(error)))
        return check
    ids = encode(opened.tokenizer, check.prompt, spec.bos)
    check.tokens = _shown(opened.tokenizer, ids, ends, template)
    found += [*of_bos(opened, ids, template), *of_turn(opened, template, ends)]
    found += [*of_instruction(opened, template), *of_marks(opened, template)]
    found += [*of_clock(opened, template), *of_training(opened, template)]
    return check


def _facts(opened: Opened, ends: dict[int, str]) -> dict[str, str]:
    spec, tokenizer = opened.spec, opened.tokenizer
    name = tokenizer.convert_ids_to_tokens
    context = spec.context or context_of(opened.checkpoint.config)
    first = tokenizer.bos_token_id
    own = opened.decoding
    decoding = {"decoding": in_words(own.shaping)} if own.shaping else {}
    if own.sampling:
        decided = "left to the entry and the command, greedy where neither says it"
        decoding["sampling"] = f"{in_words(own.sampling)}: {decided}"
    return {
        "BOS": "none" if first is None else f"{name(first)!r} ({first}), bos: {spec.bos}",
        "ends a reply": ", ".join(
            f"{name(token)!r} ({token}, {who})" for token, who in ends.items()
        )
        or "no token",
        "stop strings": ", ".join(map(repr, (*spec.stop, *own.stop))) or "none",
        **decoding,
        "padding": "none" if tokenizer.pad_token_id is None else repr(tokenizer.pad_token),
        "context": "unknown" if context is None else f"{context} tokens",
        "vocabulary": f"{len(tokenizer)} tokens, embedding {opened.n_embedded or 'unknown'}",
    }


def _shown(tokenizer: Any, ids: list[int], ends: dict[int, str], template: str) -> list[ShownToken]:
    control = control_tokens(tokenizer, template)
    shown = []
    for place, (token, text) in enumerate(
        zip(ids, tokenizer.convert_ids_to_tokens(ids), strict=True)
    ):
        role = "control" if text in control else ""
        if token in ends:
            role = "end"
        if token == tokenizer.bos_token_id and place == 0:
            role = "BOS"
        shown.append(ShownToken(token, text, role))
    return shown
