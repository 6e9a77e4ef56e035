"""Endpoints and files that public bug reports are about: folders of ``ALIGNBOARD_REAL/bugs`` without models.

`ELSEWHERE` names the tests of the others.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from alignboard.cli.app import cli
from alignboard.errors import InputError
from alignboard.published.calibration import Calibration
from alignboard.published.reproduce import reference_set
from alignboard.published.scores import lc_win_rates
from alignboard.results.folder import ResultsFolder
from alignboard.suites import load_suite
from loopback import Handler, Loopback

REAL = Path(os.environ.get("ALIGNBOARD_REAL", "missing"))
BUGS = REAL / "bugs"
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not BUGS.is_dir(), reason="ALIGNBOARD_REAL has no bugs"),
]
ELSEWHERE = {
    "tests/models/test_reported_checkpoints.py": "02 03 04 09 13 14 16 21 24 25",
    "tests/data/test_brought_files.py": "01 10 22",
    "tests/engines/test_reasoning.py": "08",
    "tests/judges/test_endpoint_replies.py": "11",
}
HERE = "05 06 12 18 19 20"


def case(number: str) -> Path:
    return next(BUGS.glob(f"{number}-*"))


@contextmanager
def served(script: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An endpoint that replies as the collection's script does: its address, and the requests that it got."""
    found = importlib.util.spec_from_file_location("behaviour", script)
    assert found is not None
    assert found.loader is not None
    behaviour = importlib.util.module_from_spec(found)
    found.loader.exec_module(behaviour)
    requests: list[dict[str, Any]] = []

    class Scripted(Handler):
        def do_POST(self) -> None:
            body = json.loads(self.body())
            requests.append(body)
            status, _, content = behaviour.reply(self.path, body, len(requests))
            self.send(content, status)

    class Server(Loopback):
        handler = Scripted

    with Server() as server:
        yield server.url, requests


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Path:
    (tmp_path / "evaluate" / "models").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def entry(workspace: Path, text: str = "") -> None:
    path = workspace / "evaluate" / "models" / "served.yaml"
    path.write_text(f"name: served\nbase: served\n{text}", encoding="utf-8")


def generate(questions: Path, url: str) -> Result:
    asked = ["generate", "served", "--set", str(questions), "--engine", url, "--api", "chat"]
    return CliRunner().invoke(cli, asked)


def test_every_case_has_a_test():
    named = {number for text in (*ELSEWHERE.values(), HERE) for number in text.split()}
    folders = {path.name[:2] for path in BUGS.iterdir() if path.name[:2].isdigit()}
    assert named == folders


def test_05_a_prompt_that_is_refused_costs_its_own_row(workspace):
    entry(workspace)
    folder = case("05")
    with served(folder / "azure_filter.py") as (url, requests):
        done = generate(folder / "questions.jsonl", url)
        assert done.exit_code == 3, done.output
        assert "content management policy" in done.output
        assert "29 answered" in done.output
        assert "no answer to 'Is this poison berry edible?'" in done.output
        assert len(requests) == 30
        (path,) = (workspace / "results/served").rglob("model_outputs.json")
        assert len(json.loads(path.read_text())) == 29
        again = generate(folder / "questions.jsonl", url)
        assert again.exit_code == 3
        assert len(requests) == 31
        judged = [str(folder / "a.json"), "--baseline", str(folder / "b.json"), "--judge"]
        judged += [str(folder / "judge.yaml"), "--judge-engine", url, "--out", str(workspace / "o")]
        done = CliRunner().invoke(cli, ["judge", "outputs", *judged])
        assert done.exit_code == 3, done.output
        assert "29" in done.output


def test_06_a_field_that_is_refused_names_the_line_that_helps(workspace):
    entry(workspace)
    with served(case("06") / "openai_since_o1.py") as (url, _):
        questions = case("12") / "q.jsonl"
        done = generate(questions, url)
        assert "endpoint: {limit_field: max_completion_tokens}" in str(done.exception)
        entry(workspace, "endpoint: {limit_field: max_completion_tokens}\n")
        done = generate(questions, url)
        assert "endpoint: {omit: [temperature]}" in str(done.exception)
        entry(
            workspace,
            "endpoint: {limit_field: max_completion_tokens, omit: [temperature]}\n",
        )
        done = generate(questions, url)
        assert done.exit_code == 0, done.output


def test_12_thoughts_are_kept_apart_and_counted(workspace):
    entry(workspace)
    with served(case("12") / "thinker.py") as (url, _):
        done = generate(case("12") / "q.jsonl", url)
    assert "BEWARE: 6 of 9 responses are empty, 6 of 9 responses are cut off" in done.output
    (path,) = (workspace / "results" / "served").rglob("model_outputs.json")
    rows = json.loads(path.read_text())
    assert [row["output"] for row in rows] == ["Blue.", "", ""] * 3
    assert all(row["reasoning"] for row in rows)


def test_18_alpaca_evals_own_leaderboard_is_a_board_of_a_new_judge(workspace):
    shutil.copyfile(case("18") / "leaderboard.csv", workspace / "board.csv")
    done = CliRunner().invoke(cli, ["bridge", "board.csv"])
    assert done.exit_code == 0, done.output
    assert "xwinlm-70b-v0.3" in done.output


@pytest.mark.parametrize("name", ["own-set", "own-set-shuffled"])
def test_19_other_questions_get_none_of_the_known_difficulties(name):
    suite, nothing = load_suite("alpaca-eval-2"), np.zeros(805)
    calibration = Calibration(nothing, nothing, nothing, nothing, np.arange(805))
    with ResultsFolder(case("19") / name) as folder:
        tables = folder.tables(["m"], suite.annotator)
        with pytest.raises(InputError, match="not one of the 805 instructions"):
            lc_win_rates(tables["m"], reference_set(folder, suite, tables), calibration)


def test_20_one_turn_of_vicunas_questions_is_rated_against_the_real_file(workspace):
    script = workspace / "rating.py"
    choice = {"message": {"role": "assistant", "content": "Rating: [[7]]"}, "finish_reason": "stop"}
    script.write_text(f"def reply(path, body, n): return 200, {{}}, {{'choices': [{choice}]}}\n")
    with served(script) as (url, requests):
        asked = [str(case("20") / "answers.jsonl"), "--judge", "mt-bench-single", "--out", "o"]
        asked += ["--set", str(REAL / "mt_bench" / "vicuna_question.jsonl"), "--judge-engine", url]
        done = CliRunner().invoke(cli, ["judge", "rate", *asked])
    assert done.exit_code == 0, done.output
    assert "7.00" in done.output
    answers = (case("20") / "answers.jsonl").read_text("utf-8").splitlines()
    assert len(requests) == len(answers)
