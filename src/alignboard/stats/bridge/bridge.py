"""From a new judge's scores to the official ones: what the official board would print for a model, with an interval.

Anchors are models that both judges scored. On the log-odds scale the official score is linear in what the new judge
gave (`FORMS`), with sampling errors on both sides and a deviation of each model's own (`fit`). The interval is a
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

References: Bradley and Terry 1952, Biometrika 39; those of `fit`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alignboard.errors import ConvergenceError, InputError
from alignboard.stats.bridge.fit import Array, MapFit, fit_map, price_of_choice, simplest
from alignboard.stats.bridge.scores import (
    GIVEN_SLOPES,
    SHOWN,
    Form,
    JudgeScores,
    features,
    log_odds,
    n_slopes,
    ranged,
    require_anchors,
    require_scores,
)
from alignboard.stats.logistic import expit
from alignboard.stats.student import student_quantile

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
        turn = float(
            expit(np.array(-self._slope("win_rate") / (2 * self._slope("win_rate_squared"))))
        )
        low, high = self.limits["win_rate"]
        return turn if low < turn < high else None

    @property
    def opens_upwards(self) -> bool:
        """Of a curve with a turning point: whether estimates are lowest there; else they are highest."""
        return self._slope("win_rate_squared") > 0

    def _slope(self, feature: str) -> float:
        at = self.form.index(feature)
        return float(self.fit.coefficients[1 + at] / self.scale[at])


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

    Forms whose fit does not settle are not on offer. Raises `InputError` for fewer than ``min_anchors`` anchors, for
    values outside of their range or not finite, and for a judge whose scores of the anchors differ by no more than
    their sampling errors.
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
        raw, raw_error = features(form, scores)
        centre, scale = raw.mean(axis=0), raw.std(axis=0, ddof=1)
        if not (scale > 1e-9 * (1 + np.abs(centre))).all():
            continue
        given = np.array(
            [s if name in GIVEN_SLOPES else np.nan for name, s in zip(form, scale, strict=True)]
        )
        x, S = _scaled(raw, raw_error, centre, scale)
        try:
            fit = fit_map(x, S, log_odds(official), error, given)
        except ConvergenceError:
            continue
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
    columns = {name: scores.column(name) for name in ranged(form, scores)}
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
    raw, raw_error = features(bridge.form, scores)
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


def _scaled(raw: Array, error: Array, centre: Array, scale: Array) -> tuple[Array, Array]:
    return (raw - centre) / scale, error / (scale[:, None] * scale[None, :])


def _outside(bridge: Bridge, scores: JudgeScores, number: int) -> str | None:
    for name, (low, high) in bridge.limits.items():
        value = float(scores.column(name)[number])
        if not low <= value <= high:
            words, factor = SHOWN[name]
            given = words.format(f"{value * factor:.4g}")
            return f"its {given} is outside of the anchors' range, {low * factor:.4g} to {high * factor:.4g}"
    return None
