"""Columns and scores from verdicts, responses and lm-eval's numbers: one way for every builder."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from alignboard.boards.board import Board
from alignboard.boards.columns import Column, Row, Score, known
from alignboard.boards.verdicts import JudgingRecord
from alignboard.published.ranks import paired_ranks
from alignboard.published.scores import EXTRAPOLATED, LcScore, joint_lc_win_rates
from alignboard.records import Annotations
from alignboard.stats.intervals import Estimate, Interval, rate_interval
from alignboard.stats.win_rate import WinRate, win_rate

RESOLVED = (
    "N/N*: prompts at hand over those that separate a model from the next lower one in 80 % of runs; below 1 the two "
    "are not resolved."
)
_UNSUPPORTED = (
    "Extrapolated: hardly any response is nearly as long as the baseline's, so that the verdicts do not say what would "
    "be at equal lengths."
)
NEW_PROMPTS = "new prompts drawn like these; models, judge and the baseline's responses held fixed"
LENGTH = "length"
JOINT = "difficulties of the prompts fitted jointly to the models of this column"
BASELINE = Score(reason="baseline")
_FRACTIONS = ("acc", "exact_match", "em", "f1", "mc1", "mc2", "pass", "prompt_level", "inst_level")


def length_column() -> Column:
    """Mean length of the responses."""
    return Column(
        key=LENGTH,
        name="length",
        kind="length",
        unit="characters",
        source="responses",
        better="none",
    )


def judged_columns(judge: str, baseline: str | None, set_name: str | None) -> tuple[Column, Column]:
    """The win rate of one judge on one set against one baseline, and its joint length-controlled one."""
    prefix = "/".join(filter(None, (judge, set_name, baseline)))
    shared: dict[str, Any] = {
        "unit": "%",
        "judge": judge,
        "set": set_name,
        "baseline": baseline,
        "source": "annotations",
    }
    return (
        Column(
            key=f"{prefix}/win_rate",
            name="win rate",
            kind="win rate",
            estimator="mean preference, interval clustered by prompt",
            conditional_on=NEW_PROMPTS,
            **shared,
        ),
        Column(
            key=f"{prefix}/lc_win_rate_joint",
            name="LC win rate (joint fit)",
            kind="LC win rate",
            estimator=f"length-controlled, {JOINT}",
            conditional_on=f"{NEW_PROMPTS}; difficulties held fixed",
            **shared,
        ),
    )


def rank_column(rate: Column) -> Column:
    """The ranks by the win rates of the column ``rate`` that paired tests leave open."""
    return msgspec.structs.replace(
        rate,
        key=f"{rate.key}/rank",
        name="rank by win rate",
        kind="place",
        unit="",
        better="low",
        digits=0,
        estimator="ranks that are all true at once with 95 %: paired tests on shared prompts, corrected by Holm",
        of=rate.key,
    )


def rank_scores(tables: Mapping[str, Annotations]) -> dict[str, Score]:
    """The rank of every model but the baseline by its win rate, with the best and the worst that it may have."""
    return {
        name: Score(one.rank, one.best, one.worst, n=one.n, note=one.note)
        for name, one in paired_ranks(tables).items()
    }


def record_columns(rate: Column) -> tuple[Column, Column]:
    """What judging the column ``rate`` cost, and how often both orders named one winner: in csv and json."""
    consistency, cost = (
        msgspec.structs.replace(
            rate,
            key=f"{rate.key}/{name}",
            name=name,
            kind="diagnostic",
            unit=unit,
            better="none",
            digits=digits,
            estimator=estimator,
            conditional_on="",
            detail=True,
        )
        for name, unit, digits, estimator in (
            (
                "swap consistency",
                "%",
                1,
                "share of the pairs with verdicts in both orders that name one winner",
            ),
            (
                "judging cost",
                "US dollars",
                2,
                "all replies under these verdicts, whenever they were paid",
            ),
        )
    )
    return consistency, cost


def record_scores(columns: tuple[Column, Column], record: JudgingRecord) -> dict[str, Score]:
    """The cells of `record_columns`; what is not on record has none."""
    consistency, cost = columns
    found = {}
    if record.n_both:
        share = 100 * record.n_consistent / record.n_both
        found[consistency.key] = Score(share, n=record.n_both)
    if record.price is not None:
        found[cost.key] = Score(record.price)
    return found


def judged_scores(
    tables: Mapping[str, Annotations],
    columns: tuple[Column, Column],
    failed: Mapping[str, int] | None = None,
) -> dict[str, dict[str, Score]]:
    """The scores of every model of ``tables`` in the two ``columns`` of `judged_columns`."""
    raw, controlled = columns
    joint = joint_lc_win_rates(tables)
    found = {}
    for model, table in tables.items():
        scores = {
            raw.key: rate_score(
                win_rate(table.preference, table.instruction, balanced=table.balanced),
                (failed or {}).get(model),
            )
        }
        scores[controlled.key] = lc_score(joint[model], len(table) - table.n_unparsed)
        found[model] = scores
    return found


def rate_score(rate: WinRate, failed: int | None = None) -> Score:
    """A win rate in percent, with the status of every verdict."""
    return Score(
        known(rate.win_rate, 100),
        known(rate.interval.low, 100),
        known(rate.interval.high, 100),
        known(rate.standard_error, 100),
        n=rate.n_total,
        unparsed=max(rate.n_unparsed - (failed or 0), 0),
        failed=failed,
        counts={"won": rate.n_wins, "drawn": rate.n_draws, "lost": rate.n_wins_base},
        n_effective=_fewer(rate.interval),
        reason=None if rate.n_total else "no scored verdict",
    )


def lc_score(score: LcScore | str, n: int | None = None) -> Score:
    """A length-controlled win rate in percent, or why there is none."""
    if isinstance(score, str):
        return Score(reason=score if score == EXTRAPOLATED else f"no length control: {score}")
    return interval_score(score.win_rate, score.interval, n)


def support_notes(rows: Iterable[Row]) -> list[str]:
    """What "extrapolated" means, where a cell of ``rows`` says it."""
    reasons = {score.reason for row in rows for score in row.scores.values()}
    return [_UNSUPPORTED] if EXTRAPOLATED in reasons else []


def interval_score(value: float, interval: Interval, n: int | None = None) -> Score:
    """A fraction with its interval, in percent."""
    return Score(
        known(value, 100),
        known(interval.low, 100),
        known(interval.high, 100),
        known(interval.standard_error, 100),
        n=n,
        n_effective=_fewer(interval),
    )


def _fewer(interval: Interval) -> float | None:
    """The effective number of clusters, where their sizes make it less than their number."""
    return known(interval.n_effective) if interval.n_effective < interval.n_clusters else None


def benchmark_column(
    task: str,
    metric: str,
    *,
    n_shot: int | None = None,
    better: bool = True,
    suite: str | None = None,
) -> Column:
    """A number of lm-eval: fractions as percentages, others as they are."""
    base, _, filter_name = metric.partition(",")
    shown = base if filter_name in ("", "none") else f"{base} ({filter_name})"
    shots = "" if n_shot is None else f", {n_shot}-shot"
    fraction = base.startswith(_FRACTIONS)
    return Column(
        key="/".join(filter(None, ("lm-eval", suite, f"{task} {metric}{shots}"))),
        name=f"{task} {shown}{shots}",
        kind="benchmark",
        unit="%" if fraction else "",
        set=suite,
        source="lm-eval",
        estimator=f"{base} of lm-eval{shots}",
        conditional_on="new documents drawn like these; the model and its decoding held fixed",
        better="high" if better else "low",
        digits=1 if fraction else 3,
    )


def benchmark_score(
    column: Column, value: float | None, error: float | None, n: int | None = None
) -> Score:
    """A number of lm-eval with its standard error, in the column's unit."""
    scale = 100 if column.unit == "%" else 1
    shown = known(value, scale)
    if scale == 100 and value in {0, 1}:  # a standard error of 0 is no knowledge of the error
        return interval_score(
            value, rate_interval(Estimate.of_equal_clusters(value, math.nan, n or 0)), n
        )
    return Score(
        shown,
        standard_error=known(error, scale),
        n=n or None,
        reason="not run" if shown is None else None,
    )


