"""The program as a user meets it: whole processes, exit codes, what is printed and what is written."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from alignboard.records import Generation, Judgment
from alignboard.results.formats import write_rows
from alignboard.workspace import library
from commands import alignboard

PROGRAM = Path(sys.executable).parent / "alignboard"
JUDGE = "weighted_alpaca_eval_gpt4_turbo"
BASELINE = "gpt4_1106_preview"


def run(*arguments, cwd, **environment):
    own = {"XDG_CACHE_HOME": str(cwd / "cache"), "ALIGNBOARD_MIRROR": "http://127.0.0.1:9"}
    return alignboard(cwd, *arguments, env={**os.environ, **own, **environment})


def one_sentence(result):
    """What a user's mistake must look like."""
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("alignboard: ")
    return lines[0]


def judgment(i, **changes):
    row = {
        "instruction": f"instruction {i}",
        "output_1": "b" * (20 + 7 * i % 13),
        "generator_1": BASELINE,
        "output_2": "m" * (15 + 5 * i % 17),
        "generator_2": "model",
        "preference": 1.2 + 0.05 * (i % 15),
    }
    return Judgment(**row | changes)


@pytest.fixture
def results(tmp_path):
    """A small results folder: the baseline's outputs, and one judged model."""
    rows = [judgment(i) for i in range(40)]
    folder = tmp_path / "results"
    outputs = [Generation(row.instruction, row.output_2, "model") for row in rows]
    baseline = [Generation(row.instruction, row.output_1, BASELINE) for row in rows]
    write_rows(folder / "model" / "model_outputs.json", outputs)
    write_rows(folder / BASELINE / "model_outputs.json", baseline)
    write_rows(folder / "model" / JUDGE / "annotations.json", rows)
    # The workspace's own set of that name: it says nothing of the texts, which are not AlpacaEval's.
    declared = yaml.safe_load((library() / "evaluate/sets/alpaca-eval.yaml").read_text())
    del declared["texts"]
    own = tmp_path / "evaluate" / "sets" / "alpaca-eval.yaml"
    own.parent.mkdir(parents=True)
    own.write_text(yaml.safe_dump(declared))
    return folder


@pytest.fixture
def assets(tmp_path):
    """Calibration files for 40 instructions, so that nothing has to be downloaded."""
    folder = tmp_path / "assets"
    folder.mkdir()
    rng = np.random.default_rng(0)
    difficulty = rng.normal(size=40)
    lines = [f"{i},{value!r}" for i, value in enumerate(difficulty.tolist())]
    (folder / "instruction_difficulty.csv").write_text(
        "\n".join(["index,instruction_difficulty", *lines]) + "\n"
    )
    header = "model,preference,index,std_delta_len,instruction_difficulty,not_gamed_baseline"
    lines = [
        f"{name},{rng.uniform()!r},{i},{sign * abs(rng.normal())!r},{difficulty[i].item()!r},False"
        for name, sign in (("verbose", -1), ("concise", 1))
        for i in range(40)
    ]
    (folder / "df_gamed.csv").write_text("\n".join([header, *lines]) + "\n")
    return folder


@pytest.fixture(scope="session")
def released_copy(released, tmp_path_factory):
    """The released results in a folder of our own, so that no cache is written beside the released files."""
    copy = tmp_path_factory.mktemp("released") / "results"
    shutil.copytree(released / "results", copy, copy_function=shutil.copyfile)
    for folder in [copy, *(path for path in copy.rglob("*") if path.is_dir())]:
        folder.chmod(0o755)
    return copy


