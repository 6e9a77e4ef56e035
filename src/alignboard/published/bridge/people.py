"""The bridge to people: ratings such as Arena Elo estimated from a judge's board."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from alignboard.errors import InputError, nearest
from alignboard.published.bridge.boards import JudgeBoard, Scored
from alignboard.stats.human_map import HumanMap, fit_human_map, left_out
from alignboard.strict_json import require_columns
from alignboard.text import shown, table

_NAMES = ("Model", "model", "name")


class HumanEstimate(msgspec.Struct, frozen=True):
    """One model: people's rating where it is known, and the estimate from the judge's score."""

    model: str
    score: float
    """percent"""
    rating: float | None
    estimate: float | None
    """of a model with a rating: from the others; None outside of the range of the models that people rated"""
    low: float | None
    high: float | None


class HumanReport(msgspec.Struct, frozen=True):
    """The map, how well it does on models that were left out, and the estimates."""

    judge: str
    metric: str
    column: str
    n_anchors: int
    mean_absolute_error: float
    """of anchors estimated from the others"""
    covered: float
    """share of these whose 95 % interval holds the rating"""
    n_estimated: int
    lowest: float
    """percent: the anchors' range"""
    highest: float
    models: list[HumanEstimate]


def human_report(
    board: JudgeBoard, people: Path, column: str | None, metric: str, models: Sequence[str] = ()
) -> HumanReport:
    """Estimate people's ratings in ``column`` of the csv ``people`` from the scores of ``board``.

    ``column`` None: the first whose title contains Elo. ``models`` limits the rows. Names are compared without case and
    punctuation. Raises `InputError` where too few models are in both.
    """
    ratings, title = read_ratings(people, column)
    scored = {
        name: rate / 100 for name, one in board.models.items() if (rate := _rate(one, metric))
    }
    for name in models:
        if name not in scored:
            raise InputError(
                f"{board.source} has no model {name!r}{nearest(name, list(scored)) or '.'}"
            )
    anchors = [name for name in scored if _plain(name) in ratings]
    score = np.array([scored[name] for name in anchors])
    rating = np.array([ratings[_plain(name)] for name in anchors])
    found = fit_human_map(score, rating)
    apart = dict(zip(anchors, left_out(score, rating) if len(anchors) > 8 else [], strict=False))
    kept = {name: one for name, one in apart.items() if not math.isnan(one[0])}
    errors = [abs(one[0] - ratings[_plain(name)]) for name, one in kept.items()]
    held = [one[1] <= ratings[_plain(name)] <= one[2] for name, one in kept.items()]
    order = sorted(models or scored, key=lambda name: -scored[name])
    return HumanReport(
        board.judge,
        metric,
        title,
        len(anchors),
        float(np.mean(errors)) if errors else math.nan,
        float(np.mean(held)) if held else math.nan,
        len(kept),
        100 * found.lowest,
        100 * found.highest,
        [
            _estimate(name, scored[name], ratings.get(_plain(name)), apart.get(name), found)
            for name in order
        ],
    )


def read_ratings(path: Path, column: str | None) -> tuple[dict[str, float], str]:
    """People's ratings by plain name, and the title of their column; empty cells are left out."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            require_columns(path, reader.fieldnames)
            rows = list(reader)
    except OSError as error:
        raise InputError(f"{path} cannot be read as csv: {error.strerror}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as csv: {error}.") from error
    titles = list(rows[0]) if rows else []
    name = next((one for one in _NAMES if one in titles), None)
    wanted = column or next((one for one in titles if one and "Elo" in one), None)
    if name is None or wanted is None or wanted not in titles:
        missing = repr(column) if column and name else "of models (Model) and one of ratings (Elo)"
        raise InputError(
            f"{path} has no column {missing}; its columns are {', '.join(map(repr, titles))}."
        )
    ratings: dict[str, float] = {}
    for number, row in enumerate(rows, start=1):
        text = (row[wanted] or "").strip()
        if not text:
            continue
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise InputError(
                f"{path}, row {number}, field {wanted!r}: {text!r}, a number was expected."
            )
        ratings.setdefault(_plain(row[name] or ""), value)
    return ratings, " ".join(wanted.split())


def human_text(report: HumanReport) -> str:
    """The report as text."""
    rows = [
        [
            shown(one.model),
            f"{one.score:.1f}",
            "" if one.rating is None else f"{one.rating:.0f}",
            "" if one.estimate is None else f"{one.estimate:.0f}",
            "outside the range" if one.estimate is None else f"{one.low:.0f} to {one.high:.0f}",
        ]
        for one in report.models
    ]
    fitted = (
        f"{report.column} from the {report.metric} of {report.judge}, a line through {report.n_anchors} models that "
        f"people rated ({report.lowest:.1f} to {report.highest:.1f} %)."
    )
    checked = (
        f"Of {report.n_estimated} models, each estimated from the others: mean error "
        f"{report.mean_absolute_error:.1f}, {report.covered:.0%} inside their 95 % intervals."
    )
    header = ("model", "score", "rated", "estimate", "95 %")
    return "\n".join([fitted, checked, table(header, rows, left=(0,))])


def _estimate(
    name: str,
    score: float,
    rating: float | None,
    apart: tuple[float, float, float] | None,
    found: HumanMap,
) -> HumanEstimate:
    limits = apart if rating is not None and apart is not None else found.predict(score)
    estimate, low, high = (None if math.isnan(one) else one for one in limits)
    return HumanEstimate(name, 100 * score, rating, estimate, low, high)


def _rate(one: Scored, metric: str) -> float | None:
    """The score in percent, where it has log-odds."""
    rate = one.lc_win_rate if metric == "lc" else one.win_rate
    return rate if rate is not None and 0 < rate < 100 else None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
