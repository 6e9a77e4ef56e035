"""A simulated annotator: a scoring rule with calibrated label noise and position bias. No model, no network.

In the sense of AlpacaFarm (Dubois et al. 2023, arXiv 2305.14387, section 3), which simulates the variability of human
annotators by a pool of prompted models and 25% flipped labels. Here the pool is replaced by a rule of the demo world:

    score(instruction, output) = 1 if the answer is right, else 0, plus 0.5 if it is right and concise.

What this is honest about
    It knows the answer key, which no real judge does, and its taste (concise over padded) is the taste the demo's
    preference pairs are made by: methods are compared on what they were trained for. A score that wins by losing
    content is visible, since a wrong answer is never preferred by the rule; show correctness and length beside it.

Noise
    With chance `label_noise` the annotator reports the opposite of what the rule says. The default is calibrated:
    two independent annotators with flip chance f agree with probability 1 - 2f(1 - f), and 0.66 (human
    annotators' agreement on AlpacaFarm's comparisons, as reported there) gives f = 0.217. A win rate over pairs
    that the rule decides is pulled towards one half by the factor 1 - 2f = 0.57: margins on a board are understated.
Position bias
    With chance `position_bias` the annotator prefers what was shown first, without reading. Which output is shown
    first is drawn per pair, so the bias widens intervals and moves no win rate in expectation.
Ties
    Equal scores are a draw (1.5) unless the position bias decides. Identical outputs are always a draw.

Every draw is a hash of (seed, instruction, the two outputs): the same question always gets the same answer, in any
process and order of evaluation, and `annotate(i, a, b) == 3 - annotate(i, b, a)`.

As a judge its name of a column should say that no model is asked.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignboard.demo import world
from alignboard.errors import require_within
from alignboard.judges.opening import Opening
from alignboard.judges.rows import Call, FailedCall, Question, Reply
from alignboard.judges.spec import JudgeSpec, Order


def label_noise_for_agreement(agreement: float) -> float:
    """The flip chance f < 1/2 at which two independent noisy annotators agree: solves a = 1 - 2f(1 - f).

    >>> round(label_noise_for_agreement(0.66), 3)
    0.217
    >>> label_noise_for_agreement(1.0)
    0.0
    """
    if not 0.5 <= agreement <= 1.0:
        raise ValueError(f"agreement must lie in [0.5, 1], got {agreement}")
    return (1 - math.sqrt(2 * agreement - 1)) / 2


def rule_score(instruction: str, output: str) -> float:
    """The scoring rule, in {0, 1, 1.5}: right is 1, right and concise is 1.5, wrong is 0 however short.

    >>> rule_score("translate into french: dog cat.", "chien chat.")
    1.5
    """
    if not world.check(instruction, output):
        return 0.0
    return 1.5 if world.is_concise(instruction, output) else 1.0


@dataclass(frozen=True)
class SimulatedVerdict:
    """One annotation: preference in AlpacaEval's coding (1 = the first argument, 2 = the second, 1.5 = a draw)."""

    preference: float
    rule_preference: float
    """What the rule alone says; differs from `preference` by noise and position."""
    shown_first: int
    """Which argument was shown first: 1 or 2."""


@dataclass(frozen=True)
class SimulatedAnnotator:
    """The annotator and all that determines its answers.

    >>> judge = SimulatedAnnotator(seed=0, label_noise=0.0, position_bias=0.0)
    >>> judge.annotate("translate into french: dog cat.", "that is easy: chien chat.", "chien chat.").preference
    2.0
    """

    seed: int = 0
    label_noise: float = 0.217
    position_bias: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.label_noise <= 0.5:
            raise ValueError(f"label_noise must lie in [0, 0.5], got {self.label_noise}")
        if not 0 <= self.position_bias <= 1:
            raise ValueError(f"position_bias must lie in [0, 1], got {self.position_bias}")

    def annotate(self, instruction: str, output_1: str, output_2: str) -> SimulatedVerdict:
        """Compare two outputs for one instruction."""
        low, high = sorted((output_1, output_2))
        order, biased, noisy = self._uniforms(instruction, low, high)
        first = (
            low if order < 0.5 else high
        )  # drawn for the unordered pair, so that swapping arguments swaps nothing
        shown_first = 1 if first == output_1 else 2
        margin = rule_score(instruction, output_2) - rule_score(instruction, output_1)
        rule = 1.5 + 0.5 * ((margin > 0) - (margin < 0))
        if output_1 == output_2:
            return SimulatedVerdict(1.5, 1.5, shown_first)
        if biased < self.position_bias:
            return SimulatedVerdict(float(shown_first), rule, shown_first)
        if noisy < self.label_noise:
            return SimulatedVerdict(3.0 - rule, rule, shown_first)
        return SimulatedVerdict(rule, rule, shown_first)

    def _uniforms(self, instruction: str, low: str, high: str) -> tuple[float, float, float]:
        """Three uniforms in [0, 1): order shown, position bias, label noise."""
        text = "\x00".join(("alignboard-simulated-1", str(self.seed), instruction, low, high))
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        a, b, c = (int.from_bytes(digest[i : i + 8], "big") / 2**64 for i in (0, 8, 16))
        return a, b, c


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
