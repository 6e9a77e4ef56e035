"""From verdicts to scores: win rates and length-controlled win rates of the models in a results folder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from alignboard.errors import ConvergenceError, InputError
from alignboard.parallel import fork_map
from alignboard.published.calibration import Calibration
from alignboard.published.ranks import PairedRank, paired_ranks, shared_prompts
from alignboard.records import Annotations, TextId
from alignboard.results.folder import ResultsFolder
from alignboard.stats import intervals
from alignboard.stats.intervals import Interval

# The fits themselves are imported where they are made: a board whose scores are cached needs none.
if TYPE_CHECKING:
    from alignboard.stats.length_control import GamedRows, LengthControlled

Jump: TypeAlias = Literal["above", "below"]
# Two processes pay for themselves from about 50 ms of fits on.
_WORTH_A_FORK = 6


def lc_jump(win_rate_pct: float, lc_pct: float) -> Jump | None:
    """Whether the length-controlled win rate is far from the raw one, and on which side.

    The rule is AlpacaEval's ``get_is_extreme_changes`` (``metrics/glm_winrate.py``) with its defaults: more than
    10 points and more than a quarter of the way to 0 or to 100. Upstream warns of a failed fit; above is also what
    a gamed length control looks like.

    >>> lc_jump(20.0, 45.0), lc_jump(20.0, 9.0), lc_jump(20.0, 25.0)
    ('above', 'below', None)
    """
    if lc_pct > max(win_rate_pct + (100 - win_rate_pct) / 4, win_rate_pct + 10):
        return "above"
    if lc_pct < min(win_rate_pct - win_rate_pct / 4, win_rate_pct - 10):
        return "below"
    return None


EXTRAPOLATED: Final = "extrapolated"
"""why there is no rate where hardly any response is nearly as long as the baseline's: the model's form would decide it,
and two nearly equal models have got 61 and 8, each with a narrow interval"""

# Below this share of the instructions the calibration rows, whose weight is fixed, hold the length effect more firmly.
_NEARLY_ALL = 0.99
_SUBSET = "LC of {n} of {all} instructions, another quantity than that of all: calibration rows weigh more"


@dataclass(frozen=True)
class LcScore:
    """One length-controlled win rate, a fraction in [0, 1]."""

    win_rate: float
    interval: Interval
    spread: float
    """upstream's ``lc_standard_error``"""
    C: float
    kkt_violation: float
    """of the optimum with this look-up of difficulties"""
    note: str | None = None
    """what the rate rests on"""


@dataclass(frozen=True)
class LcScores:
    """The two readings of AlpacaEval's length control.

    ``compat`` is what upstream computes: difficulty looked up by the row's position, weights where liblinear stops.
    ``aligned`` is what the model says: difficulty looked up by instruction, weights at the optimum.
    """

    compat: LcScore
    aligned: LcScore
    n_misplaced: int
    """rows that get another instruction's difficulty by position"""


@lru_cache(maxsize=1)
def _code_digest() -> str:
    """Of numpy's version and of the sources that compute a score: a changed line makes every cached score stale."""
    digest = hashlib.blake2b(np.__version__.encode(), digest_size=8)
    stats = Path(intervals.__file__).parent
    own = Path(__file__)
    for path in [own, own.with_name("ranks.py"), *sorted(stats.glob("*.py"))]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def lc_win_rates(annotations: Annotations, reference: TextId, calibration: Calibration) -> LcScores:
    """Length control with AlpacaEval's calibration. ``reference`` (N,) is the order that difficulties are listed in.

    Raises `InputError` for an instruction that is not in the reference set.
    """
    if annotations.generator == annotations.baseline:
        exact = _fifty(len(annotations))
        return LcScores(exact, exact, 0)
    position = reference_position(annotations, reference)
    by_position = np.arange(len(annotations))
    n_misplaced = int((position != by_position).sum())
    compat = _fit(annotations, calibration, by_position, liblinear_stop=True)
    aligned = compat if not n_misplaced else _fit(annotations, calibration, position)
    at_stop = compat.win_rate_at_liblinear_stop
    n, all_rows = len(annotations), len(reference)
    note = _SUBSET.format(n=n, all=all_rows) if n < _NEARLY_ALL * all_rows else None
    return LcScores(
        compat=_score(compat, compat.win_rate if at_stop is None else at_stop, note),
        aligned=_score(aligned, aligned.win_rate, note),
        n_misplaced=n_misplaced,
    )


def lc_compat(annotations: Annotations, calibration: Calibration, *, nearly: bool = False) -> float:
    """`LcScores.compat`'s win rate alone; ``nearly``: for two thirds of the time, within half a point."""
    from alignboard.stats.length_control import win_rate_at_liblinear_stop, win_rate_by_folds

    if annotations.generator == annotations.baseline:
        return 0.5
    return (win_rate_by_folds if nearly else win_rate_at_liblinear_stop)(
        annotations.balanced,
        _difference(annotations),
        calibration.difficulty[: len(annotations)],
        _gamed(calibration),
    )


