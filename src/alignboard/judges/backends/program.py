"""A program as a judge: questions go to its standard input and replies come from its standard output, a line each.

A line to the program is ``{"key", "instruction", "first", "second", "fields"}`` (``second`` is null where outputs are
rated one by one), a line from it ``{"key": ..., "text": ...}``, which is read as the judge's ``verdict`` says, or
``{"key": ..., "scores": [p_first, p_second]}``. Replies may come in any order.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

from alignboard.engines.openai.format import shortened
from alignboard.errors import InputError
from alignboard.judges.opening import Opening
from alignboard.judges.rows import Call, FailedCall, Reply
from alignboard.judges.spec import ProgramSpec
from alignboard.text import storable

_PATIENCE: Final = 10.0
"""seconds that a program has to end after its last reply"""


class ProgramJudge:
    """A judge that is a command of the user's; see `Backend`."""

    def __init__(self, spec: ProgramSpec) -> None:
        self._spec = spec
        self.identity: Mapping[str, Any] = {
            "scheme": "program-1",
            "command": spec.command,
            "version": spec.version,
        }

    def ask(self, calls: Sequence[Call]) -> Iterator[tuple[Call, Reply | FailedCall]]:
        """Replies as they come; calls that the program left without one are failed."""
        waiting = {call.key: call for call in calls}
        try:
            process = subprocess.Popen(  # noqa: S603 - the command is the user's own
                self._spec.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                errors="replace",
            )
        except OSError as error:
            name = Path(self._spec.command[0]).name
            raise InputError(
                f"Judge {self._spec.name}: the program {name} cannot be started: {error.strerror}."
            ) from error
        assert process.stdin is not None  # noqa: S101 - it was asked for
        assert process.stdout is not None  # noqa: S101 - as above
        writer = threading.Thread(target=_write, args=(process.stdin, list(calls)), daemon=True)
        writer.start()
        patience = 0.0  # of a run that was stopped
        try:
            for line in process.stdout:
                key, said = self._read(line)
                if key in waiting:
                    yield waiting.pop(key), said
                if not waiting:
                    break
            patience = _PATIENCE
        finally:
            code = _ended(process, patience)
            process.stdout.close()
            writer.join()
        for call in waiting.values():
            yield (
                call,
                FailedCall(call.key, f"the program ended with exit code {code} and no reply"),
            )

    def _read(self, line: str) -> tuple[str, Reply]:
        try:
            found = storable(json.loads(line))
            scores = tuple(float(one) for one in found.get("scores") or ())
            return str(found["key"]), Reply(text=str(found.get("text", "")), scores=scores)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"Judge {self._spec.name}: its program wrote {shortened(line)!r}; expected a JSON object with key, and "
                "text or scores."
            ) from error


def _ended(process: subprocess.Popen[str], patience: float) -> int:
    """The exit code; a program that goes on after its last reply, or after the run was stopped, is killed."""
    try:
        return process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _write(stream: IO[str], calls: Sequence[Call]) -> None:
    try:
        with stream:
            for call in calls:
                (question,) = call.questions
                row = {
                    "key": call.key,
                    "instruction": question.instruction,
                    "first": question.first,
                    "second": question.second,
                    "fields": dict(question.fields),
                }
                stream.write(json.dumps(row) + "\n")
                stream.flush()
    except OSError:
        return  # it ended early; what it left is reported where its replies are read


def open_program(spec: ProgramSpec, _: Opening) -> ProgramJudge:
    """A command of the user's."""
    return ProgramJudge(spec)
