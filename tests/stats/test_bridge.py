"""The bridge from a new judge to the official one: its numbers, its coverage on simulated boards, its refusals."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from alignboard.cli.bridge import PUBLISHED
from alignboard.errors import InputError
from alignboard.stats.bridge.bridge import FORMS, fit_bridge, length_shift, predict
from alignboard.stats.bridge.fit import fit_map, price_of_choice, simplest
from alignboard.stats.bridge.items import ItemVerdicts, calibrated_rates
from alignboard.stats.bridge.scores import JudgeScores, log_odds
from alignboard.stats.bridge.validation import kendall, leave_one_out, spearman
from alignboard.stats.logistic import expit
from alignboard.suites import load_suite

SUITES = [load_suite(name) for name in PUBLISHED]
OFFICIAL = SUITES[0]
N_INSTRUCTIONS = 805


def boards(n, noise, rng, slope=1.3, shift=-1.5):
    """A new judge's scores of n models, their official scores and the errors of these.

    ``noise`` is the standard deviation, in log-odds, of what the new judge sees and the official one does not.
    """
    quality = rng.normal(0, 1, size=n)
    official = expit(slope * quality + shift)
    new = expit(quality + noise * rng.normal(size=n))
    score = rng.binomial(N_INSTRUCTIONS, new) / N_INSTRUCTIONS
    score = np.clip(score, 1 / N_INSTRUCTIONS, 1 - 1 / N_INSTRUCTIONS)
    printed = np.clip(rng.binomial(N_INSTRUCTIONS, official) / N_INSTRUCTIONS, 0.002, 0.998)
    return (
        JudgeScores(score, np.sqrt(score * (1 - score) / N_INSTRUCTIONS)),
        printed,
        np.sqrt(printed * (1 - printed) / N_INSTRUCTIONS),
    )


def line(n=12):
    """An exact line on the log-odds scale, without any error."""
    x = np.linspace(-2, 2, n)
    return JudgeScores(expit(x), np.zeros(n)), expit(0.7 * x - 1), np.zeros(n)


# Closed forms.


def test_an_exact_map_is_found_exactly():
    scores, official, error = line()
    fitted = fit_bridge(scores, official, error, forms=[("win_rate",)])
    new = JudgeScores(np.array([0.4, 0.75]), np.zeros(2))
    found = predict(fitted, new)
    assert found.estimate == pytest.approx(expit(0.7 * log_odds(new.win_rate) - 1), abs=1e-9)
    assert found.high - found.low == pytest.approx(0, abs=1e-4)


def test_without_sampling_errors_it_is_ordinary_least_squares():
    rng = np.random.default_rng(1)
    x, n = rng.normal(size=20), 20
    y = 0.5 * x - 1 + rng.normal(size=n) * 0.3
    fitted = fit_bridge(
        JudgeScores(expit(x), np.zeros(n)), expit(y), np.zeros(n), forms=[("win_rate",)]
    )
    found = predict(fitted, JudgeScores(expit(np.array([0.3])), np.zeros(1)))
    slope, intercept = np.polyfit(x, y, 1)
    residual = y - intercept - slope * x
    s2 = residual @ residual / (n - 2)
    reach = scipy_stats.t.ppf(0.975, n - 2) * math.sqrt(
        s2 * (1 + 1 / n + (0.3 - x.mean()) ** 2 / (n * x.var()))
    )
    centre = intercept + slope * 0.3
    limits = log_odds(np.concatenate([found.estimate, found.low, found.high]))
    assert limits == pytest.approx([centre, centre - reach, centre + reach], abs=1e-6)
    assert fitted.fit.tau == pytest.approx(math.sqrt(s2), rel=1e-6)


def test_left_out_residuals_are_those_of_fits_without_them():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(10, 2))
    x -= x.mean(axis=0)
    y = x @ [0.4, -0.2] + rng.normal(size=10) * 0.2
    fit = fit_map(x, np.zeros((10, 2, 2)), y, np.zeros(10), np.full(2, np.nan))
    assert fit is not None

    def residual(of, *without):
        kept = np.setdiff1d(np.arange(10), without)
        design = np.column_stack([np.ones(10), x])
        return y[of] - design[of] @ np.linalg.lstsq(design[kept], y[kept])[0]

    assert fit.residual == pytest.approx([residual(i, i) for i in range(10)])
    assert fit.residual_without[3, 7] == pytest.approx(residual(7, 3, 7))
    assert np.isnan(fit.residual_without[4, 4])


def test_slopes_are_not_pulled_to_zero_by_the_new_judges_sampling_errors():
    rng = np.random.default_rng(3)
    n = 600
    u = rng.normal(size=n)
    error = np.where(np.arange(n) % 2, 0.1, 1.0)
    x = u + error * rng.normal(size=n)
    y = 0.8 * u + rng.normal(size=n) * 0.1
    S = (error**2)[:, None, None]
    fit = fit_map((x - x.mean())[:, None], S, y, np.zeros(n), np.array([np.nan]))
    assert fit is not None
    assert fit.coefficients[1] == pytest.approx(0.8, abs=0.03)
    assert fit.tau == pytest.approx(0.1, abs=0.03)
    assert np.polyfit(x, y, 1)[0] < 0.6


def test_given_slopes_are_kept():
    scores, official, error = line()
    fitted = fit_bridge(scores, official, error, forms=[("unit_win_rate",)])
    shifts = log_odds(official) - log_odds(scores.win_rate)
    found = predict(fitted, JudgeScores(np.array([0.5]), np.zeros(1)))
    assert log_odds(found.estimate) == pytest.approx([shifts.mean()])
    assert fitted.degrees_of_freedom == len(official) - 1


@pytest.mark.parametrize("apart", [[1.0], [1.0, -0.7]])
def test_a_slope_that_one_or_two_units_tell_alone_is_not_fitted(apart):
    """Without them there is no slope, and no residual to judge the map by."""
    x = np.array(apart + [0.0] * (10 - len(apart)))
    y = np.linspace(-1, 1, 10)
    x -= x.mean()
    alone = fit_map(x[:, None], np.zeros((10, 1, 1)), y, np.zeros(10), np.array([np.nan]))
    assert alone is None
    given_slope = fit_map(x[:, None], np.zeros((10, 1, 1)), y, np.zeros(10), np.array([1.0]))
    assert given_slope is not None
    assert np.isfinite(given_slope.residual).all()


@pytest.mark.parametrize(("bend", "upwards"), [(0.4, True), (-0.4, False)])
def test_a_curve_that_turns_says_where_and_which_way(bend, upwards):
    x = np.linspace(-2, 2, 16)
    official = expit(bend * (x - 0.5) ** 2 - 1)
    fitted = fit_bridge(
        JudgeScores(expit(x), np.zeros(16)),
        official,
        np.zeros(16),
        forms=[("win_rate", "win_rate_squared")],
    )
    assert fitted.turning_point == pytest.approx(expit(np.array(0.5)))
    assert fitted.opens_upwards is upwards


def test_the_simplest_map_within_a_standard_error_is_chosen():
    close = np.array([[1.0, 2, 3, 2], [0.9, 2.2, 2.9, 1.9]])
    assert simplest(close) == 0
    assert simplest(np.array([[9.0, 8, 9, 8], [1.0, 2, 1, 2]])) == 1


def test_choosing_among_one_map_costs_nothing():
    x = np.linspace(-1, 1, 9)[:, None]
    fit = fit_map(x, np.zeros((9, 1, 1)), x[:, 0] ** 3, np.zeros(9), np.array([np.nan]))
    assert fit is not None
    assert price_of_choice([fit], 0, np.ones(9, dtype=bool)) == 1


def test_the_shift_by_length_is_a_line_in_log_length():
    length = np.array([300.0, 500, 800, 900, 1200, 1500, 2000, 2500])
    raw = np.linspace(0.1, 0.6, 8)
    lc = expit(log_odds(raw) + 4 - 0.6 * np.log(length))
    assert length_shift(raw, lc, length) == pytest.approx((4, -0.6))
    with pytest.raises(InputError, match="has 7 models"):
        length_shift(raw[1:], lc[1:], length[1:])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=2, max_size=30), st.integers(0, 2**32 - 1))
def test_rank_correlations_are_scipys(values, seed):
    a = np.array(values, dtype=np.float64)
    b = np.random.default_rng(seed).integers(0, 4, size=len(a)).astype(np.float64)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        assert math.isnan(spearman(a, b))
        assert math.isnan(kendall(a, b))
    else:
        assert spearman(a, b) == pytest.approx(scipy_stats.spearmanr(a, b)[0])
        assert kendall(a, b) == pytest.approx(scipy_stats.kendalltau(a, b)[0])


# Properties.


@settings(max_examples=15, deadline=None)
@given(st.integers(8, 30), st.integers(0, 10_000), st.floats(0.01, 1.5))
def test_the_order_of_anchors_does_not_matter_and_limits_are_rates(n, seed, noise):
    rng = np.random.default_rng(seed)
    scores, official, error = boards(n, noise, rng)
    scores = replace(scores, length=rng.uniform(300, 2500, size=n))
    order = rng.permutation(n)
    one = fit_bridge(scores, official, error)
    other = fit_bridge(scores.take(order), official[order], error[order])
    a, b = predict(one, scores), predict(other, scores)
    assert one.form == other.form
    assert a.estimate == pytest.approx(b.estimate, abs=1e-7)
    assert a.low == pytest.approx(b.low, abs=1e-6)
    assert ((a.low > 0) & (a.low < a.estimate) & (a.estimate < a.high) & (a.high < 1)).all()
    assert a.inside.all()


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 10_000))
def test_a_left_out_model_has_no_part_in_its_own_estimate(seed):
    rng = np.random.default_rng(seed)
    scores, official, error = boards(10, 0.3, rng)
    changed = official.copy()
    changed[4] = 0.5
    a, b = leave_one_out(scores, official, error), leave_one_out(scores, changed, error)
    assert a.estimates.estimate[4] == b.estimates.estimate[4]
    assert (a.estimates.low[4], a.forms[4]) == (b.estimates.low[4], b.forms[4])


# Coverage on simulated boards, and judges of known quality.


def simulated(n, noise, repeats, seed, slope=1.3):
    """Share of new models whose printed official score the interval holds, and the mean width of intervals."""
    rng = np.random.default_rng(seed)
    held, widths = [], []
    for _ in range(repeats):
        scores, official, error = boards(n + 1, noise, rng, slope)
        scores = replace(scores, length=rng.uniform(300, 2500, size=n + 1))
        anchors = np.arange(n)
        fitted = fit_bridge(scores.take(anchors), official[:-1], error[:-1])
        found = predict(fitted, scores.take(np.array([n])))
        if found.outside[0] is None:
            held.append(found.low[0] <= official[-1] <= found.high[0])
            widths.append(found.high[0] - found.low[0])
    return float(np.mean(held)), float(np.mean(widths))


@pytest.mark.parametrize(("n", "slope"), [(9, 1.0), (30, 1.3)])
def test_intervals_cover_new_models(n, slope):
    covered, _ = simulated(n, noise=0.3, repeats=100, seed=n, slope=slope)
    assert 0.90 <= covered <= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3, 1.0])
@pytest.mark.parametrize(("n", "slope"), [(8, 1.0), (11, 1.3), (15, 0.7), (30, 1.3), (100, 1.3)])
def test_intervals_cover_many_new_models(n, slope, noise):
    covered, _ = simulated(n, noise, repeats=600, seed=7, slope=slope)
    assert 0.92 <= covered <= 0.99


def test_intervals_grow_as_the_judge_gets_worse():
    """Judges who read the very same answers, each with more of a taste of its own."""
    widths = [simulated(25, noise, repeats=8, seed=5)[1] for noise in (0.0, 0.2, 0.5, 1.0, 2.0)]
    assert widths == sorted(widths)
    assert widths[-1] > 3 * widths[0]


# Instruction-level verdicts.


def item_boards(rng, n_models=24, n=400):
    """A new judge that likes long answers; models differ in which of their answers are long, not in mean length."""
    models, official, raw = [], [], []
    difficulty = rng.normal(0, 1, size=n)
    for quality in rng.normal(-0.5, 0.8, size=n_models):
        share = rng.uniform(0.05, 0.95)
        long = rng.random(n) < share
        difference = np.where(long, 800.0 * (1 - share), -800.0 * share)
        liked = quality + difficulty
        says = (rng.random(n) < expit(liked)) * 1.0
        new = (rng.random(n) < expit(1.5 * liked + 3 * np.tanh(difference / 150))) * 1.0
        models.append(ItemVerdicts(new, difference, says))
        official.append(says.mean())
        raw.append(new.mean())
    return models, np.array(official), np.array(raw)


def test_tastes_for_length_are_found_and_exchanged():
    rng = np.random.default_rng(8)
    models, official, raw = item_boards(rng, n_models=12, n=800)
    rates = calibrated_rates(models)
    sd = np.concatenate([model.length_difference for model in models]).std()
    assert rates.official_taste[-1] == pytest.approx(0, abs=0.1)
    assert rates.new_taste * np.tanh(800 / sd) > 1
    assert spearman(rates.rate[-1], official) > spearman(raw, official) + 0.1


def test_a_left_out_models_official_verdicts_have_no_part_in_its_row():
    models, _, _ = item_boards(np.random.default_rng(4), n_models=6, n=100)
    changed = list(models)
    changed[2] = replace(models[2], official=1 - models[2].official)
    a, b = calibrated_rates(models), calibrated_rates(changed)
    assert np.array_equal(a.rate[2], b.rate[2])
    assert np.array_equal(a.error[2], b.error[2])
    others = np.delete(a.official_taste - b.official_taste, 2)
    assert np.abs(others).min() > 1e-3


def test_instruction_level_verdicts_help_where_the_judge_errs_by_instruction():
    models, official, raw = item_boards(np.random.default_rng(11))
    n = len(models)
    error = np.sqrt(official * (1 - official) / 400)
    scores = JudgeScores(raw, np.sqrt(raw * (1 - raw) / 400))
    rates = calibrated_rates(models)
    folds = [
        replace(scores, item_win_rate=rates.rate[i], item_win_rate_error=rates.error[i])
        for i in range(n)
    ]
    everyone = np.ones(n, dtype=bool)
    plain = leave_one_out(scores, official, error).quality(raw, everyone)
    validation = leave_one_out(folds, official, error)
    items = validation.quality(raw, everyone)
    assert sum("item_win_rate" in form for form in validation.forms) > n / 2
    assert items.mean_absolute_error < 0.7 * plain.mean_absolute_error
    assert items.mean_width < plain.mean_width
    assert items.coverage >= 0.85


def test_too_few_models_with_both_judges():
    models, _, _ = item_boards(np.random.default_rng(4), n_models=3, n=50)
    with pytest.raises(ValueError, match="3 models have verdicts of both"):
        calibrated_rates(models)


# Refusals.


def test_seven_anchors_are_refused_and_eight_are_not():
    scores, official, error = boards(8, 0.2, np.random.default_rng(0))
    fit_bridge(scores, official, error)
    leave_one_out(scores, official, error)
    seven = np.arange(7)
    for refused in (fit_bridge, leave_one_out):
        with pytest.raises(InputError, match="7 models have both"):
            refused(scores.take(seven), official[seven], error[seven])
    none = np.arange(0)
    with pytest.raises(InputError, match="0 models have both"):
        leave_one_out(scores.take(none), official[none], error[none])


def test_a_model_outside_of_the_anchors_range_is_said():
    scores, official, error = line()
    scores = replace(scores, length=np.linspace(500, 1500, 12))
    fitted = fit_bridge(scores, official, error)
    new = JudgeScores(np.array([0.5, 0.95, 0.5]), np.zeros(3), length=np.array([700.0, 700, 4000]))
    inside, rate, length = predict(fitted, new).outside
    assert inside is None
    assert rate == "its win rate of 95 % is outside of the anchors' range, 11.92 to 88.08"
    assert length is not None
    assert "mean length of 4000 characters" in length


@pytest.mark.parametrize("error", [0.0, 0.017])
def test_a_judge_that_tells_nothing_apart_is_refused(error):
    n = 10
    constant = JudgeScores(np.full(n, 0.5), np.full(n, error))
    with pytest.raises(InputError, match="nothing can be learnt"):
        fit_bridge(constant, np.linspace(0.1, 0.5, n), np.full(n, 0.01))


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("win_rate", math.nan, "win rate of anchor number 3 is nan"),
        ("win_rate", 1.0, "win rate of anchor number 3 is 1"),
        ("win_rate_error", math.inf, "standard error of anchor number 3 is inf"),
        ("length", 0.0, "mean length of anchor number 3 is 0"),
        ("lc_win_rate", math.nan, "length-controlled win rate of anchor number 3 is nan"),
        ("official", math.nan, "official score of anchor number 3 is nan"),
        ("official_error", -1.0, "official standard error of anchor number 3 is -1"),
    ],
)
def test_values_that_are_none_are_refused(column, value, told):
    scores, official, error = boards(10, 0.2, np.random.default_rng(0))
    scores = replace(scores, length=np.full(10, 900.0), lc_win_rate=scores.win_rate.copy())
    columns = vars(scores) | {"official": official, "official_error": error}
    columns[column][2] = value
    with pytest.raises(InputError, match=told):
        fit_bridge(scores, official, error)


def test_columns_that_new_models_lack_are_refused():
    scores, official, error = line()
    scores = replace(scores, length=np.linspace(500, 1500, 12))
    with pytest.raises(InputError, match="uses length, which is not known"):
        predict(fit_bridge(scores, official, error), line()[0])


def test_every_form_is_of_known_columns():
    n = 40
    rng = np.random.default_rng(0)
    scores, official, error = boards(n, 0.3, rng)
    scores = replace(
        scores,
        length=rng.uniform(300, 2500, size=n),
        lc_win_rate=expit(log_odds(scores.win_rate) + rng.normal(size=n) * 0.3),
        length_shift=rng.normal(size=n),
        item_win_rate=expit(log_odds(scores.win_rate) + rng.normal(size=n) * 0.3),
        item_win_rate_error=scores.win_rate_error,
    )
    for form in FORMS:
        fitted = fit_bridge(scores, official, error, forms=[form])
        assert fitted.form == form
        assert np.isfinite(predict(fitted, scores).high).all()
