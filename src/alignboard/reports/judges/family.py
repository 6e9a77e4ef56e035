"""Self-preference: does a judge favour answers of the family that it comes from itself."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from alignboard.reports.judges.columns import Names
from alignboard.reports.judges.judgments import Judgments, PairKey
from alignboard.stats.intervals import Interval, bounded_mean, clustered_mean, student_interval

Array = NDArray[np.float64]

# Names that tell who made a model. Letters and digits around a short name would make it another word.
_FAMILIES = {
    "gpt": r"gpt(?!q)|openai|davinci",
    "claude": r"claude",
    "llama": r"llama",
    "mistral": r"mistral|mixtral|zephyr",
    "gemma": r"gemma(?![a-z])|gemini",
    "phi": r"(?<![a-z])phi(?![a-z])",
    "qwen": r"qwen",
}


@dataclass(frozen=True)
class SelfPreference:
    """How much better a judge scores answers of its own family than it otherwise would."""

    family: str
    excess: Interval | None
    """fraction: the judge's score less that of judges of other families on the same pairs, for its own family's answer;
    None without such judges"""
    controlled: bool
    """whether pairs without a family member (or with one on the other side) take out the judge's general leniency"""
    own_win_rate: Interval
    """of its own family's answers against others, as this judge says; preference and quality together"""
    n_pairs: int
    n_ambiguous: int
    """rows left out because a name fits several families"""


def family(name: str) -> str | None:
    """Who made a model, by its name; None where no family or more than one is named.

    >>> family("weighted_alpaca_eval_gpt4_turbo"), family("dolphin-2.2.1-mistral-7b"), family("phi-2-sft-gpt4")
    ('gpt', 'mistral', None)
    """
    found = _families(name)
    return found[0] if len(found) == 1 else None


def _families(name: str) -> list[str]:
    return [known for known, pattern in _FAMILIES.items() if re.search(pattern, name.lower())]


def self_preference(judge: str, part: Judgments, everything: Judgments) -> SelfPreference | None:
    """What ``judge`` adds to its own family; None where that is unknown, or no pair has just one answer of it."""
    own = family(judge)
    if own is None:
        return None
    ambiguous = _each(part.model, lambda name: own in _families(name) != [own])
    ambiguous |= _each(part.baseline, lambda name: own in _families(name) != [own])
    clear = part.where(~ambiguous)
    model, baseline = (
        _each(names, lambda n: family(n) == own) for names in (clear.model, clear.baseline)
    )
    lean = model.astype(float) - baseline
    if not lean.any():
        return None
    won = np.where(lean > 0, clear.score, 1 - clear.score)[lean != 0]
    others = _others_scores(own, everything)
    pairs = clear.pair_keys() if others else []
    theirs = np.array([others.get(pair, math.nan) for pair in pairs] or math.nan)
    excess = clear.canonical_score() - theirs
    excess = np.where(clear.mirrored, -excess, excess)
    compared = ~np.isnan(excess)
    slope, controlled = _slope(excess[compared], lean[compared], clear.instruction[compared])
    return SelfPreference(
        family=own,
        excess=slope,
        controlled=controlled,
        own_win_rate=bounded_mean(won, clear.instruction[lean != 0]),
        n_pairs=int((lean != 0).sum()),
        n_ambiguous=int(ambiguous.sum()),
    )


def _each(names: Names, holds: Callable[[str], bool]) -> NDArray[np.bool_]:
    """(n,) of which names ``holds`` is true."""
    return np.array([holds(text) for text in names.texts], dtype=np.bool_)[names.code]


def _others_scores(own: str, everything: Judgments) -> dict[PairKey, float]:
    """The mean score per pair of the judges that are known to be of other families."""
    other = {
        name: (found := family(name)) is not None and found != own
        for name in everything.judge.present()
    }
    if not any(other.values()):
        return {}
    scores: dict[PairKey, list[float]] = {}
    values = everything.canonical_score()
    for pair, name, value in zip(
        everything.pair_keys(), everything.judge.tolist(), values, strict=True
    ):
        if other[name] and not math.isnan(value):
            scores.setdefault(pair, []).append(float(value))
    return {pair: float(np.mean(found)) for pair, found in scores.items()}


def _slope(excess: Array, lean: Array, clusters: NDArray) -> tuple[Interval | None, bool]:
    """How ``excess`` grows with ``lean`` (-1, 0, 1), and whether there was anything to compare with."""
    if not lean.any():
        return None, False
    controlled = len(np.unique(lean)) > 1
    centred = lean - lean.mean() if controlled else lean
    scale = float(centred @ centred) / len(lean)
    slope = float(centred @ excess) / len(lean) / scale
    residual = excess - slope * lean - (float((excess - slope * lean).mean()) if controlled else 0)
    estimate = replace(clustered_mean(centred * residual / scale, clusters)[0], value=slope)
    return student_interval(estimate, within=(-1.0, 1.0)), controlled
