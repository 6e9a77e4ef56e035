"""From a new judge's scores to the official ones: what the official board would print for a model, with an interval.

Anchors are models that both judges scored. On the log-odds scale the official score is linear in what the new judge
gave (`FORMS`), with sampling errors on both sides and a deviation of each model's own (`bridge_fit`). The interval is a
prediction interval for the figure that the official board would print, its sampling error included; it is conditional
on the new model being such a model as the anchors are.

Which form is fitted, the anchors decide by their leave-one-out residuals: the simplest that is within one standard
error of the best. What choosing costs (the same residuals where every fold chooses anew) widens the interval. A form
has at most one fitted slope per five anchors. Two features have no fitted slope: ``unit_win_rate`` is the map of
Bradley and Terry, where another baseline or a stricter judge shifts all log-odds alike; ``length_shift`` is how much
the official board itself takes off for length, read off all of its models.

What was tried on the published boards, each with one model left out: win rates in place of log-odds (mean absolute
errors up to three times as large); a slope for squared length (no better in most); the form with the least squared
residuals instead of the simplest near it (as good for many anchors, worse for ten); no widening for the choice; a
widening that counts anchors outside of the others' range too (twice as wide for ten anchors, and nothing is estimated
there). The unit slope and the shift were added when ten anchors turned out to be too few for the fitted slopes.

References: Bradley and Terry 1952, Biometrika 39; those of `bridge_fit`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from alignboard.errors import InputError
from alignboard.stats.bridge_fit import Array, MapFit, fit_map, price_of_choice, simplest
from alignboard.stats.intervals import student_quantile

Form = tuple[str, ...]

MIN_ANCHORS = 8
ANCHORS_PER_SLOPE = 5

FORMS: tuple[Form, ...] = (
    ("unit_win_rate",),
    ("unit_win_rate", "length_shift"),
    ("unit_win_rate", "length"),
    ("win_rate",),
    ("win_rate", "length_shift"),
    ("item_win_rate",),
    ("item_win_rate", "length_shift"),
    ("lc_win_rate",),
    ("win_rate", "win_rate_squared"),
    ("win_rate", "win_rate_squared", "length_shift"),
    ("win_rate", "length"),
    ("item_win_rate", "length"),
    ("win_rate", "lc_win_rate"),
    ("win_rate", "win_rate_squared", "length"),
    ("win_rate", "lc_win_rate", "length"),
)
"""What a map may be made of, the simplest first."""

_FIXED = ("unit_win_rate", "length_shift")
_COLUMN = {"unit_win_rate": "win_rate", "win_rate_squared": "win_rate"}
# What is said of a column, and by what its values are multiplied to be read.
_SHOWN = {
    "win_rate": ("win rate of {} %", 100),
    "lc_win_rate": ("length-controlled win rate of {} %", 100),
    "item_win_rate": ("calibrated win rate of {} %", 100),
    "length": ("mean length of {} characters", 1),
}


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
    """the mean official verdict to be expected after the new judge's verdicts (`bridge_items`)"""
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


@dataclass(frozen=True)
class Bridge:
    """A fitted map with what it is conditional on."""

    form: Form
    fit: MapFit
    """of features that were centred and scaled"""
    centre: Array
    scale: Array
    n_anchors: int
    choice: float
    """by what the variance is multiplied for having chosen the form"""
    limits: dict[str, tuple[float, float]]
    """the anchors' smallest and largest win rate, mean length, and whatever else the form uses"""
    official_scatter: float
    """median over anchors of the official standard error squared over p (1 - p): 1 / n for plain verdicts"""

    @property
    def degrees_of_freedom(self) -> int:
        """Anchors less fitted coefficients."""
        return self.n_anchors - 1 - n_slopes(self.form)

    @property
    def turning_point(self) -> float | None:
        """The win rate, inside of the anchors' range, at which the fitted curve turns; None where it does not."""
        if "win_rate_squared" not in self.form:
            return None
        slopes = self.fit.coefficients[1:] / self.scale
        linear, square = slopes[[self.form.index("win_rate"), self.form.index("win_rate_squared")]]
        turn = float(expit(-linear / (2 * square)))
        low, high = self.limits["win_rate"]
        return turn if low < turn < high else None


@dataclass(frozen=True)
class Estimates:
    """Estimated official scores of n models with prediction intervals, fractions in (0, 1); every array is (n,)."""

    estimate: Array
    low: Array
    high: Array
    outside: tuple[str | None, ...]
    """where a model lies outside of the anchors' range, and its figures are an extrapolation: what does"""
    level: float

    @property
    def inside(self) -> NDArray[np.bool_]:
        """(n,) whether a model lies within the anchors' range."""
        return np.array([reason is None for reason in self.outside], dtype=np.bool_)


def n_slopes(form: Form) -> int:
    """How many slopes of ``form`` are fitted.

    >>> n_slopes(("unit_win_rate", "length")), n_slopes(("win_rate", "length"))
    (1, 2)
    """
    return sum(name not in _FIXED for name in form)


