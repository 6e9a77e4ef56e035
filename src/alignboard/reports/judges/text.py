"""The trust report as text: one table per question, every comparison with its interval."""

from __future__ import annotations

import math
from collections.abc import Callable

from alignboard.reports.judges.judge import LENGTH_DIFFERENCE, LOW_MASS, JudgeFigures
from alignboard.reports.judges.judgments import STATUSES
from alignboard.reports.judges.report import JudgeReport
from alignboard.stats.agreement import Alpha
from alignboard.stats.intervals import Interval
from alignboard.text import printable, table


def report_text(report: JudgeReport) -> str:
    """The whole report; parts about which nothing is known are left out."""
    parts = [_verdicts(report), _biases(report), _self_preference(report), _models(report)]
    parts += [_between(report), _humans(report)]
    closing = (
        "Percent and points; [95 % intervals], clustered by instruction, given these judges. Only scored verdicts "
        "enter a figure."
    )
    return "\n\n".join([part for part in parts if part] + [closing])


def _verdicts(report: JudgeReport) -> str:
    header = ("judge", "rows", "instructions", *STATUSES, "mass", "low mass", "price $", "flags")
    rows = [
        [
            printable(one.judge),
            str(one.n_rows),
            str(one.n_instructions),
            *(_count(one.status[status], one.n_rows) for status in STATUSES),
            "-" if one.mass is None else f"{one.mass:.4f}",
            "-" if one.mass is None else str(one.n_low_mass),
            "-" if one.price is None else f"{one.price:.2f}",
            ", ".join(f"{printable(flag)} {count}" for flag, count in one.flags.items()) or "-",
        ]
        for one in report.judges
    ]
    return (
        f"What became of the verdicts (low mass: verdict tokens had together less than {LOW_MASS})\n"
        + table(header, rows, left=(0, len(header) - 1))
    )


def _biases(report: JudgeReport) -> str:
    header = (
        "judge",
        "prefers first",
        "shown first - second",
        "swap-consistent",
        "both orders",
        "prefers longer",
        "order",
    )
    rows = [
        [
            printable(one.judge),
            _percent(one.prefers_first),
            _points(one.position_gap),
            "-" if one.swap_consistency is None else _percent(one.swap_consistency),
            str(one.n_both_orders),
            _percent(one.prefers_longer),
            _order(one),
        ]
        for one in report.judges
    ]
    return (
        f"Does the place or the length decide (longer: by more than {LENGTH_DIFFERENCE} characters)\n"
        + table(header, rows, left=(0, len(header) - 1))
    )


def _order(one: JudgeFigures) -> str:
    if one.order == "none":
        return "none shown"
    source = "AlpacaEval's coin" if one.order == "recomputed" else one.order
    return f"{source}; {'within' if one.paired else 'between'} rows"


def _self_preference(report: JudgeReport) -> str:
    header = (
        "judge",
        "family",
        "pairs",
        "own wins",
        "more than other families' judges say",
        "note",
    )
    rows = []
    for one in report.judges:
        own = one.self_preference
        if own is None:
            continue
        notes = [] if own.excess is not None else ["no judge of another family on these pairs"]
        if own.excess is not None and not own.controlled:
            notes.append("no pairs without the family to take out leniency")
        if own.n_ambiguous:
            notes.append(f"{own.n_ambiguous} rows with names of several families left out")
        rows.append(
            [
                printable(one.judge),
                own.family,
                str(own.n_pairs),
                _percent(own.own_win_rate),
                "-" if own.excess is None else _points(own.excess),
                "; ".join(notes),
            ]
        )
    if not rows:
        return ""
    return (
        "Does a judge favour its own family (own wins mixes quality and favour; the excess does not)\n"
        + table(header, rows, left=(0, 1, 5))
    )


def _models(report: JudgeReport) -> str:
    header = ("judge", "model", "scored", "win rate", "order-balanced", "first - second", "against")
    rows = [
        [
            printable(one.judge),
            printable(model.model),
            f"{model.n_scored}/{model.n_rows}",
            _percent(model.win_rate),
            _percent(model.balanced),
            _points(model.position_gap),
            printable(model.baseline),
        ]
        for one in report.judges
        for model in one.models
    ]
    return "Models\n" + table(header, rows, left=(0, 1, 6))


def _between(report: JudgeReport) -> str:
    if not report.between:
        return ""
    header = ("pairs", "same", "contradict", "one draws", "kappa", "alpha", "judges or protocols")
    rows = [
        [
            str(pair.n_pairs),
            _percent(pair.same),
            _percent(pair.contradict),
            _percent(pair.one_draws),
            _plain(pair.kappa),
            _alpha(pair.alpha),
            " / ".join(map(printable, pair.judges)),
        ]
        for pair in report.between
    ]
    text = "Judges on the same pairs\n" + table(header, rows, left=(6,))
    if report.jury is not None:
        text += f"\nAll {len(report.judges)} judges: alpha {_alpha(report.jury)}, {report.jury.n_units} pairs."
    return text


def _humans(report: JudgeReport) -> str:
    if report.among_humans is None:
        return ""
    header = ("judge", "pairs", "agreement", "kappa")
    rows = [
        [printable(one.judge), str(one.n_pairs), _percent(one.agreement), _plain(one.kappa)]
        for one in report.humans
    ]
    among = report.among_humans
    rows.append(["one human against the others, all labelled pairs", "", _percent(among), ""])
    return (
        "Agreement with the majority of humans (1 - mean absolute error, as AlpacaEval)\n"
        + table(header, rows, left=(0,))
        + _calibrated(report)
    )


def _calibrated(report: JudgeReport) -> str:
    header = ("model", "judge's", "labels", "humans alone", "calibrated", "width saved", "judge")
    rows = [
        [
            printable(model.model),
            _percent(model.judged),
            str(model.n_labels),
            _percent(model.humans_alone),
            _percent(model.calibrated),
            "-" if math.isnan(model.gain) else f"{100 * model.gain:.0f} %",
            printable(one.judge),
        ]
        for one in report.humans
        for model in one.models
    ]
    if not rows:
        return ""
    return (
        "\n\nWin rates that humans would give, from their labels and the judge's (labelled pairs: a random part)\n"
        + table(header, rows, left=(0, 6))
    )


def _count(n: int, total: int) -> str:
    return str(n) if n in {0, total} else f"{n} ({100 * n / total:.1f} %)"


def _percent(found: Interval) -> str:
    return _with_limits(found, lambda x: f"{100 * x:.1f}")


def _points(found: Interval) -> str:
    return _with_limits(found, lambda x: f"{100 * x:+.1f}")


def _plain(found: Interval) -> str:
    return _with_limits(found, lambda x: f"{x:.2f}")


def _alpha(found: Alpha) -> str:
    return _bracketed(found.alpha, found.low, found.high, lambda x: f"{x:.2f}")


def _with_limits(found: Interval, show: Callable[[float], str]) -> str:
    """The estimate, its limits and, where clusters differ in size, as how many of one size they count."""
    text = _bracketed(found.estimate, found.low, found.high, show)
    few = round(found.n_effective) < found.n_clusters if math.isfinite(found.n_effective) else False
    return f"{text}, n_eff {found.n_effective:.0f}" if few else text


def _bracketed(estimate: float, low: float, high: float, show: Callable[[float], str]) -> str:
    if not math.isfinite(estimate):
        return "-"
    if not math.isfinite(low):
        return f"{show(estimate)} [?]"
    return f"{show(estimate)} [{show(low)}, {show(high)}]"