def identical_responses(responses: Mapping[str, Mapping[Any, Any]]) -> list[list[str]]:
    """Groups of models that give the same response to every one of the same prompts.

    >>> identical_responses({"a": {1: "x"}, "b": {1: "x"}, "c": {1: "y"}, "d": {}})
    [['a', 'b']]
    """
    groups: dict[frozenset[tuple[Any, Any]], list[str]] = {}
    for model, given in responses.items():
        if given:
            groups.setdefault(frozenset(given.items()), []).append(model)
    return [models for models in groups.values() if len(models) > 1]


def with_identical(board: Board, responses: Mapping[str, Mapping[Any, Any]]) -> Board:
    """``board`` with a note and flags where models give identical responses: their scores cannot differ."""
    notes, flags = list(board.notes), {}
    for models in identical_responses(responses):
        n = len(responses[models[0]])
        notes.append(
            f"Identical responses: {' and '.join([', '.join(models[:-1]), models[-1]])} give the same response to "
            f"{'every one of ' if n > 1 else ''}{n} prompt{'s' if n > 1 else ''}; a comparison of their responses "
            "compares nothing."
        )
        for model in models:
            first, *more = (other for other in models if other != model)
            # The note names all of them; a flag stands in a cell.
            rest = f" and {len(more)} other{'s' if len(more) > 1 else ''}" if more else ""
            flags[model] = [f"responses identical to {first}{rest}"]
    return msgspec.structs.replace(board.with_flags(flags), notes=notes)


def with_unfinished(
    board: Board, counts: Mapping[str, tuple[int, int, int]], n_prompts: int | None = None
) -> Board:
    """``board`` with flags where responses are empty, were cut off, or are missing of ``n_prompts``.

    ``counts``: (empty, cut off, all) by model.
    """
    flags = {}
    for model, (n_empty, n_cut, n) in counts.items():
        flags[model] = [
            f"{part} of {n} responses {what}"
            for part, what in ((n_empty, "empty"), (n_cut, "cut off at the token limit"))
            if part
        ]
        if n_prompts is not None and 0 < n < n_prompts:
            flags[model].append(f"{n_prompts - n} of {n_prompts} prompts without a response")
    return board.with_flags(flags)


def mean_length(lengths: Sequence[int] | np.ndarray) -> Score:
    """Mean number of characters."""
    return Score(float(np.mean(lengths)), n=len(lengths)) if len(lengths) else Score()


def by_value(rows: Sequence[Row], key: str) -> list[Row]:
    """``rows`` from the largest value in column ``key``; rows without one come last, by name."""

    def order(row: Row) -> tuple[float, str]:
        value = row.scores.get(key, Score()).value
        return (math.inf if value is None else -value, row.model)

    return sorted(rows, key=order)
