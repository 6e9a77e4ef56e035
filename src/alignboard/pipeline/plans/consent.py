"""What the user agrees to: what files of somebody else may have done with keys, and with the code of tasks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Consent:
    """What a plan may do that would be unsafe with anybody's files."""

    keys: frozenset[str] = frozenset()
    """``VARIABLE@HOST``: keys that may be sent to a host that they do not belong to"""
    tasks: bool = False
    """run the code of task files that are not lm-eval's own"""
