"""One judge's column in a results folder, and what its files are held to: the reference set, the judged baseline."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from alignboard.errors import ConvergenceError
from alignboard.published.calibration import Calibration
from alignboard.published.reproduce import suite_texts
from alignboard.published.scores import lc_aligned, lc_compat, lc_jump
from alignboard.published.wheel_boards import PublishedRow, read_published_board
from alignboard.records import Annotations, Generation, Outputs, TextId
from alignboard.results.folder import AnnotationFile, ResultsFolder
from alignboard.results.formats import read_rows
from alignboard.suites import Suite

Value = TypeVar("Value", bound=np.generic)

WORTH_A_FORK: Final = 16
"""models that are audited in several processes"""
_NEARLY: Final = 1.0
"""points by which the quicker fit may be off; released models differ by 0.2 at most"""


@dataclass(frozen=True)
class AnnotatorResults:
    """The verdicts of one annotator on all its models, and what they are held to."""

    folder: ResultsFolder
    annotator: str
    files: dict[str, AnnotationFile]
    tables: dict[str, Annotations]
    baseline: str
    suite: Suite | None
    """None where no suite has this annotator"""
    board: dict[str, PublishedRow]
    """the published rows of this annotator, empty where there is no board"""
    calibration: Calibration | None

    def place(self, model: str) -> str:
        """The model's annotation file, relative to the folder."""
        return self.files[model].path.relative_to(self.folder.root).as_posix()

    @property
    def baseline_place(self) -> str:
        """The baseline's outputs, relative to the folder, or the folder itself."""
        here = self.baseline in self.folder.models
        path = self.folder.outputs_path(self.baseline) if here else None
        return "." if path is None else path.relative_to(self.folder.root).as_posix()

    @cached_property
    def baseline_outputs(self) -> Outputs | None:
        """The baseline's answers as the folder has them."""
        return self.folder.outputs(self.baseline) if self.baseline in self.folder.models else None

    @cached_property
    def reference(self) -> TextId:
        """The instructions in their order: the baseline's outputs', else what most annotation files share."""
        if self.baseline_outputs is not None:
            return self.baseline_outputs.instruction
        orders: dict[bytes, list[TextId]] = {}
        for table in self.tables.values():
            orders.setdefault(table.instruction.tobytes(), []).append(table.instruction)
        return max(orders.values(), key=lambda same: (len(same), len(same[0])))[0]

    @cached_property
    def suite_texts(self) -> TextId | None:
        """The instructions that the suite's difficulties belong to, where they are known."""
        return None if self.suite is None else suite_texts(self.suite)

    @cached_property
    def reference_texts(self) -> list[str]:
        """The instructions' texts, where the baseline's outputs are here to name them."""
        path = (
            self.folder.outputs_path(self.baseline) if self.baseline in self.folder.models else None
        )
        return [] if path is None else [row.instruction for row in read_rows(path, Generation)]

    @cached_property
    def judged_baseline(self) -> tuple[TextId, TextId]:
        """Instructions (sorted) and, for each, the baseline's output that most annotation files hold.

        A tie goes to the released output, then to the first by number.
        """
        released = self.baseline_outputs
        # Most files hold the same columns in the same order, so that few of a thousand have to be sorted.
        same = Counter(
            (t.instruction.tobytes(), t.output_1.tobytes()) for t in self.tables.values()
        )
        columns = [[np.frombuffer(one, np.uint64) for one in pair] for pair in same]
        pairs, at = np.unique(
            np.concatenate([np.stack(pair, axis=1) for pair in columns]),
            axis=0,
            return_inverse=True,
        )
        files = np.repeat(list(same.values()), [len(pair[0]) for pair in columns])
        weight = 2 * np.bincount(at, weights=files)
        if released is not None:
            weight += lookup(pairs[:, 0], released.instruction, released.output)[0] == pairs[:, 1]
        order = np.lexsort((-weight, pairs[:, 0]))
        instruction, first = np.unique(pairs[order, 0], return_index=True)
        return instruction, pairs[order][first, 1]

    def lc_aligned(self, model: str) -> float | None:
        """The model's length-controlled win rate with every difficulty at its own instruction, a fraction.

        None where there is nothing to compute it with.
        """
        return self._controlled(model, lc_aligned)

    def lc_compat(self, model: str) -> float | None:
        """As AlpacaEval would publish it: difficulties are looked up by position."""
        if model not in self._compat:
            self._compat[model] = self._controlled(
                model, lambda table, _, calibration: lc_compat(table, calibration)
            )
        return self._compat[model]

    def may_jump(self, model: str) -> bool:
        """Whether `lc_compat` can be far above the raw win rate: most models' is not, which a quicker fit tells."""
        if model in self._compat:
            return True
        near = self._controlled(
            model, lambda table, _, calibration: lc_compat(table, calibration, nearly=True)
        )
        raw = self.win_rate_pct(model)
        return near is not None and lc_jump(raw, near * 100 + _NEARLY) == "above"

    def win_rate_pct(self, model: str) -> float:
        """The raw win rate in percent; NaN without a verdict."""
        preference = self.tables[model].preference
        score = preference[~np.isnan(preference)] - 1
        return float(score.mean()) * 100 if len(score) else math.nan

    @cached_property
    def _compat(self) -> dict[str, float | None]:
        """What two checks of a model ask for."""
        return {}

    def _controlled(
        self, model: str, control: Callable[[Annotations, TextId, Calibration], float]
    ) -> float | None:
        table, calibration = self.tables[model], self.calibration
        known = self.reference if self.suite_texts is None else self.suite_texts
        if calibration is None or len(calibration.difficulty) != len(known):
            return None
        if not among(table.instruction, known).all() or np.isnan(table.preference).all():
            return None
        try:
            return control(table, known, calibration)
        except (
            ConvergenceError
        ):  # a handful of rows, or answers that are all as long as the baseline's
            return None


