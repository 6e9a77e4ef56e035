"""Repeated runs of a plan's models: several responses to every prompt, and several verdicts on every response."""

from __future__ import annotations

import itertools
from pathlib import Path

import msgspec

from alignboard.errors import InputError


class Repeats(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How often everything is drawn anew; training seeds are repeated by ``sweep``."""

    responses: int = 1
    """to every prompt, with decoding seeds from the set's or the model's own upwards"""
    verdicts: int = 1
    """on every response"""

    @property
    def several(self) -> bool:
        """Whether anything is repeated."""
        return self.responses > 1 or self.verdicts > 1


class Draw(msgspec.Struct, frozen=True):
    """Which response and which verdict a run is, counted from 0."""

    suffix: str
    """of the run's name"""
    response: int = 0
    verdict: int = 0


def check_repeats(path: Path, repeats: Repeats, *, pairwise: bool) -> None:
    """Raise `InputError` for numbers below 1, and where something compares single runs."""
    if min(repeats.responses, repeats.verdicts) < 1:
        raise InputError(f"{path}: repeats needs 1 response and 1 verdict at least.")
    if repeats.several and pairwise:
        raise InputError(f"{path}: pairwise compares single runs; leave it or repeats out.")


def draws_of(repeats: Repeats, *, given: bool) -> list[Draw]:
    """The draws of one model; names count what is repeated."""
    n_responses = 1 if given else repeats.responses
    return [
        Draw(
            (f"-response{response}" if n_responses > 1 else "")
            + (f"-verdict{verdict}" if repeats.verdicts > 1 else ""),
            response,
            verdict,
        )
        for response, verdict in itertools.product(range(n_responses), range(repeats.verdicts))
    ]
