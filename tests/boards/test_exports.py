"""Boards in the formats of others: valid by their rules, honest about errors, and the same board when read again."""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest
import yaml
from huggingface_hub import parse_eval_result_entries
from huggingface_hub.repocard_data import model_index_to_eval_results

from alignboard.boards.board import Board, read_board
from alignboard.boards.exports.every_eval_ever import Source, read_folder, write_folder
from alignboard.boards.exports.hub import write_eval_results, write_model_index
from alignboard.boards.files import write_board
from alignboard.boards.latex import latex_text, to_latex
from alignboard.boards.of_results import results_board
from alignboard.boards.results_examples import results_examples
from alignboard.errors import InputError
from alignboard.text import storable
from boards import HOSTILE, board_with_gaps, hostile_board, plan_board
from commands import alignboard
from every_eval_ever_rules import check_folder
from test_figures import board as small_board
from test_figures import examples as small_examples

SOURCE = Source("A lab", "first_party", 1_700_000_000)


def check(folder):
    """What Every Eval Ever asks, and what is ours: honest methods, whole files; returns the records and the rows."""
    records, rows = check_folder(folder)
    for record in records:
        for result in record.evaluation_results:
            found = result.score_details.uncertainty
            for part in (found.standard_error, found.confidence_interval):
                assert part is None or "bootstrap" not in part.method
        more = record.detailed_evaluation_results
        if more is not None:
            content = (folder / more.file_path).read_bytes()
            assert more.checksum == hashlib.sha256(content).hexdigest()
    names = {
        (record.evaluation_id, result.evaluation_result_id)
        for record in records
        for result in record.evaluation_results
    }
    assert {(row.evaluation_id, row.evaluation_result_id) for row in rows} <= names
    return records, rows


@pytest.mark.parametrize("make", [plan_board, board_with_gaps, hostile_board, small_board])
def test_a_board_that_was_exported_and_read_again_is_the_same_board(make, tmp_path):
    board = make()
    write_folder(board, tmp_path, SOURCE)
    # Half a surrogate pair cannot be written.
    assert read_folder(tmp_path) == msgspec.convert(storable(msgspec.to_builtins(board)), Board)
    records, _ = check(tmp_path)
    assert len(records) == len(board.rows)


def test_every_verdict_is_a_row(tmp_path):
    write_folder(small_board(), tmp_path, SOURCE, small_examples())
    _, rows = check(tmp_path)
    wanted = [
        (one.model, one.column, value - 1)
        for one in small_examples().preferences
        for value in one.preference
        if value is not None
    ]
    found = [(row.model_id, row.evaluation_result_id, row.evaluation.score) for row in rows]
    assert sorted(found) == sorted(wanted)
    assert len({row.sample_hash for row in rows}) == 1  # one prompt, no baseline's text


@pytest.mark.skipif(
    "ALIGNBOARD_RELEASED_DATA" not in os.environ, reason="needs ALIGNBOARD_RELEASED_DATA"
)
def test_released_models_are_exported_with_their_rows(tmp_path):
    root = tmp_path / "results"
    root.mkdir()
    for model in sorted((Path(os.environ["ALIGNBOARD_RELEASED_DATA"]) / "results").iterdir())[:24]:
        (root / model.name).symlink_to(model)
    board = results_board(root, judge="weighted_alpaca_eval_gpt4_turbo")
    write_folder(board, tmp_path / "eee", SOURCE, results_examples(root, board))
    records, rows = check(tmp_path / "eee")
    assert read_folder(tmp_path / "eee") == board
    key = board.of_kind("win rate")[0].key
    for record in records:
        own = [row.evaluation.score for row in rows if row.evaluation_id == record.evaluation_id]
        scores = {r.evaluation_result_id: r.score_details.score for r in record.evaluation_results}
        if key in scores:
            assert 100 * sum(own) / len(own) == pytest.approx(scores[key], abs=1e-9)


def test_the_same_board_at_the_same_time_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        write_folder(plan_board(), tmp_path / name, SOURCE)
    files = sorted(
        path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.json")
    )
    assert files
    for path in files:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes()


def test_names_stay_inside_the_folder(tmp_path):
    board = plan_board()
    rows = [
        msgspec.structs.replace(board.rows[0], model=name) for name in ("../../up", "a/b", "..")
    ]
    paths = write_folder(msgspec.structs.replace(board, rows=rows), tmp_path / "in", SOURCE)
    assert all(path.resolve().is_relative_to(tmp_path / "in") for path in paths)


@pytest.mark.parametrize("name", ["data", "data/data", "con", "lab/NUL", "com1.5b", "x.", "a b"])
def test_every_file_system_takes_the_names(name, tmp_path):
    board = plan_board()
    row = msgspec.structs.replace(board.rows[0], model=name)
    board = msgspec.structs.replace(board, name="data", rows=[row])
    write_folder(board, tmp_path, SOURCE)
    check(tmp_path)
    assert read_folder(tmp_path) == board


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\r", "\n"])
def test_no_text_breaks_a_row(mark, tmp_path):
    examples = small_examples()
    texts = [f"a{mark}b {text}" for text in examples.chunks[0].texts]
    chunk = msgspec.structs.replace(examples.chunks[0], texts=texts)
    broken = msgspec.structs.replace(examples, chunks=[chunk, *examples.chunks[1:]])
    write_folder(small_board(), tmp_path, SOURCE, broken)
    _, rows = check(tmp_path)
    assert rows
    assert all(row.input.raw.startswith(f"a{mark}b ") for row in rows)


