"""What goes wrong, in one sentence that names the place and the fix.

A user's mistake is an `AlignboardError`: the command line prints its message and exits with 2, without a
traceback. Everything else is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path


class AlignboardError(Exception):
    """Base of every error that a user can mend; the message is complete without the type."""


class InputError(AlignboardError):
    """A file or an argument that cannot be used as it is."""


class SourceError(AlignboardError):
    """A download that failed after its retries, or that is not the pinned content."""


class ConvergenceError(AlignboardError, ArithmeticError):
    """A fit has no optimum, or did not reach it: the data separate, or hold values that are not finite."""


def require_within(path: Path, limits: Mapping[str, tuple[float, float, float]]) -> None:
    """Raise `InputError` for the first field of ``limits`` (value, least, most) whose value is outside."""
    for field, (value, least, most) in limits.items():
        if not least <= value <= most:
            end = f" to {most:g}" if most != float("inf") else " or more"
            raise InputError(f"{path}: {field} is {value:g}; expected {least:g}{end}.")


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint such as ``, did you mean 'zephyr-7b-beta'?``, or an empty string.

    >>> nearest("zephyr-7b-bta", ["zephyr-7b-beta", "phi-2"])
    ", did you mean 'zephyr-7b-beta'?"
    """
    import difflib  # noqa: PLC0415 - only where a name is misspelt

    names = [one for one in known if isinstance(one, str)]  # keys of YAML may be numbers
    matches = difflib.get_close_matches(str(name), names, n=3, cutoff=0.6)
    if not matches:
        return ""
    return ", did you mean " + " or ".join(repr(match) for match in matches) + "?"