def lc_aligned(annotations: Annotations, reference: TextId, calibration: Calibration) -> float:
    """`LcScores.aligned`'s win rate alone."""
    if annotations.generator == annotations.baseline:
        return 0.5
    return aligned_length_control(annotations, reference, calibration).win_rate


@dataclass(frozen=True)
class AlignedControl:
    """The part of a model's aligned fit that differences of two length-controlled win rates are built on."""

    win_rate: float
    C: float
    packed: bytes
    """``influence``, as the cache keeps it"""

    @property
    def influence(self) -> NDArray[np.float64]:
        """(n,) each instruction's influence on ``win_rate``."""
        return np.frombuffer(self.packed)


@dataclass(frozen=True)
class CalibratedScores:
    """Length-controlled scores of one board, each computed once: the results folder's cache keeps them."""

    folder: ResultsFolder
    reference: TextId
    calibration: Calibration

    def compute(self, tables: Sequence[Annotations]) -> None:
        """Compute what is not known of many models at once, on all cores; failures are left to `score`."""
        others = [table for table in tables if table.generator != table.baseline]
        missing = [table for table in others if not self.folder.cache.knows(self._key("lc", table))]
        score = partial(_try_score, reference=self.reference, calibration=self.calibration)
        for table, found in zip(
            missing, fork_map(score, missing, least=_WORTH_A_FORK), strict=True
        ):
            if found is not None:
                self.folder.cache.remember(self._key("lc", table), found)

    def score(self, annotations: Annotations) -> LcScores:
        """As `lc_win_rates`."""
        if annotations.generator == annotations.baseline:
            return lc_win_rates(annotations, self.reference, self.calibration)
        return self.folder.cache.derived(
            self._key("lc", annotations),
            LcScores,
            lambda: lc_win_rates(annotations, self.reference, self.calibration),
        )

    def aligned(self, tables: Mapping[str, Annotations]) -> dict[str, AlignedControl]:
        """The aligned fit of every model; those that are not known are made on all cores.

        Raises `InputError` for an instruction that is not in the reference set, the baseline, and a model whose
        verdicts determine no fit.
        """
        keys = {name: self._key("aligned", table) for name, table in tables.items()}
        missing = [name for name, key in keys.items() if not self.folder.cache.knows(key)]
        fit = partial(_aligned, reference=self.reference, calibration=self.calibration)
        fits = fork_map(fit, [tables[name] for name in missing], least=_WORTH_A_FORK)
        for name, found in zip(missing, fits, strict=True):
            self.folder.cache.remember(keys[name], found)
        return {
            name: self.folder.cache.derived(key, AlignedControl, partial(fit, tables[name]))
            for name, key in keys.items()
        }

    def nearest_C(
        self, annotations: Annotations, target: float, start: float
    ) -> tuple[float, float]:
        """The C with which compat comes nearest to ``target``, and its win rate; see `length_control.nearest_C`."""
        return self.folder.cache.derived(
            self._key(f"C of {target!r} from {start!r}", annotations),
            tuple[float, float],
            lambda: _nearest_C(annotations, self.calibration, target, start),
        )

    @cached_property
    def _conditions(self) -> str:
        arrays = (self.reference, *vars(self.calibration).values())
        return hashlib.blake2b(b"".join(array.tobytes() for array in arrays)).hexdigest()

    def _key(self, kind: str, annotations: Annotations) -> str:
        """The digest of all that determines a score: verdicts, lengths, calibration and code."""
        seed = f"{kind} {_code_digest()} {annotations.digest} {self._conditions}".encode()
        digest = hashlib.blake2b(seed, digest_size=16)
        digest.update(annotations.length_1.tobytes() + annotations.length_2.tobytes())
        return digest.hexdigest()


def kept_ranks(folder: ResultsFolder, tables: Mapping[str, Annotations]) -> dict[str, PairedRank]:
    """As `paired_ranks`, computed once: the results folder's cache keeps them."""
    said = [(name, one.digest, one.generator, one.baseline) for name, one in tables.items()]
    key = hashlib.blake2b(f"ranks {_code_digest()} {said}".encode(), digest_size=16).hexdigest()
    return folder.cache.derived(key, dict[str, PairedRank], lambda: paired_ranks(tables))


def _try_score(
    annotations: Annotations, reference: TextId, calibration: Calibration
) -> LcScores | None:
    try:
        return lc_win_rates(annotations, reference, calibration)
    except (ConvergenceError, np.linalg.LinAlgError):
        return None


