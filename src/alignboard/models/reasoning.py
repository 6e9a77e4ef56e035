"""Reasoning and response: the two parts of a model's reply. Pure.

What this module promises
    Only the response is an answer or holds a verdict. A block of reasoning that does not end leaves no response. Marks
    inside quotes or code spans are text that somebody writes about, not marks.
Which forms are known
    ``<think>...</think>``, tags of a longer name, and the spellings in `_PAIRS`; a closing mark alone, where the
    prompt's template has opened the block; gpt-oss channels (``<|channel|>analysis<|message|>...``), also as tokenizers
    leave them that drop special tokens (``analysis...assistantfinal...``).
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_PAIRS: Final = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<seed:think>", "</seed:think>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<unused94>thought", "<unused95>"),
    ("<|channel>thought", "<channel|>"),
    ("<|think|>", "<|content|>"),
    ("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),
    ("Here is my thought process:", "Here is my response:"),
    ("Here's my thought process:", "Here's my response:"),
)
"""marks that models are trained to write"""
_TAG = re.compile(r"</?((?:[a-z]\w{0,19}[:_])?think(?:[:_-][\w.:-]{1,30})?)>", re.IGNORECASE)
"""the same with a name of their own: ``<mm:think>``, ``<longcat_think>``, ``<think:fast>``"""
_AFTER: Final = "[END FINAL RESPONSE]"
"""what some write behind the response"""
_ASKED: Final = (
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    *((f"<{name}>", f"</{name}>") for name in (
        "reasoning", "scratchpad", "analysis", "reflection", "rationale", "explanation",
    )),
)  # fmt: skip
"""marks that prompts ask for: reasoning in a judge's reply, possibly the wanted text in an answer"""
CHANNEL: Final = "<|channel|>"
_FINAL: Final = "<|channel|>final<|message|>"
_MESSAGE: Final = "<|message|>"
_CHANNEL_END = re.compile(r"<\|(?:end|return|call|start)\|>")
_CHANNELS_FIRST = re.compile(r"\s*(?:<\|start\|>assistant)?<\|channel\|>")
_BARE_CHANNELS = re.compile(
    r"\s*analysis(?=\S)(.*?)assistant(?:commentary.*?assistant)?final", re.DOTALL
)
_BARE_OPEN = re.compile(r"\s*analysis(?=[A-Z][a-z']*,? [a-z])")
"""the channel's name, glued to the reasoning that it opens, which comes to no end"""
_ANY_MARK = re.compile(r"[<\[◁]|\A\s*(?:analysis|here)", re.IGNORECASE)
"""what every form has; most replies have none of it, and real sets have a hundred thousand replies"""
_OPENS_QUOTE = re.compile(r"(?:\A|[\s(\[{:,=/<>-])(?:[`\"']{1,3}|[\u201c\u2018])\Z")
_CLOSES_QUOTE: Final = "`\"'\u201d\u2019"
_NEAR: Final = 4
"""characters around a mark that decide what it is"""
_ENDED = re.compile(r"(?:[.!?\u2026)\u3002]\s?|\w)\Z")
_BEGINS = re.compile(r"\s?(?:[^\W\d_a-z]|[\d*\"\u201c$\\])")
_MARKS: Final = (
    *(mark for pair in _PAIRS for mark in pair if mark[0] in "<[\u25c1"),
    CHANNEL, _MESSAGE, "<|start|>", "<|end|>", "<|return|>", "<|call|>",
)  # fmt: skip
"""spellings that are one token where a tokenizer has them"""


class Parts(NamedTuple):
    """The parts of a reply."""

    response: str
    reasoning: str = ""


def split(text: str, *, opened: bool = False, judging: bool = False) -> Parts:
    r"""Divide a reply into response and reasoning.

    Parameters
    ----------
    text
        The reply as it came.
    opened
        Whether the prompt ends inside a block of reasoning: without a closing mark all is reasoning then.
    judging
        Whether the reply is a judge's. Its blocks count wherever they stand; those of an answer only at its start,
        because an answer may be about such marks.

    >>> split("<think>Blue or red?</think>\n\nBlue.")
    Parts(response='Blue.', reasoning='Blue or red?')
    >>> split("Blue or red? It is")
    Parts(response='Blue or red? It is', reasoning='')
    >>> split("Blue or red? It is", opened=True).response
    ''
    """
    if not opened and _ANY_MARK.search(text) is None:
        return Parts(text)
    channels = _channels(text)
    if channels is not None:
        return channels
    bare = _BARE_CHANNELS.match(text)
    if bare is not None:
        return Parts(text[bare.end() :].strip(), bare[1].strip())
    bare = _BARE_OPEN.match(text)
    if bare is not None:
        return Parts("", text[bare.end() :].strip())
    written = _written(text)
    pairs = (*written, *_ASKED) if judging else written
    thoughts: list[str] = []
    rest, is_open = _leading(text, pairs, thoughts)
    if not is_open:
        rest = _alone(rest, written, thoughts, sure=opened or judging)
        is_open = opened and not thoughts
    if judging and not is_open:
        rest, is_open = _anywhere(rest, pairs, thoughts)
    if is_open:
        thoughts.append(rest)
        rest = ""
    if not thoughts:
        return Parts(text)
    rest = rest.strip().removesuffix(_AFTER)
    return Parts(rest.strip(), "\n\n".join(one.strip() for one in thoughts if one.strip()) or "…")


