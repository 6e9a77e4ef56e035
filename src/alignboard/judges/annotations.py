"""The rows and the summary of one model's verdicts, as they are written beside its outputs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from alignboard.judges.adaptive import balanced
from alignboard.judges.pairs import Judged, conversations
from alignboard.judges.parsing.raw_completions import raw_completion
from alignboard.judges.prompting.attacks import detect
from alignboard.judges.spec import JudgeSpec
from alignboard.records import Judgment
from alignboard.stats.intervals import Interval
from alignboard.stats.win_rate import win_rate


class JudgeSource(msgspec.Struct, frozen=True):
    """One judge, as it was asked."""

    judge: str
    model: str | None
    """as the endpoint calls it, or what is loaded here; None of judges that are no model"""
    addresses: list[str]
    """of the endpoint; none of judges that are asked here"""


class Annotation(Judgment, gc=False, omit_defaults=True):
    """A row of ``annotations.json``: AlpacaEval's columns, and after them ours.

    Of a second turn ``instruction`` holds both questions, and the outputs are the answers to the second.
    """

    raw_completion: Any = None
    """of one call as upstream stores it; of several, a list of that"""
    price_per_example: float | None = None
    time_per_example: float | None = None
    status: str = ""
    switched: tuple[bool, ...] = ()
    """for each verdict, whether output_2 was shown first"""
    order_preferences: tuple[float | None, ...] = ()
    """the preference of each verdict, turned to (output_1, output_2)"""
    scores: tuple[float | None, ...] = ()
    """of judges that rate: the ratings of output_1 and output_2"""
    mass: tuple[float | None, ...] = ()
    flags: tuple[str, ...] = ()
    inclusion: float | None = None
    """how probable it was that the second order was asked, where that was drawn"""
    balanced_preference: float | None = None
    """where the second order was drawn: whose mean is the order-balanced win rate, 1 added; may leave [1, 2]"""
    first_turn: str | None = None
    """of a second turn: what the conversation began with"""
    reason: str = ""
    """why there is no verdict"""
    judge_model: str | None = None
    """of a judge behind an endpoint: which model was asked for"""
    judge_address: str | None = None
    """and where; of several addresses all of them, with commas"""
    judge_served: str | None = None
    """what the endpoint says that it served, where that is another name"""


class Summary(msgspec.Struct, frozen=True):
    """What a judge's verdicts on a model come to. Rates are fractions."""

    model: str
    judge: str
    baseline: str
    n: int
    statuses: dict[str, int]
    win_rate: float | None
    standard_error: float | None
    low: float | None
    high: float | None
    level: float
    discrete_win_rate: float | None
    n_wins: int
    n_wins_base: int
    n_draws: int
    order: str
    """what the win rate is a mean of: one order, both, or the second where it was drawn"""
    n_calls: int
    saving: float | None
    """share of the calls of both orders that was not made, where the second was drawn"""
    price: float | None
    """US dollars, of all replies under these verdicts, whenever they were paid"""
    n_flagged: int
    """pairs with a flag or a mark"""
    avg_length: int
    """characters, of the model's outputs"""
    signals: tuple[str, ...]
    """what in the model's outputs as a whole looks written for the judge; see `alignboard.judges.prompting.attacks`"""
    annotations: str
    """their file"""
    asked: tuple[JudgeSource, ...] = ()
    """who was asked, and where"""
    served: tuple[str, ...] = ()
    """the models that the endpoint says it served"""
    n_both: int = 0
    """pairs of which both orders have a verdict"""
    n_consistent: int = 0
    """of those, the ones whose verdicts name the same winner"""
    first_share: float | None = None
    """the mean preference for the output shown first, where both places were given to either model"""
    mass: float | None = None
    """the mean probability of all verdict tokens together, where it is known"""


def annotation_rows(
    judge: JudgeSpec,
    judged: Sequence[Judged],
    datasets: Mapping[str, str | None],
    asked: Sequence[JudgeSource] = (),
) -> list[Annotation]:
    """The rows of the file; ``datasets`` are by instruction, ``asked`` says where the judge was asked."""
    by_name = {one.judge: one for one in asked if one.addresses}
    drawn = any(one.inclusion is not None for one in judged)
    scores = balanced(judged).scores if drawn else np.full(len(judged), np.nan)
    members = [judge.choose(one.pair.asked) for one in judged]
    rows = [
        _row(one, judge.name, datasets.get(one.pair.asked), member.reply_form.raw_key, float(score))
        for one, member, score in zip(judged, members, scores, strict=True)
    ]
    for row, one, member in zip(rows, judged, members, strict=True):
        found = by_name.get(member.name)
        if found is not None:
            row.judge_model, row.judge_address = found.model, ",".join(found.addresses)
            names = {reply.served for reply in one.replies} - {None, found.model}
            row.judge_served = ",".join(sorted(map(str, names))) or None
    return rows


