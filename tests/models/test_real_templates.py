"""Chat templates of released models: a user turn, a system turn and two turns are rendered or refused in a sentence.

The table is docs/templates.md; ``ALIGNBOARD_GOLDENS=write`` writes it anew. No template ends in a traceback, and none
gives the same prompt with a system text and without: that would drop the text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pytest

import byte_tokenizer
from alignboard.errors import InputError
from alignboard.models.prompting import conversation_text
from alignboard.models.reasoning import opens
from alignboard.models.turns import end_of_turn, instruction_fault, reads_the_clock, start_fault

TEMPLATES: Final = Path(os.environ.get("ALIGNBOARD_REAL", "missing")) / "chat_templates"
PAGE: Final = Path(__file__).parents[2] / "docs" / "templates.md"
MARK: Final = re.compile(
    r"<[|\uff5c][^<>{}]{1,40}?[|\uff5c]>|<\w+\|>|<\|\w+>|\[/?[A-Z][A-Z_]+\]|</?(?:start|end)_of_\w+>"
    r"|<(?:start|end)_of_turn>|\[e~\[|\]~b\]"
)
ASKED, SYSTEM = "alignboard asks", "alignboard sets"
USER: Final = (("user", ASKED),)
CASES: Final = {
    "user": USER,
    "system": (("system", SYSTEM), *USER),
    "two turns": (*USER, ("assistant", "It answers."), ("user", "And then?")),
}
HEAD: Final = """# Chat templates of released models

What alignboard renders: a user turn, a system turn before it, and a second exchange. A template that does not take
them is an error in a sentence before a model is loaded, never a traceback and never a dropped text. A template without
a system turn can be replaced (`prompt:` of the model's entry, [models](models.md)). `clock`: the prompt holds the day's
date unless the entry sets `strftime_now`. `thinks`: the template opens a block of reasoning, so a reply begins inside
it.

The templates are those of llama.cpp (`released`) and of chujiezheng/chat_templates (`collection`), each read with a
tokenizer that knows its control tokens. The page is written by `ALIGNBOARD_GOLDENS=write pytest
tests/models/test_real_templates.py`.

|template|user|system|two turns|ends a turn|notes|
|---|---|---|---|---|---|
"""

pytestmark = pytest.mark.skipif(not TEMPLATES.is_dir(), reason="ALIGNBOARD_REAL has no templates")


def templates() -> list[Path]:
    return sorted(TEMPLATES.rglob("*.jinja")) if TEMPLATES.is_dir() else []


def tokenizer_of(template: str) -> Any:
    """One that reads every mark of the template as one token."""
    marks = tuple(dict.fromkeys(MARK.findall(template)))
    return byte_tokenizer.build(special=marks, adds_bos=False)


def rendered(
    tokenizer: Any, template: str, turns: Sequence[tuple[str, str]]
) -> tuple[str | None, str]:
    """The prompt, and why there is none: a refusal takes one sentence."""
    try:
        text = conversation_text(tokenizer, template, turns, source="x", generation_prompt=True)
    except InputError as error:
        sentence = r"x: the chat template does not take the turns [a-z, ]+: (.+)\."
        found = re.fullmatch(sentence, str(error))
        return (None, found[1]) if found else (f"no sentence: {error}", "")
    return text, ""


def verdict(turns: Sequence[tuple[str, str]], text: str | None) -> str:
    """Whether every text is there, in its order."""
    if text is None:
        return "refused"
    place = 0
    for _, content in turns:
        place = text.find(content, place)
        if place < 0:
            return "dropped"
    return "yes"


def row(path: Path) -> dict[str, str]:
    template = path.read_text(encoding="utf-8")
    tokenizer = tokenizer_of(template)
    found = {name: rendered(tokenizer, template, turns) for name, turns in CASES.items()}
    texts = {name: text for name, (text, _) in found.items()}
    end = end_of_turn(tokenizer, template)
    notes = ["clock"] if reads_the_clock(tokenizer, template) else []
    notes += ["thinks"] if texts["user"] is not None and opens(texts["user"]) else []
    whys = dict.fromkeys(why.replace("|", r"\|") for _, why in found.values() if why)
    notes += [f"refused: {why}" for why in whys]
    shown = "" if end is None else f"`{tokenizer.convert_ids_to_tokens(end)}`".replace("|", r"\|")
    return {
        "template": f"{path.parent.name}/{path.stem}",
        **{name: verdict(CASES[name], text) for name, text in texts.items()},
        "ends a turn": shown,
        "notes": "; ".join(notes),
    }


@pytest.mark.parametrize("path", templates(), ids=lambda path: path.stem)
def test_a_template_renders_the_turns_or_is_refused_in_a_sentence(path):
    found = row(path)
    assert found["user"] in {"yes", "refused"}, found
    assert found["system"] in {"yes", "refused"}, found
    assert found["two turns"] in {"yes", "refused"}, found
    if found["user"] == "yes":
        template = path.read_text(encoding="utf-8")
        tokenizer = tokenizer_of(template)
        assert instruction_fault(tokenizer, template) is None
        assert start_fault(tokenizer, template) is None


def test_the_page_is_what_the_templates_say():
    rows = [f"|{'|'.join(row(path).values())}|" for path in templates()]
    text = HEAD + "\n".join(rows) + "\n"
    if os.environ.get("ALIGNBOARD_GOLDENS") == "write":
        PAGE.write_text(text, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == text
