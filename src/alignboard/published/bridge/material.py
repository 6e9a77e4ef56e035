"""What a bridge is fitted to: the models of two boards that both judges scored, as columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from alignboard.errors import InputError
from alignboard.published.bridge.boards import JudgeBoard, Scored
from alignboard.stats.bridge import items as bridge_items
from alignboard.stats.bridge.bridge import MIN_ANCHORS, Bridge, fit_bridge, length_shift
from alignboard.stats.bridge.items import CalibratedRates, ItemVerdicts, calibrated_rates
from alignboard.stats.bridge.scores import JudgeScores
from alignboard.stats.bridge.validation import Validation, leave_one_out

Array = NDArray[np.float64]
Metric: TypeAlias = Literal["win_rate", "lc"]

# Mean lengths on two boards that differ by more are of other answers.
_SAME_LENGTH = 0.01


@dataclass(frozen=True)
class Material:
    """The anchors of two boards; every array is (n,), rates are fractions."""

    board: JudgeBoard
    target: JudgeBoard
    metric: Metric
    names: list[str]
    """of the anchors"""
    official: Array
    official_error: Array
    has_length: bool
    has_lc: bool
    """whether every anchor has a mean length, and a length-controlled win rate, by the new judge"""
    item_names: list[str]
    """models of the new judge with instruction-level verdicts; empty where those are of no use"""
    items: CalibratedRates | None
    n_both: int
    """models with instruction-level verdicts of both judges"""

    @classmethod
    def of(cls, board: JudgeBoard, target: JudgeBoard, metric: Metric) -> Material:
        """The models that both boards have; none is fitted yet."""
        names = [name for name in board.models if _score(target.models.get(name), metric)]
        scored = [target.models[name] for name in names]
        official = np.array([(_score(row, metric) or 0) / 100 for row in scored])
        raw = np.array([row.win_rate / 100 for row in scored])
        raw_error = np.array([row.standard_error / 100 for row in scored])
        new = [board.models[name] for name in names]
        item_names, verdicts = _verdicts(board, target)
        n_both = sum(one.n_both > 0 for one in verdicts)
        usable = n_both >= bridge_items.MIN_MODELS and set(names) <= set(item_names)
        return cls(
            board=board,
            target=target,
            metric=metric,
            names=names,
            official=official,
            # A length-controlled rate has, on the log-odds scale, the error of the raw one: boards publish no other.
            official_error=raw_error * (official * (1 - official)) / (raw * (1 - raw)),
            has_length=all(row.length is not None for row in new),
            has_lc=all(row.lc_win_rate is not None for row in new),
            item_names=item_names if usable else [],
            items=calibrated_rates(verdicts) if usable else None,
            n_both=n_both,
        )

    @property
    def own(self) -> Array:
        """(n,) the new judge's own number, which the naive baseline takes for the official one."""
        rows = [self.board.models[name] for name in self.names]
        if self.metric == "lc" and self.has_lc:
            return np.array([(row.lc_win_rate or 0) / 100 for row in rows])
        return np.array([row.win_rate / 100 for row in rows])

    @property
    def naive(self) -> str:
        """What `own` is."""
        lc = self.metric == "lc" and self.has_lc
        return f"the new judge's own {'length-controlled ' * lc}win rate"

    def fit(self, min_anchors: int = MIN_ANCHORS) -> Bridge:
        """The map of all anchors; raises `InputError` as `stats.bridge.fit_bridge`."""
        self._require(min_anchors)
        return fit_bridge(
            self.scores(self.names), self.official, self.official_error, min_anchors=min_anchors
        )

    def validate(self, level: float = 0.95, min_anchors: int = MIN_ANCHORS) -> Validation:
        """Every anchor estimated from the others; raises `InputError` as `stats.bridge.fit_bridge`."""
        self._require(min_anchors)
        folds = [self.scores(self.names, hidden=name) for name in self.names]
        return leave_one_out(
            folds, self.official, self.official_error, level=level, min_anchors=min_anchors
        )

    def lacks(self, name: str) -> str | None:
        """What the anchors have and the model ``name`` has not; None where it has everything."""
        row = self.board.models[name]
        if self.has_length and row.length is None:
            return "its mean length is not known, and that of every anchor is"
        if self.has_lc and row.lc_win_rate is None:
            return "its length-controlled win rate is not known, and that of every anchor is"
        if self.items is not None and name not in self.item_names:
            return "its verdicts by instruction are not known, and those of every anchor are"
        return None

    def scores(self, names: Sequence[str], hidden: str | None = None) -> JudgeScores:
        """The columns of ``names``, made without anything official of the model ``hidden``."""
        rows = [self.board.models[name] for name in names]
        length = (
            np.array([row.length for row in rows], dtype=np.float64) if self.has_length else None
        )
        scores = JudgeScores(
            win_rate=np.array([row.win_rate / 100 for row in rows]),
            win_rate_error=np.array([row.standard_error / 100 for row in rows]),
            length=length,
            lc_win_rate=(
                np.array([row.lc_win_rate for row in rows], dtype=np.float64) / 100
                if self.has_lc
                else None
            ),
        )
        if self.metric == "lc" and length is not None:
            scores = replace(scores, length_shift=self._length_shift(length, hidden))
        if self.items is not None:
            at = [self.item_names.index(name) for name in names]
            by = -1 if hidden is None else self.item_names.index(hidden)
            scores = replace(
                scores,
                item_win_rate=self.items.rate[by, at],
                item_win_rate_error=self.items.error[by, at],
            )
        return scores

    def notes(self) -> list[str]:
        """What a reader has to know of the anchors."""
        notes = []
        differ = [name for name in self.names if self._other_answers(name)]
        if differ:
            notes.append(
                f"{len(differ)} anchors have another mean length on the official board, so the judges read other "
                f"answers of theirs: {', '.join(differ)}"
            )
        n_lc = sum(self.board.models[name].lc_win_rate is not None for name in self.names)
        if 0 < n_lc < len(self.names):
            notes.append(
                f"the new judge's length-controlled win rate is known of {n_lc} of {len(self.names)} anchors "
                "and not used"
            )
        if self.board.annotations and self.items is None:
            notes.append(
                f"{self.n_both} models have instruction-level verdicts of both judges; they are used from "
                f"{bridge_items.MIN_MODELS} on, where every anchor has those of the new judge"
            )
        notes += [f"{name} is left out: {why}" for name, why in self.board.left_out.items()]
        return notes

    def _length_shift(self, length: Array, hidden: str | None) -> Array | None:
        rows = [
            (row.win_rate / 100, row.lc_win_rate / 100, row.length)
            for name, row in self.target.models.items()
            if name != hidden and row.lc_win_rate is not None and row.length is not None
        ]
        if len(rows) < MIN_ANCHORS:
            return None
        intercept, slope = length_shift(*np.array(rows).T)
        return intercept + slope * np.log(length)

    def _other_answers(self, name: str) -> bool:
        ours, theirs = self.board.models[name].length, self.target.models[name].length
        return ours is not None and theirs is not None and abs(ours / theirs - 1) > _SAME_LENGTH

    def _require(self, min_anchors: int) -> None:
        if len(self.names) < min_anchors:
            raise InputError(
                f"{self.board.judge} ({self.board.source}) and {self.target.judge} ({self.target.source}) have "
                f"{len(self.names)} models in common, and a bridge takes at least {min_anchors}; let "
                f"{self.board.judge} annotate more models of the official board."
            )


