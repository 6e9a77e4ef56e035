"""A program as a judge: questions go to its standard input and replies come from its standard output, a line each.

A line to the program is ``{"key", "instruction", "first", "second", "fields"}`` (``second`` is null where outputs are
rated one by one), a line from it ``{"key": ..., "text": ...}``, which is read as the judge's ``verdict`` says, or
``{"key": ..., "scores": [p_first, p_second]}``. Replies may come in any order. A program that says nothing for half an
hour is ended, with whatever it has started.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import shutil
import signal
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
from alignboard.strict_json import parse_json
from alignboard.text import storable

SILENCE = 1800.0
"""seconds without a reply after which a program is ended"""
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
                start_new_session=True,  # so that what it starts can be ended with it
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
        lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
        patience = 0.0  # of a run that was stopped
        try:
            while (line := self._next(lines)) is not None:
                key, reply = self._read(line)
                if key in waiting:
                    yield waiting.pop(key), reply
                if not waiting:
                    break
            patience = _PATIENCE
        finally:
            code = _ended(process, patience)
            writer.join()
        for call in waiting.values():
            yield (
                call,
                FailedCall(call.key, f"the program ended with exit code {code} and no reply"),
            )

    def _next(self, lines: queue.SimpleQueue[str | None]) -> str | None:
        try:
            return lines.get(timeout=SILENCE)
        except queue.Empty:
            raise InputError(
                f"Judge {self._spec.name}: its program has written nothing for {SILENCE:g} s and was ended; replies "
                "that came before are kept."
            ) from None

    def _read(self, line: str) -> tuple[str, Reply]:
        try:
            found = storable(parse_json(line))
            scores = tuple(_finite(one) for one in found.get("scores") or ())
            return str(found["key"]), Reply(text=str(found.get("text", "")), scores=scores)
        except (
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            OverflowError,
            RecursionError,
        ) as error:
            raise InputError(
                f"Judge {self._spec.name}: its program wrote {shortened(line)!r}; expected a JSON object with key, and "
                "text or finite scores."
            ) from error


def _finite(found: Any) -> float:
    number = float(found)
    if not math.isfinite(number):
        raise ValueError(f"{number} is no score")
    return number


def _ended(process: subprocess.Popen[str], patience: float) -> int:
    """The exit code; a program that goes on after its last reply, or after the run was stopped, is killed."""
    try:
        return process.wait(patience)
    except subprocess.TimeoutExpired:
        os.killpg(
            process.pid, signal.SIGKILL
        )  # it leads a group of its own, and was not waited for yet
        return process.wait()


def _read(stream: IO[str], lines: queue.SimpleQueue[str | None]) -> None:
    with contextlib.suppress(OSError, ValueError), stream:
        for line in stream:
            lines.put(line)
    lines.put(None)


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


def check_program(spec: ProgramSpec, _: Opening) -> None:
    """Whether the command can be started."""
    if shutil.which(spec.command[0]) is None:
        raise InputError(
            f"Judge {spec.name}: there is no program {spec.command[0]!r} that can be started; mend command in its file."
        )


def open_program(spec: ProgramSpec, _: Opening) -> ProgramJudge:
    """A command of the user's."""
    return ProgramJudge(spec)
