"""Benchmarks along one training: the steps of a board's rows, and which benchmark can decide between them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from alignboard.boards.columns import Column, Score
from alignboard.stats.signal_noise import SignalNoise, signal_noise

_CHECKPOINT: Final = re.compile(r"(.+)@(\d+)")
_DECIDES: Final = 2.0
"""times the noise: what is less is within about two standard deviations of a step"""


def steps_of(models: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """The step of every row that `alignboard benchmark --checkpoints` made: a model called ``<run>@<step>``."""
    found = {}
    for entry in models:
        match = _CHECKPOINT.fullmatch(entry["model"])
        if match is not None and entry["method"] == f"step {match[2]}":
            found[entry["model"]] = int(match[2])
    return found


def signal_notes(
    columns: Sequence[Column],
    scores: Mapping[str, Mapping[str, Score]],
    steps: Mapping[str, int],
) -> list[str]:
    """For each benchmark its signal against its step-to-step noise, the best first; none without three checkpoints."""
    found = []
    order = sorted(steps, key=lambda model: steps[model])
    for column in columns:
        if column.kind != "benchmark":
            continue
        values = {
            model: own[column.key].value for model, own in scores.items() if column.key in own
        }
        run = [value for model in order if (value := values.get(model)) is not None]
        others = [v for model, v in values.items() if model not in steps and v is not None]
        one = signal_noise(run, others)
        if not math.isnan(one.noise):
            found.append((one, column))
    found.sort(key=lambda pair: -pair[0].ratio if pair[0].signal else 0.0)
    return [f"{column.name}: {_words(one)}" for one, column in found]


def _words(one: SignalNoise) -> str:
    if not one.signal:
        return "all models have one score; it decides nothing between them."
    text = (
        f"scores lie {one.signal:.3g} apart, and a step moves one by {one.noise:.3g} (standard deviation over "
        f"{one.n_steps} steps), ratio {one.ratio:.3g}"
    )
    return f"{text}." if one.ratio >= _DECIDES else f"{text}; it decides nothing between them."
