"""Scores of boards: what their intervals rest on, and who is separated."""

import json

import numpy as np
import pytest

from alignboard.boards.board import Board, records
from alignboard.boards.columns import Row
from alignboard.boards.files import to_text, write_board
from alignboard.boards.of_alpaca_eval import recomputed_board
from alignboard.boards.scoring import (
    benchmark_column,
    benchmark_score,
    interval_score,
    judged_columns,
)
from alignboard.published.calibration import read_calibration
from alignboard.published.reproduce import reproduce
from alignboard.published.scores import lc_win_rates
from alignboard.results.folder import ResultsFolder
from alignboard.stats.intervals import bounded_mean
from alignboard.suites import load_suite

RATE, _ = judged_columns("rule", "base", None)


def test_the_effective_number_of_clusters_stands_beside_the_interval():
    # one conversation holds half of the rows: as well known as with a few of one size
    cluster = np.array([0] * 20 + list(range(1, 21)))
    values = np.random.default_rng(0).uniform(size=40)
    found = bounded_mean(values, cluster)
    score = interval_score(found.estimate, found, 40)
    assert score.n_effective == pytest.approx(found.n_effective)
    assert score.n_effective is not None
    assert score.n_effective < 21
    assert RATE.interval(score).endswith(f"n_eff {found.n_effective:.0f}")
    board = Board(name="b", title="b", columns=[RATE], rows=[Row("m", {RATE.key: score})])
    (record,) = records(board)
    assert record["rule: win rate effective n"] == score.n_effective
    assert interval_score(0.5, bounded_mean(values), 40).n_effective is None


def test_a_benchmark_at_100_percent_has_the_limits_that_its_documents_leave():
    column = benchmark_column("task", "acc,none")
    score = benchmark_score(column, 1.0, 0.0, 20)
    assert score.standard_error is None
    assert score.low == pytest.approx(100 * 0.025 ** (1 / 20))
    assert score.high == 100
    unknown = benchmark_score(column, 1.0, 0.0)  # nobody says of how many documents
    assert (unknown.value, unknown.low, unknown.standard_error) == (100.0, None, None)
    assert benchmark_score(column, 0.5, 0.1, 20).standard_error == pytest.approx(10)


def test_the_recomputed_board_has_rank_sets_and_names_a_subset(released, tmp_path):
    suite = load_suite("alpaca-eval-2")
    models = ["claude-2.1", "Mixtral-8x7B-Instruct-v0.1_concise", "alpaca-7b"]
    for model in models:
        source = released / "results" / model / suite.annotator / "annotations.json"
        target = tmp_path / model / suite.annotator
        target.mkdir(parents=True)
        rows = json.loads(source.read_bytes())
        kept = rows[:50] if model == "alpaca-7b" else rows
        (target / "annotations.json").write_text(json.dumps(kept))
    calibration = read_calibration(released / "length_control")
    with ResultsFolder(tmp_path) as folder:
        made = reproduce(suite, folder, calibration)
        short = folder.tables(["alpaca-7b"], suite.annotator)["alpaca-7b"]
        whole = folder.tables(["claude-2.1"], suite.annotator)["claude-2.1"]
    found = {row.model: row for row in made.models}
    # On none of 50 prompts is alpaca-7b ahead by much: too few for Holm to say that there are hardly any such prompts.
    assert (found["claude-2.1"].rank_low, found["claude-2.1"].rank_high) == (1, 3)
    assert found["alpaca-7b"].rank_high == 3
    score = lc_win_rates(short, whole.instruction, calibration).aligned
    assert score.note is not None
    assert score.note.startswith("LC of 50 of 805 instructions, another quantity")
    assert found["alpaca-7b"].flags[-1] == score.note
    assert not any("another quantity" in flag for flag in found["claude-2.1"].flags)
    write_board(recomputed_board(made, suite), tmp_path / "out")
    for path in (tmp_path / "out").iterdir():
        if path.suffix != ".png":
            assert path.read_text().count("another quantity") == 1, path
    assert "LC of 50 of 805" in to_text(recomputed_board(made, suite))
