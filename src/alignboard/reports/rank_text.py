"""Ratings from comparisons as text."""

from __future__ import annotations

from alignboard.reports.rank import SIMPLE, Order, RankedModel, RankReport
from alignboard.text import count, shown, table

_MOST = 5


def to_text(report: RankReport) -> str:
    """The table, and what it rests on, in sentences."""
    lines = [
        f"{count(report.n_rows, 'comparison')}, {report.n_unscored} not scored, {report.n_ties} draws "
        f"({report.n_both_bad} both bad); {_units(report)}. Method {report.method}"
        + ("." if report.prior_sd is None else f", normal prior of sd {report.prior_sd:g}.")
    ]
    if report.status == "not identified":
        groups = "; ".join("{" + ", ".join(map(shown, group)) + "}" for group in report.components)
        lines.append(f"Not identified: {report.reason}")
        if len(report.components) > 1:
            lines.append(f"Groups, the stronger first where they met: {groups}.")
        if report.missing:
            wanted = "; ".join(f"{shown(a)} with {shown(b)}" for a, b in report.missing[:_MOST])
            lines.append(f"Pairs whose comparison would help: {wanted}.")
        return "\n".join(lines)
    header = ("model", "score", "95 %", "rank", "n")
    lines.append(table(header, [_cells(one) for one in report.models], left=(0,)))
    if report.tie is not None:
        lines.append(f"Parameter of draws: {report.tie:.4f}.")
    lines += [
        f"{shown(one.name)}: {one.value:+.3f} [{one.low:+.3f}, {one.high:+.3f}]"
        for one in report.effects
    ]
    if report.orders:
        lines.append(_first_order(report.orders[0], report.n_clusters))
    lines += [
        f"Not described by the ratings: {shown(one.a)} won {one.observed:.0%} against {shown(one.b)}, predicted "
        f"{one.predicted:.0%} (p {one.adjusted_p:.2g} after Holm)."
        for one in report.misfits[:_MOST]
    ]
    lines += [
        f"A certain cycle: {', '.join(map(shown, cycle))}." for cycle in report.cycles[:_MOST]
    ]
    return "\n".join([*lines, *([report.note] if report.note else [])])


def _units(report: RankReport) -> str:
    """The clusters, and their effective number where sizes make it less than their number."""
    if report.method in SIMPLE:
        return "no intervals"
    if report.clustered_by == "rows":
        return "rows taken for independent"
    known = report.n_effective
    few = "" if known is None or round(known) >= report.n_clusters else f" (n_eff {known:.0f})"
    return f"clustered by {report.clustered_by}: {report.n_clusters}{few}"


def _first_order(first: Order, n_clusters: int) -> str:
    better, worse = shown(first.better), shown(first.worse)
    if first.n_removed is None:
        return f"No removal of up to half of the clusters takes {better} from the first place."
    if not first.n_removed:
        return f"{better} and {worse} have the same rating."
    removed = count(first.n_removed, "cluster")
    return f"Without {removed} of {n_clusters}, {worse} comes before {better}."


def _cells(one: RankedModel) -> list[str]:
    score = "" if one.elo is None else f"{one.elo:.0f}"
    score = score if one.score is None else f"{one.score:.4f}"
    if one.ci_low is not None and one.ci_high is not None:
        limits = f"{one.ci_low:.0f} to {one.ci_high:.0f}"
    elif one.ci_low is not None:
        limits = f"at least {one.ci_low:.0f}"
    else:
        limits = "" if one.ci_high is None else f"at most {one.ci_high:.0f}"
    ranks = ""
    if one.rank_low is not None:
        ranks = (
            f"{one.rank_low}"
            if one.rank_low == one.rank_high
            else f"{one.rank_low} to {one.rank_high}"
        )
    return [shown(one.model), score, limits, ranks, f"{one.n:.10g}"]
