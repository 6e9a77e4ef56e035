"""The kinds of jobs: which sources compute them, which libraries change their numbers, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from alignboard.pipeline.graph import Kind

_TORCH = ("torch", "transformers")
_TRAIN = (*_TORCH, "accelerate", "peft", "trl")
_ANSWER = ("pipeline/jobs/generate.py", "models", "engines/generate.py", "engines", "data")
_JUDGE = (
    *("judges", "judges/demo/simulated.py", "pipeline/judges.py", "pipeline/judging.py"),
    *("data", "results/order.py", "judges/prompting/attacks.py", "stats/second_order.py"),
)
_HARNESS = (
    *("benchmarks/run.py", "benchmarks/model.py", "benchmarks/tasks.py"),
    "benchmarks/task_files.py",
)
KINDS: Final[Mapping[str, Kind]] = {
    "checkpoint": Kind(("pipeline/jobs/train.py", "models/tiny.py", "data"), _TORCH),
    "train": Kind(("pipeline/jobs/train.py", "train", "models/tiny.py", "data"), _TRAIN),
    "pairs": Kind(
        ("pipeline/jobs/train.py", "train/pairs.py", "data", "judges/demo/simulated.py"),
        (*_TORCH, "peft"),
    ),
    "judge-model": Kind(
        (
            "pipeline/jobs/train.py",
            "judges/demo/judge_training.py",
            "judges/demo/judge_rows.py",
            "models",
            *_JUDGE,
        ),
        _TORCH,
    ),
    "outputs": Kind(("pipeline/jobs/generate.py",)),
    "generate": Kind(_ANSWER, (*_TORCH, "peft")),
    "task-data": Kind(("pipeline/jobs/generate.py", "benchmarks/run.py", "data")),
    "lm-eval": Kind((*_ANSWER, *_HARNESS), (*_TORCH, "peft", "lm-eval")),
    "judge": Kind(("pipeline/jobs/judge.py", "models", *_JUDGE), _TORCH),
    "pairwise": Kind(
        (
            "pipeline/jobs/judge.py",
            "models",
            "judges/round_robin.py",
            "stats/rating.py",
            *_JUDGE,
        ),
        (*_TORCH, "numpy"),
    ),
    "board": Kind(
        ("pipeline/jobs/board.py", "leaderboards", "stats", "data"),
        ("numpy", "matplotlib", "jinja2"),
    ),
}
# Seconds of one core on a machine that nothing was measured on yet.
SECONDS: Final[Mapping[str, float]] = {
    "checkpoint": 25.0,
    "train": 8.0,
    "pairs": 4.0,
    "judge-model": 30.0,
    "outputs": 0.1,
    "generate": 2.0,
    "task-data": 0.5,
    "lm-eval": 4.0,
    "judge": 2.0,
    "pairwise": 5.0,
    "board": 1.0,
}
