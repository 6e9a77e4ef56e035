"""What a tracker is given of a board: one run per model, its numbers by name, and the step that they belong to.

A board comes after the training that it measures, so its numbers have an axis of their own: they stand at the training
step that the row names, whatever the tracker's own counter says.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from alignboard.boards.board import Board
from alignboard.boards.columns import Column, Row
from alignboard.boards.drift import STEP

PREFIX = "evaluation"
"""names of metrics begin with it, and the axis is ``evaluation/step``"""
STEPS = "steps"
"""unit of a column that says how many training steps a row has; on boards of learning curves it is `STEP`"""
_NAME = re.compile(r"[^\w./ -]+")


@dataclass(frozen=True)
class Point:
    """One evaluation of one model."""

    model: str
    settings: dict[str, str]
    """what is known of the model and of the board"""
    step: int
    """training steps; 0 where the board does not say"""
    metrics: dict[str, float]
    """by name: values and ends of intervals, in the column's unit"""


def points(board: Board) -> list[Point]:
    """The evaluations of ``board``, one per row that has a number; checkpoints of one training are one model's."""
    steps = next((c for c in board.columns if c.unit == STEPS or c.key == STEP), None)
    found = [_point(board, row, steps) for row in board.rows]
    return [one for one in found if one.metrics]


def _point(board: Board, row: Row, steps: Column | None) -> Point:
    step = board.score(row, steps).value if steps is not None else None
    metrics: dict[str, float] = {}
    for column in board.columns:
        if column is steps:
            continue
        score, name = board.score(row, column), f"{PREFIX}/{metric_name(board.label(column))}"
        parts = {"": score.value, " low": score.low, " high": score.high}
        metrics |= {name + part: value for part, value in parts.items() if value is not None}
    settings = {"board": board.name, "family": row.family, "method": row.method}
    model = row.model.removesuffix(f"@{int(step)}") if step is not None else row.model
    return Point(model, {k: v for k, v in settings.items() if v}, int(step or 0), metrics)


def metric_name(label: str) -> str:
    """``label`` in the characters that every tracker takes.

    >>> metric_name("gpt-4: LC win rate (joint fit)")
    'gpt-4 LC win rate joint fit'
    """
    return " ".join(_NAME.sub(" ", label.replace("/", "-")).split())


def by_model(points: Sequence[Point]) -> dict[str, list[Point]]:
    """The evaluations of each model, in the order of their steps."""
    found: dict[str, list[Point]] = {}
    for point in sorted(points, key=lambda point: point.step):
        found.setdefault(point.model, []).append(point)
    return found
