"""From what a judge declares and the questions of a call to the messages that it is sent.

What this module promises
    The slots of a prompt are filled at once: the text of an instruction or an output is never searched for another
    slot, for ChatML's marks, or for anything else. So an output that holds ``{output_2}`` or ``<|im_end|>`` is shown as
    it is, where AlpacaEval puts the other output into it or ends the message; every other prompt is AlpacaEval's, byte
    for byte. Files are read from installed packages that are found and never imported. Jinja runs in its sandbox.
"""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

from alignboard.errors import InputError
from alignboard.judges.rows import Message, Question, Role
from alignboard.judges.spec import JudgePrompt
from alignboard.workspace import is_there

if TYPE_CHECKING:
    from jinja2.sandbox import SandboxedEnvironment

PADDING: Final = Question("1+1=", "2", "3")
"""what AlpacaEval fills the last, incomplete batch with (``utils.DUMMY_EXAMPLE``)"""
ALIASES: Final[Mapping[str, str]] = {"output_1": "first", "output_2": "second"}
FIELDS: Final = ("reference", "reference_2", "rubric", "instruction_2", "first_2", "second_2")
"""what a question may have beside its instruction and its outputs"""
IDENTIFIERS: Final = ("first_id", "second_id")
"""names of the outputs that are drawn for every call, in hardened prompts"""

_SLOTS: Final = frozenset({"instruction", "first", "second", *ALIASES, *FIELDS, *IDENTIFIERS})
_SLOT = re.compile(r"\{(\w+)\}")
_START, _END = "<|im_start|>", "<|im_end|>"


def render(prompt: JudgePrompt, questions: Sequence[Question]) -> tuple[Message, ...]:
    """The messages of one call. A batch that is not full is padded as AlpacaEval does.

    >>> render(JudgePrompt(text="{instruction} A: {first} B: {second}"), [Question("1+1?", "{second}", "2")])
    (Message(role='user', content='1+1? A: {second} B: 2'),)
    """
    if not 1 <= len(questions) <= prompt.batch:
        raise ValueError(f"{len(questions)} questions for a prompt of {prompt.batch}")
    shown = [*questions, *[PADDING] * (prompt.batch - len(questions))]
    return fill(prompt, [fields(question) for question in shown])


def fields(question: Question) -> dict[str, str]:
    """What the slots of a prompt can show of a question, by name."""
    held = {**dict(question.fields), "instruction": question.instruction, "first": question.first}
    if question.second is not None:
        held["second"] = question.second
    return held | {alias: held[name] for alias, name in ALIASES.items() if name in held}


def fill(prompt: JudgePrompt, shown: Sequence[Mapping[str, str]]) -> tuple[Message, ...]:
    """The messages with the given texts in their slots; one mapping for each question."""
    if prompt.jinja:
        filled = [
            Message(message.role, _jinja(message.content, shown)) for message in turns(prompt)
        ]
    else:
        place: Counter[str] = Counter()
        filled = [
            Message(message.role, _filled(message.content, shown, place))
            for message in turns(prompt)
        ]
    # As upstream, which strips the contents of ChatML's turns after it has filled them.
    return tuple(Message(one.role, one.content.strip()) if prompt.chatml else one for one in filled)


def turns(prompt: JudgePrompt) -> tuple[Message, ...]:
    """The messages before they are filled; raises `InputError` for a text that is not the ChatML it should be."""
    if prompt.messages:
        return tuple(prompt.messages)
    text = prompt.text if prompt.text is not None else package_text(prompt.file or "")
    return chatml(text) if prompt.chatml else (Message("user", text),)


def slots(prompt: JudgePrompt) -> Counter[str]:
    """How often every known slot is there; of Jinja templates, once for every name that they use."""
    if prompt.jinja:
        names: Iterable[str] = (
            name for message in turns(prompt) for name in _undeclared(message.content)
        )
    else:
        names = (name for message in turns(prompt) for name in _SLOT.findall(message.content))
    return Counter(ALIASES.get(name, name) for name in names if name in _SLOTS)


