"""Which function does which kind of job, and what it imports that is slow to load."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from alignboard.pipeline.executors.worker import Implementation
from alignboard.pipeline.jobs import board as jobs_board
from alignboard.pipeline.jobs import generate as jobs_answer
from alignboard.pipeline.jobs import judge as jobs_judge
from alignboard.pipeline.jobs import train as jobs_train

IMPLEMENTATIONS: Final[Mapping[str, Implementation]] = {
    "checkpoint": jobs_train.checkpoint,
    "train": jobs_train.train,
    "pairs": jobs_train.pairs,
    "judge-model": jobs_train.judge_model,
    "task-data": jobs_answer.task_data,
    "outputs": jobs_answer.outputs,
    "generate": jobs_answer.generate,
    "lm-eval": jobs_answer.lm_eval,
    "judge": jobs_judge.judge,
    "pairwise": jobs_judge.pairwise,
    "board": jobs_board.board,
}
LIBRARIES: Final[Mapping[str, tuple[str, ...]]] = {
    "checkpoint": ("torch", "transformers"),
    "train": ("alignboard.train.trainer",),
    "pairs": ("torch", "transformers", "peft"),
    "judge-model": ("torch", "transformers"),
    "generate": ("torch", "transformers", "peft"),
    "lm-eval": ("torch", "transformers", "peft", "lm_eval.evaluator", "lm_eval.models.huggingface"),
}
