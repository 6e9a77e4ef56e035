"""What a board's judges were asked: the prompt of each, as its declaration has it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from alignboard.boards.board import Board
from alignboard.errors import InputError


def with_judges(board: Board, workspace: Path | None = None) -> Board:
    """``board`` with the declaration of every judge that is known here by its name.

    Verdicts of a judge that has no declaration here, such as those of another tool, stay without one.
    """
    names = {column.judge for column in board.columns if column.judge is not None}
    found = {name: text for name in sorted(names) if (text := _text(name, workspace)) is not None}
    return msgspec.structs.replace(board, judges=found)


def _text(name: str, workspace: Path | None) -> str | None:
    from alignboard.judges.load import load_judge
    from alignboard.judges.prompting.prompts import turns

    try:
        judge = load_judge(name, workspace)
        lines = [judge.title]
        if judge.prompted is not None:
            lines.append(f"Model: {judge.prompted.model}")
            lines += [
                f"[{message.role}]\n{message.content}" for message in turns(judge.prompted.prompt)
            ]
    except InputError:
        return None
    return "\n\n".join(lines)
