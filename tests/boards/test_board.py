"""Boards: every file holds the numbers that were computed, ranks are of what is shown, and nothing hostile acts."""

import csv
import io
import json
import re
import subprocess
import sys
from typing import Literal

import pytest
from msgspec.structs import replace

from alignboard.boards.alpaca_eval_rows import DECLARED_ADVERSARIAL, LC, LC_JOINT, WIN
from alignboard.boards.board import Board, read_board
from alignboard.boards.columns import Column, Row, Score
from alignboard.boards.files import to_csv, to_markdown, to_text, write_board
from alignboard.boards.of_alpaca_eval import published_board, recomputed_board
from alignboard.boards.page import page_columns
from alignboard.boards.scoring import identical_responses, judged_columns, with_identical
from alignboard.errors import InputError
from alignboard.published.board_rows import BoardRow
from alignboard.published.reproduce import Reproduction
from alignboard.published.wheel_boards import read_published_board
from alignboard.suites import load_suite
from alignboard.text import csv_cell, markdown_text, shown
from boards import HOSTILE, board_with_gaps, hostile_board, plan_board
from test_board_page import table, to_html

SUITES = ["alpaca-eval-1", "alpaca-eval-2"]
FORMULAS = ['=HYPERLINK("http://example.com")', "@SUM(1+1)*cmd", "-2+3", "+1"]


def csv_rows(text):
    return list(csv.DictReader(io.StringIO(text)))


# One set of numbers everywhere.


def numbers_of(board):
    return {
        (row.model, column.key): board.score(row, column)
        for row in board.rows
        for column in board.shown()
        if board.score(row, column).value is not None
    }


@pytest.mark.parametrize("make", [plan_board, board_with_gaps])
def test_csv_json_html_and_terminal_hold_the_same_numbers(make):
    board = make()
    formats_agree(
        board, to_csv(board), board.to_json(), to_html(board), to_text(board), to_markdown(board)
    )


def formats_agree(board, csv_text, json_text, page, text, markdown):
    """Every cell of ``board`` is in every format, in its place: with all digits in csv and json, as shown elsewhere."""
    lines, plain = csv_rows(csv_text), Board.from_json(json_text)
    _, cells = table(page)
    by_key = {column.column.key: column for column in page_columns(board)}
    shown_columns = [column for column in board.columns if not column.detail]
    assert len(lines) == len(plain.rows) == len(cells) == len(board.rows)
    for n, row in enumerate(board.rows):
        assert lines[n]["model"] == plain.rows[n].model == cells[n]["model"][0] == row.model
        in_text = [
            [part.strip() for part in re.split(r"\s{2,}", line.strip())]
            for line in text.splitlines()
            if row.model in line.split()[:2]
        ]
        in_markdown = [
            [cell.strip("* ").replace("\\", "") for cell in line.split("|")]
            for line in markdown.splitlines()
            if f" {row.model} " in line.replace("\\", "")
        ]
        expected = []
        for column in board.columns:
            score = board.score(row, column)
            label = board.label(column)
            for part, value in (("", score.value), (" low", score.low), (" high", score.high)):
                name = f"{label}{part} {column.unit}".rstrip()
                assert lines[n].get(name, "") == ("" if value is None else repr(value)), name
            assert plain.score(plain.rows[n], column.key) == score
            if column.detail:
                continue
            head = by_key[column.key]
            value, notes = cells[n][f"{head.group}: {head.name}"]
            if score.value is None:
                assert value in ("", "n/a")
                continue
            assert value == column.text(score.value)
            expected.append(column.text(score.value))
            if column.interval(score):
                assert column.interval(score) in notes
                expected.append(column.interval(score))
        for read in (in_text, in_markdown):
            assert any(in_order(expected, line) for line in read), (row.model, expected, read)
    assert {column.key for column in shown_columns} == set(by_key)


def in_order(expected, line):
    """Whether the texts stand in the line, in this order."""
    left = iter(line)
    return all(text in left for text in expected)


