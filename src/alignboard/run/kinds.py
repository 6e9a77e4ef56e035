"""The kinds of jobs: which sources compute them, which libraries change their numbers, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from alignboard.run.graph import Kind

_TORCH = ("torch", "transformers")
_TRAIN = (*_TORCH, "accelerate", "peft", "trl")
_ANSWER = ("run/jobs_answer.py", "models", "evaluate/generate.py", "evaluate/engines", "data")
_JUDGE = (
    *("evaluate/judging", "evaluate/simulated.py", "run/judges.py", "run/judging.py"),
    *("data", "results/order.py", "results/attacks.py", "stats/second_order.py"),
)
_HARNESS = (
    *("evaluate/harness.py", "evaluate/harness_model.py", "evaluate/harness_tasks.py"),
    "evaluate/task_files.py",
)
KINDS: Final[Mapping[str, Kind]] = {
    "checkpoint": Kind(("run/jobs_train.py", "models/tiny.py", "data"), _TORCH),
    "train": Kind(("run/jobs_train.py", "train", "models/tiny.py", "data"), _TRAIN),
    "pairs": Kind(
        ("run/jobs_train.py", "train/pairs.py", "data", "evaluate/simulated.py"),
        (*_TORCH, "peft"),
    ),
    "judge-model": Kind(
        (
            "run/jobs_train.py",
            "evaluate/judge_training.py",
            "evaluate/judge_rows.py",
            "models",
            *_JUDGE,
        ),
        _TORCH,
    ),
    "generate": Kind(_ANSWER, (*_TORCH, "peft")),
    "task-data": Kind(("run/jobs_answer.py", "evaluate/harness.py", "data")),
    "lm-eval": Kind((*_ANSWER, *_HARNESS), (*_TORCH, "peft", "lm-eval")),
    "judge": Kind(("run/jobs_judge.py", "models", *_JUDGE), _TORCH),
    "pairwise": Kind(
        (
            "run/jobs_judge.py",
            "models",
            "evaluate/pairwise.py",
            "stats/rating.py",
            *_JUDGE,
        ),
        (*_TORCH, "numpy"),
    ),
    "board": Kind(
        ("run/jobs_board.py", "leaderboards", "stats", "data"), ("numpy", "matplotlib", "jinja2")
    ),
}
# Seconds of one core on a machine that nothing was measured on yet.
SECONDS: Final[Mapping[str, float]] = {
    "checkpoint": 25.0,
    "train": 8.0,
    "pairs": 4.0,
    "judge-model": 30.0,
    "generate": 2.0,
    "task-data": 0.5,
    "lm-eval": 4.0,
    "judge": 2.0,
    "pairwise": 5.0,
    "board": 1.0,
}
