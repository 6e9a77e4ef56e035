"""Preference pairs from a model's own samples: West-of-N.

`west_of_n` is pure: candidates and a score in, pairs out. `candidates` and `build_pairs` add the model, through the one
engine of generation.

References: Pace et al. 2024, "West-of-N", arXiv 2401.12086: of N samples per prompt the best and the worst under a
scorer make the pair. Differs from the paper: no filter by confidence or likelihood; pairs whose scores are equal are
dropped instead, since a rule's ties say nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

from alignboard.engines.rows import Decoding
from alignboard.models.loading import LoadedModel
from alignboard.training.sections import PairSpec

Score = Callable[[str, str], float]
"""(instruction, output) -> how good; higher is better."""
Message = dict[str, str]
PreferenceRow = dict[str, list[Message]]
"""TRL's conversational preference row: prompt, chosen, rejected."""
_SLOTS: Final = 512
"""candidates under way at a time, where memory allows: they are short, so that a step costs as much as a call"""


@dataclass(frozen=True)
class PreferencePair:
    """Two outputs for one instruction, the better first."""

    instruction: str
    chosen: str
    rejected: str
    score_chosen: float
    score_rejected: float


def west_of_n(
    instructions: Sequence[str], candidates: Sequence[Sequence[str]], score: Score
) -> list[PreferencePair]:
    """The best and the worst candidate per instruction; instructions whose candidates all score the same are dropped.

    Among equals the first sampled wins, so that pairs follow the model's own frequencies.

    >>> west_of_n(["q"], [["long answer", "no", "yes"]], lambda _, output: float(output == "yes"))
    [PreferencePair(instruction='q', chosen='yes', rejected='long answer', score_chosen=1.0, score_rejected=0.0)]
    """
    pairs = []
    for instruction, outputs in zip(instructions, candidates, strict=True):
        scores = [score(instruction, output) for output in outputs]
        best, worst = max(scores, default=0.0), min(scores, default=0.0)
        if best > worst:
            chosen, rejected = outputs[scores.index(best)], outputs[scores.index(worst)]
            pairs.append(PreferencePair(instruction, chosen, rejected, best, worst))
    return pairs


def preference_rows(pairs: Sequence[PreferencePair]) -> list[PreferenceRow]:
    """Pairs as TRL reads them."""
    return [
        {
            "prompt": [{"role": "user", "content": p.instruction}],
            "chosen": [{"role": "assistant", "content": p.chosen}],
            "rejected": [{"role": "assistant", "content": p.rejected}],
        }
        for p in pairs
    ]


def candidates(
    loaded: LoadedModel,
    instructions: Sequence[str],
    decoding: Decoding,
    n: int,
    *,
    finished: bool = False,
) -> list[list[str]]:
    """``n`` responses per instruction of the adapter in use; ``finished`` leaves out those that the limit ended.

    What a candidate draws follows from the seed, the prompt and the candidate's number alone, so one more candidate or
    prompt leaves the others as they are.
    """
    from alignboard.engines.generate import prompts
    from alignboard.engines.local.engine import LocalEngine

    asked = [
        replace(prompt, key=f"{prompt.key} {k}", sample=k)
        for prompt in prompts(loaded, instructions, decoding)
        for k in range(n)
    ]
    engine = LocalEngine(loaded, slots=_SLOTS)
    answers = {answer.key: answer for answer in engine.answers(asked, decoding)}
    found = iter(answers[prompt.key] for prompt in asked)
    return [
        [one.output for one in islice(found, n) if not (finished and one.finish == "length")]
        for _ in instructions
    ]


def build_pairs(
    spec: PairSpec,
    loaded: LoadedModel,
    instructions: Sequence[str],
    score: Score,
    seed: int = 0,
    stop: Sequence[str] = (),
) -> list[PreferencePair]:
    """Sample from the model and adapter in use and pair by `score`; uses the first `spec.prompts` instructions.

    ``stop`` are texts that end a reply, of a model that was not taught to end one.
    """
    if len(instructions) < spec.prompts:
        raise ValueError(
            f"pairs.prompts asks for {spec.prompts} instructions, {len(instructions)} were given"
        )
    asked = list(instructions[: spec.prompts])
    decoding = Decoding(spec.max_new_tokens, spec.temperature, seed, stop=tuple(stop))
    found = candidates(loaded, asked, decoding, spec.n, finished=spec.finished)
    return west_of_n(asked, found, score)
