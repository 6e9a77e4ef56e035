"""A generated set's own rule as judge: it knows the right responses. No model is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from alignboard.data.generated import generated_names, generated_set
from alignboard.errors import InputError, nearest
from alignboard.judges.opening import Opening
from alignboard.judges.rows import Call, FailedCall, Reply
from alignboard.judges.spec import JudgeSpec


class AnswerKeySpec(JudgeSpec, frozen=True, tag="answer-key"):
    """The rule of a generated set (`GeneratedSet.score`), the outputs rated one by one."""

    order_fixed: ClassVar[str | None] = "a rule that rates outputs one by one"

    of: str
    """the generated set"""

    @property
    def is_rating(self) -> bool:
        """See `JudgeSpec`."""
        return True

    def check(self, path: Path) -> None:
        """See `JudgeSpec`."""
        known = generated_names()
        if self.of not in known:
            hint = nearest(self.of, known) or f"; known are {', '.join(known)}."
            raise InputError(f"{path}: of is {self.of!r}, which generates no set{hint}")

    def open(self, opening: Opening) -> AnswerKeyJudge:  # noqa: ARG002 - nothing is needed
        """The rule."""
        return AnswerKeyJudge(self)


class AnswerKeyJudge:
    """The rule; see `Backend`."""

    def __init__(self, spec: AnswerKeySpec) -> None:
        self._set = generated_set(spec.of)
        self.identity: Mapping[str, Any] = {"scheme": "answer-key-1", "of": spec.of}

    def ask(self, calls: Sequence[Call]) -> Iterator[tuple[Call, Reply | FailedCall]]:
        """Every score at once."""
        for call in calls:
            (question,) = call.questions
            try:
                score = self._set.score(question.instruction, question.first)
            except (KeyError, ValueError):
                reason = f"the set has no question {question.instruction[:60]!r}"
                yield call, FailedCall(call.key, reason)
            else:
                yield call, Reply(scores=(score,))