def _score(row: Scored | None, metric: Metric) -> float | None:
    """A model's official score, a percentage; None where there is none."""
    if row is None:
        return None
    return row.win_rate if metric == "win_rate" else row.lc_win_rate


def _verdicts(board: JudgeBoard, target: JudgeBoard) -> tuple[list[str], list[ItemVerdicts]]:
    """The new judge's models on the official board's instructions, with both judges' verdicts on the same answer."""
    baseline_length: dict[int, int] = {}
    for table in target.annotations.values():
        baseline_length.update(
            zip(table.instruction.tolist(), table.length_1.tolist(), strict=True)
        )
    names, verdicts = [], []
    for name in board.models:
        table = board.annotations.get(name)
        if table is None:
            continue
        official: dict[tuple[int, int], float] = {}
        if name in target.annotations:
            other = target.annotations[name]
            answers = zip(other.instruction.tolist(), other.output_2.tolist(), strict=True)
            official = dict(zip(answers, (other.preference - 1).tolist(), strict=True))
        asked, answered = table.instruction.tolist(), table.output_2.tolist()
        baseline = np.array([baseline_length.get(one, np.nan) for one in asked])
        kept = np.isfinite(baseline) & np.isfinite(table.preference)
        if not kept.any():
            continue
        both = np.array([official.get(pair, np.nan) for pair in zip(asked, answered, strict=True)])
        names.append(name)
        verdicts.append(
            ItemVerdicts(
                new=table.preference[kept] - 1,
                length_difference=table.length_2[kept].astype(np.float64) - baseline[kept],
                official=both[kept],
            )
        )
    return names, verdicts