@pytest.mark.parametrize("suite", ["alpaca-eval-2", "alpaca-eval-1"])
def test_reproduce_equals_the_published_board(suite, released, released_copy, tmp_path):
    out = tmp_path / "out.json"
    result = run(
        "reproduce",
        suite,
        "--from",
        released_copy,
        "--assets",
        released / "length_control",
        "--json",
        out,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr + result.stdout
    models = json.loads(out.read_text())["models"]
    published = [row for row in models if row["published_win_rate"] is not None]
    assert len(published) == {"alpaca-eval-2": 23, "alpaca-eval-1": 19}[suite]
    for row in published:
        assert abs(row["win_rate_difference"]) <= 1e-9
        assert row["disagreements"] == []
    for row in models:
        assert row["ci_low"] <= row["win_rate"] <= row["ci_high"]
        assert row["lc_ci_low"] <= row["lc_win_rate_aligned"] <= row["lc_ci_high"]
        assert row["lc_kkt_violation"] <= 1e-7
    required = (
        "model n_total win_rate standard_error discrete_win_rate n_wins n_wins_base n_draws avg_length "
        "lc_win_rate_compat lc_win_rate_aligned lc_standard_error ci_low ci_high published_win_rate "
        "published_lc_win_rate flags"
    )
    assert set(required.split()) <= set(models[0])


def test_the_published_length_control_is_met(released, released_copy, tmp_path):
    out = tmp_path / "out.json"
    assets = released / "length_control"
    run(
        "reproduce",
        "alpaca-eval-2",
        "--from",
        released_copy,
        "--assets",
        assets,
        "--json",
        out,
        cwd=tmp_path,
    )
    gaps = sorted(
        abs(row["lc_difference"])
        for row in json.loads(out.read_text())["models"]
        if row["lc_difference"] is not None
    )
    assert len(gaps) == 23
    assert gaps[11] <= 0.002
    assert sum(gap <= 0.01 for gap in gaps) / len(gaps) >= 0.6


def test_the_cached_run_says_the_same(released, released_copy, tmp_path):
    arguments = (
        "reproduce",
        "alpaca-eval-2",
        "--from",
        released_copy,
        "--assets",
        released / "length_control",
    )
    shutil.rmtree(released_copy / ".alignboard", ignore_errors=True)
    cold = run(*arguments, cwd=tmp_path)
    assert (released_copy / ".alignboard" / "index.json").is_file()
    warm = run(*arguments, cwd=tmp_path)
    assert warm.stdout == cold.stdout


def test_a_changed_verdict_disagrees_with_the_board(released, released_copy, tmp_path):
    results = tmp_path / "results"
    for name in (BASELINE, "phi-2-sft"):
        shutil.copytree(released_copy / name, results / name)
    path = results / "phi-2-sft" / JUDGE / "annotations.json"
    rows = json.loads(path.read_text())
    rows[7]["preference"] = 3 - rows[7]["preference"]
    path.write_text(json.dumps(rows))
    result = run(
        "reproduce",
        "alpaca-eval-2",
        "--from",
        results,
        "--assets",
        released / "length_control",
        cwd=tmp_path,
    )
    assert result.returncode == 3
    assert "DISAGREES  phi-2-sft: win_rate differs from the published board" in result.stdout


def test_without_calibration_difficulties_are_joint_and_said_to_be(results, tmp_path):
    rows = [judgment(i, generator_2="other", preference=1.9 - 0.05 * (i % 15)) for i in range(40)]
    write_rows(results / "other" / JUDGE / "annotations.json", rows)
    out = tmp_path / "out.json"
    result = run("reproduce", "alpaca-eval-2", "--from", results, "--json", out, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "fitted jointly" in result.stderr
    board = json.loads(out.read_text())
    assert board["length_control"] == "joint"
    for row in board["models"]:
        # Another estimator has a column of its own, and no difference to the published one.
        assert (row["lc_win_rate_compat"], row["lc_win_rate_aligned"]) == (None, None)
        assert 0 < row["lc_win_rate_joint"] < 100
        assert row["lc_difference"] is None
    header = result.stdout.splitlines()[0]
    assert "LC joint" in header
    assert "LC aligned" not in header
    assert "LC diff" not in header


def test_rows_of_another_judge_than_the_folder_says_are_refused(results, assets, tmp_path):
    rows = [judgment(i, annotator="somebody") for i in range(40)]
    write_rows(results / "model" / JUDGE / "annotations.json", rows)
    result = run("reproduce", "alpaca-eval-2", "--from", results, "--assets", assets, cwd=tmp_path)
    assert result.returncode == 2
    assert "field 'annotator': 'somebody', but the folder is that of" in result.stderr


def test_audit_finds_what_was_planted_and_leaves_with_3(results, assets, tmp_path):
    path = results / "model" / JUDGE / "annotations.json"
    rows = [judgment(i) for i in range(40) if i not in {5, 11}]
    write_rows(path, rows)
    out = tmp_path / "audit.json"
    result = run("audit", "--from", results, "--assets", assets, "--json", out, cwd=tmp_path)
    assert result.returncode == 3, result.stderr
    findings = json.loads(out.read_text())["findings"]
    assert any(one["kind"] == "missing_rows" and one["model"] == "model" for one in findings)
    assert "aligner-2b_gpt-4-turbo-2024-04-09" in result.stdout


def test_board_of_a_folder(results, assets, tmp_path):
    out = tmp_path / "boards"
    result = run(
        "board", "alpaca-eval-2", "--from", results, "--assets", assets, "--out", out, cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    suffixes = {path.suffix for path in out.iterdir()}
    assert suffixes == {".csv", ".md", ".tex", ".json", ".png", ".html", ".gz"}
    assert "LC win rate (by row) %" in result.stdout


def test_board_of_verdicts_by_a_judge_of_ones_own(results, tmp_path):
    for model in ("model", "other"):
        rows = [
            judgment(i, generator_2=model, annotator="mine", generator_1="phi-2-dpo")
            for i in range(40)
        ]
        path = results / model / "my-set" / "mine" / "annotations.json"
        path.parent.mkdir(parents=True)
        write_rows(path, rows)
    result = run("board", "my-set", "--from", results, "--judge", "mine", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (
        "judged by mine, on my-set, against phi-2-dpo"
        in (tmp_path / "leaderboards" / "my-set-mine.md").read_text()
    )
    assert (tmp_path / "leaderboards" / "my-set-mine.html").is_file()
    result = run("board", "--from", results, "--judge", "nobody", cwd=tmp_path)
    assert "no annotations by nobody; there are annotations by" in one_sentence(result)
    result = run("board", "demo", cwd=tmp_path)
    assert "alignboard run demo" in one_sentence(result)
    result = run("board", "alpaca-eval-2", "--models", "phi-2,phi-2-dpo", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "phi-2-dpo" in result.stdout
    assert "zephyr" not in result.stdout


def test_calibration_of_another_set_is_refused(results, assets, tmp_path):
    rows = [judgment(i) for i in range(41)]
    outputs = [Generation(row.instruction, row.output_1, BASELINE) for row in rows]
    write_rows(results / BASELINE / "model_outputs.json", outputs)
    result = run("reproduce", "alpaca-eval-2", "--from", results, "--assets", assets, cwd=tmp_path)
    assert "40 instructions" in one_sentence(result)


def test_published_boards_need_no_results(tmp_path):
    result = run("board", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    written = {path.name for path in (tmp_path / "leaderboards").iterdir()}
    assert {
        "alpaca-eval-2.png",
        "alpaca-eval-2.csv",
        "alpaca-eval-1.md",
        "alpaca-eval-1.json",
    } <= written


def damaged(path, kind):
    content = path.read_bytes()
    if kind == "truncated":
        path.write_bytes(content[: len(content) * 2 // 3])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "not utf-8":
        path.write_bytes(content.replace(b"instruction 3", b"instruction \xff", 1))
    elif kind == "7.3":
        write_rows(path, [judgment(i, preference=7.3 if i == 4 else 1.5) for i in range(40)])
    elif kind == "nan":
        path.write_text(path.read_text().replace("1.25", "NaN", 1))
    elif kind == "wrong type":
        rows = json.loads(content)
        rows[2]["output_2"] = ["a", "list"]
        path.write_text(json.dumps(rows))
    elif kind == "100,000 rows":
        write_rows(path, [judgment(i) for i in range(100_000)])
    elif kind == "other baseline":
        write_rows(path, [judgment(i, generator_1="somebody") for i in range(40)])


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("truncated", "row"),
        ("empty", "is empty"),
        ("not utf-8", "row 4"),
        ("7.3", "row 5, field 'preference'"),
        ("nan", "row 2, field 'preference'"),
        ("wrong type", "row 3, field 'output_2'"),
        ("100,000 rows", "row 41, field 'instruction'"),
        ("other baseline", "field 'generator_1'"),
    ],
)
def test_bad_annotations_are_one_sentence_and_nothing_is_written(
    kind, place, results, assets, tmp_path
):
    path = results / "model" / JUDGE / "annotations.json"
    damaged(path, kind)
    out = tmp_path / "out.json"
    message = one_sentence(
        run(
            "reproduce",
            "alpaca-eval-2",
            "--from",
            results,
            "--assets",
            assets,
            "--json",
            out,
            cwd=tmp_path,
        )
    )
    assert str(path) in message
    assert place in message
    assert not out.exists()


def test_bad_arguments_are_one_sentence(results, tmp_path):
    assert "did you mean 'alpaca-eval-2'" in one_sentence(
        run("reproduce", "alpaca-evel-2", cwd=tmp_path)
    )
    assert "no folder" in one_sentence(
        run("reproduce", "alpaca-eval-2", "--from", tmp_path / "nowhere", cwd=tmp_path)
    )
    (tmp_path / "bare").mkdir()
    assert "holds no results" in one_sentence(
        run("reproduce", "alpaca-eval-2", "--from", tmp_path / "bare", cwd=tmp_path)
    )
    for name in ("../model", "..", "a/b"):
        assert "cannot be a folder" in one_sentence(
            run("reproduce", "alpaca-eval-2", "--from", results, "--models", name, cwd=tmp_path)
        )
    assert "did you mean 'model'" in one_sentence(
        run("reproduce", "alpaca-eval-2", "--from", results, "--models", "modle", cwd=tmp_path)
    )
    assert run("reproduce", "alpaca-eval-2", "--mode", "both", cwd=tmp_path).returncode == 2


def test_a_missing_baseline_is_named(results, assets, tmp_path):
    shutil.rmtree(results / BASELINE)
    result = run("reproduce", "alpaca-eval-2", "--from", results, "--assets", assets, cwd=tmp_path)
    assert f"{BASELINE}/model_outputs.json" in one_sentence(result)


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    with subprocess.Popen(
        [str(PROGRAM), "audit"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        error = process.stderr.read()
    assert error == b""
    assert process.returncode == 1