@pytest.mark.parametrize(
    "content", ["{}", "[]", "nonsense", '{"schema_version": "0.2.2", "source_metadata": 1}']
)
def test_another_file_is_refused_by_name(content, tmp_path):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(InputError, match=r"x\.json is no record"):
        read_folder(tmp_path)


def test_the_hubs_own_readers_read_what_is_written(tmp_path):
    board = plan_board()
    column = board.of_kind("benchmark")[0]
    paths = write_eval_results(board, tmp_path, {column.name: "lab/bench:main"})
    assert [path.parent.name for path in paths] == [".eval_results"] * len(board.rows)
    for row, path in zip(board.rows, paths, strict=True):
        (entry,) = parse_eval_result_entries(yaml.safe_load(path.read_text()))
        assert (entry.dataset_id, entry.task_id) == ("lab/bench", "main")
        assert entry.value == board.score(row, column).value
        assert "standard error" in (entry.notes or "")
    for row, path in zip(board.rows, write_model_index(board, tmp_path), strict=True):
        index = yaml.safe_load(path.read_text())["model-index"]
        name, results = model_index_to_eval_results(index)
        assert name == row.model
        values = [
            s.value
            for c in board.columns
            if c.better != "none"
            and c.kind != "place"
            and (s := board.score(row, c)).value is not None
        ]
        assert sorted(result.metric_value for result in results) == sorted(values)


def test_a_set_that_is_not_on_the_board_is_refused(tmp_path):
    with pytest.raises(InputError, match="no set or column 'gsm8k'"):
        write_eval_results(plan_board(), tmp_path, {"gsm8k": "openai/gsm8k"})


def test_latex_text_holds_no_command():
    for text in HOSTILE:
        assert "\\input" not in latex_text(f"{text}\\input{{x}}").replace(
            "\\textbackslash{}input", ""
        )


@pytest.mark.parametrize("make", [plan_board, board_with_gaps, hostile_board])
def test_the_table_compiles(make, tmp_path):
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex is installed (texlive-latex-recommended, texlive-science)")
    text = (
        "\\documentclass{article}\\usepackage[T1]{fontenc}\\usepackage{booktabs,siunitx,graphicx}\n"
        "\\begin{document}\\resizebox{\\textwidth}{!}{%\n" + to_latex(make()) + "}\\end{document}\n"
    )
    (tmp_path / "table.tex").write_text(text, encoding="utf-8")
    finished = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"],
        cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stdout[-2000:]


def run(folder, *arguments):
    return alignboard(folder, "convert", *arguments)


def sources(folder):
    records = [json.loads(path.read_bytes()) for path in folder.rglob("*.json")]
    found = [one["source_data"] for record in records for one in record["evaluation_results"]]
    return {(one["source_type"], *one.get("url", [])) for one in found}


def test_every_set_says_where_its_texts_are(tmp_path):
    board = small_board()
    columns = [msgspec.structs.replace(one, set="alpaca-eval-2") for one in board.columns[:1]]
    columns += [msgspec.structs.replace(one, set="my-own") for one in board.columns[1:]]
    write_board(msgspec.structs.replace(board, columns=columns), tmp_path / "leaderboards")
    command = ("small", "--to", "every-eval-ever", "--organization", "Lab", "--out")
    assert run(tmp_path, *command, "a").returncode == 0
    released = next(url for kind, *url in sources(tmp_path / "a") if kind == "url")[0]
    assert released.startswith("https://github.com/tatsu-lab/alpaca_eval/blob/cd543a1")
    assert ("other",) in sources(tmp_path / "a")
    assert run(tmp_path, *command, "b", "--dataset", "small=https://a.org/x").returncode == 0
    assert sources(tmp_path / "b") == {("url", released), ("url", "https://a.org/x")}


def test_the_command_writes_and_reads(tmp_path):
    write_board(small_board(), tmp_path / "leaderboards", small_examples())
    out = run(tmp_path, "small", "--to", "every-eval-ever", "--out", "eee", "--organization", "Lab")
    assert out.returncode == 0, out.stderr
    assert run(tmp_path, "eee", "--to", "board", "--out", "back").returncode == 0
    assert read_board(tmp_path / "back" / "small.json") == small_board()
    for arguments, wanted in (
        (("small", "--to", "every-eval-ever", "--out", "x"), "--organization"),
        (("small", "--to", "eval-results", "--out", "x"), "--dataset NAME=ID"),
        (("small", "--to", "eval-results", "--out", "x", "--dataset", "a"), "expected NAME=ID"),
        (("large", "--to", "board", "--out", "x"), "no board"),
    ):
        finished = run(tmp_path, *arguments)
        assert finished.returncode == 2
        assert wanted in finished.stderr
        assert len(finished.stderr.splitlines()) == 1
