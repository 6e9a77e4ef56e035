"""The board of a results folder: any judge, any set, any baseline, and lm-eval's files of anybody."""

import csv
import io
import json
import math
import shutil

import numpy as np
import pytest

from alignboard.boards.columns import Score
from alignboard.boards.files import to_csv, to_markdown, to_text
from alignboard.boards.latex import to_latex
from alignboard.boards.of_results import results_board
from alignboard.boards.page import page_files
from alignboard.errors import InputError
from alignboard.records import Judgment
from alignboard.results.formats import write_rows
from alignboard.stats.power import prompts_needed


def verdicts(
    folder, model, judge, *, baseline="base", place=None, preference=None, n=20, prompt="p"
):
    """A file of verdicts below ``folder``; the model wins the first ``preference`` of ``n``."""
    won = n // 2 if preference is None else preference
    rows = [
        Judgment(
            f"{prompt}{i}",
            "short",
            baseline,
            f"{model} {i}" * (1 + i % 3),
            model,
            2.0 if i < won else 1.0,
            judge,
        )
        for i in range(n)
    ]
    path = folder / model / (place or judge) / "annotations.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_rows(path, rows)
    return path


def lm_eval_file(folder, model, value, name="results_2026-01-01.json"):
    path = folder / model / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps(
            {
                "results": {
                    "arc_challenge": {"acc_norm,none": value, "acc_norm_stderr,none": 0.01}
                },
                "n-shot": {"arc_challenge": 25},
                "n-samples": {"arc_challenge": {"original": 100, "effective": 100}},
                "higher_is_better": {"arc_challenge": {"acc_norm": True}},
            }
        )
    )


def test_one_judge_any_name_is_ranked(tmp_path):
    for model, won in (("good", 15), ("bad", 5)):
        verdicts(tmp_path, model, "hardened-pair", preference=won)
    board = results_board(tmp_path)
    assert [row.model for row in board.rows] == ["good", "bad"]
    assert board.ranks() == [1, 2]
    raw, lc = board.of_kind("win rate", "LC win rate")
    assert (raw.judge, raw.baseline, lc.name) == (
        "hardened-pair",
        "base",
        "LC win rate (joint fit)",
    )
    score = board.score(board.rows[0], raw)
    assert (score.value, score.n, score.unparsed) == (75.0, 20, 0)
    assert score.low is not None
    assert score.high is not None
    assert score.low < 75 < score.high


def test_ranks_are_what_paired_tests_leave_open(tmp_path):
    for model, won in (("best", 60), ("second", 28), ("third", 26), ("last", 2)):
        verdicts(tmp_path, model, "hardened-pair", preference=won, n=60)
    board = results_board(tmp_path)
    (ranks,) = board.of_kind("place")
    found = {row.model: board.score(row, ranks) for row in board.rows}
    assert (ranks.judge, ranks.baseline) == ("hardened-pair", "base")
    assert {name: (s.value, s.low, s.high) for name, s in found.items()} == {
        "best": (1, 1, 1),
        "second": (2, 2, 3),  # two prompts of sixty differ
        "third": (3, 2, 3),
        "last": (4, 4, 4),
    }
    # Two prompts of sixty differ between the second and the third: how many would separate them in 80 % of runs?
    sd = math.sqrt((2 / 60 - (2 / 60) ** 2) * 60 / 59)
    enough = prompts_needed(2 / 60, sd)
    assert ranks.interval(found["second"]) == f"2 to 3, N/N* {60 / enough:.2g}"
    assert "2 to 3, N/N*" in to_text(board)
    assert found["last"].note is None
    assert any("below 1 the two are not resolved" in note for note in board.notes)


def test_judges_sets_and_baselines_have_columns_of_their_own(tmp_path):
    verdicts(tmp_path, "m", "a", preference=1)
    verdicts(tmp_path, "m", "b", preference=2)
    verdicts(tmp_path, "m", "a", place="koala/a", preference=3, prompt="k")
    verdicts(
        tmp_path,
        "m",
        "a",
        place="koala/a-vs-other",
        baseline="other",
        preference=4,
        prompt="k",
    )
    board = results_board(tmp_path)
    found = {
        (c.judge, c.set, c.baseline): board.score(board.rows[0], c).value
        for c in board.of_kind("win rate")
    }
    assert found == {
        ("a", "alpaca-eval", "base"): 5.0,
        ("b", "alpaca-eval", "base"): 10.0,
        ("a", "koala", "base"): 15.0,
        ("a", "koala", "other"): 20.0,
    }
    assert board.ranked_by is None
    assert "a, koala, against other: win rate %" in to_csv(board).splitlines()[0]
    assert {c.judge for c in results_board(tmp_path, judge="b").of_kind("win rate")} == {"b"}
    assert {c.set for c in results_board(tmp_path, set_name="koala").of_kind("win rate")} == {
        "koala"
    }


