"""Outputs rated by themselves, as MT-bench's single-answer grading does: the file of ratings, and their mean.

The product is ``<judge>/ratings.json`` beside the outputs (`alignboard.results.verdict_paths`), a row for every turn,
and ``rating.json`` beside it: the mean with its interval, by turn and by category. The turns of one conversation are
one unit of the standard error. A rating that could not be read is null, counted by its status, and in no mean.

References: Zheng et al., arXiv 2306.05685; FastChat ``llm_judge/show_result.py`` (``display_result_single``: the score
of a model is the mean over all turns).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from alignboard.judges.annotations import JudgeSource, known, total
from alignboard.judges.pairs import Rated
from alignboard.judges.parsing.raw_completions import raw_completion
from alignboard.judges.prompting.attacks import detect
from alignboard.pipeline.judged_outputs import Answers
from alignboard.pipeline.replacing import n_ratings, require_no_loss
from alignboard.results.files import write_json
from alignboard.results.ratings import RATINGS
from alignboard.results.verdict_paths import judge_folder
from alignboard.stats.intervals import clustered_mean, student_interval

SUMMARY = "rating.json"


class RatingRow(msgspec.Struct, omit_defaults=True):
    """A row of ``ratings.json``; of a second turn ``instruction`` is both questions, ``output`` the second answer."""

    instruction: str
    output: str
    generator: str
    annotator: str
    rating: float | None
    status: str
    turn: int
    dataset: str | None = None
    raw_completion: Any = None
    price_per_example: float | None = None
    time_per_example: float | None = None
    flags: tuple[str, ...] = ()
    reason: str = ""
    """why there is no rating"""


class Mean(msgspec.Struct, frozen=True):
    """The mean of some ratings, on the judge's own scale; None where there is nothing to say."""

    mean: float | None
    n: int
    standard_error: float | None = None
    low: float | None = None
    high: float | None = None


class RatingSummary(msgspec.Struct, frozen=True):
    """What a judge's ratings of a model come to."""

    model: str
    judge: str
    n: int
    statuses: dict[str, int]
    rating: Mean
    level: float
    by_turn: dict[str, Mean]
    by_dataset: dict[str, Mean]
    n_calls: int
    price: float | None
    """US dollars, of all replies under these ratings, whenever they were paid"""
    n_flagged: int
    """outputs with a flag or a mark"""
    avg_length: int
    """characters"""
    signals: tuple[str, ...]
    """what in the outputs as a whole looks written for the judge; see `alignboard.judges.prompting.attacks`"""
    ratings: str
    asked: tuple[JudgeSource, ...] = ()
    """who was asked, and where"""


def rating_path(judge: str, answers: Answers) -> Path:
    """Where the ratings go."""
    return answers.place / judge_folder(judge, None) / RATINGS


def write_rated(
    judge: str,
    answers: Answers,
    rated: Sequence[Rated],
    asked: Sequence[JudgeSource] = (),
    *,
    replace: bool = False,
) -> RatingSummary:
    """Write the model's files and return what they come to; ``replace`` as in `require_no_loss`."""
    path = rating_path(judge, answers)
    rows = [
        _row(one, answers.model, judge, turn, dataset)
        for one, turn, dataset in zip(rated, answers.turns, answers.datasets, strict=True)
    ]
    n_scored = sum(row.rating is not None for row in rows)
    reasons = [row.reason for row in rows]
    require_no_loss(path, n_scored, n_ratings, reasons, replace=replace)
    write_json(path, rows)
    summary = summarise(judge, answers, rated, path, asked=asked)
    write_json(path.with_name(SUMMARY), summary)
    return summary


def _row(one: Rated, model: str, judge: str, turn: int, dataset: str | None) -> RatingRow:
    raw = [raw_completion(reply, "completions") for reply in one.replies]
    verdict = one.verdict
    scored = verdict.status == "scored"
    return RatingRow(
        instruction=one.question.asked,
        output=one.question.turns[-1],
        generator=model,
        annotator=judge,
        rating=verdict.score if scored else None,
        status=verdict.status,
        turn=turn,
        dataset=dataset,
        raw_completion=raw[0] if len(raw) == 1 else raw or None,
        price_per_example=total(reply.price for reply in one.replies),
        time_per_example=total(reply.seconds for reply in one.replies),
        flags=tuple(dict.fromkeys((*one.marks, *verdict.flags))),
        reason="" if scored else verdict.evidence,
    )


def summarise(
    judge: str,
    answers: Answers,
    rated: Sequence[Rated],
    path: Path,
    level: float = 0.95,
    asked: Sequence[JudgeSource] = (),
) -> RatingSummary:
    """What the ratings come to."""
    scores = np.array(
        [np.nan if one.verdict.status != "scored" else one.verdict.score for one in rated],
        dtype=np.float64,
    )
    units = np.array(answers.conversations)

    def mean(chosen: Sequence[bool]) -> Mean:
        kept = np.array(chosen, dtype=np.bool_) & ~np.isnan(scores)
        found = student_interval(clustered_mean(scores[kept], units[kept])[0], level)
        return Mean(
            known(found.estimate),
            int(kept.sum()),
            known(found.standard_error),
            known(found.low),
            known(found.high),
        )

    datasets = dict.fromkeys(name for name in answers.datasets if name is not None)
    replies = {id(reply): reply for one in rated for reply in one.replies}
    outputs = [one.question.turns[-1] for one in rated]
    return RatingSummary(
        model=answers.model,
        judge=judge,
        n=len(rated),
        statuses=dict(Counter(one.verdict.status for one in rated)),
        rating=mean([True] * len(rated)),
        level=level,
        by_turn={
            str(turn): mean([own == turn for own in answers.turns])
            for turn in sorted(set(answers.turns))
        },
        by_dataset={name: mean([own == name for own in answers.datasets]) for name in datasets},
        n_calls=len(replies),
        price=total(reply.price for reply in replies.values()),
        n_flagged=sum(bool(one.marks or one.verdict.flags) for one in rated),
        avg_length=int(np.mean([len(output) for output in outputs])),
        signals=detect([one.question.asked for one in rated], outputs).signals,
        ratings=str(path),
        asked=tuple(asked),
    )
