"""What a judge says of models: its columns, the features that a bridge makes of them, and what is refused.

Every feature is taken on the log-odds scale (length: log). Where two are made of the same verdicts they share an error.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from alignboard.errors import InputError
from alignboard.stats.bridge.fit import Array

Form = tuple[str, ...]
"""the features of a map"""

GIVEN_SLOPES = ("unit_win_rate", "length_shift")
"""features with a slope of 1 that is not fitted"""
SHOWN = {
    "win_rate": ("win rate of {} %", 100),
    "lc_win_rate": ("length-controlled win rate of {} %", 100),
    "item_win_rate": ("calibrated win rate of {} %", 100),
    "length": ("mean length of {} characters", 1),
}
"""what is said of a column, and by what its values are multiplied to be read"""

_COLUMN = {"unit_win_rate": "win_rate", "win_rate_squared": "win_rate"}


@dataclass(frozen=True)
class JudgeScores:
    """What the new judge says of n models; every array is (n,), rates are fractions in (0, 1).

    A column that is None is not known of every model, and no form uses it.
    """

    win_rate: Array
    win_rate_error: Array
    """sampling standard error of ``win_rate``"""
    length: Array | None = None
    """characters, mean over a model's answers; without error, both judges read the same answers"""
    lc_win_rate: Array | None = None
    """length-controlled; made of the same verdicts, on the log-odds scale it has the very error of ``win_rate``"""
    length_shift: Array | None = None
    """log-odds that the official board adds for answers of this length (`length_shift`)"""
    item_win_rate: Array | None = None
    """the mean official verdict to be expected after the new judge's verdicts (`items`)"""
    item_win_rate_error: Array | None = None

    def __len__(self) -> int:
        return len(self.win_rate)

    def take(self, index: NDArray) -> JudgeScores:
        """The models at ``index``."""
        columns = {one.name: getattr(self, one.name) for one in fields(self)}
        return replace(
            self, **{name: one[index] for name, one in columns.items() if one is not None}
        )

    def column(self, feature: str) -> Array:
        """(n,) the column that ``feature`` is made of; raises `KeyError` where it is not known."""
        values = getattr(self, _COLUMN.get(feature, feature))
        if values is None:
            raise KeyError(feature)
        return values

    def knows(self, form: Form) -> bool:
        """Whether every column of ``form`` is there."""
        return all(getattr(self, _COLUMN.get(name, name)) is not None for name in form)


def n_slopes(form: Form) -> int:
    """How many slopes of ``form`` are fitted.

    >>> n_slopes(("unit_win_rate", "length")), n_slopes(("win_rate", "length"))
    (1, 2)
    """
    return sum(name not in GIVEN_SLOPES for name in form)


def features(form: Form, scores: JudgeScores) -> tuple[Array, Array]:
    """(n, k) features on the log-odds (length: log) scale, and (n, k, k) the covariances of their errors.

    Win rate, its square and the length-controlled win rate come from the same verdicts and share one error.
    """
    x = log_odds(scores.win_rate)
    error = scores.win_rate_error / (scores.win_rate * (1 - scores.win_rate))
    columns, errors = [], []
    for name in form:
        values = scores.column(name)
        if name == "win_rate_squared":
            columns.append(x**2)
            errors.append(2 * x * error)
        elif name == "item_win_rate":
            columns.append(log_odds(values))
            errors.append(scores.column("item_win_rate_error") / (values * (1 - values)))
        elif name.startswith("length"):
            columns.append(np.log(values) if name == "length" else values)
            errors.append(np.zeros(len(x)))
        else:
            columns.append(log_odds(values))
            errors.append(error)
    e = np.column_stack(errors)
    return np.column_stack(columns), e[:, :, None] * e[:, None, :]


def ranged(form: Form, scores: JudgeScores) -> list[str]:
    """The columns whose range a new model has to be in: win rate and length always, others where the form has them."""
    names = ["win_rate", *(["length"] if scores.length is not None else []), *form]
    return [name for name in dict.fromkeys(_COLUMN.get(one, one) for one in names) if name in SHOWN]


def require_anchors(
    scores: JudgeScores, official: Array, official_error: Array, min_anchors: int
) -> None:
    """Raise `InputError` where these anchors cannot carry a map."""
    if not len(scores) == len(official) == len(official_error):
        raise ValueError("scores, official and official_error must have one length")
    if len(official) < min_anchors:
        raise InputError(
            f"{len(official)} models have both a score of the new judge and an official one, and a bridge takes at "
            f"least {min_anchors}; let the new judge annotate more models of the official board."
        )
    require_scores(scores, "anchor")
    _require_rates("official score", "anchor", official)
    _require_errors("official standard error", "anchor", official_error)


def require_scores(scores: JudgeScores, who: str) -> None:
    """Raise `InputError` where a value is not finite or not inside of its range."""
    _require_rates("win rate", who, scores.win_rate)
    _require_errors("standard error", who, scores.win_rate_error)
    for name, what in (
        ("lc_win_rate", "length-controlled win rate"),
        ("item_win_rate", "calibrated win rate"),
    ):
        if (values := getattr(scores, name)) is not None:
            _require_rates(what, who, values)
    if scores.item_win_rate_error is not None:
        _require_errors("calibrated win rate's error", who, scores.item_win_rate_error)
    if scores.length is not None:
        bad = ~(np.isfinite(scores.length) & (scores.length > 0))
        _refuse(bad, "mean length", who, scores.length, "a positive number of characters")
    if scores.length_shift is not None:
        bad = ~np.isfinite(scores.length_shift)
        _refuse(bad, "shift by length", who, scores.length_shift, "a number")


def _require_rates(what: str, who: str, rate: Array) -> None:
    bad = ~((rate > 0) & (rate < 1))
    _refuse(bad, what, who, rate, "a fraction between 0 and 1, both excluded")


def _require_errors(what: str, who: str, error: Array) -> None:
    _refuse(~(np.isfinite(error) & (error >= 0)), what, who, error, "a number of at least 0")


def _refuse(bad: NDArray[np.bool_], what: str, who: str, values: Array, expected: str) -> None:
    found = np.flatnonzero(bad)
    if len(found):
        raise InputError(
            f"The {what} of {who} number {found[0] + 1} is {values[found[0]]:g}; expected {expected}; leave the model "
            "out or mend its row."
        )


def log_odds(p: Array) -> Array:
    """(...) log(p / (1 - p))."""
    return np.log(p) - np.log1p(-p)
