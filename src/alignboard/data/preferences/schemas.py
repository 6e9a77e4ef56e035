"""What the columns of a data set mean: the known schemas, how one is found, and how its rows are read."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from alignboard.data.preferences.messages import (
    DroppedError,
    FaultyError,
    Message,
    is_transcript,
    messages_of,
    reply,
    same_prompt,
    split_reply,
    text_of,
    transcript_of,
    user,
)
from alignboard.errors import InputError, nearest

Kind = Literal["pair", "demonstration", "rated"]
Row = Mapping[str, Any]
SHP_RATIO: Final = 2.0
SHP_PER_POST: Final = 5


@dataclass
class Reading:
    """What reading rows one after another has to remember."""

    seed: int = 0
    posts: Counter[str] = field(default_factory=Counter)
    """SHP: pairs taken per post"""


Read = Callable[[Row, int, Reading], dict[str, Any]]
"""(row, its number from 0, ...) -> the canonical row; raises `FaultyError` or `DroppedError`"""


@dataclass(frozen=True)
class Schema:
    """A form of data set."""

    name: str
    kind: Kind
    columns: frozenset[str]
    """those that it needs"""
    read: Read

    @property
    def trained(self) -> tuple[str, ...]:
        """The columns of its canonical rows that training reads."""
        if self.kind == "pair":
            return ("prompt", "chosen", "rejected")
        if self.kind == "rated":
            return ("prompt", "completion", "label")
        return (
            ("messages",)
            if self.columns & {"messages", "conversations"}
            else ("prompt", "completion")
        )


def _prompt(row: Row, column: str) -> list[Message]:
    """The prompt of a text column with its optional system message, earlier turns and input, or of messages."""
    value = row[column]
    if isinstance(value, list | dict):
        return messages_of(value, column)
    extra = row.get("input")
    text = text_of(value, column) + (f"\n{extra}" if extra else "")
    *system, last = user(text, row.get("system") or None)
    return [*system, *_earlier(row), last]


def _earlier(row: Row) -> list[Message]:
    """The turns before an Alpaca row's instruction; SHP calls its prompt, a text, history, too."""
    turns = row.get("history")
    found: list[Message] = []
    for n, turn in enumerate(turns if isinstance(turns, list) else []):
        if not isinstance(turn, list) or len(turn) != 2:
            raise FaultyError(f"history[{n}]", "is no list of a question and its reply")
        question, answer = (text_of(one, f"history[{n}]") for one in turn)
        found += [*user(question), *reply(answer)]
    return found


def _side(row: Row, column: str) -> list[Message]:
    """A reply as text, as one message, or as messages of which the last is the reply."""
    value = row[column]
    return reply(text_of(value, column)) if isinstance(value, str) else messages_of(value, column)


def _pair(
    prompt: list[Message],
    chosen: list[Message],
    rejected: list[Message],
    margin: float | None = None,
) -> dict[str, Any]:
    for column, side in (("chosen", chosen), ("rejected", rejected)):
        if side[-1]["role"] != "assistant":
            raise FaultyError(column, "ends with a message that is not the assistant's")
        if not side[-1]["content"].strip():
            raise DroppedError(f"the {column} reply is empty")
    if chosen == rejected:
        raise DroppedError("chosen and rejected are the same")
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, "margin": margin}


def _margin(row: Row) -> float | None:
    """The difference of the scores, where a row has them."""
    won, lost = row.get("score_chosen"), row.get("score_rejected")
    if isinstance(won, int | float) and isinstance(lost, int | float):
        return float(won) - float(lost)
    return None


def _explicit(prompt: str) -> Read:
    """Prompt, chosen and rejected; sides that repeat the prompt (UltraFeedback binarised) are split."""

    def read(row: Row, _number: int, _reading: Reading) -> dict[str, Any]:
        chosen, rejected = _side(row, "chosen"), _side(row, "rejected")
        if chosen[0]["role"] != "assistant":
            return _pair(*same_prompt(chosen, rejected), margin=_margin(row))
        return _pair(_prompt(row, prompt), chosen, rejected, _margin(row))

    return read


