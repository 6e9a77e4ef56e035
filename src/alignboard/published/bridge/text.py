"""A bridge's report as text for a terminal or a pipe."""

from __future__ import annotations

import math

from alignboard.published.bridge.report import COLUMN, BridgeReport, BridgeRow
from alignboard.stats.bridge.validation import Quality
from alignboard.text import shown, table


def bridge_text(report: BridgeReport) -> str:
    """What was mapped onto what, how well that goes where it is known, and the estimates."""
    head = (
        f"From {shown(report.new_judge)} ({shown(report.new_source)}) to the official {report.official_judge} "
        f"({shown(report.official_source)}): {COLUMN[report.metric].replace('_', ' ')} from "
        f"{', '.join(report.form)}, {report.all_shared.n} anchors."
    )
    if report.n_models_with_items:
        head += f" Instruction-level verdicts of both judges on {report.n_models_with_items} models could be used."
    parts = [
        head,
        f"Leave one model out, {report.level * 100:g} % prediction intervals:\n{_validation(report)}",
    ]
    if report.estimates:
        parts.append(_table(report))
    else:
        parts.append(
            f"Every model of {shown(report.new_judge)} has an official score; name some with --model to see what the "
            "others say of them."
        )
    parts += [f"Note: {shown(note)}." for note in report.notes]
    parts.append(
        "Estimates are no official scores. They hold for models like the anchors: answers written for a judge are not."
    )
    return "\n\n".join(parts)


def quality_cells(quality: Quality) -> list[str]:
    """The cells of one line of a validation table, as `QUALITY_HEADER` names them."""
    return [
        str(quality.n),
        f"{quality.n_covered} ({_percent(quality.coverage, 1)} %)" if quality.n else "",
        _percent(quality.mean_width, 1),
        _percent(quality.mean_absolute_error, 2),
        _percent(quality.naive_mean_absolute_error, 2),
        _rank(quality.spearman),
        _rank(quality.naive_spearman),
        _rank(quality.kendall),
        _rank(quality.naive_kendall),
    ]


QUALITY_HEADER = (
    "n",
    "covered",
    "width",
    "MAE",
    "naive MAE",
    "Spearman",
    "naive",
    "Kendall",
    "naive",
)


def _validation(report: BridgeReport) -> str:
    rows = [
        ["anchors within the others' range", *quality_cells(report.within_range)],
        ["all anchors, extrapolated ones too", *quality_cells(report.all_shared)],
    ]
    validation = table(("", *QUALITY_HEADER), rows, left=(0,))
    return f"{validation}\nWidth and mean absolute error (MAE) in points; naive: {report.naive} as it is."


def _table(report: BridgeReport) -> str:
    official = COLUMN[report.metric]
    header = (
        "model",
        "new win rate",
        "new LC",
        "length",
        official,
        f"estimated_{official}",
        f"{report.level * 100:g} % prediction interval",
        "refused",
    )
    return table(header, [_cells(row) for row in report.estimates], left=(0, 7))


def _cells(row: BridgeRow) -> list[str]:
    interval = "" if row.low is None or row.high is None else f"{row.low:.1f}-{row.high:.1f}"
    return [
        shown(row.model),
        _number(row.new_win_rate),
        _number(row.new_lc_win_rate),
        "" if row.avg_length is None else f"{row.avg_length:.0f}",
        _number(row.official),
        _number(row.estimate),
        interval,
        row.refused or "",
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _percent(rate: float, digits: int) -> str:
    return "" if math.isnan(rate) else f"{rate * 100:.{digits}f}"


def _rank(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"
