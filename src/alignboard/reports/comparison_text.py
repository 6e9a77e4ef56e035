"""A comparison as a table for the terminal, as csv and as LaTeX."""

from __future__ import annotations

import csv
import io
import math

from alignboard.boards.latex import latex_text
from alignboard.reports.comparison import PairedComparison, PairRow
from alignboard.stats.paired import PairedDifference
from alignboard.text import shown, table

_LEFT = 3
# Below it the tails of Student's law underflow.
_LEAST_PROBABILITY = 1e-300


def to_text(comparison: PairedComparison) -> str:
    """The pairs in percentage points, ratings on the judge's scale; then the rank sets."""
    header = _header(comparison)
    pairs = table(
        header, [_cells(row) for row in comparison.rows], left=(*range(_LEFT), len(header) - 1)
    )
    return "\n\n".join([pairs, *_sampling(comparison), *_rankings(comparison)])


def to_csv(comparison: PairedComparison) -> str:
    """One line per pair, rates as fractions; what is not known is empty."""
    rows = [row.to_json() for row in comparison.rows]
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def to_latex(comparison: PairedComparison) -> str:
    """The pairs as a table for ``booktabs``, in the units of `to_text`."""
    header = [latex_text(name) for name in _header(comparison)]
    lines = [
        "% Needs \\usepackage{booktabs}; made by alignboard.",
        f"\\begin{{tabular}}{{{'l' * _LEFT}{'r' * (len(header) - _LEFT - 1)}l}}",
        "\\toprule",
        f"{' & '.join(header)} \\\\",
        "\\midrule",
        *(
            f"{' & '.join(latex_text(cell) for cell in _cells(row))} \\\\"
            for row in comparison.rows
        ),
        "\\bottomrule",
        "\\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _header(comparison: PairedComparison) -> list[str]:
    corrected = f"p {comparison.correction}"
    return ["A", "B", "", "A - B", "95 %", "p", corrected, "n", "only A", "only B", "verdict"]


def _cells(row: PairRow) -> list[str]:
    found, unit = row.found, row.unit
    scale = "" if row.scale is None else f", {row.scale[0]:g} to {row.scale[1]:g}"
    return [
        shown(row.a),
        shown(row.b),
        quantity_text(row.quantity) + scale,
        f"{unit * found.estimate:+.2f}" if found.n else "-",
        "-" if math.isnan(found.low) else f"{unit * found.low:+.2f} to {unit * found.high:+.2f}",
        _probability(found.p_value),
        _probability(row.adjusted_p),
        str(found.n) + _few(found),
        str(found.only_a),
        str(found.only_b),
        shown(row.verdict),
    ]


def _few(found: PairedDifference) -> str:
    """The effective number of clusters, where it is less than that of rows."""
    known = found.n and math.isfinite(found.n_effective)
    return (
        f", n_eff {found.n_effective:.0f}" if known and round(found.n_effective) < found.n else ""
    )


def _probability(p: float) -> str:
    if math.isnan(p):
        return "-"
    return f"{p:.2g}" if p > _LEAST_PROBABILITY else f"<{_LEAST_PROBABILITY:g}"


def _sampling(comparison: PairedComparison) -> list[str]:
    """How much of each pair's variance the draws of responses and verdicts make, where they are repeated."""
    shares = [
        f"{shown(row.a)} and {shown(row.b)}: {row.sampling_share:.0%}"
        for row in comparison.rows
        if not math.isnan(row.sampling_share)
    ]
    if not shares:
        return []
    return [
        "of the variance of A - B, due to sampled responses and verdicts (the rest to prompts): "
        + "; ".join(shares)
    ]


def quantity_text(name: str) -> str:
    """A quantity as tables name it."""
    return {"win_rate": "win rate", "lc_win_rate": "LC win rate"}.get(name, shown(name))


def _rankings(comparison: PairedComparison) -> list[str]:
    return [
        f"{quantity_text(one.quantity)}: ranks that are all true at once with 95 %\n"
        + table(
            ["model", "rank", "P(best)"],
            [
                [shown(model), str(low) if low == high else f"{low} to {high}", f"{best:.2f}"]
                for model, (low, high), best in zip(one.models, one.ranks, one.best, strict=True)
            ],
        )
        + "".join(
            f"\nnot separated: {', '.join(shown(model) for model in group)}"
            for group in one.not_separated
        )
        for one in comparison.rankings
    ]
