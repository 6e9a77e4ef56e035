"""The board of a plan: base models and what was trained on them, side by side, and what machines read of it.

The same scores give the same bytes.

Rates are fractions in [0, 1] in the dataclasses and in json, and percentages where a column says ``%``.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import msgspec

from alignboard.errors import InputError
from alignboard.text import count, csv_cell, json_value

SCHEMA = 1


class Rate(msgspec.Struct, frozen=True):
    """A fraction with its 95 % interval; None where it is unknown."""

    value: float | None
    low: float | None
    high: float | None
    standard_error: float | None = None


class JudgeScore(msgspec.Struct, frozen=True):
    """One judge's verdicts on one model against its baseline."""

    win_rate: Rate
    lc_win_rate: Rate | None
    """length-controlled; None where difficulties cannot be fitted (fewer than two models of the base)"""
    n_wins: int
    n_losses: int
    n_draws: int
    n_unparsed: int
    """left out of every rate"""


class Rating(msgspec.Struct, frozen=True):
    """A place in the round robin, on the Elo scale; None where it is not determined."""

    value: float | None
    low: float | None
    high: float | None
    rank_best: int
    """1 + the models that are surely better"""
    rank_worst: int
    n_battles: int


class RatingTable(msgspec.Struct, frozen=True):
    """The round robin's result."""

    ratings: dict[str, Rating]
    """by model"""
    n_prompts: int
    n_without_verdict: int
    """comparisons that were not scored, and left out"""
    note: str | None
    """what had to be assumed for there to be finite ratings"""


class PlanRow(msgspec.Struct, frozen=True):
    """One model."""

    model: str
    family: str
    """the base model"""
    method: str
    baseline: str | None
    """the model whose answers its own are compared with; itself for the baseline"""
    n_prompts: int
    correct: Rate | None
    """answers that a program found right; None where the prompts have no answer key"""
    mean_length: float | None
    """characters"""
    judges: dict[str, JudgeScore]
    """empty for the baseline itself"""
    benchmarks: dict[str, Rate]
    """by ``task metric``"""
    rating: Rating | None


class Sample(msgspec.Struct, frozen=True):
    """One prompt and what every model answered."""

    instruction: str
    outputs: dict[str, str]
    """by model"""


class PlanBoard(msgspec.Struct, frozen=True):
    """All that the board of a plan shows."""

    name: str
    """of its files"""
    title: str
    seed: int
    baseline: str
    """the method that each model is compared with, on its own base"""
    judges: list[str]
    benchmarks: list[str]
    rating_judge: str | None
    conditions: list[str]
    """what the numbers are conditional on, a sentence each"""
    rows: list[PlanRow]
    """base by base, the base model first"""
    samples: list[Sample] = []
    schema: int = SCHEMA


def read_plan_board(path: Path) -> PlanBoard:
    """A board from its json file."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=PlanBoard)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    except msgspec.MsgspecError as error:
        raise InputError(f"{path} is no board of a plan: {error}.") from error


def to_json(board: PlanBoard) -> str:
    """The board as json; `read_plan_board` reads it back."""
    content = json_value(msgspec.to_builtins(board))
    return msgspec.json.format(msgspec.json.encode(content), indent=1).decode() + "\n"


def to_csv(board: PlanBoard) -> str:
    """One line per model, every number with its interval; a rate is in percent."""
    text = io.StringIO(newline="")
    rows = [_csv_row(board, row) for row in board.rows]
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: csv_cell(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def _csv_row(board: PlanBoard, row: PlanRow) -> dict[str, Any]:
    cells: dict[str, Any] = {
        "model": row.model,
        "family": row.family,
        "method": row.method,
        "baseline": row.baseline,
        "n_prompts": row.n_prompts,
        **_rate_cells("correct", row.correct),
        "mean_length": _rounded(row.mean_length),
    }
    for judge in board.judges:
        score = row.judges.get(judge)
        cells |= _rate_cells(f"{judge}: win rate", score.win_rate if score else None, error=True)
        cells |= _rate_cells(f"{judge}: LC win rate", score.lc_win_rate if score else None)
        for kind in ("n_wins", "n_losses", "n_draws", "n_unparsed"):
            cells[f"{judge}: {kind}"] = getattr(score, kind) if score else None
    for name in board.benchmarks:
        score = row.benchmarks.get(name)
        cells[f"{name} %"] = _percent(score.value if score else None)
        cells[f"{name} SE %"] = _percent(score.standard_error if score else None)
    if board.rating_judge is not None:
        rating = row.rating
        for field in ("value", "low", "high"):
            column = "rating" if field == "value" else f"rating {field}"
            cells[column] = _rounded(getattr(rating, field)) if rating else None
    return cells


def _rate_cells(name: str, rate: Rate | None, *, error: bool = False) -> dict[str, float | None]:
    fields = {"%": "value", "SE %": "standard_error", "low %": "low", "high %": "high"}
    return {
        f"{name} {unit}": _percent(getattr(rate, field) if rate else None)
        for unit, field in fields.items()
        if error or field != "standard_error"
    }


def summary(board: PlanBoard) -> str:
    """What was compared, in a sentence."""
    counts = sorted({row.n_prompts for row in board.rows}) or [0]
    prompts = " to ".join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))
    n_families = len({row.family for row in board.rows})
    families = "1 family" if n_families == 1 else f"{n_families} families"
    said = f"{count(len(board.rows), 'model')} of {families}"
    if counts[-1]:
        said += f" on {prompts} prompts"
    if board.judges:
        said += f", each compared with the {board.baseline} model of its family by {' and by '.join(board.judges)}"
    return f"{said}; seed {board.seed}."


def number(value: float | None, scale: float = 1, digits: int = 1) -> str:
    """``value`` to be read; nothing where it is unknown."""
    return "" if value is None else f"{scale * value:.{digits}f}"


def span(low: float | None, high: float | None, scale: float = 1, digits: int = 1) -> str:
    """An interval to be read; nothing where it is unknown."""
    return (
        ""
        if low is None or high is None
        else f"{scale * low:.{digits}f} to {scale * high:.{digits}f}"
    )


def _percent(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 4)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def known(value: float) -> float | None:
    """None for NaN and infinity: unknown is not a number."""
    return value if -float("inf") < value < float("inf") else None
