"""Several verdicts as one: of both orders, of samples, of two ratings."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from alignboard.judges.rows import Status, Verdict
from alignboard.judges.spec import JudgeSpec

_WORST: tuple[Status, ...] = ("failed", "refused", "truncated", "unparsed")
"""what a pair is called whose verdicts failed in several ways"""


def worst(verdicts: Sequence[Verdict]) -> Status:
    """``scored`` where all are, else the first of `_WORST` that is there."""
    there = {verdict.status for verdict in verdicts}
    for status in _WORST:
        if status in there:
            return status
    return "scored"


def pair_verdict(
    switched: Sequence[bool], verdicts: Sequence[Verdict]
) -> tuple[Status, float | None]:
    """The mean over the orders, as a preference for (output_1, output_2); none where an order has no verdict.

    A verdict counts by its weight (Arena-Hard's ``>>`` may count three times).
    """
    status = worst(verdicts)
    if status != "scored":
        return status, None
    turned = [
        (3 - verdict.preference if swapped else verdict.preference, verdict.weight)
        for swapped, verdict in zip(switched, verdicts, strict=True)
        if verdict.preference is not None
    ]
    return "scored", statistics.fmean(*zip(*turned, strict=True))


def rated_verdict(spec: JudgeSpec, verdicts: Sequence[Verdict]) -> tuple[Status, float | None]:
    """The ratings of output_1 and output_2 as a preference."""
    status = worst(verdicts)
    first, second = (verdict.score for verdict in verdicts)
    if status != "scored" or first is None or second is None:
        return ("unparsed" if status == "scored" else status), None
    return "scored", spec.preferred(first, second)


def sampled(verdicts: Sequence[Verdict]) -> Verdict:
    """The mean of several replies to one question; those without a verdict are left out, and that is flagged."""
    if len(verdicts) == 1:
        return verdicts[0]
    scored = [verdict for verdict in verdicts if verdict.status == "scored"]
    flags = {flag for verdict in verdicts for flag in verdict.flags}
    if len(scored) < len(verdicts):
        flags.add(f"{len(verdicts) - len(scored)} of {len(verdicts)} samples without a verdict")
    if not scored:
        first = verdicts[0]
        return Verdict(worst(verdicts), evidence=first.evidence, flags=tuple(sorted(flags)))
    preferences = [one.preference for one in scored if one.preference is not None]
    scores = [one.score for one in scored if one.score is not None]
    return Verdict(
        "scored",
        preference=statistics.fmean(preferences) if preferences else None,
        score=statistics.fmean(scores) if scores else None,
        evidence=f"mean of {len(scored)} samples",
        flags=tuple(sorted(flags)),
    )