def chatml(text: str) -> tuple[Message, ...]:
    r"""The turns of a ChatML text, split as AlpacaEval's ``prompt_to_chatml`` does.

    >>> chatml("<|im_start|>system\nBe fair.\n<|im_end|>\n<|im_start|>user\nHi<|im_end|>")
    (Message(role='system', content='Be fair.'), Message(role='user', content='Hi'))
    """
    text = text.strip()
    if not text.startswith(_START) or not text.endswith(_END):
        raise InputError(
            f"A ChatML prompt begins with {_START} and ends with {_END}; this one does not."
        )
    found = []
    for turn in text.split(_START)[1:]:
        role, _, content = turn.partition("\n")
        if role.strip() not in get_args(Role):
            raise InputError(
                f"A turn of a ChatML prompt is {role.strip()!r}; known roles: {', '.join(get_args(Role))}."
            )
        found.append(Message(_role(role.strip()), content.split(_END, 1)[0].strip()))
    return tuple(found)


@lru_cache(maxsize=64)
def package_text(file: str) -> str:
    """The text of ``package:path/inside/it``; the package is found and not imported."""
    package, separator, relative = file.partition(":")
    if not separator or not package.isidentifier() or not relative or "\0" in relative:
        raise InputError(
            f"The prompt file {file!r} is not of the form package:path, "
            "such as alpaca_eval:evaluators_configs/alpaca_eval_gpt4/alpaca_eval.txt."
        )
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            f"The prompt file {file} is part of the package {package}, which is not installed."
        )
    root = Path(next(iter(spec.submodule_search_locations))).resolve()
    path = (root / relative).resolve()
    if not path.is_relative_to(root) or not is_there(path) or not path.is_file():
        raise InputError(f"The installed package {package} has no file {relative}.")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The prompt file {file} cannot be read: {error}.") from error


def _role(name: str) -> Role:
    return next(role for role in get_args(Role) if role == name)


def _filled(text: str, shown: Sequence[Mapping[str, str]], place: Counter[str]) -> str:
    """``text`` with its slots filled. In a prompt of several questions the k-th time that a slot is there shows the
    k-th question; ``place`` counts over all turns.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name not in _SLOTS and name not in shown[0]:
            return match[0]
        row = place[name] if len(shown) > 1 else 0
        place[name] += 1
        if row >= len(shown):
            raise InputError(
                f"The prompt has {match[0]} more often than the {len(shown)} questions that it shows."
            )
        return _known(name, shown[row])

    return _SLOT.sub(value, text)


def _known(name: str, shown: Mapping[str, str]) -> str:
    if name in shown:
        return shown[name]
    if name in IDENTIFIERS:
        raise InputError(
            f"The prompt asks for {{{name}}}, which only hardened prompts have: say hardened: true."
        )
    raise InputError(f"The prompt asks for {{{name}}}, which this question does not have.")


@lru_cache(maxsize=1)
def _environment() -> SandboxedEnvironment:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment(
        undefined=StrictUndefined,
        autoescape=False,  # the result is a prompt, not a page
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _jinja(text: str, shown: Sequence[Mapping[str, str]]) -> str:
    from jinja2 import TemplateError

    # With one question its texts go by their names; a batch is the list `questions`.
    context: dict[str, Any] = {**shown[0], "questions": [dict(one) for one in shown]}
    try:
        return _environment().from_string(text).render(context)
    except (TemplateError, TypeError, ArithmeticError, RecursionError) as error:
        raise InputError(
            f"The judge's prompt is a Jinja template that fails: {' '.join(str(error).split())}."
        ) from error


def _undeclared(text: str) -> set[str]:
    from jinja2 import TemplateError, meta

    try:
        names = meta.find_undeclared_variables(_environment().parse(text))
    except (TemplateError, RecursionError) as error:
        raise InputError(
            f"The judge's prompt is no Jinja template: {' '.join(str(error).split())}."
        ) from error
    # A batch shows its questions' texts under the list's name.
    return names | ({"instruction", "first", "second"} if "questions" in names else set())
