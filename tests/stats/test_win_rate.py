"""Win rates: upstream's definitions, closed forms, edges and invariants."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignboard.boards.scoring import judged_columns, judged_scores
from alignboard.published.wheel_boards import read_published_board
from alignboard.results.formats import read_annotations
from alignboard.stats.win_rate import win_rate
from builders import judgments, released_annotations, write_json

NAN = math.nan
verdicts = st.lists(
    st.sampled_from([1.0, 1.5, 2.0, NAN]) | st.floats(1, 2), min_size=2, max_size=40
).map(np.array)


def test_closed_form_of_a_handful_of_verdicts():
    rate = win_rate(np.array([2.0, 2.0, 1.0, 1.5, 1.7, NAN]))
    assert rate.win_rate == pytest.approx((1 + 1 + 0 + 0.5 + 0.7) / 5)
    assert rate.discrete_win_rate == (3 + 0.5) / 5
    assert (rate.n_wins, rate.n_wins_base, rate.n_draws) == (3, 1, 1)
    assert (rate.n_total, rate.n_unparsed) == (5, 1)
    assert rate.standard_error == pytest.approx(
        statistics.stdev([1, 1, 0, 0.5, 0.7]) / math.sqrt(5)
    )


def test_binary_verdicts_give_the_binomial_standard_error():
    rate = win_rate(np.array([2.0] * 30 + [1.0] * 70))
    assert rate.standard_error == pytest.approx(math.sqrt(0.3 * 0.7 / 99))
    assert rate.interval.low < 0.3 < rate.interval.high


def test_without_a_verdict_nothing_is_known():
    for preference in (np.array([]), np.full(3, NAN)):
        rate = win_rate(preference)
        assert rate.n_total == 0
        assert rate.n_unparsed == len(preference)
        unknown = [
            rate.win_rate,
            rate.standard_error,
            rate.discrete_win_rate,
            rate.interval.low,
            rate.interval.high,
        ]
        assert all(map(math.isnan, unknown))


def test_one_verdict_has_no_standard_error():
    rate = win_rate(np.array([1.25, NAN]))
    assert rate.win_rate == 0.25
    assert math.isnan(rate.standard_error)
    assert math.isnan(rate.interval.low)
    assert math.isnan(rate.interval.high)


@pytest.mark.parametrize(
    ("verdict", "low", "high"), [(2.0, 0.025 ** (1 / 20), 1.0), (1.0, 0.0, 1 - 0.025 ** (1 / 20))]
)
def test_all_wins_and_all_losses_have_the_exact_binomial_limit(verdict, low, high):
    interval = win_rate(np.full(20, verdict)).interval
    assert interval.low == pytest.approx(low)
    assert interval.high == pytest.approx(high)


def test_repeated_answers_to_a_prompt_count_as_one_unit():
    prompts = np.random.default_rng(0).choice([1.0, 1.5, 2.0], size=50)
    single = win_rate(prompts)
    repeated = win_rate(np.repeat(prompts, 4), clusters=np.repeat(np.arange(50), 4))
    assert repeated.interval.n_clusters == 50
    assert repeated.interval.low == pytest.approx(single.interval.low)
    assert repeated.interval.high == pytest.approx(single.interval.high)
    assert repeated.standard_error < single.standard_error  # upstream's, which knows no clusters


def test_clusters_of_unparsed_rows_are_left_out():
    preference = np.array([1.0, NAN, 2.0, 1.5, NAN])
    rate = win_rate(preference, clusters=np.array([0, 1, 2, 2, 1]))
    assert rate.interval.n_clusters == 2


@given(verdicts, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(preference, random):
    shuffled = preference.copy()
    random.shuffle(shuffled)
    one, other = win_rate(preference), win_rate(shuffled)
    assert one.win_rate == pytest.approx(other.win_rate, nan_ok=True)
    assert one.interval.low == pytest.approx(other.interval.low, nan_ok=True, abs=1e-9)
    assert (one.n_wins, one.n_draws, one.n_unparsed) == (
        other.n_wins,
        other.n_draws,
        other.n_unparsed,
    )


@given(verdicts)
def test_swapping_the_roles_mirrors_everything(preference):
    one, other = win_rate(preference), win_rate(3 - preference)
    assert one.win_rate == pytest.approx(1 - other.win_rate, nan_ok=True)
    assert one.interval.low == pytest.approx(1 - other.interval.high, nan_ok=True, abs=1e-9)
    assert one.standard_error == pytest.approx(other.standard_error, nan_ok=True, abs=1e-12)
    assert one.n_draws == other.n_draws


def test_swapping_the_roles_swaps_the_counts():
    preference = np.array([1.0, 1.2, 1.5, 2.0, 1.9, 1.7])
    one, other = win_rate(preference), win_rate(3 - preference)
    assert (one.n_wins, one.n_wins_base) == (3, 2)
    assert (other.n_wins, other.n_wins_base) == (2, 3)


@given(verdicts, st.integers(2, 5))
def test_duplicated_rows_shrink_the_error_by_a_known_factor(preference, k):
    one, many = win_rate(preference), win_rate(np.tile(preference, k))
    if one.n_total < 2:
        return
    factor = math.sqrt((one.n_total - 1) / (k * one.n_total - 1))
    assert many.win_rate == pytest.approx(one.win_rate)
    assert many.standard_error == pytest.approx(factor * one.standard_error, abs=1e-12)
    assert many.discrete_win_rate == pytest.approx(one.discrete_win_rate)


@settings(max_examples=50)
@given(verdicts)
def test_the_interval_holds_its_estimate(preference):
    rate = win_rate(preference)
    if rate.n_total >= 2:
        assert 0 <= rate.interval.low <= rate.win_rate + 1e-12
        assert rate.win_rate - 1e-12 <= rate.interval.high <= 1


@pytest.mark.parametrize(
    ("annotator", "board", "unpublished"),
    [
        (
            "weighted_alpaca_eval_gpt4_turbo",
            "leaderboards/data_AlpacaEval_2/weighted_alpaca_eval_gpt4_turbo_leaderboard.csv",
            {"text_davinci_003"},
        ),
        (
            "alpaca_eval_gpt4",
            "leaderboards/data_AlpacaEval/alpaca_eval_gpt4_leaderboard.csv",
            {"mistral-orpo-beta"},
        ),
    ],
)
def test_published_boards_follow_from_the_released_verdicts(
    released, annotator, board, unpublished
):
    published = read_published_board(board)
    tables = released_annotations(released, annotator)
    assert set(tables) - set(published) == unpublished
    for model in tables.keys() & published.keys():
        ours, theirs = win_rate(tables[model].preference), published[model]
        assert 100 * ours.win_rate == pytest.approx(theirs.win_rate, abs=1e-9), model
        assert 100 * ours.standard_error == pytest.approx(theirs.standard_error, abs=1e-9), model
        assert 100 * ours.discrete_win_rate == pytest.approx(theirs.discrete_win_rate, abs=1e-9), (
            model
        )
        counts = (ours.n_wins, ours.n_wins_base, ours.n_draws, ours.n_total)
        assert counts == (theirs.n_wins, theirs.n_wins_base, theirs.n_draws, theirs.n_total), model


def test_order_balanced_verdicts_of_a_file_are_what_its_board_shows(tmp_path):
    """As judging.json prints; until now boards took the mean of rows of which chosen ones are averaged over orders."""
    rows = judgments(4, preference=2.0)
    for row, balanced in zip(rows, [2.25, 1.5, None, 1.0], strict=True):
        row["balanced_preference"] = balanced
    table = read_annotations(write_json(tmp_path / "annotations.json", rows))
    (raw, _) = columns = judged_columns("judge", "base", None)
    score = judged_scores({"model": table}, columns)["model"][raw.key]
    assert score.value == pytest.approx(100 * (1.25 + 0.5 + 0) / 3)
    assert score.counts == {"won": 4, "drawn": 0, "lost": 0}
