"""Repeated runs of one model in a results folder: their names, and their verdicts prompt by prompt.

A run is called ``<model>-response<k>-verdict<k>``, of which the parts stand that are repeated.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alignboard.records import Annotations, TextId
from alignboard.results.verdict_paths import verdict_files
from alignboard.workspace import model_name


@dataclass(frozen=True)
class RepeatedVerdicts:
    """One model's mean verdicts over its runs, and how uncertain the draws leave them."""

    table: Annotations
    n_runs: int
    variance: NDArray[np.float64]
    """(n,) of each prompt's mean over the draws of responses and verdicts; 0 for one run"""


def run_names(results: Path, model: str) -> list[str]:
    """The runs of ``model`` in ``results``; the model alone where it has verdicts of its own, or no runs."""
    folder = model_name(model)
    if not results.is_dir() or ((results / folder).is_dir() and verdict_files(results / folder)):
        return [model]
    pattern = re.compile(rf"{re.escape(folder)}(-response\d+)?(-verdict\d+)?")
    names = [path.name for path in results.iterdir() if pattern.fullmatch(path.name)]
    found = [name for name in names if name != folder]
    return sorted(found, key=lambda name: [int(n) for n in re.findall(r"\d+", name)]) or [model]


def repeated_verdicts(runs: Mapping[str, Annotations]) -> RepeatedVerdicts:
    """The mean over runs of the balanced verdict on every instruction; NaN where a run has none.

    The variance of a prompt's mean is that between its responses, else between the verdicts on its one response.

    References: Miller, arXiv 2411.00640, section 3.2 (several responses per prompt).
    """
    first = next(iter(runs.values()))
    if len(runs) == 1:
        return RepeatedVerdicts(first, 1, np.zeros(len(first)))
    prompts = first.instruction
    preference = np.array([_at(one.preference, one, prompts) for one in runs.values()])
    balanced = np.array([_at(one.balanced, one, prompts) for one in runs.values()])
    table = replace(first, preference=preference.mean(axis=0), balanced=balanced.mean(axis=0))
    response = np.array([name.partition("-verdict")[0] for name in runs])
    draws = [balanced[response == one].mean(axis=0) for one in dict.fromkeys(response)]
    drawn = np.array(draws) if len(draws) > 1 else balanced
    variance = drawn.var(axis=0, ddof=1) / len(drawn)
    return RepeatedVerdicts(table, len(runs), variance)


def _at(values: NDArray[np.float64], table: Annotations, prompts: TextId) -> NDArray[np.float64]:
    """(n,) ``values`` of a table at ``prompts``, NaN where it has none."""
    own: Sequence[float] = values.tolist()
    known = dict(zip(table.instruction.tolist(), own, strict=True))
    return np.array([known.get(prompt, math.nan) for prompt in prompts.tolist()])