def test_folder_and_rows_that_name_two_judges_are_refused(tmp_path):
    verdicts(tmp_path, "m", "a", place="renamed")
    with pytest.raises(
        InputError, match="by the annotator 'a', but its folder is that of 'renamed'"
    ):
        results_board(tmp_path)


def test_verdicts_on_different_prompts_never_share_a_column(tmp_path):
    verdicts(tmp_path, "m", "a")
    verdicts(tmp_path, "n", "a", prompt="other")
    with pytest.raises(InputError, match="verdicts on different prompts"):
        results_board(tmp_path)


def test_what_is_not_there_is_named_with_what_is(tmp_path):
    verdicts(tmp_path, "m", "a")
    with pytest.raises(
        InputError, match="no annotations by b; there are annotations by a on alpaca-eval"
    ):
        results_board(tmp_path, judge="b")
    with pytest.raises(InputError, match="did you mean 'm'"):
        results_board(tmp_path, models=["mm"])
    with pytest.raises(InputError, match="There is no folder"):
        results_board(tmp_path / "none")


def test_lm_eval_files_of_anybody_stand_beside_verdicts(tmp_path):
    verdicts(tmp_path, "m", "a")
    lm_eval_file(tmp_path, "m", 0.625)
    lm_eval_file(tmp_path, "other", 0.5)
    lm_eval_file(tmp_path, "other", 0.75, "sub/results_2026-02-01.json")
    board = results_board(tmp_path)
    (column,) = board.of_kind("benchmark")
    assert column.name == "arc_challenge acc_norm, 25-shot"
    values = {row.model: board.score(row, column) for row in board.rows}
    assert values["m"] == Score(62.5, standard_error=1.0, n=100)
    assert values["other"].value == 75.0, "the newest file of a number counts"


def test_lm_eval_files_need_no_folder_for_each_model_and_say_what_was_not_asked_alike(tmp_path):
    said = [
        {"model_name": "org/one", "versions": {"arc_challenge": 1.0}, "chat_template_sha": "ab"},
        {"model_name": "/some/where/two", "versions": {"arc_challenge": 2}},
    ]
    for number, own in enumerate(said):
        lm_eval_file(tmp_path, "", 0.5, f"results_{number}.json")
        path = tmp_path / f"results_{number}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | own))
    board = results_board(tmp_path)
    second = tmp_path.name
    assert {row.model for row in board.rows} == {"org__one", second}
    assert [note for note in board.notes if "like for like" in note] == [
        f"arc_challenge is not like for like (version 1.0: org__one; version 2: {second}).",
        f"arc_challenge is not like for like (in a chat template: org__one; in plain text: {second}).",
    ]
    alone = results_board(tmp_path, models=["org__one"])
    assert [row.model for row in alone.rows] == ["org__one"]
    assert not any("like for like" in note for note in alone.notes)
    (tmp_path / "results_2.json").write_text("[1]")
    with pytest.raises(InputError, match=r"results_2.json is not a results file of lm-eval"):
        results_board(tmp_path)


def test_failed_calls_are_no_unparsed_verdicts(tmp_path):
    path = verdicts(tmp_path, "m", "a")
    rows = json.loads(path.read_text())
    for row in rows[:5]:
        row["preference"] = None
    path.write_text(json.dumps(rows))
    statuses = {"scored": 15, "unparsed": 2, "failed": 2, "truncated": 1}
    path.with_name("judging.json").write_text(json.dumps({"statuses": statuses}))
    board = results_board(tmp_path)
    score = board.score(board.rows[0], board.of_kind("win rate")[0])
    assert (score.n, score.unparsed, score.failed) == (15, 2, 3)
    path.with_name("judging.json").write_text('{"of others": ' + "[" * 100_000)
    board = results_board(tmp_path)
    score = board.score(board.rows[0], board.of_kind("win rate")[0])
    assert (score.n, score.unparsed, score.failed) == (15, 5, None), "as without the record"