def opens(prompt: str) -> bool:
    r"""Whether a rendered prompt ends inside a block of reasoning.

    >>> opens("<|im_start|>assistant\n<think>\n"), opens("<think>\n\n</think>\n\n")
    (True, False)
    """
    end = prompt.rstrip()
    if (last := _TAG.match(end, max(end.rfind("<"), 0))) and last.end() == len(end):
        return not last[0].startswith("</")
    return end.endswith((*(pair[0] for pair in _PAIRS), f"{CHANNEL}analysis{_MESSAGE}"))


def is_mark(token: str) -> bool:
    """Whether decoding must keep ``token``, although some tokenizers call it special."""
    return token in _MARKS or _TAG.fullmatch(token) is not None


def has_marks(template: str) -> bool:
    """Whether replies to a chat template's prompts may hold reasoning, by the marks that the template writes."""
    return _TAG.search(template) is not None or any(mark in template for mark in _MARKS)


def _written(text: str) -> tuple[tuple[str, str], ...]:
    """The pairs of marks that ``text`` may hold, the tags of a name of their own in it included."""
    named = dict.fromkeys(one.lower() for one in _TAG.findall(text) if one.lower() != "think")
    return (*_PAIRS, *((f"<{name}>", f"</{name}>") for name in named))


def _channels(text: str) -> Parts | None:
    """The parts of a reply in gpt-oss's channels; None for another one."""
    if _CHANNELS_FIRST.match(text) is None and _FINAL not in text:
        return None
    before, *pieces = text.split(CHANNEL)
    before = _CHANNEL_END.split(before, maxsplit=1)[0]
    final, thoughts = [], [before] if before.strip() else []
    for piece in pieces:
        name, mark, body = piece.partition(_MESSAGE)
        body = _CHANNEL_END.split(body, maxsplit=1)[0].strip()
        (final if mark and name.split()[:1] == ["final"] else thoughts).append(body)
    return Parts("\n\n".join(final).strip(), "\n\n".join(filter(None, thoughts)) or "…")


def _leading(
    text: str, pairs: tuple[tuple[str, str], ...], thoughts: list[str]
) -> tuple[str, bool]:
    """What follows the blocks at the start, and whether the last of them does not end."""
    while True:
        start = text.lstrip()
        pair = next((one for one in pairs if start[: len(one[0])].lower() == one[0].lower()), None)
        if pair is None:
            return text, False
        inside = start[len(pair[0]) :]
        close = _find(inside, pair[1])
        if close < 0:
            return inside, True
        thoughts.append(inside[:close])
        text = inside[close + len(pair[1]) :]


def _alone(
    text: str, pairs: tuple[tuple[str, str], ...], thoughts: list[str], *, sure: bool
) -> str:
    """What follows the last closing mark that nothing in ``text`` has opened.

    Where reasoning is not sure, the mark begins or ends a line, or stands between two sentences: inside a sentence
    about the mark it does not.
    """
    for opening, closing in pairs:
        end = _find(text, closing, last=True)
        if end < 0 or 0 <= _find(text, opening) < end:
            continue
        after = text[end + len(closing) :]
        before = text[:end]
        own_line = (
            before.endswith("\n")
            or not (before.strip() and after.strip())
            or after.lstrip(" \t").startswith("\n")
        )
        between = _ENDED.search(before[-_NEAR:]) and _BEGINS.match(after)
        if sure or own_line or thoughts or between:
            thoughts.append(before)
            text = after
    return text


def _anywhere(
    text: str, pairs: tuple[tuple[str, str], ...], thoughts: list[str]
) -> tuple[str, bool]:
    """``text`` without the blocks inside it, and whether one that begins a line does not end."""
    for opening, closing in pairs:
        kept, place = [], 0
        while (start := _find(text, opening, place)) >= 0:
            end = _find(text, closing, start)
            if end < 0:
                line = text[:start].rpartition("\n")[2]
                if line.strip():
                    break
                return text[start:], True
            kept.append(text[place:start])
            thoughts.append(text[start + len(opening) : end])
            place = end + len(closing)
        text = "".join((*kept, text[place:]))
    return text, False


def _find(text: str, mark: str, start: int = 0, *, last: bool = False) -> int:
    """Where ``mark`` stands outside quotes, from ``start`` on; -1 where it does not."""
    low, wanted = text.lower(), mark.lower()
    if len(low) != len(text):  # a letter whose small form is longer
        low, wanted = text, mark
    find = low.rfind if last else low.find
    place = find(wanted, start)
    while place >= 0:
        after = text[place + len(mark) : place + len(mark) + 1]
        quoted = after and after in _CLOSES_QUOTE
        if not (quoted and _OPENS_QUOTE.search(text[max(0, place - _NEAR) : place])):
            return place
        place = low.rfind(wanted, start, place) if last else low.find(wanted, place + 1)
    return -1