def _implicit(row: Row, _number: int, _reading: Reading) -> dict[str, Any]:
    """Chosen and rejected conversations that share all but the last reply; HH-RLHF's transcripts too."""
    if is_transcript(row["chosen"]) or is_transcript(row["rejected"]):
        sides = [transcript_of(row[side], side) for side in ("chosen", "rejected")]
    else:
        if isinstance(row["chosen"], str):
            raise FaultyError(
                "chosen",
                "is text without a prompt; give the prompt's column, columns: {prompt: ...}",
            )
        sides = [messages_of(row[side], side) for side in ("chosen", "rejected")]
    return _pair(*same_prompt(*sides), margin=_margin(row))


def _shp(row: Row, _number: int, reading: Reading) -> dict[str, Any]:
    """SHP: label 1 = A is preferred; pairs of a score ratio below 2, and more than five of a post, are dropped."""
    ratio = row.get("score_ratio")
    if ratio is not None and ratio < SHP_RATIO:
        raise DroppedError(f"score_ratio is below {SHP_RATIO:g}")
    a, b = (text_of(row[f"human_ref_{side}"], f"human_ref_{side}") for side in "AB")
    if row["labels"] not in (0, 1):
        raise FaultyError("labels", f"is {row['labels']!r}, where 0 or 1 was expected")
    post = str(row.get("post_id") or row["history"])
    reading.posts[post] += 1
    if reading.posts[post] > SHP_PER_POST:
        raise DroppedError(f"more than {SHP_PER_POST} pairs of one post")
    chosen, rejected = (a, b) if row["labels"] == 1 else (b, a)
    return _pair(_prompt(row, "history"), reply(chosen), reply(rejected))


def _ultrafeedback(row: Row, number: int, reading: Reading) -> dict[str, Any]:
    """UltraFeedback raw: the best overall score against one of the lower ones, drawn by the seed."""
    completions = row["completions"]
    if isinstance(completions, Mapping):  # older versions of datasets turn a list of structs round
        completions = [
            dict(zip(completions, one, strict=True))
            for one in zip(*completions.values(), strict=True)
        ]
    if not completions:
        raise DroppedError("there are no completions")
    scores = [one["overall_score"] for one in completions if one.get("overall_score") is not None]
    if len(scores) != len(completions):
        raise FaultyError("completions", "has a completion without overall_score")
    best = max(scores)
    lower = [n for n, score in enumerate(scores) if score < best]
    if not lower:
        raise DroppedError("all completions have the same score")
    worse = random.Random(f"{reading.seed}-{number}").choice(lower)
    texts = [
        text_of(completions[n].get("response"), f"completions[{n}].response")
        for n in (scores.index(best), worse)
    ]
    return _pair(
        _prompt(row, "instruction"), reply(texts[0]), reply(texts[1]), best - scores[worse]
    )


def _sharegpt_pair(row: Row, _number: int, _reading: Reading) -> dict[str, Any]:
    return _pair(
        messages_of(row["conversations"], "conversations"),
        _side(row, "chosen"),
        _side(row, "rejected"),
    )


def _conversation(column: str) -> Read:
    def read(row: Row, _number: int, _reading: Reading) -> dict[str, Any]:
        messages = messages_of(row[column], column)
        system = row.get("system")
        if system and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": system}, *messages]
        split_reply(messages, column)
        if not messages[-1]["content"].strip():
            raise DroppedError("the last reply is empty")
        return {"messages": messages}

    return read


def _completion(prompt: str, completion: str) -> Read:
    def read(row: Row, _number: int, _reading: Reading) -> dict[str, Any]:
        side = _side(row, completion)
        if not side[-1]["content"].strip():
            raise DroppedError("the reply is empty")
        return {"prompt": _prompt(row, prompt), "completion": side}

    return read


def _label(row: Row) -> bool:
    if row["label"] not in (0, 1):  # False and True, too; a list is in no set
        raise FaultyError("label", f"is {row['label']!r}, where true or false was expected")
    return bool(row["label"])


def _rated(row: Row, number: int, reading: Reading) -> dict[str, Any]:
    return {**_completion("prompt", "completion")(row, number, reading), "label": _label(row)}


