"""The registry and its checks as text for a terminal, and as the table of `docs/models.md`."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from typing import Final

import msgspec

from alignboard.guarded_yaml import to_yaml
from alignboard.models.checks.report import Check, ShownToken
from alignboard.models.spec import ModelSpec, PromptFormat
from alignboard.text import table

FOUND_OUT: Final = "as found"
"""the format of an entry that leaves it open"""


def models_table(specs: Sequence[ModelSpec]) -> str:
    """One line per entry: name, checkpoint, format, prompt."""
    columns = ("name", "checkpoint", "format", "prompt", "remarks")
    return table(columns, list(map(_row, specs)), left=range(len(columns)))


def _row(spec: ModelSpec) -> tuple[str, str, str, str, str]:
    marks = [
        *(["gated"] if spec.gated else []),
        *(["unsupported"] if spec.unsupported is not None else []),
    ]
    return (
        spec.name,
        spec.base,
        spec.format or FOUND_OUT,
        prompt_name(spec.prompt),
        ", ".join(marks),
    )


def prompt_name(prompt: PromptFormat) -> str:
    """A prompt in a word or two."""
    form = prompt.chat
    if prompt.template is not None:
        form = f"text {prompt.template!r}"
    elif prompt.chat_template is not None:
        form = "Jinja"
    if prompt.system is None:
        return form
    return f"{form}, {'a' if prompt.system else 'an empty'} system turn"


def model_text(spec: ModelSpec) -> str:
    """An entry as YAML: what is not the default, in the order of its fields."""
    default = msgspec.to_builtins(ModelSpec(name=spec.name, base=spec.base))
    content = {
        key: value
        for key, value in msgspec.to_builtins(spec).items()
        if key in {"name", "base"} or value != default[key]
    }
    return to_yaml(_pruned(content)).rstrip()


def _pruned(value: object) -> object:
    """Without keys that say nothing."""
    if not isinstance(value, dict):
        return value
    return {key: _pruned(inner) for key, inner in value.items() if inner not in (None, [], {})}


def check_text(check: Check) -> str:
    """What a check saw: the tokens, what begins and ends, and what is wrong."""
    spec, width = check.spec, shutil.get_terminal_size((100, 24)).columns
    lines = [
        f"{spec.name}: {spec.base} ({spec.format or FOUND_OUT}), prompt {prompt_name(spec.prompt)}",
        "",
    ]
    if check.tokens:
        lines.append(f"{len(check.tokens)} tokens:")
        shown = " ".join(map(_token, check.tokens))
        lines += textwrap.wrap(
            shown, width, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
        )
        lines.append("")
    lines += [f"{name:<13} {fact}" for name, fact in check.facts.items()]
    if check.findings:
        lines.append("")
    lines += [f"{finding.level.upper():<7} {finding.text}" for finding in check.findings]
    if not check.wrong:
        lines += ["", "Nothing is wrong."]
    return "\n".join(lines)


def _token(token: ShownToken) -> str:
    text = repr(token.text)[1:-1]
    return f"[{token.role} {text} {token.id}]" if token.role else text


def markdown_table(specs: Sequence[ModelSpec]) -> str:
    """Every entry on a line; what is known of it, and from where, is what `alignboard models show NAME` prints."""
    lines = ["|name|checkpoint|format|prompt|ends|", "|---|---|---|---|---|"]
    for spec in specs:
        ends = ", ".join(f"`{stop!r}`" for stop in (*spec.stop_tokens, *spec.stop))
        marks = f" ({row})" if (row := _row(spec)[-1]) else ""
        prompt = prompt_name(spec.prompt) if spec.prompt.template is None else "a text"
        cells = [spec.name, spec.base + marks, spec.format or FOUND_OUT, prompt, ends or "EOS"]
        lines.append(f"|{'|'.join(_escaped(cell) for cell in cells)}|")
    return "\n".join(lines) + "\n"


def _escaped(cell: str) -> str:
    """Markup in a note is text: `<|im_end|>` must neither end a cell nor be taken for HTML."""
    if "`" in cell:
        return cell.replace("|", "\\|")
    return cell.replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;")
