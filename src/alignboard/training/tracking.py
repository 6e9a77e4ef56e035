"""Trackers of a run, as a recipe's `report_to` names them: transformers' own callbacks, off by default.

Heavy: imports transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from transformers import TrainerCallback

from alignboard.training.sections import RecipeError

RUNS: Final = Path("runs")
"""in the current folder: TensorBoard's own default"""


def trackers(names: Sequence[str], run: str) -> list[TrainerCallback]:
    """The callbacks of ``names``; TensorBoard's files lie in ``runs/<run>``, the others' where these put them."""
    for name in names:
        if find_spec(name) is None:
            raise RecipeError(f"report_to: {name} is not installed; pip install {name}.")
    from transformers.integrations import integration_utils

    found: list[TrainerCallback] = []
    for name in names:
        if name == "tensorboard":
            from torch.utils.tensorboard import SummaryWriter

            found.append(integration_utils.TensorBoardCallback(SummaryWriter(str(RUNS / run))))
        else:
            kind = {"wandb": "WandbCallback", "trackio": "TrackioCallback"}[name]
            found.append(getattr(integration_utils, kind)())
    return found
