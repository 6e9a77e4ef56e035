"""What the user agrees to: keys that files of others use, code of plans and tasks, and results that are replaced."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Consent:
    """What a run does only where the user agreed to it."""

    keys: frozenset[str] = frozenset()
    """``VARIABLE@HOST``: keys that may be sent to a host that they do not belong to"""
    tasks: bool = False
    """run the code of task files that are not lm-eval's own"""
    code: bool = False
    """run the code that a plan names: programs that judge, and Python of models' own repositories"""
    replace: bool = False
    """write a file of results also where the one there has more scored rows; the old one is kept beside it"""
