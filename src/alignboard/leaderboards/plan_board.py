"""The board of a plan: base models and what was trained on them, side by side, and its files.

Building is pure; `write_plan_board` alone touches the disk. The same scores give the same bytes.

Rates are fractions in [0, 1] in the dataclasses and in json, and percentages where a column says ``%``.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from alignboard.errors import InputError
from alignboard.leaderboards.board_text import csv_cell, json_value, markdown_text, shown
from alignboard.leaderboards.terminal import text_table
from alignboard.results.files import write_atomically
from alignboard.workspace import model_name

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


def write_plan_board(board: PlanBoard, folder: Path) -> list[Path]:
    """Write ``<name>.csv``, ``.md`` and ``.json`` into ``folder``, each of them whole or not at all."""
    name = model_name(board.name)
    contents = {"csv": to_csv(board), "md": to_markdown(board), "json": to_json(board)}
    paths = []
    for suffix, content in contents.items():
        path = folder / f"{name}.{suffix}"
        write_atomically(path, content.encode())
        paths.append(path)
    return paths


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
        for count in ("n_wins", "n_losses", "n_draws", "n_unparsed"):
            cells[f"{judge}: {count}"] = getattr(score, count) if score else None
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


def to_markdown(board: PlanBoard) -> str:
    """The board to be read."""
    header, rows = _table(board)
    lines = [
        f"# {markdown_text(board.title)}",
        "",
        _markdown_line(header),
        _markdown_line(["---" if n < _N_TEXT else "---:" for n in range(len(header))], raw=True),
        *(_markdown_line(row) for row in rows),
        "",
        *(f"- {markdown_text(sentence)}" for sentence in board.conditions),
    ]
    return "\n".join(lines) + "\n"


def plan_table(board: PlanBoard) -> str:
    """The board for a terminal or a pipe."""
    header, rows = _table(board)
    table = text_table(
        [shown(cell) for cell in header], [[shown(c) for c in row] for row in rows], left=(0, 1)
    )
    return "\n".join([table, "", *board.conditions])


_N_TEXT = 2


def _table(board: PlanBoard) -> tuple[list[str], list[list[str]]]:
    """Header and rows as text: percentages with one decimal, intervals in brackets."""
    has_key = any(row.correct is not None for row in board.rows)
    header = ["model", "method", *(["correct %"] if has_key else []), "length"]
    for judge in board.judges:
        header += [f"{judge}: win %", "SE", "95 %", "LC %"]
    header += board.benchmarks
    if board.rating_judge is not None:
        header += [f"rating ({board.rating_judge})", "95 %"]
    return header, [_cells(board, row, has_key=has_key) for row in board.rows]


def _cells(board: PlanBoard, row: PlanRow, *, has_key: bool) -> list[str]:
    cells = [row.model, row.method]
    if has_key:
        cells.append(_one(row.correct.value if row.correct else None, 100))
    cells.append(_one(row.mean_length))
    for judge in board.judges:
        score = row.judges.get(judge)
        if score is None:
            cells += ["baseline" if row.baseline == row.model else "", "", "", ""]
            continue
        rate, lc = score.win_rate, score.lc_win_rate
        cells += [
            _one(rate.value, 100),
            _one(rate.standard_error, 100),
            _span(rate.low, rate.high, 100),
        ]
        cells.append(_one(lc.value if lc else None, 100))
    for name in board.benchmarks:
        score = row.benchmarks.get(name)
        cells.append(_one(score.value if score else None, 100))
    if board.rating_judge is not None:
        rating = row.rating
        cells += (
            [_one(rating.value, digits=0), _span(rating.low, rating.high, digits=0)]
            if rating
            else ["", ""]
        )
    return cells


def _markdown_line(cells: Sequence[str], *, raw: bool = False) -> str:
    return f"| {' | '.join(cell if raw else markdown_text(cell) for cell in cells)} |"


def _one(value: float | None, scale: float = 1, digits: int = 1) -> str:
    return "" if value is None else f"{scale * value:.{digits}f}"


def _span(low: float | None, high: float | None, scale: float = 1, digits: int = 1) -> str:
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