def _aligned(
    annotations: Annotations, reference: TextId, calibration: Calibration
) -> AlignedControl:
    model = annotations.generator
    if model == annotations.baseline:
        raise InputError(
            f"{model} is the baseline, whose responses are as long as themselves; leave it out, or --assets."
        )
    try:
        fit = aligned_length_control(annotations, reference, calibration)
    except (ConvergenceError, np.linalg.LinAlgError) as error:
        why = " ".join(str(error).split()).rstrip(".")
        raise InputError(
            f"{model} has no length-controlled win rate ({why}); leave it out, or --assets."
        ) from error
    return AlignedControl(fit.win_rate, fit.C, fit.influence.tobytes())


def joint_lc_win_rates(tables: Mapping[str, Annotations]) -> dict[str, LcScore | str]:
    """Length control without any calibration, or why a model has none: difficulties come from the models at hand.

    ``tables`` are one judge's verdicts, model by model; the baseline's own table, where there is one, is exactly
    one half and takes no part. See `alignboard.stats.joint_length_control`.
    """
    from alignboard.stats.joint_length_control import (
        JudgedLengths,
        joint_length_control,
        lacks_support,
    )

    others = {name: table for name, table in tables.items() if table.generator != table.baseline}
    scores: dict[str, LcScore | str] = {
        name: _fifty(len(tables[name])) for name in tables.keys() - others.keys()
    }
    if len(others) < 2:
        return scores | dict.fromkeys(others, "fewer than two models")
    instructions = shared_prompts(others.values())
    judged = {
        name: JudgedLengths(
            np.searchsorted(instructions, table.instruction),
            table.balanced - 1,
            _difference(table),
            table.output_1 == table.output_2,
        )
        for name, table in others.items()
    }
    for name, one in joint_length_control(judged).items():
        if lacks_support(judged[name]):
            scores[name] = EXTRAPOLATED
        else:
            scores[name] = one if isinstance(one, str) else _score(one.found, one.found.win_rate)
    return scores


def reference_position(annotations: Annotations, reference: TextId) -> NDArray[np.intp]:
    """(n,) where each row's instruction stands in the reference set."""
    if np.array_equal(annotations.instruction, reference):
        return np.arange(len(reference))
    order = np.argsort(reference)
    found = np.searchsorted(reference[order], annotations.instruction)
    position = order[np.minimum(found, len(reference) - 1)]
    unknown = np.flatnonzero(reference[position] != annotations.instruction)
    if len(unknown):
        raise InputError(
            f"{annotations.path}, row {unknown[0] + 1}, field 'instruction': not one of the {len(reference)} "
            f"instructions of the reference set ({len(unknown)} of {len(annotations)} rows are not); remove them "
            "or name the suite that they belong to."
        )
    return position


def aligned_length_control(
    annotations: Annotations, reference: TextId, calibration: Calibration
) -> LengthControlled:
    """The aligned fit of one model with its influences, on which differences of two models are built.

    Raises `InputError` for an instruction that is not in the reference set.
    """
    return _fit(annotations, calibration, reference_position(annotations, reference))


def _fit(
    annotations: Annotations,
    calibration: Calibration,
    position: NDArray,
    *,
    liblinear_stop: bool = False,
) -> LengthControlled:
    from alignboard.stats.length_control import length_controlled_win_rate

    return length_controlled_win_rate(
        annotations.balanced,
        _difference(annotations),
        calibration.difficulty[position],
        _gamed(calibration),
        liblinear_stop=liblinear_stop,
    )


def _nearest_C(
    annotations: Annotations, calibration: Calibration, target: float, start: float
) -> tuple[float, float]:
    from alignboard.stats.length_control import nearest_C

    return nearest_C(
        annotations.balanced,
        _difference(annotations),
        calibration.difficulty[: len(annotations)],
        _gamed(calibration),
        target=target,
        start=start,
    )


def _gamed(calibration: Calibration) -> GamedRows:
    from alignboard.stats.length_control import GamedRows

    return GamedRows(
        calibration.gamed_preference, calibration.gamed_length, calibration.gamed_difficulty
    )


def _difference(annotations: Annotations) -> NDArray[np.float64]:
    """(n,) the baseline's characters minus the model's."""
    return annotations.length_1.astype(np.float64) - annotations.length_2


def _score(fit: LengthControlled, win_rate: float, note: str | None = None) -> LcScore:
    return LcScore(win_rate, fit.interval, fit.spread, fit.C, fit.kkt_violation, note)


def _fifty(n: int) -> LcScore:
    """The baseline against itself: one half by construction, with nothing to estimate."""
    return LcScore(0.5, Interval(0.5, 0.0, 0.5, 0.5, 0.95, n, n), 0.0, float("nan"), 0.0)
