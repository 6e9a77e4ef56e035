"""What an audit says: one finding, with its evidence, and how many alike become one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np

Severity: TypeAlias = Literal["error", "warning", "note"]
Evidence: TypeAlias = dict[str, Any]
"""numbers, texts and lists of them: what JSON can hold"""

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""the gravest first"""

_RANK: dict[Severity, int] = {severity: rank for rank, severity in enumerate(SEVERITIES)}
# More findings than this of one kind and severity about one kind of file are told as one.
_FOLD_ABOVE: dict[Severity, int] = {"error": 12, "warning": 3, "note": 3}
_NAMED = 5


@dataclass(frozen=True)
class Finding:
    """Something that is wrong (``error``), that needs a look (``warning``) or that is good to know (``note``)."""

    kind: str
    severity: Severity
    model: str | None
    """None where it is about several models (``evidence["models"]``) or a whole board"""
    place: str
    """file or board, relative to the folder of results or to the ``alpaca_eval`` package"""
    message: str
    evidence: Evidence = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The finding as JSON can hold it."""
        return asdict(self)

    @property
    def models(self) -> tuple[str, ...]:
        """Every model that the finding is about, as far as it names them."""
        return (self.model,) if self.model is not None else tuple(self.evidence.get("models", ()))


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Errors first, then by kind, place and model; findings that many models share are folded into one."""
    groups: dict[tuple[int, str, str], list[Finding]] = {}
    for finding in findings:
        key = (_RANK[finding.severity], finding.kind, _kind_of_place(finding))
        groups.setdefault(key, []).append(finding)
    ordered = []
    for _, group in sorted(groups.items()):
        group.sort(key=lambda finding: (finding.place, finding.model or "", finding.message))
        foldable = len(group) > _FOLD_ABOVE[group[0].severity] and all(
            finding.model is not None for finding in group
        )
        ordered += [_folded(group)] if foldable else group
    return ordered


def at_least(severity: Severity, findings: Iterable[Finding]) -> list[Finding]:
    """The findings of ``severity`` or worse, in their order."""
    return [finding for finding in findings if _RANK[finding.severity] <= _RANK[severity]]


def rows_text(rows: Sequence[int]) -> str:
    """Row numbers in words, runs with a dash, at most six parts.

    >>> rows_text([3]), rows_text([1, 2, 3, 9]), rows_text([])
    ('row 3', 'rows 1-3, 9', 'no rows')
    """
    if not rows:
        return "no rows"
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    runs = np.split(np.asarray(rows), breaks)
    parts = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    more = "" if len(parts) <= 6 else f" and {sum(len(run) for run in runs[6:])} more"
    return f"row{'s' if len(rows) > 1 else ''} {', '.join(parts[:6])}{more}"


def names_text(names: Sequence[str], at_most: int = _NAMED) -> str:
    """Names in a sentence, the rest counted.

    >>> names_text(["a", "b", "c"], at_most=2)
    'a, b and 1 more'
    """
    rest = len(names) - at_most
    return ", ".join(names[:at_most]) + (f" and {rest} more" if rest > 0 else "")


def _kind_of_place(finding: Finding) -> str:
    """The place without its model, so that the files of one annotator fall together."""
    if finding.model is not None and finding.place.startswith(f"{finding.model}/"):
        return "*" + finding.place.removeprefix(finding.model)
    return finding.place


def _folded(group: list[Finding]) -> Finding:
    first = group[0]
    models = [finding.model or "" for finding in group]
    keys = dict.fromkeys(key for finding in group for key in finding.evidence)
    columns = {key: [finding.evidence.get(key) for finding in group] for key in keys}
    message = f"{len(group)} models share this: {names_text(models)}. The first, {models[0]}: {first.message}"
    evidence = {"models": models, "messages": [finding.message for finding in group], **columns}
    return replace(
        first, model=None, place=_kind_of_place(first), message=message, evidence=evidence
    )
