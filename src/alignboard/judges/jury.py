"""Several judges as one: majority, mean, or a mean weighted by how far each agrees with the others."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from alignboard.errors import InputError
from alignboard.judges.combining import worst
from alignboard.judges.pairs import Judged
from alignboard.judges.rows import Verdict
from alignboard.judges.spec import JudgeSpec, Part
from alignboard.registry import register


class JurySpec(JudgeSpec, frozen=True, tag="jury"):
    """Several judges as one."""

    order_fixed: ClassVar[str | None] = "a jury"

    judges: list[str]
    rule: Literal["majority", "mean", "agreement"] = "mean"
    """majority of the verdicts; their mean; their mean weighted by how far each agrees with the others"""

    @property
    def jurors(self) -> tuple[str, ...]:
        """See `JudgeSpec`."""
        return tuple(self.judges)

    @property
    def order_name(self) -> str:
        """The rule, because the jurors have orders of their own."""
        return self.rule

    def parts(self, instructions: Sequence[str], load: Callable[[str], JudgeSpec]) -> list[Part]:
        """Every juror judges everything."""
        return [(load(name), list(range(len(instructions)))) for name in self.judges]

    def combine(self, parts: Sequence[Part], judged: Sequence[Sequence[Judged]]) -> list[Judged]:  # noqa: ARG002
        """See `combined`."""
        return combined(self, judged)

    def check(self, path: Path) -> None:
        """See `JudgeSpec`."""
        if len(set(self.judges)) != len(self.judges) or len(self.judges) < 2:
            raise InputError(f"{path}: judges needs two different names or more.")
        if self.name in self.judges:
            raise InputError(f"{path}: judges has {self.name!r}, the jury itself.")


def combined(jury: JurySpec, judged: Sequence[Sequence[Judged]]) -> list[Judged]:
    """The jury's verdict on every pair; ``judged`` is one list for each juror, all of the same pairs.

    A juror without a verdict has no vote, and that is flagged; a pair on which fewer than half of the jury have one has
    none. Weights come from the pairs of this run: see `weights`.
    """
    share = weights(jury, judged)
    return [_one(jury, jurors, share) for jurors in zip(*judged, strict=True)]


def weights(jury: JurySpec, judged: Sequence[Sequence[Judged]]) -> list[float]:
    """Each juror's weight, of sum 1: equal but for the rule ``agreement``.

    There a weight is proportional to the juror's correlation with the mean of the others over the pairs that all have
    scored, and 0 where that is negative: a juror that answers at random gets none. Equal where no correlation is
    positive or defined.
    """
    n = len(judged)
    equal = [1 / n] * n
    if jury.rule != "agreement" or n < 3:
        return equal
    rows = [
        [one.preference for one in jurors]
        for jurors in zip(*judged, strict=True)
        if all(one.preference is not None for one in jurors)
    ]
    if len(rows) < 2:
        return equal
    votes = np.array(rows, dtype=np.float64)
    positive = [max(0.0, _correlation(votes, juror)) for juror in range(n)]
    total = sum(positive)
    return [one / total for one in positive] if total > 0 else equal


def _correlation(votes: np.ndarray, juror: int) -> float:
    own, others = votes[:, juror], np.delete(votes, juror, axis=1).mean(axis=1)
    if own.std() == 0 or others.std() == 0:
        return 0.0
    return float(np.corrcoef(own, others)[0, 1])


def _one(jury: JurySpec, jurors: Sequence[Judged], share: Sequence[float]) -> Judged:
    verdicts = tuple(
        Verdict(one.status, one.preference, evidence=name)
        for name, one in zip(jury.judges, jurors, strict=True)
    )
    marks = tuple(dict.fromkeys(mark for one in jurors for mark in one.marks))
    replies = tuple(reply for one in jurors for reply in one.replies)
    voting = [
        (one.preference, weight)
        for one, weight in zip(jurors, share, strict=True)
        if one.preference is not None
    ]
    if 2 * len(voting) < len(jurors):
        status = worst(verdicts)
        return Judged(jurors[0].pair, status, None, verdicts=verdicts, replies=replies, marks=marks)
    if len(voting) < len(jurors):
        marks = (*marks, f"{len(jurors) - len(voting)} of {len(jurors)} jurors without a verdict")
    preference = _majority(voting) if jury.rule == "majority" else _mean(voting)
    return Judged(
        jurors[0].pair, "scored", preference, verdicts=verdicts, replies=replies, marks=marks
    )


def _majority(voting: Sequence[tuple[float, float]]) -> float:
    """2 or 1 where more jurors prefer that side than the other, else a draw."""
    balance = sum((p > 1.5) - (p < 1.5) for p, _ in voting)
    return 1.5 + 0.5 * ((balance > 0) - (balance < 0))


def _mean(voting: Sequence[tuple[float, float]]) -> float:
    total = sum(weight for _, weight in voting)
    if total == 0:
        return statistics.fmean(p for p, _ in voting)
    return sum(p * weight for p, weight in voting) / total


register("judge", "jury", JurySpec)
