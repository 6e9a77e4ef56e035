"""A rule as judge: how many character n-grams an output shares with a reference response (chrF). No model is asked.

It can be trusted where small models cannot judge, and it measures one thing: likeness to the reference. Any other good
response scores low.

References
----------
Popović, chrF: character n-gram F-score for automatic MT evaluation, WMT 2015. The figure is sacrebleu's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from alignboard.data.instruction_sets import read_references
from alignboard.errors import InputError
from alignboard.fetch.packages import is_packaged, packaged_path
from alignboard.judges.opening import Opening
from alignboard.judges.rows import Call, FailedCall, Question, Reply
from alignboard.judges.spec import JudgeSpec
from alignboard.results.files import file_sha256


class ReferenceSpec(JudgeSpec, frozen=True, tag="reference"):
    """chrF against reference responses, the outputs rated one by one."""

    opener: ClassVar[str] = "alignboard.judges.backends.reference:open_reference"
    order_fixed: ClassVar[str | None] = "a rule that rates outputs one by one"

    references: str
    """a json, jsonl or csv file with ``instruction`` and ``output``, relative to the workspace, or
    ``package:NAME/FILE``"""
    tie_within: float = 1.0
    """the largest difference that is a draw, of 100"""

    @property
    def is_rating(self) -> bool:
        """See `JudgeSpec`."""
        return True

    @property
    def scale(self) -> tuple[float, float]:
        """See `JudgeSpec`."""
        return 0.0, 100.0

    def sources(self, workspace: Path) -> dict[str, Any]:
        """See `JudgeSpec`."""
        return {"references": file_sha256(self.path(workspace))}

    def path(self, workspace: Path | None) -> Path:
        """Where the references lie."""
        if is_packaged(self.references):
            return packaged_path(self.references, workspace)
        return (workspace or Path.cwd()) / self.references

    def check(self, path: Path) -> None:
        """See `JudgeSpec`."""
        if not 0 <= self.tie_within <= 100:
            raise InputError(f"{path}: tie_within is {self.tie_within}; 0 to 100 was expected.")


class ReferenceJudge:
    """The rule on the references of one file; see `Backend`."""

    def __init__(self, spec: ReferenceSpec, path: Path) -> None:
        try:
            from sacrebleu.metrics.chrf import CHRF
        except ImportError as error:
            raise InputError(
                f"Judge {spec.name} needs sacrebleu: pip install 'alignboard[lm-eval]'."
            ) from error
        self._metric = CHRF()
        self._references = read_references(path)
        self._path = path
        self.identity: Mapping[str, Any] = {
            "scheme": "reference-1",
            "metric": "chrF2",
            "references": file_sha256(path),
        }

    def ask(self, calls: Sequence[Call]) -> Iterator[tuple[Call, Reply | FailedCall]]:
        """Every score at once."""
        for call in calls:
            (question,) = call.questions
            reference = self._references.get(question.instruction)
            if reference is None:
                reason = f"{self._path.name} has no reference for {question.instruction[:60]!r}"
                yield call, FailedCall(call.key, reason)
            else:
                yield call, Reply(scores=(self._score(question, reference),))

    def _score(self, question: Question, reference: str) -> float:
        return float(self._metric.sentence_score(question.first, [reference]).score)


def open_reference(spec: ReferenceSpec, opening: Opening) -> ReferenceJudge:
    """The rule, its references read."""
    return ReferenceJudge(spec, spec.path(opening.workspace))
