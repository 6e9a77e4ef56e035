"""The published boards inside the installed alpaca-eval wheel."""

import importlib.util
import subprocess
import sys

import msgspec
import pytest

from alignboard.errors import InputError
from alignboard.fetch.package_file import package_file
from alignboard.published import wheel_boards as published
from alignboard.published.wheel_boards import read_published_board
from alignboard.suites import load_suite

AE2 = "leaderboards/data_AlpacaEval_2/weighted_alpaca_eval_gpt4_turbo_leaderboard.csv"


def test_published_figures_as_they_are_printed():
    board = read_published_board(AE2)
    assert len(board) == 223
    null = msgspec.structs.asdict(board["NullModel"])
    assert null["win_rate"] == pytest.approx(76.92, abs=0.01)
    assert null["length_controlled_winrate"] == pytest.approx(86.458, abs=0.001)
    assert null["n_total"] == null["n_wins"] + null["n_wins_base"] + null["n_draws"] == 805
    baseline = board["gpt4_1106_preview"]
    assert (baseline.win_rate, baseline.length_controlled_winrate) == (50.0, 50.0)


def test_the_board_row_that_contradicts_its_counts_is_kept_as_published():
    row = msgspec.structs.asdict(read_published_board(AE2)["aligner-2b_gpt-4-turbo-2024-04-09"])
    from_counts = 100 * (row["n_wins"] + row["n_draws"] / 2) / row["n_total"]
    assert row["discrete_win_rate"] == pytest.approx(40.186, abs=0.001)
    assert from_counts == pytest.approx(47.143, abs=0.001)


@pytest.mark.parametrize("suite", ["alpaca-eval-1", "alpaca-eval-2"])
def test_every_board_of_the_suites_is_read(suite):
    for declared in load_suite(suite).boards:
        board = read_published_board(declared.file)
        assert len(board) >= 4, declared.file
        for model, row in board.items():
            assert model == row.model
            assert row.win_rate is not None
            assert 0 <= row.win_rate <= 100


def test_the_package_is_not_imported():
    script = (
        "import sys; from alignboard.published.wheel_boards import read_published_board as read;"
        f"assert read({AE2!r}); print('alpaca_eval' in sys.modules)"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert finished.stdout.strip() == "False"


def test_a_file_that_the_package_has_not():
    with pytest.raises(InputError, match=r"has no file leaderboards/none\.csv"):
        package_file("leaderboards/none.csv")


def test_without_the_package_the_fix_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match="pip install alpaca-eval"):
        package_file(AE2)


def board_file(monkeypatch, tmp_path, text):
    path = tmp_path / "board.csv"
    path.write_text(text, encoding="utf-8")
    monkeypatch.setattr(published, "package_file", lambda _: path)
    return path


def test_missing_figures_are_none_and_counts_lose_their_fraction(monkeypatch, tmp_path):
    board_file(
        monkeypatch,
        tmp_path,
        ",win_rate,n_total,avg_length,mode,extra\nm,12.5,805.0,,community,7\n",
    )
    row = read_published_board("any")["m"]
    assert (row.win_rate, row.n_total, row.avg_length, row.mode) == (12.5, 805, None, "community")
    assert row.standard_error is None


def test_a_damaged_board_names_file_row_and_field(monkeypatch, tmp_path):
    path = board_file(monkeypatch, tmp_path, ",win_rate,n_total\na,1.0,5\nb,much,5\n")
    with pytest.raises(InputError) as caught:
        read_published_board("any")
    assert str(path) in str(caught.value)
    assert "row 2" in str(caught.value)
    assert "win_rate" in str(caught.value)
