"""The simulated annotator as a judge: no model is asked, and the name of its column should say so."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from alignboard.evaluate.judge import Question, Reply, SimulatedSpec, spec_digest
from alignboard.evaluate.simulated import SimulatedAnnotator


class SimulatedJudge:
    """`SimulatedAnnotator` as a judge. Position bias is applied here, to the order in which the pair is really shown.

    The annotator itself draws an order of its own for every pair; with its own bias switched off, what it says depends
    on the order of its arguments no more than ``annotate(i, a, b) == 3 - annotate(i, b, a)``.
    """

    def __init__(self, spec: SimulatedSpec) -> None:
        self.spec = spec
        self._annotator = SimulatedAnnotator(spec.seed, spec.label_noise, position_bias=0.0)
        if not 0 <= spec.position_bias <= 1:
            raise ValueError(f"position_bias must lie in [0, 1], got {spec.position_bias}")

    @property
    def digest(self) -> str:
        """Of all that the rule and its noise depend on."""
        return spec_digest(self.spec, scheme="simulated-1")

    def ask(self, questions: Sequence[Question]) -> Iterator[tuple[int, Reply]]:
        """Every reply at once."""
        for place, question in enumerate(questions):
            yield place, self._reply(question)

    def _reply(self, question: Question) -> Reply:
        if self._position(question) < self.spec.position_bias:
            return Reply("scored", 1.0)
        try:
            verdict = self._annotator.annotate(
                question.instruction, question.first, question.second
            )
        except ValueError as error:
            return Reply("failed", reason=str(error))
        return Reply("scored", 2.0 - verdict.preference)

    def _position(self, question: Question) -> float:
        """A uniform of [0, 1) for the unordered pair: in both orders the same pairs are not read."""
        low, high = sorted((question.first, question.second))
        text = "\x00".join(("position", str(self.spec.seed), question.instruction, low, high))
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") / 2**64