def test_a_board_comes_back_from_its_json(tmp_path):
    board = plan_board()
    assert Board.from_json(board.to_json()) == board
    (path,) = [path for path in write_board(board, tmp_path) if path.suffix == ".json"]
    assert read_board(path) == board
    path.write_text('{"schema": 1}')
    with pytest.raises(InputError, match=r"demo\.json is not a board of alignboard"):
        read_board(path)


def test_a_data_frame_has_the_columns_of_the_csv():
    pytest.importorskip("pandas")
    board = plan_board()
    frame = board.to_frame()
    assert ["model", *frame.columns] == [*csv_rows(to_csv(board))[0]]
    assert (
        frame.loc["tiny-phi", "rule: win rate %"] == board.rows[0].scores["rule/sft/win_rate"].value
    )


def test_without_pandas_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="pip install pandas"):
        plan_board().to_frame()


def test_a_notebook_shows_the_table_with_hostile_text_escaped():
    html = hostile_board()._repr_html_()
    assert html.count("<tr>") == len(hostile_board().rows) + 1
    assert "<script" not in html
    assert "<img" not in html


def test_a_column_is_declared_once_and_is_everywhere():
    column = Column(key="mine", name="my number", kind="accuracy", unit="%", source="mine")
    board = plan_board()
    rows = [
        replace(r, scores=r.scores | {"mine": Score(12.5 + k)}) for k, r in enumerate(board.rows)
    ]
    board = replace(board, columns=[*board.columns, column], rows=rows)
    for text in (
        to_csv(board),
        to_markdown(board),
        board.to_json(),
        to_text(board),
        to_html(board),
    ):
        assert "my number" in text
        assert "12.5" in text


def test_two_columns_of_one_key_are_refused():
    board = plan_board()
    with pytest.raises(InputError, match="two columns 'length'"):
        replace(board, columns=[*board.columns, board.columns[1]])


def test_judges_sets_and_baselines_never_share_a_column():
    pairs = [
        judged_columns(judge, baseline, name)[0]
        for judge in ("a", "b")
        for baseline in ("x", "y")
        for name in ("s", None)
    ]
    board = Board(name="n", title="t", columns=pairs, rows=[])
    assert len({column.key for column in pairs}) == len(pairs)
    assert len({board.label(column) for column in pairs}) == len(pairs)


def test_a_narrow_terminal_gets_no_intervals_and_is_told():
    board = plan_board()
    wide = to_text(board)
    assert to_text(board, 10_000) == wide
    narrow = to_text(board, 80)
    assert "too narrow" in narrow
    assert max(map(len, narrow.splitlines()[:3])) < max(map(len, wide.splitlines()[:3]))


# Ranks.


def ranked(values, better: Literal["high", "low"] = "high"):
    column = Column(key="k", name="k", kind="accuracy", better=better)
    rows = [Row(f"m{n}", {} if v is None else {"k": Score(v)}) for n, v in enumerate(values)]
    return Board(name="n", title="t", columns=[column], rows=rows, ranked_by="k")


def test_ranks_are_of_the_values_shown_and_equal_values_share_one():
    assert ranked([40.0, 40.0, 10.0, None, 0.0]).ranks() == [1, 1, 3, None, 4]
    assert ranked([3.0, 1.0], better="low").ranks() == [2, 1]
    assert csv_rows(to_csv(ranked([3.0, None])))[1]["rank"] == ""


def board_row(model, **changes):
    known = {
        "model": model, "n_total": 800, "n_unparsed": 5, "win_rate": 30.0, "standard_error": 1.5,
        "ci_low": 27.0, "ci_high": 33.0, "discrete_win_rate": 30.0, "n_wins": 240, "n_wins_base": 555,
        "n_draws": 5, "avg_length": 1200,
    }  # fmt: skip
    return BoardRow(**(known | changes))


def recomputed(rows, mode="compat", length_control="calibrated"):
    found = Reproduction(
        suite="alpaca-eval-1", annotator="alpaca_eval_gpt4", baseline="text_davinci_003", mode=mode,
        length_control=length_control, models=rows, n_published=102,
    )  # fmt: skip
    return recomputed_board(found, load_suite("alpaca-eval-1"))


