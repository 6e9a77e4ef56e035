"""A tournament's standings as text."""

from __future__ import annotations

import math

from alignboard.judges.tournament import PairStanding, Standings
from alignboard.text import count, shown, table

_MOST = 20


def to_text(found: Standings) -> str:
    """Ranks, the pairs nearest to a decision, and what further judgments would buy."""
    ranks = [
        [shown(one.model), f"{one.best}" if one.best == one.worst else f"{one.best} to {one.worst}"]
        for one in found.ranks
    ]
    pairs = sorted(found.pairs, key=lambda one: (one.adjusted_p, -abs(one.difference or 0)))
    lines = [
        (
            f"{count(found.n_judged, 'judgment')} of {found.budget} on {count(found.n_prompts, 'prompt')}, "
            f"{found.n_unscored} not scored; policy {found.policy}, seed {found.seed}. Stopped: {found.stopped}."
        ),
        table(("model", "rank"), ranks, left=(0,)),
        "Ranks are all true at once with 95 %, at every look.",
        f"{found.n_separated} of {count(len(found.pairs), 'pair')} separated.",
        table(
            ("A", "B", "A - B", "95 % at every look", "p holm", "n", ""),
            [_cells(one) for one in pairs[:_MOST]],
            left=(0, 1, 6),
        ),
    ]
    if len(pairs) > _MOST:
        lines.append(f"... and {count(len(pairs) - _MOST, 'further pair')} in standings.json.")
    if found.stopped != "all separated":
        lines.append(
            f"100 further judgments are expected to separate {found.separable_by_100:.1f} more, if the means stay."
        )
    return "\n".join(lines)


def _cells(one: PairStanding) -> list[str]:
    difference = "" if math.isnan(one.difference) else f"{100 * one.difference:+.1f}"
    return [
        shown(one.a),
        shown(one.b),
        difference,
        f"{100 * one.low:+.1f} to {100 * one.high:+.1f}",
        f"{one.adjusted_p:.2g}",
        str(one.n),
        f"{shown(one.winner)} better" if one.winner else "not separated",
    ]
