"""What the command line says of judging: what it would cost, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from alignboard.text import shown

if TYPE_CHECKING:
    from alignboard.judges.annotations import Summary
    from alignboard.judges.pricing import Cost
    from alignboard.pipeline.single_ratings import Mean, RatingSummary

LEAST_CONSISTENT = 0.6
"""share of pairs; a judge that draws lots gets half"""
MOST_POSITION_BIAS = 0.2
"""of the mean preference for the output shown first, from one half"""
LEAST_MASS = 0.5
FORGED = "forged judge prompt"
"""the signal of `judges.prompting.attacks` that no honest model gives"""


def cost_text(costs: list[Cost], model: str) -> str:
    """What a dry run says of one model."""
    lines = []
    for one in costs:
        known = f"{one.n_known} replies known"
        if one.n_known is None:
            known = "those included whose reply is known, which only the judge's weights could tell"
        tokens = ""
        if one.n_prompt:
            how = "" if one.counted else "about "
            tokens = f", {how}{one.n_prompt} prompt tokens, at most {one.n_answer} of replies"
        price = ""
        if one.price is not None:
            price = f", {'at most' if one.counted else 'about'} {one.price:.2f} US dollars"
        lines.append(f"{one.judge} on {model}: {one.n_calls} calls, {known}{tokens}{price}")
    if len(costs) > 1 and any(one.price is not None for one in costs):
        total = sum(one.price or 0.0 for one in costs)
        lines.append(f"together {total:.2f} US dollars")
    return "\n".join(map(shown, lines))


def summary_text(found: Summary, unscored: Sequence[Sequence[str]]) -> str:
    """What came of one model; ``unscored`` are some pairs without a verdict, each with the reason."""
    lines = [f"{found.model} against {found.baseline}, judged by {found.judge}:"]
    if found.win_rate is None:
        lines.append("  no verdict")
    else:
        lines.append(
            f"  win rate {100 * found.win_rate:.2f} % ({found.level:.0%} interval {_percent(found.low)} to "
            f"{_percent(found.high)}), order: {found.order}; {found.n_wins} wins, {found.n_wins_base} losses, "
            f"{found.n_draws} draws; mean length {found.avg_length}"
        )
    others = {name: n for name, n in found.statuses.items() if name != "scored"}
    if others:
        counts = ", ".join(f"{n} {name}" for name, n in sorted(others.items()))
        lines.append(f"  {counts} of {found.n}: left out of the win rate")
        lines += [f"    {asked[:50]!r}: {reason}" for asked, reason in unscored]
    paid = "" if found.price is None else f", {found.price:.4f} US dollars"
    saved = "" if found.saving is None else f", {found.saving:.0%} fewer than in both orders"
    lines.append(f"  {found.n_calls} replies{saved}{paid}")
    lines += _trust(found)
    lines += _suspect(found.n_flagged, found.signals)
    lines.append(f"  {found.annotations}")
    return "\n".join(map(shown, lines))


def _trust(found: Summary) -> list[str]:
    """Swap consistency, first-position share and verdict mass; BEWARE where the win rate cannot be believed."""
    parts, doubts = [], []
    if found.n_both:
        parts.append(f"swap consistency {found.n_consistent} of {found.n_both} pairs")
        if found.n_consistent < LEAST_CONSISTENT * found.n_both:
            doubts.append("its verdicts change with the order shown")
    if found.first_share is not None:
        parts.append(f"first position {100 * found.first_share:.1f} %")
        if abs(found.first_share - 0.5) > MOST_POSITION_BIAS:
            doubts.append("place decides, not content")
    if found.mass is not None:
        parts.append(f"verdict mass {found.mass:.2f}")
        if found.mass < LEAST_MASS:
            doubts.append("most of its probability is on other tokens than verdicts")
    lines = [f"  {', '.join(parts)}"] if parts else []
    return lines + ([f"  BEWARE of this judge: {'; '.join(doubts)}"] if doubts else [])


def rating_text(found: RatingSummary, unscored: Sequence[Sequence[str]]) -> str:
    """What came of one model that was rated by itself; ``unscored`` as in `summary_text`."""
    lines = [f"{found.model}, rated by {found.judge}: {_mean(found.rating, found.level)}"]
    if len(found.by_turn) > 1:
        turns = (f"{turn}: {_short(mean)}" for turn, mean in found.by_turn.items())
        lines.append(f"  turn {', '.join(turns)}")
    if len(found.by_dataset) > 1:
        lines.append(
            "  " + ", ".join(f"{k} {_short(mean)}" for k, mean in found.by_dataset.items())
        )
    if unscored:
        others = {name: n for name, n in sorted(found.statuses.items()) if name != "scored"}
        counts = ", ".join(f"{n} {name}" for name, n in others.items())
        lines.append(f"  {counts} of {found.n}: left out of the mean")
        lines += [f"    {asked[:50]!r}: {reason}" for asked, reason in unscored]
    paid = "" if found.price is None else f", {found.price:.4f} US dollars"
    lines.append(f"  {found.n_calls} replies{paid}; mean length {found.avg_length}")
    lines += _suspect(found.n_flagged, found.signals)
    lines.append(f"  {found.ratings}")
    return "\n".join(map(shown, lines))


def _mean(mean: Mean, level: float) -> str:
    if mean.mean is None:
        return "no rating"
    interval = ""
    if mean.low is not None:
        interval = f" ({level:.0%} interval {mean.low:.2f} to {mean.high:.2f})"
    return f"{mean.mean:.2f}{interval}, mean of {mean.n}"


def _short(mean: Mean) -> str:
    return "unknown" if mean.mean is None else f"{mean.mean:.2f}"


def _suspect(n_flagged: int, signals: Sequence[str]) -> list[str]:
    found = [f"  {n_flagged} rows are flagged; see flags in the file"] if n_flagged else []
    if signals:
        forged = FORGED in signals
        what = "look written for the judge" if forged else "are unusual, as of a weak model"
        found.append(f"  the outputs {what}: {', '.join(signals)}")
    return found


def _percent(rate: float | None) -> str:
    return "unknown" if rate is None else f"{100 * rate:.2f}"