@pytest.mark.parametrize("mode", ["compat", "aligned"])
def test_a_recomputed_board_ranks_what_it_draws(mode):
    rows = [
        board_row("b", lc_win_rate_compat=10.0, lc_win_rate_aligned=30.0),
        board_row("a", lc_win_rate_compat=20.0, lc_win_rate_aligned=5.0),
    ]
    board = recomputed(rows, mode)
    assert board.ranked_by is not None
    values = [board.score(row, board.ranked_by).value or 0.0 for row in board.rows]
    assert values == sorted(values, reverse=True)
    assert [row.model for row in board.rows] == (["a", "b"] if mode == "compat" else ["b", "a"])


def test_a_joint_fit_has_a_column_of_its_own():
    rows = [board_row("a", lc_win_rate_joint=23.75, published_lc_win_rate=19.3)]
    board = recomputed(rows, length_control="joint")
    assert {column.key for column in board.columns if column.kind == "LC win rate"} == {LC_JOINT}
    assert "joint fit" in to_markdown(board)
    assert "by instruction" not in to_markdown(board)
    assert "jointly" in board.column(LC_JOINT).estimator


def test_without_length_control_the_win_rate_ranks_and_zero_is_a_score():
    rows = [board_row("zero", win_rate=0.0), board_row("unknown", win_rate=None), board_row("one")]
    board = recomputed(rows)
    assert board.ranked_by == WIN
    assert [row.model for row in board.rows] == ["one", "zero", "unknown"]
    assert board.ranks() == [1, 2, None]


# The published boards.


@pytest.mark.parametrize("name", SUITES)
def test_published_board_is_the_wheels_to_the_last_digit(name):
    suite = load_suite(name)
    published = read_published_board(suite.board.file)
    made = published_board(suite)
    assert {row.model for row in made.rows} == set(published)
    plain = {line["model"]: line for line in csv_rows(to_csv(made))}
    for row in made.rows:
        theirs, win = published[row.model], row.scores[WIN]
        assert (win.value, win.standard_error, win.n) == (
            theirs.win_rate, theirs.standard_error, theirs.n_total,
        )  # fmt: skip
        assert win.counts == {
            "won": theirs.n_wins, "drawn": theirs.n_draws, "lost": theirs.n_wins_base,
        }  # fmt: skip
        assert row.scores.get(LC, Score()).value == theirs.length_controlled_winrate
        assert row.scores.get(LC, Score()).low is None
        assert win.value is not None
        assert win.low is not None
        assert win.high is not None
        assert win.low <= win.value <= win.high
        assert float(plain[row.model][f"{suite.annotator}: win rate %"]) == theirs.win_rate
    assert made.ranks() == sorted(made.ranks(), key=lambda rank: rank or 10_000)


def test_flags_of_the_published_board():
    board = published_board(load_suite("alpaca-eval-2"))
    flags = {row.model: row.flags for row in board.rows}
    assert {m for m, own in flags.items() if DECLARED_ADVERSARIAL in own} == {
        "NullModel",
        "gpt4_gamed",
    }
    assert flags["phi-2"] == ["2 rows missing or unparsed"]


def test_some_models_of_a_published_board():
    board = published_board(load_suite("alpaca-eval-2"), models=["phi-2", "phi-2-dpo"])
    assert {row.model for row in board.rows} == {"phi-2", "phi-2-dpo"}
    assert board.ranks() == [1, 2]
    with pytest.raises(InputError, match="did you mean 'phi-2'"):
        published_board(load_suite("alpaca-eval-2"), models=["phi-22"])


@pytest.mark.parametrize("name", SUITES)
def test_every_other_judges_board_is_made(name):
    suite = load_suite(name)
    others = [known for known in suite.boards if known.annotator != suite.annotator]
    assert len(others) >= 3
    for known in others:
        made = published_board(suite, known)
        assert made.name == f"{name}-{known.annotator}"
        assert {column.judge for column in made.columns if column.judge} == {known.annotator}