@pytest.mark.parametrize(
    ("models", "wanted"),
    [("xy", "y"), ("xyz", "y and 1 other"), ("wxyz", "x and 2 others")],
)
def test_identical_responses_are_flagged_in_few_words(models, wanted, tmp_path):
    for model in models:
        rows = [Judgment(f"p{i}", "b", "base", f"same {i}", model, 2.0, "a") for i in range(3)]
        (tmp_path / model / "a").mkdir(parents=True)
        write_rows(tmp_path / model / "a" / "annotations.json", rows)
    board = results_board(tmp_path)
    assert board.rows[0].flags == [f"responses identical to {wanted}"]
    assert all(name in board.notes[-1] for name in models)


def test_responses_that_are_empty_or_were_cut_off_are_flagged(tmp_path):
    verdicts(tmp_path, "m", "j")
    endings = [("", "length"), ("whole", "stop"), ("cut", "length"), ("said", None)]
    rows = [
        {"instruction": f"prompt {n}", "output": text, "generator": "m", "finish": finish}
        for n, (text, finish) in enumerate(endings)
    ]
    (tmp_path / "m" / "model_outputs.json").write_text(json.dumps(rows))
    (row,) = results_board(tmp_path).rows
    assert row.flags == ["1 of 4 responses empty", "2 of 4 responses cut off at the token limit"]


def test_length_control_that_cannot_be_fitted_says_why(tmp_path):
    for model in ("x", "y"):
        rows = [Judgment(f"p{i}", "b", "base", "same", model, 1.0 + i % 2, "a") for i in range(4)]
        (tmp_path / model / "a").mkdir(parents=True)
        write_rows(tmp_path / model / "a" / "annotations.json", rows)
    board = results_board(tmp_path)
    (column,) = [column for column in board.columns if column.kind == "LC win rate"]
    score = board.score(board.rows[0], column)
    assert score.value is None
    assert score.reason is not None
    assert "length differences are equal" in score.reason
    assert "no length control" in to_text(board)
    assert "length differences are equal" in to_csv(board)


def test_an_extrapolated_rate_is_no_number_in_any_format(tmp_path):
    """Every response of ``short`` is far from the baseline's length; the verdicts do not say what would be at equal."""
    folder = tmp_path / "results"  # the name of the test would be in the board's
    rng = np.random.default_rng(4)
    for model, mean in (("near", 300), ("far", 320), ("short", 40)):
        lengths = np.maximum(1, rng.normal(mean, 60 if mean > 100 else 8, 80)).astype(int)
        rows = [
            Judgment(
                f"p{i}", "b" * 300, "base", "x" * int(n), model, 1.0 + int(rng.integers(2)), "a"
            )
            for i, n in enumerate(lengths)
        ]
        (folder / model / "a").mkdir(parents=True)
        write_rows(folder / model / "a" / "annotations.json", rows)
    board = results_board(folder)
    (column,) = [column for column in board.columns if column.kind == "LC win rate"]
    cells = {row.model: board.score(row, column) for row in board.rows}
    assert cells["short"] == Score(reason="extrapolated")
    assert cells["near"].value is not None
    head = "a: LC win rate (joint fit)"
    (row,) = [one for one in csv.DictReader(io.StringIO(to_csv(board))) if one["model"] == "short"]
    assert (row[f"{head} %"], row[f"{head} low %"], row[f"{head} note"]) == ("", "", "extrapolated")
    formats = {
        "text": to_text(board),
        "narrow": to_text(board, 60),
        "md": to_markdown(board),
        "tex": to_latex(board),
        "notebook": board._repr_html_(),
        "page": page_files(board, None, "texts")[""],
    }
    for name, text in formats.items():
        assert "extrapolated" in text, name
        assert "Extrapolated: hardly any response" in " ".join(text.split()) or name == "notebook"
    shutil.rmtree(folder / "short")
    assert "xtrapolated" not in " ".join(results_board(folder).notes), "no cell says it"


def test_what_judging_cost_and_how_consistent_it_was_stand_in_the_files(tmp_path):
    """Recorded beside the verdicts in ``judging.json``; a preset may show it."""
    path = verdicts(tmp_path, "a", "judge")
    path.with_name("judging.json").write_text(
        '{"statuses": {"scored": 3, "refused": 1}, "price": 1.25, "n_both": 4, "n_consistent": 3}'
    )
    board = results_board(tmp_path)
    values = {c.name: board.score(board.rows[0], c).value for c in board.columns if c.detail}
    assert values["swap consistency"] == 75.0
    assert values["judging cost"] == 1.25
    assert board.score(board.rows[0], board.of_kind("win rate")[0]).failed == 1
    assert "swap consistency" not in {column.name for column in board.shown()}
    assert "judging cost" in to_csv(board)