def fit_bridge(
    scores: JudgeScores,
    official: Array,
    official_error: Array,
    *,
    forms: Sequence[Form] = FORMS,
    min_anchors: int = MIN_ANCHORS,
) -> Bridge:
    """The map from the ``scores`` of n anchors to their ``official`` scores (n,), fractions in (0, 1).

    ``official_error`` (n,) are their sampling standard errors. An error of 0 (the baseline against itself, a score by
    construction) is taken for the typical one: it would be the only anchor that counts.

    Raises `InputError` for fewer than ``min_anchors`` anchors, for values outside of their range or not finite, and for
    a judge whose scores of the anchors differ by no more than their sampling errors.
    """
    require_anchors(scores, official, official_error, min_anchors)
    information = official * (1 - official)
    scatter = (official_error**2 / information)[official_error > 0]
    typical = float(np.median(scatter)) if len(scatter) else 0.0
    error = np.where(
        official_error > 0, official_error / information, np.sqrt(typical / information)
    )
    most = max(1, len(official) // ANCHORS_PER_SLOPE)
    usable = [form for form in forms if n_slopes(form) <= most and scores.knows(form)]
    found: list[tuple[Form, MapFit, Array, Array]] = []
    for form in usable:
        raw, raw_error = _features(form, scores)
        centre, scale = raw.mean(axis=0), raw.std(axis=0, ddof=1)
        if not (scale > 1e-9 * (1 + np.abs(centre))).all():
            continue
        given = np.array(
            [s if name in _FIXED else np.nan for name, s in zip(form, scale, strict=True)]
        )
        x, S = _scaled(raw, raw_error, centre, scale)
        fit = fit_map(x, S, log_odds(official), error, given)
        if fit is not None:
            found.append((form, fit, centre, scale))
    if not found:
        raise InputError(
            "The new judge's scores of the anchors differ by no more than their sampling errors: nothing can be learnt "
            "from them; give a judge that tells the anchors apart, or more verdicts."
        )
    fits = [fit for _, fit, _, _ in found]
    chosen = int(simplest(np.stack([fit.residual**2 for fit in fits])))
    form, fit, centre, scale = found[chosen]
    columns = {name: scores.column(name) for name in _ranged(form, scores)}
    between = np.all([(c > c.min()) & (c < c.max()) for c in columns.values()], axis=0)
    return Bridge(
        form=form,
        fit=fit,
        centre=centre,
        scale=scale,
        n_anchors=len(official),
        choice=price_of_choice(fits, chosen, between),
        limits={name: (float(c.min()), float(c.max())) for name, c in columns.items()},
        official_scatter=typical,
    )


def predict(bridge: Bridge, scores: JudgeScores, *, level: float = 0.95) -> Estimates:
    """The official scores to be expected of m models with ``scores``, with prediction intervals by Student's t.

    A model outside of the anchors' range is said in `Estimates.outside`. Raises `InputError` where a value is outside
    of its own range or not finite, or where the new models lack a column that the map uses.
    """
    missing = [name for name in bridge.limits if getattr(scores, name) is None]
    if missing or not scores.knows(bridge.form):
        raise InputError(
            f"The map between the judges uses {', '.join(missing or bridge.form)}, which is not known of every new "
            "model; give the same columns for anchors and new models."
        )
    require_scores(scores, "new model")
    raw, raw_error = _features(bridge.form, scores)
    mean, variance = bridge.fit.predict(*_scaled(raw, raw_error, bridge.centre, bridge.scale))
    p = expit(mean)
    variance = bridge.choice * (variance + bridge.official_scatter / (p * (1 - p)))
    reach = student_quantile(1 - (1 - level) / 2, bridge.degrees_of_freedom) * np.sqrt(variance)
    outside = tuple(_outside(bridge, scores, number) for number in range(len(scores)))
    return Estimates(p, expit(mean - reach), expit(mean + reach), outside, level)


def length_shift(win_rate: Array, lc_win_rate: Array, length: Array) -> tuple[float, float]:
    """Intercept and slope of ``logit LC - logit win rate`` on the log of the mean length, over a board's n models.

    Rates are fractions in (0, 1), ``length`` is in characters. Raises `InputError` where fewer than eight models have
    them all, or where all lengths are equal.
    """
    if len(length) < MIN_ANCHORS or not np.ptp(length) > 0:
        raise InputError(
            f"The official board has {len(length)} models with a win rate, a length-controlled one and a mean length; "
            f"its effect of length takes {MIN_ANCHORS} of different length."
        )
    design = np.column_stack([np.ones(len(length)), np.log(length)])
    intercept, slope = np.linalg.lstsq(design, log_odds(lc_win_rate) - log_odds(win_rate))[0]
    return float(intercept), float(slope)


def _features(form: Form, scores: JudgeScores) -> tuple[Array, Array]:
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


def _scaled(raw: Array, error: Array, centre: Array, scale: Array) -> tuple[Array, Array]:
    return (raw - centre) / scale, error / (scale[:, None] * scale[None, :])


def _ranged(form: Form, scores: JudgeScores) -> list[str]:
    """The columns whose range a new model has to be in: win rate and length always, others where the form has them."""
    names = ["win_rate", *(["length"] if scores.length is not None else []), *form]
    return [
        name for name in dict.fromkeys(_COLUMN.get(one, one) for one in names) if name in _SHOWN
    ]


def _outside(bridge: Bridge, scores: JudgeScores, number: int) -> str | None:
    for name, (low, high) in bridge.limits.items():
        value = float(scores.column(name)[number])
        if not low <= value <= high:
            words, factor = _SHOWN[name]
            said = words.format(f"{value * factor:.4g}")
            return f"its {said} is outside of the anchors' range, {low * factor:.4g} to {high * factor:.4g}"
    return None


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


def expit(z: Array) -> Array:
    """(...) 1 / (1 + exp(-z))."""
    return 1 / (1 + np.exp(-np.clip(z, -700, 700)))
