"""The simulated annotator as a judge: no model is asked, and the name of its column should say so."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignboard.demo.simulated import SimulatedAnnotator
from alignboard.errors import require_within
from alignboard.judges.opening import Opening
from alignboard.judges.rows import Call, FailedCall, Question, Reply
from alignboard.judges.spec import JudgeSpec, Order


class SimulatedSpec(JudgeSpec, frozen=True, tag="simulated"):
    """The simulated annotator: a scoring rule of the demo world, label noise and position bias. No model."""

    order: Order = "coin"
    seed: int = 0
    label_noise: float = 0.217
    position_bias: float = 0.05

    def check(self, path: Path) -> None:
        """See `JudgeSpec`."""
        limits = {
            "label_noise": (self.label_noise, 0.0, 0.5),
            "position_bias": (self.position_bias, 0.0, 1.0),
        }
        require_within(path, limits)

    def open(self, opening: Opening) -> SimulatedJudge:  # noqa: ARG002 - nothing is needed
        """The rule with noise."""
        return SimulatedJudge(self)


class SimulatedJudge:
    """`SimulatedAnnotator` as a judge. Position bias is applied here, to the order in which the pair is really shown.

    The annotator itself draws an order of its own for every pair; with its own bias switched off, what it says depends
    on the order of its arguments no more than ``annotate(i, a, b) == 3 - annotate(i, b, a)``.
    """

    def __init__(self, spec: SimulatedSpec) -> None:
        self._spec = spec
        self._annotator = SimulatedAnnotator(spec.seed, spec.label_noise, position_bias=0.0)
        self.identity: Mapping[str, Any] = {
            "scheme": "simulated-2",
            "seed": spec.seed,
            "label_noise": spec.label_noise,
            "position_bias": spec.position_bias,
        }

    def ask(self, calls: Sequence[Call]) -> Iterator[tuple[Call, Reply | FailedCall]]:
        """Every reply at once."""
        for call in calls:
            (question,) = call.questions
            try:
                p_first = self._p_first(question)
            except ValueError as error:
                yield call, FailedCall(call.key, str(error))
            else:
                yield call, Reply(scores=(p_first, 1 - p_first))

    def _p_first(self, question: Question) -> float:
        if question.second is None:
            raise ValueError("the simulated annotator compares two outputs")
        if self._position(question) < self._spec.position_bias:
            return 1.0
        verdict = self._annotator.annotate(question.instruction, question.first, question.second)
        return 2.0 - verdict.preference

    def _position(self, question: Question) -> float:
        """A uniform of [0, 1) for the unordered pair: in both orders the same pairs are not read."""
        low, high = sorted((question.first, question.second or ""))
        text = "\x00".join(("position", str(self._spec.seed), question.instruction, low, high))
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") / 2**64