def _rated_messages(row: Row, _number: int, _reading: Reading) -> dict[str, Any]:
    prompt, completion = split_reply(messages_of(row["messages"], "messages"), "messages")
    return {"prompt": prompt, "completion": completion, "label": _label(row)}


def _schema(name: str, kind: Kind, columns: str, read: Read) -> Schema:
    return Schema(name, kind, frozenset(columns.split()), read)


SCHEMAS: Final[Mapping[str, Schema]] = {
    schema.name: schema
    for schema in (
        _schema("pairs", "pair", "prompt chosen rejected", _explicit("prompt")),
        _schema("conversations", "pair", "chosen rejected", _implicit),
        _schema("orca", "pair", "question chosen rejected", _explicit("question")),
        _schema("alpaca-pairs", "pair", "instruction chosen rejected", _explicit("instruction")),
        _schema("sharegpt-pairs", "pair", "conversations chosen rejected", _sharegpt_pair),
        _schema("shp", "pair", "history human_ref_A human_ref_B labels", _shp),
        _schema("ultrafeedback", "pair", "instruction completions", _ultrafeedback),
        _schema("messages", "demonstration", "messages", _conversation("messages")),
        _schema("completions", "demonstration", "prompt completion", _completion("prompt", "completion")),
        _schema("alpaca", "demonstration", "instruction output", _completion("instruction", "output")),
        _schema("sharegpt", "demonstration", "conversations", _conversation("conversations")),
        _schema("rated", "rated", "prompt completion label", _rated),
        _schema("rated-messages", "rated", "messages label", _rated_messages),
    )
}  # fmt: skip


_SEVERAL: Final[Mapping[Kind, str]] = {
    "pair": "pairs",
    "demonstration": "demonstrations",
    "rated": "rated replies",
}


def find_schema(
    columns: Iterable[str], *, kind: Kind | None, name: str | None, source: str
) -> Schema:
    """The schema called ``name``, or the one whose columns are there; `InputError` where none or several fit."""
    has = set(columns)
    if name is not None:
        if name not in SCHEMAS:
            hint = nearest(name, SCHEMAS) or f"; known are {', '.join(SCHEMAS)}."
            raise InputError(f"{source}: there is no schema {name!r}{hint}")
        schema = SCHEMAS[name]
        if kind is not None and schema.kind != kind:
            raise InputError(
                f"{source}: the schema {name} holds {_SEVERAL[schema.kind]}, not {_SEVERAL[kind]}."
            )
        _require(schema, has, source)
        return schema
    asked = [one for one in SCHEMAS.values() if kind in {None, one.kind}]
    fit = [one for one in asked if one.columns <= has]
    # One that needs more columns than another says more about the data.
    fit = [one for one in fit if not any(one.columns < other.columns for other in fit)]
    fit += [
        one for one in SCHEMAS.values() if len(fit) == 1 and fit[0].columns < one.columns <= has
    ]
    if len(fit) == 1:
        return fit[0]
    if fit:
        names = " and ".join(one.name for one in fit)
        raise InputError(
            f"{source}: the schemas {names} fit its columns; say which, schema: {fit[0].name}."
        )
    others = [one for one in SCHEMAS.values() if one.columns <= has]
    if others and kind is not None:
        other = max(others, key=lambda one: len(one.columns))
        needs = " or ".join(sorted({one.name for one in asked}))
        raise InputError(
            f"{source}: its columns are those of {other.name} ({_SEVERAL[other.kind]}), where {_SEVERAL[kind]} are "
            f"trained on ({needs})."
        )
    # The nearest: fewest columns missing, then most found; the first where nothing is found of any.
    known = [one for one in asked if one.columns & has] or asked[:1]
    near = min(known, key=lambda one: (len(one.columns - has), -len(one.columns & has)))
    _require(near, has, source)
    raise AssertionError  # `near` fits, and was not among those that fit


def _require(schema: Schema, has: set[str], source: str) -> None:
    missing = sorted(schema.columns - has)
    if missing:
        raise InputError(
            f"{source}: the columns {', '.join(sorted(has))} are no known schema; the nearest, {schema.name}, needs "
            f"{' and '.join(missing)}: rename with columns: {{{', '.join(f'{one}: <column>' for one in missing)}}}."
        )