def test_a_published_count_that_is_missing_is_named(monkeypatch):
    suite = load_suite("alpaca-eval-2")
    theirs = read_published_board(suite.board.file)["phi-2"]
    broken = type(theirs)(model="phi-2", win_rate=1.0, standard_error=0.1)
    monkeypatch.setattr(
        "alignboard.boards.of_alpaca_eval.read_published_board", lambda _: {"phi-2": broken}
    )
    with pytest.raises(InputError, match=r"turbo_leaderboard\.csv, model 'phi-2': n_total"):
        published_board(suite)


# Identical responses.


def test_identical_responses_are_said():
    responses = {
        "tiny-phi": {1: "x", 2: "y"},
        "tiny-phi-sft": {1: "x", 2: "z"},
        "tiny-phi-dpo": {1: "x", 2: "y"},
        "tiny-phi-ipo": {},
    }
    assert identical_responses(responses) == [["tiny-phi", "tiny-phi-dpo"]]
    board = with_identical(plan_board(("tiny-phi",)), responses)
    assert board.notes[-1].startswith(
        "Identical responses: tiny-phi and tiny-phi-dpo give the same response to every one of 2 prompts"
    )
    assert {row.model: row.flags for row in board.rows}["tiny-phi"] == [
        "responses identical to tiny-phi-dpo"
    ]
    assert "responses identical to tiny-phi-dpo" in to_html(board)


# Hostile text.


@pytest.mark.filterwarnings("error")
def test_hostile_text_in_all_files(tmp_path):
    rows = [Row(name or "empty", {"k": Score(1.0)}, flags=[name]) for name in (*HOSTILE, *FORMULAS)]
    board = replace(ranked([1.0]), rows=rows, notes=list(HOSTILE), title=HOSTILE[0])
    paths = {path.suffix: path for path in write_board(board, tmp_path)}
    page = paths[".md"].read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith("|")]
    assert len(lines) == len(rows) + 2
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert "<" not in page
    for cells in csv_rows(paths[".csv"].read_text(encoding="utf-8")):
        for name in ("model", "flags"):
            assert not cells[name].lstrip().startswith(("=", "+", "-", "@"))
            assert "\n" not in cells[name]
    content = json.loads(paths[".json"].read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert len(content["rows"]) == len(rows)
    assert not set(to_text(board)) & {"\x00", "\x07", "\u202e", "\u2028", "\r"}


def test_text_is_escaped_once_and_only_where_it_acts():
    assert markdown_text("gpt-4_1106 v1.0 (x)") == "gpt-4_1106 v1.0 (x)"
    assert markdown_text("a|b") == "a\\|b"
    assert markdown_text("<img src=x>&") == "&lt;img src=x&gt;&amp;"
    assert markdown_text("https://x.y @me www.z") == "https&#58;//x.y &#64;me www&#46;z"
    assert shown("tab\there") == "tab\\there"
    assert csv_cell(-1.5) == -1.5
    assert csv_cell(float("inf")) is None
    assert csv_cell(["=x", "y"]) == "'=x; y"


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".."])
def test_a_boards_name_is_no_path(name, tmp_path):
    with pytest.raises(InputError, match="slash"):
        write_board(replace(ranked([1.0]), name=name), tmp_path / "boards")
    assert list(tmp_path.iterdir()) == []


def test_building_a_board_loads_no_plotting(tmp_path):
    script = (
        "import sys; import alignboard.boards.of_results, alignboard.boards.of_alpaca_eval; "
        "print([n for n in sys.modules if n.startswith(('matplotlib', 'PIL', 'pandas', 'jinja2', 'torch'))])"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert finished.stdout.strip() == "[]"


def test_an_interval_with_one_limit_says_at_least_or_at_most():
    column = Column(key="rating", name="rating", kind="rating", unit="Elo", digits=0)
    assert column.interval(Score(1285, low=1180.4)) == "at least 1180"
    assert column.interval(Score(715, high=819.6)) == "at most 820"
