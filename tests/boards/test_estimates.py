"""Estimates on a board: what they are, that they look unlike measurements, and that they rank nothing."""

import json

import numpy as np
import pytest

from alignboard.boards.board import read_board
from alignboard.boards.columns import ESTIMATED
from alignboard.boards.estimates import with_bridge
from alignboard.boards.files import to_csv, to_markdown, to_text
from alignboard.boards.latex import to_latex
from alignboard.boards.of_results import results_board
from alignboard.boards.page import table_html
from alignboard.errors import InputError
from alignboard.records import Judgment
from alignboard.results.formats import write_rows
from alignboard.stats.calibrated import calibrated_mean
from commands import alignboard

N, LABELLED = 200, 60


def drawn(seed=3):
    """(judge, people): 0 or 1 of every prompt; the judge is too kind to the model, people are partly asked."""
    rng = np.random.default_rng(seed)
    people = (rng.random(N) < 0.4).astype(float)
    judge = np.where(rng.random(N) < 0.3, 1.0, people)
    labels = np.full(N, np.nan)
    labels[rng.permutation(N)[:LABELLED]] = 1
    return judge, people * labels


def results(folder, model="dpo", judge="kind-judge", people="ada"):
    scores = dict(zip((judge, people), drawn(), strict=True))
    for annotator, values in scores.items():
        rows = [
            Judgment(f"p{k}", "short", "base", f"mine {k}", model, 1 + float(value), annotator)
            for k, value in enumerate(values)
            if not np.isnan(value)
        ]
        path = folder / model / annotator / "annotations.json"
        path.parent.mkdir(parents=True)
        write_rows(path, rows[::-1] if annotator == people else rows)
    return folder


def estimate_of(board):
    (column,) = board.of_kind("estimate")
    return column, board.score(board.rows[0], column)


def test_a_judge_is_corrected_by_peoples_labels(tmp_path):
    board = results_board(results(tmp_path), people="ada")
    column, score = estimate_of(board)
    judge, people = drawn()
    wanted = calibrated_mean(judge, people).rate
    assert (column.judge, column.baseline, score.n) == ("kind-judge", "base", LABELLED)
    found = (score.value, score.low, score.high, score.standard_error)
    assert found == pytest.approx(
        tuple(100 * x for x in (wanted.estimate, wanted.low, wanted.high, wanted.standard_error))
    )
    raw = next(c for c in board.of_kind("win rate") if c.judge == "kind-judge")
    too_kind = board.score(board.rows[0], raw).value
    assert too_kind is not None
    assert too_kind > 100 * wanted.high, "the judge alone is too kind"
    assert "random sample" in column.conditional_on


def test_an_estimate_looks_unlike_a_measurement_and_ranks_nothing(tmp_path):
    plain = results_board(results(tmp_path), judge="kind-judge")
    board = results_board(tmp_path, judge="kind-judge", people="ada")
    column, score = estimate_of(board)
    text = f"{ESTIMATED} {score.value:.1f}"
    assert text in to_text(board)
    assert text in to_markdown(board)
    assert rf"$\approx$ {score.value:.1f}" in to_latex(board)
    html = table_html(board)
    assert f'class=" estimate" data-value="{score.value}">{text}' in html
    assert ESTIMATED not in to_csv(board), "numbers of a csv can be computed with"
    assert any(ESTIMATED in note for note in board.notes)
    assert ESTIMATED not in to_text(plain)
    assert board.ranked_by != column.key
    assert board.best(column) is None


def test_people_without_labels_in_common_are_named(tmp_path):
    results(tmp_path)
    with pytest.raises(InputError, match="no annotations by eda"):
        results_board(tmp_path, people="eda")
    path = tmp_path / "dpo" / "ada" / "annotations.json"
    rows = [Judgment("p1", "another", "base", "response", "dpo", 2.0, "ada")]
    write_rows(path, rows)
    with pytest.raises(InputError, match="no judge has judged 10 or more"):
        results_board(tmp_path, people="ada")


BRIDGE = {
    "new_judge": "kind-judge",
    "official_judge": "gpt-4",
    "suite": "alpaca-eval-2",
    "metric": "lc",
    "estimates": [
        {
            "model": "dpo",
            "estimated_official_lc_win_rate": 21.5,
            "estimated_official_lc_win_rate_low": 15.25,
            "estimated_official_lc_win_rate_high": 29.0,
        },
        {"model": "other", "estimated_official_lc_win_rate": None, "refused": "out of range"},
    ],
}


def test_official_scores_of_the_bridge_are_estimates(tmp_path):
    results(tmp_path / "results")
    path = tmp_path / "estimates.json"
    path.write_text(json.dumps(BRIDGE))
    command = ["board", "--from", "results", "--people", "ada", "--estimates", "estimates.json"]
    done = alignboard(tmp_path, *command)
    assert done.returncode == 0, done.stderr
    board = read_board(tmp_path / "leaderboards" / "results.json")
    corrected, bridged = board.of_kind("estimate")
    assert corrected.name == "win rate, corrected by ada"
    assert bridged.name == "alpaca-eval-2 LC win rate"
    score = board.score(board.rows[0], bridged)
    assert (score.value, score.low, score.high) == (21.5, 15.25, 29.0)
    assert f"{ESTIMATED} 21.5" in done.stdout
    assert "kind-judge" in bridged.estimator


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ("{}", "holds no estimates"),
        ("[1", "holds no estimates"),
        (json.dumps(BRIDGE | {"estimates": []}), "estimates no score of a model of this board"),
        (json.dumps(BRIDGE | {"estimates": [{"model": "else"}]}), "estimates no score"),
    ],
)
def test_a_file_without_estimates_is_refused(content, wanted, tmp_path):
    board = results_board(results(tmp_path / "results"))
    path = tmp_path / "estimates.json"
    path.write_text(content)
    with pytest.raises(InputError, match=wanted):
        with_bridge(board, path)