def read_columns(
    folder: ResultsFolder, suites: Sequence[Suite], calibration: Calibration | None
) -> list[AnnotatorResults]:
    """Every annotator in the folder, those that no suite knows included; the calibration goes to the suites' own."""
    files: dict[str, dict[str, AnnotationFile]] = {}
    for model in folder.models:
        for file in folder.annotation_files(model):
            files.setdefault(file.annotator, {})[model] = file
    columns = []
    for annotator, of_models in sorted(files.items()):
        tables = dict(zip(of_models, folder.read(list(of_models.values())), strict=True))
        votes = Counter(table.baseline for table in tables.values())
        usual = max(sorted(votes), key=votes.__getitem__)
        suite, board = _suite_of(annotator, usual, suites)
        columns.append(
            AnnotatorResults(
                folder=folder,
                annotator=annotator,
                files=of_models,
                tables=tables,
                baseline=suite.baseline if suite is not None and suite.baseline in votes else usual,
                suite=suite,
                board=read_published_board(board) if board else {},
                calibration=calibration if suite is not None else None,
            )
        )
    return columns


def _suite_of(
    annotator: str, baseline: str, suites: Sequence[Suite]
) -> tuple[Suite | None, str | None]:
    """The suite that has ``annotator`` on a board, of several the one with this baseline."""
    found = [
        (suite, board.file)
        for suite in suites
        for board in suite.boards
        if board.annotator == annotator
    ]
    found.sort(key=lambda pair: pair[0].baseline != baseline)
    return found[0] if found else (None, None)


def lookup(
    keys: TextId, known: TextId, values: NDArray[Value]
) -> tuple[NDArray[Value], NDArray[np.bool_]]:
    """(n,) the value of each key, and whether it is known at all; an unknown key has the value zero.

    >>> ids = np.array([7, 3], dtype=np.uint64)
    >>> lookup(np.array([3, 9], dtype=np.uint64), ids, np.array([70, 30]))
    (array([30,  0]), array([ True, False]))
    """
    if np.array_equal(keys, known):  # as in most files of a folder
        return values, np.ones(len(keys), np.bool_)
    order = np.argsort(known)
    at = order[np.minimum(np.searchsorted(known, keys, sorter=order), len(known) - 1)]
    found = known[at] == keys
    return np.where(found, values[at], np.zeros(1, values.dtype)), found


def among(keys: TextId, known: TextId) -> NDArray[np.bool_]:
    """(n,) whether each key is known."""
    return lookup(keys, known, known)[1]
