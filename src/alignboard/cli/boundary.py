"""The boundary of the command line: what a user or the machine did wrong becomes one sentence and an exit code.

Exit codes: 0 = done; 1 = the reader of the output has gone; 2 = the input or the machine cannot be used as it is;
3 = done, and something was found; 130 = interrupted. Whatever else is raised is a defect and keeps its traceback.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO, cast

import click

from alignboard.errors import AlignboardError
from alignboard.text import shown

EXIT_BROKEN_PIPE = 1
EXIT_BAD_INPUT = 2
EXIT_FOUND = 3
EXIT_INTERRUPTED = 130
_OURS = "alignboard"
_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM})
"""errors that a user mends: no room, or no permission"""


_CONTROLS = {
    code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"
} | {code: f"\\u{code:04x}" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}


def guarded(command: Callable[[], object]) -> int:
    """Run ``command`` and return the exit code."""
    try:
        with contextlib.redirect_stdout(cast("TextIO", _Visible(sys.stdout))):
            found = command()
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _print("stopped; what is done is kept.", EXIT_INTERRUPTED)
    except AlignboardError as error:
        return _print(str(error), EXIT_BAD_INPUT)
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name in {"", _OURS}:
            raise
        from alignboard.extras import missing_text

        return _print(missing_text([name]), EXIT_BAD_INPUT)
    except BrokenPipeError:
        # Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except OSError as error:
        return _print(_machine(error), EXIT_BAD_INPUT)
    return found if isinstance(found, int) else 0


class _Visible:
    """Standard output whose control characters, but line breaks and tabs, are escapes: names are others' text.

    So are those that change the direction of what follows them.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(text if text.isprintable() else text.translate(_CONTROLS))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _machine(error: OSError) -> str:
    """What the file system refused, and where."""
    where = error.filename2 or error.filename
    path = "a file" if where is None else os.fsdecode(where)
    advice = (
        "make room, or change its permissions, and start again; " if error.errno in _DISK else ""
    )
    return f"{path} cannot be read or written ({error.strerror or error}): {advice}what was committed is kept."


def _print(text: str, code: int) -> int:
    print(f"alignboard: {shown(text)}", file=sys.stderr)
    return code
