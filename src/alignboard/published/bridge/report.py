"""What the official judge would say: official scores estimated from a new judge's, validated on models that have both.

A figure that is no official score is named as an estimate: its columns are called ``estimated_official_...``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from alignboard.errors import InputError, nearest
from alignboard.published.bridge.boards import new_board, official_board
from alignboard.published.bridge.material import Material, Metric
from alignboard.results.folder import ResultsFolder
from alignboard.stats.bridge.bridge import Bridge, Estimates, predict
from alignboard.stats.bridge.scores import Form
from alignboard.stats.bridge.validation import Quality, Validation
from alignboard.suites import Suite
from alignboard.text import json_value

COLUMN = {"win_rate": "official_win_rate", "lc": "official_lc_win_rate"}
_RATES = ("coverage", "mean_width", "mean_absolute_error", "naive_mean_absolute_error")


@dataclass(frozen=True)
class BridgeRow:
    """One model. Rates are percentages, None = not known, or not estimated (``refused`` says why)."""

    model: str
    new_win_rate: float
    new_lc_win_rate: float | None
    avg_length: float | None
    official: float | None
    """the official score itself; its model is estimated from the other anchors"""
    estimate: float | None
    """the estimated official score, with the limits of its prediction interval"""
    low: float | None
    high: float | None
    refused: str | None

    def to_json(self, metric: Metric) -> dict:
        """The row under the names of its columns."""
        name = COLUMN[metric]
        names = {
            "official": name,
            "estimate": f"estimated_{name}",
            "low": f"estimated_{name}_low",
            "high": f"estimated_{name}_high",
        }
        return {names.get(key, key): value for key, value in asdict(self).items()}


@dataclass(frozen=True)
class BridgeReport:
    """Estimates for new models, and how the same procedure does on models whose official score is known."""

    new_judge: str
    new_source: str
    official_judge: str
    official_source: str
    suite: str
    metric: Metric
    form: Form
    """what the map of all anchors is made of"""
    n_models_with_items: int
    """models with instruction-level verdicts of both judges that the map could use; 0 where it could not"""
    level: float
    naive: str
    """what the naive baseline takes for the official score"""
    within_range: Quality
    """over the anchors within the range of the others: those that a bridge estimates"""
    all_shared: Quality
    """over all anchors, extrapolations included"""
    estimates: list[BridgeRow]
    anchors: list[BridgeRow]
    """each estimated from the others"""
    notes: list[str]

    def to_json(self) -> dict:
        """Plain data; rates are percentages."""
        content = asdict(self)
        for name in ("estimates", "anchors"):
            content[name] = [row.to_json(self.metric) for row in getattr(self, name)]
        content["validation"] = {
            "method": "leave one model out",
            **{name: quality_json(content.pop(name)) for name in ("within_range", "all_shared")},
        }
        return json_value(content)


def quality_json(quality: dict[str, float]) -> dict[str, float]:
    """A `Quality` as plain data, rates and their errors as percentages."""
    return {key: value * 100 if key in _RATES else value for key, value in quality.items()}


def bridge_report(
    new: str,
    suite: Suite,
    suites: Sequence[Suite],
    *,
    folder: ResultsFolder | None = None,
    metric: Metric = "win_rate",
    models: Sequence[str] = (),
    level: float = 0.95,
) -> BridgeReport:
    """Estimate the scores that ``suite``'s own judge would give to the models of the board ``new``.

    ``suites`` are those whose published boards can be named; ``folder`` holds annotations of the new judge. ``models``
    are estimated, else those that have no official score; a model that has one is estimated from the others. Raises
    `InputError` with fewer than eight anchors, and where none of ``models`` can be estimated.
    """
    board = new_board(new, suites, folder, suite.n_instructions)
    official = official_board(suite, folder)
    if board.judge == official.judge and not new.lower().endswith(".csv"):
        raise InputError(f"{new!r} is the official judge of {suite.name} itself; name another one.")
    material = Material.of(board, official, metric)
    wanted = _wanted(material, models)
    validation, bridge = material.validate(level), material.fit()
    anchors = {row.model: row for row in _anchor_rows(material, validation)}
    rows = [anchors.get(name) or _new_row(material, bridge, name, level) for name in wanted]
    if models and all(row.refused for row in rows):
        reasons = "; ".join(f"{row.model}: {row.refused}" for row in rows)
        mend = (
            "Give what is not known"
            if any(material.lacks(row.model) for row in rows)
            else "Have the official judge annotate such models, so that anchors surround them"
        )
        raise InputError(
            f"No estimate of the official score by {official.judge}. {reasons}. {mend}."
        )
    return BridgeReport(
        new_judge=board.judge,
        new_source=board.source,
        official_judge=official.judge,
        official_source=official.source,
        suite=suite.name,
        metric=metric,
        form=bridge.form,
        n_models_with_items=material.n_both if material.items is not None else 0,
        level=level,
        naive=material.naive,
        within_range=validation.quality(material.own, validation.estimates.inside),
        all_shared=validation.quality(material.own, np.ones(len(anchors), dtype=np.bool_)),
        estimates=sorted(rows, key=lambda row: (-(row.estimate or 0), row.model)),
        anchors=sorted(anchors.values(), key=lambda row: (-(row.official or 0), row.model)),
        notes=material.notes() + _turns(bridge),
    )


def _turns(bridge: Bridge) -> list[str]:
    """What a reader has to know where the fitted curve turns within the anchors' range."""
    if bridge.turning_point is None:
        return []
    wrong_way = (
        "below it a lower new win rate gives a higher estimate"
        if bridge.opens_upwards
        else "above it a higher new win rate gives a lower estimate"
    )
    return [
        f"the fitted curve turns at a new win rate of {bridge.turning_point * 100:.1f} %: {wrong_way}"
    ]


def _wanted(material: Material, models: Sequence[str]) -> list[str]:
    known = material.board.models
    for name in models:
        if name in material.board.left_out:
            raise InputError(
                f"{name} of {material.board.source} cannot be estimated: {material.board.left_out[name]}."
            )
        if name not in known:
            raise InputError(
                f"{material.board.judge} ({material.board.source}) has no model {name!r}{nearest(name, known) or '.'}"
            )
    return list(dict.fromkeys(models)) or [name for name in known if name not in material.names]


def _anchor_rows(material: Material, validation: Validation) -> list[BridgeRow]:
    return [
        _row(material, name, validation.estimates, number, float(validation.official[number]) * 100)
        for number, name in enumerate(material.names)
    ]


def _new_row(material: Material, bridge: Bridge, name: str, level: float) -> BridgeRow:
    if lacking := material.lacks(name):
        nothing = np.full(1, np.nan)
        return _row(
            material, name, Estimates(nothing, nothing, nothing, (lacking,), level), 0, None
        )
    return _row(material, name, predict(bridge, material.scores([name]), level=level), 0, None)


def _row(
    material: Material, name: str, found: Estimates, number: int, official: float | None
) -> BridgeRow:
    scored, refused = material.board.models[name], found.outside[number]
    estimate, low, high = (
        None if refused else float(part[number]) * 100
        for part in (found.estimate, found.low, found.high)
    )
    return BridgeRow(
        model=name,
        new_win_rate=scored.win_rate,
        new_lc_win_rate=scored.lc_win_rate,
        avg_length=scored.length,
        official=official,
        estimate=estimate,
        low=low,
        high=high,
        refused=refused,
    )
