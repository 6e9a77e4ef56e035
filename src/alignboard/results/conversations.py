"""Answers of several turns in FastChat's format: a line of ``model_answer.jsonl`` for every question.

Both layouts of Arena-Hard's answers are read as well.

References: FastChat ``llm_judge/gen_model_answer.py`` (the format; its time stamps are left out) and ``common.py``
(``load_model_answers``; where a question was answered several times, the first answer is the one that is judged).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from alignboard.errors import InputError
from alignboard.results.files import UNREADABLE, read_file, write_atomically
from alignboard.strict_json import parse_json
from alignboard.text import storable

CONVERSATIONS: Final = "model_answer.jsonl"
"""as FastChat's ``data/mt_bench/model_answer/<model>.jsonl``"""
_FAILED: Final = "$ERROR$"
"""what FastChat and Arena-Hard write for an answer where the model's server failed"""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One answer to a question, turn by turn."""

    index: int = 0
    turns: list[str | int | float]
    """text; in files of reference answers sometimes a number"""


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """One model's answers to one question."""

    question_id: str | int
    answer_id: str = ""
    model_id: str
    choices: list[Choice]
    asked: tuple[str, ...] = ()
    """the user's turns, where the file has them (Arena-Hard's of 2025); not written"""

    @property
    def answers(self) -> tuple[str, ...]:
        """The first answer, turn by turn."""
        return tuple(str(turn) for turn in self.choices[0].turns)


def is_conversations(path: Path) -> bool:
    """Whether ``path`` holds answers of several turns; False for anything that is no such file."""
    if path.suffix != ".jsonl":
        return False
    try:
        with path.open("rb") as file:
            first = next((line for line in file if line.strip()), b"")
        row = msgspec.json.decode(first)
    except (OSError, *UNREADABLE):
        return False
    return isinstance(row, dict) and ("choices" in row or {"model", "messages"} <= row.keys())


def read_conversations(path: Path) -> list[Conversation]:
    """The rows of a file, by one model; raises `InputError` that names the file, the line and the field."""
    lines = read_file(path).split(b"\n")
    rows: list[Conversation] = []
    seen: dict[str | int, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = msgspec.convert(_fastchat(storable(parse_json(line))), Conversation)
        except (msgspec.ValidationError, ValueError, RecursionError) as error:
            raise InputError(f"{path}, line {number}: {error}.") from error
        if not row.choices or not row.choices[0].turns:
            raise InputError(f"{path}, line {number}: choices holds no answer.")
        if _FAILED in row.answers:
            raise InputError(
                f"{path}, line {number}: the answer is {_FAILED!r}, which stands for a failed request; generate it "
                "again, or remove the line."
            )
        if seen.setdefault(row.question_id, number) != number:
            raise InputError(
                f"{path}, line {number}: question_id {row.question_id} is that of line {seen[row.question_id]} again."
            )
        if row.model_id != (rows[0] if rows else row).model_id:
            raise InputError(
                f"{path}, line {number}: model_id is {row.model_id!r}; {rows[0].model_id!r} was expected."
            )
        rows.append(row)
    if not rows:
        raise InputError(f"{path} holds no rows.")
    return rows


def _fastchat(row: Any) -> Any:
    """A row of either of Arena-Hard's layouts as FastChat writes it; any other row as it is.

    Arena-Hard v0.1 has turns with their numbers of tokens (``{"content": ..., "token_len": ...}``). That of 2025 has
    the whole conversation as messages, an answer as text or as ``{"answer": ...}``.
    """
    if not isinstance(row, dict):
        return row
    if isinstance(row.get("messages"), list) and "choices" not in row:
        said = [one for one in row["messages"] if isinstance(one, dict)]
        turns = [one.get("content") for one in said if one.get("role") == "assistant"]
        return {
            "question_id": row.get("uid", row.get("question_id")),
            "answer_id": row.get("ans_id", ""),
            "model_id": row.get("model", row.get("model_id")),
            "choices": [{"turns": [_answer(turn) for turn in turns]}],
            "asked": [_answer(one.get("content")) for one in said if one.get("role") == "user"],
        }
    choices = row.get("choices")
    if not isinstance(choices, list):
        return row
    return {**row, "choices": [_choice(one) for one in choices], "asked": ()}


def _choice(choice: Any) -> Any:
    if not isinstance(choice, dict) or not isinstance(choice.get("turns"), list):
        return choice
    return {**choice, "turns": [_answer(turn) for turn in choice["turns"]]}


def _answer(turn: Any) -> Any:
    """The text of a turn, which may be an object that holds it, or a list of parts that are all texts."""
    for key in ("content", "answer"):
        if isinstance(turn, dict) and key in turn:
            turn = turn[key]
    if isinstance(turn, list) and turn:
        parts = [one.get("text") if isinstance(one, dict) else None for one in turn]
        texts = [one for one in parts if isinstance(one, str)]
        return "".join(texts) if len(texts) == len(turn) else turn
    return turn


def write_conversations(path: Path, rows: Iterable[Conversation]) -> None:
    """Write a file that `read_conversations` and FastChat read; it is there whole or not at all."""
    plain = (msgspec.to_builtins(row) for row in rows)
    content = b"".join(
        msgspec.json.encode({key: row[key] for key in row if key != "asked"}) + b"\n"
        for row in plain
    )
    write_atomically(path, content)