def _row(
    one: Judged, judge: str, dataset: str | None, key: str, balanced_score: float
) -> Annotation:
    raw = [raw_completion(reply, key) for reply in one.replies]
    pair = one.pair
    output_1, output_2 = (turns[-1] for turns in pair.turns)
    flags = dict.fromkeys((*one.marks, *(flag for v in one.verdicts for flag in v.flags)))
    scores = tuple(verdict.score for verdict in one.verdicts)
    mass = tuple(verdict.mass for verdict in one.verdicts)
    return Annotation(
        instruction=pair.asked,
        output_1=output_1,
        generator_1=pair.generator_1,
        output_2=output_2,
        generator_2=pair.generator_2,
        preference=one.preference,
        annotator=judge,
        dataset=dataset,
        raw_completion=raw[0] if len(raw) == 1 else raw or None,
        price_per_example=total(reply.price for reply in one.replies),
        time_per_example=total(reply.seconds for reply in one.replies),
        status=one.status,
        switched=one.switched,
        order_preferences=one.order_preferences,
        scores=scores if any(score is not None for score in scores) else (),
        mass=mass if any(m is not None for m in mass) else (),
        flags=tuple(flags),
        inclusion=one.inclusion,
        balanced_preference=None if np.isnan(balanced_score) else 1 + balanced_score,
        first_turn=None if len(pair.turns[1]) == 1 else pair.instruction,
        reason=one.reason,
    )


def total(values: Iterable[float | None]) -> float | None:
    """The sum of what is known; None where nothing is."""
    there = [value for value in values if value is not None]
    return sum(there) if there else None


def summarise(
    judge: JudgeSpec,
    judged: Sequence[Judged],
    order: str,
    annotations: Path,
    asked: Sequence[JudgeSource] = (),
) -> Summary:
    """What the verdicts come to; the win rate is order-balanced where second orders were drawn."""
    preference = np.array([np.nan if one.preference is None else one.preference for one in judged])
    found = win_rate(preference, np.array(conversations([one.pair for one in judged])))
    drawn = any(one.inclusion is not None for one in judged)
    estimate = balanced(judged) if drawn else None
    interval: Interval = found.interval if estimate is None else estimate.win_rate
    replies = {id(reply): reply for one in judged for reply in one.replies}
    answers = [one.pair.turns[1][-1] for one in judged]
    n_orders = sum(len(one.switched) for one in judged)
    n_shown = sum(bool(one.switched) for one in judged)
    return Summary(
        model=judged[0].pair.generator_2,
        judge=judge.name,
        baseline=judged[0].pair.generator_1,
        n=len(judged),
        statuses=dict(Counter(one.status for one in judged)),
        win_rate=known(interval.estimate),
        standard_error=known(interval.standard_error),
        low=known(interval.low),
        high=known(interval.high),
        level=interval.level,
        discrete_win_rate=known(found.discrete_win_rate),
        n_wins=found.n_wins,
        n_wins_base=found.n_wins_base,
        n_draws=found.n_draws,
        order=order,
        n_calls=len(replies),
        saving=None if estimate is None else 1 - n_orders / (2 * n_shown) if n_shown else 0.0,
        price=total(reply.price for reply in replies.values()),
        n_flagged=sum(bool(one.marks or any(v.flags for v in one.verdicts)) for one in judged),
        avg_length=int(np.mean([len(answer) for answer in answers])),
        signals=detect([one.pair.asked for one in judged], answers).signals,
        annotations=str(annotations),
        asked=tuple(asked),
        served=tuple(sorted({reply.served for reply in replies.values() if reply.served})),
        **_trust(judged),
    )


def _side(preference: float) -> int:
    return (preference > 1.5) - (preference < 1.5)


def _trust(judged: Sequence[Judged]) -> dict[str, Any]:
    """Whether place decides the verdicts, and whether the judge wanted to give one."""
    both = [
        (first, second)
        for one in judged
        if len(one.switched) == 2
        for first, second in [one.order_preferences]
        if first is not None and second is not None
    ]
    shown = [
        (switched, 2 - verdict.preference)
        for one in judged
        for switched, verdict in zip(one.switched, one.verdicts, strict=False)
        if verdict.preference is not None
    ]
    masses = [v.mass for one in judged for v in one.verdicts if v.mass is not None]
    balanced_places = len({switched for switched, _ in shown}) == 2
    return {
        "n_both": len(both),
        "n_consistent": sum(_side(first) == _side(second) for first, second in both),
        "first_share": float(np.mean([gain for _, gain in shown])) if balanced_places else None,
        # Of six decimals: the last digits of a probability depend on which rows shared a batch.
        "mass": round(math.fsum(masses) / len(masses), 6) if masses else None,
    }


def known(value: float) -> float | None:
    """``value``, or None in place of NaN."""
    return None if np.isnan(value) else float(value)
