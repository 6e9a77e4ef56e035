"""A newcomer's week as a script: three adapters, two baselines, two judges, a board, a page, and a report.

Every command is one that a user types. Nothing is overwritten, and nothing is computed twice.
"""

from __future__ import annotations

import csv
import itertools
import json
import shutil
import sys

import pytest
from click.testing import CliRunner

import tiny_models
from alignboard.boards.board import read_board
from alignboard.cli.app import cli
from alignboard.judges.backends.endpoint import judge_suffix
from alignboard.records import Generation
from alignboard.results.formats import write_rows
from alignboard.results.journal import Journal
from faulty_endpoint import FaultyEndpoint

pytestmark = pytest.mark.slow

N = 16
ADAPTERS = ("dpo-b01", "dpo-b05", "dpo-hh")
BASELINES = ("zephyr-7b-beta", "phi-2-dpo")
SERVED = """
kind: prompted
name: served
title: A judge at an endpoint
model: some-judge
api_key_env: null
order: both
prompt: {text: "{instruction} A: {first} B: {second}"}
verdict: {by: bracket}
"""
LONGER = """
kind: program
name: longer
title: The longer response
version: "1"
command: [PYTHON, longer.py]
"""
PROGRAM = """
import json, sys
for line in sys.stdin:
    call = json.loads(line)
    first, second = len(call["first"]), len(call["second"])
    scores = [first, second] if first + second else [1, 1]
    print(json.dumps({"key": call["key"], "scores": scores}), flush=True)
"""


def alignboard(*arguments, code=0):
    done = CliRunner().invoke(cli, list(map(str, arguments)))
    if code == 0:
        assert done.exit_code == 0, (arguments, done.output, done.exception)
    return done


def counted(workspace):
    """Rows computed so far, by kind."""
    with Journal(workspace / "results" / ".journal") as journal:
        return journal.check().n_computed


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """Adapters outside of results, released responses of two models, a set, two judges."""
    found = tiny_models.adapters("phi")
    for name, source in zip(ADAPTERS, (found["one"], found["two"], found["one"]), strict=True):
        shutil.copytree(source, tmp_path / "adapters" / name)
    questions = [f"name each kind: cow key {i}." for i in range(N)]
    for model, text in zip(BASELINES, ("cow is an animal", "no"), strict=True):
        rows = [Generation(q, f"{text} {i}", model) for i, q in enumerate(questions)]
        write_rows(tmp_path / "downloaded" / model / "model_outputs.json", rows)
    (tmp_path / "questions.json").write_text(json.dumps([{"instruction": q} for q in questions]))
    judges = tmp_path / "evaluate" / "judges"
    judges.mkdir(parents=True)
    (judges / "served.yaml").write_text(SERVED)
    (judges / "longer.yaml").write_text(LONGER.replace("PYTHON", sys.executable))
    (tmp_path / "longer.py").write_text(PROGRAM)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def server():
    """A judge that prefers the response with the smaller digest of its text: no order, no length."""

    def choice(request):
        first, _, second = request.instruction.partition(" A: ")[2].partition(" B: ")
        said = "A" if hash_of(first) < hash_of(second) else "B"
        return {"message": {"role": "assistant", "content": f"[[{said}]]"}}

    with FaultyEndpoint() as found:
        found.choice = choice
        yield found


def hash_of(text):
    return sum(ord(letter) * (place + 1) for place, letter in enumerate(text)) % 97


def week(workspace, server):
    """Generate, judge with both judges against both baselines, and report."""
    adapters = [f"adapters/{name}" for name in ADAPTERS]
    alignboard("generate", *adapters, "--set", "questions.json", "--max-new-tokens", 6)
    outputs = [f"results/{name}/questions/model_outputs.json" for name in ADAPTERS]
    for judge, baseline in itertools.product(("served", "longer"), BASELINES):
        against = ["--baseline", f"downloaded/{baseline}/model_outputs.json"]
        at = ["--judge-engine", server.url] if judge == "served" else []
        alignboard("judge", *outputs, "--judge", judge, *against, *at)
    return {
        path: path.read_bytes()
        for path in sorted((workspace / "results").glob("*/questions/*/annotations.json"))
    }


def test_a_newcomers_week(workspace, server):
    verdicts = week(workspace, server)
    assert len(verdicts) == len(ADAPTERS) * 2 * len(BASELINES), "a file of its own for each"
    for path, content in verdicts.items():
        rows = json.loads(content)
        assert len(rows) == N
        assert {row["generator_2"] for row in rows} == {path.parents[2].name}
    before, n_requests = counted(workspace), len(server.requests)
    assert week(workspace, server) == verdicts
    assert (counted(workspace), len(server.requests)) == (before, n_requests), "computed twice"
    named = "served" + judge_suffix([server.url])
    report = alignboard("judge", "report", "results").output
    assert {named, "longer"} <= set(report.replace(":", " ").split())
    board_and_page(workspace, named)
    a, b = ADAPTERS[:2]
    compared = alignboard(
        *("compare", a, b, "--from", "results", "--judge", "longer", "--baseline", BASELINES[0])
    )
    assert a in compared.output
    refused = alignboard("generate", "adapters/dpo-b01", "adapters/dpo-b01", "--dry-run", code=2)
    assert "dpo-b01" in str(refused.exception)


def board_and_page(workspace, named):
    """One board of all that there is: a column for each judge and baseline, in every format alike."""
    shown = alignboard("board", "--from", "results", "--models", ",".join(ADAPTERS)).output
    (made,) = (workspace / "leaderboards").glob("*.json")
    board = read_board(made)
    assert {row.model for row in board.rows} == set(ADAPTERS)
    columns = [column for column in board.columns if column.kind == "win rate"]
    judged = {(column.judge, column.baseline) for column in columns}
    assert judged >= set(itertools.product((named, "longer"), BASELINES))
    page = made.with_suffix(".html").read_text()
    markdown = made.with_suffix(".md").read_text()
    with made.with_suffix(".csv").open() as file:
        table = {row["model"]: row for row in csv.DictReader(file)}
    for row in board.rows:
        assert all(row.model in text for text in (page, markdown, shown))
        values = [board.score(row, column).value for column in columns]
        held = [float(cell) for cell in table[row.model].values() if is_number(cell)]
        for value in values:
            assert value is None or any(cell == pytest.approx(value) for cell in held)
    told = " ".join([*board.notes, *(flag for row in board.rows for flag in row.flags)])
    assert "identical" in told, "two of the adapters are copies of one"


def is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True
