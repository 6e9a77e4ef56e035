"""One plan on released responses, a generated model, two judges and an lm-eval task, and then the single commands.

Nothing is made up but the judge's preference: the instructions and the responses of two models and of the baseline are
files that AlpacaEval released.
"""

from __future__ import annotations

import json

import pytest

import tiny_models
from alignboard.boards.board import read_board
from alignboard.records import Generation
from alignboard.results.formats import read_rows, write_rows
from faulty_endpoint import FaultyEndpoint
from test_board import formats_agree
from test_one_pipeline import (
    ENDPOINT_JUDGE,
    LOCAL_JUDGE,
    SUITES,
    alignboard,
    at,
    counted,
    named,
    plan,
    rates,
    write,
)

pytestmark = pytest.mark.slow

N = 6
RELEASED = ("alpaca-7b", "text_davinci_001")
BASELINE = "gpt4_1106_preview"
SET = "evaluate/questions.json"
FAMILY = "phi"


def responses(released, model):
    rows = read_rows(released / "results" / model / "model_outputs.json", Generation)
    return {row.instruction: row for row in rows}


@pytest.fixture
def workspace(tmp_path, released):
    """The instructions whose released responses are shortest: the local judge has 256 tokens of context."""
    found = {model: responses(released, model) for model in (*RELEASED, BASELINE)}
    shared = set.intersection(*(set(rows) for rows in found.values()))
    words = {q: sum(len(rows[q].output.split()) for rows in found.values()) for q in shared}
    questions = sorted(shared, key=lambda q: (words[q] + len(q.split()), q))[:N]
    datasets = {q: found[RELEASED[0]][q].dataset for q in questions}
    rows = [{"instruction": q, "dataset": datasets[q]} for q in questions]
    write(tmp_path, SET, json.dumps(rows))
    write(tmp_path, "evaluate/judges/served.yaml", ENDPOINT_JUDGE)
    local = LOCAL_JUDGE.replace("MODEL", str(tiny_models.base(FAMILY)))
    write(tmp_path, "evaluate/judges/here.yaml", local)
    suite = {"kind": "evaluation", "name": "questions", "title": "questions"} | SUITES["questions"]
    write(tmp_path, "evaluate/suites/questions.yaml", suite)
    return tmp_path


@pytest.fixture
def server():
    """A judge that prefers fewer words."""
    with FaultyEndpoint() as found:
        found.choice = prefer_fewer_words
        yield found


def plan_of(workspace, released, server):
    models = {model: {"outputs": str(released / "results" / model)} for model in RELEASED}
    models["small"] = {"source": str(tiny_models.base(FAMILY)), "method": "base"}
    baseline = {"outputs": str(released / "results" / BASELINE / "model_outputs.json")}
    plan(
        workspace,
        models=models,
        judges=[at(server), "here"],
        baseline=baseline,
        pairwise=None,
    )


def prefer_fewer_words(request):
    _, _, both = request.instruction.rpartition(" A: ")
    first, _, second = both.partition(" B: ")
    said = "A" if len(first.split()) <= len(second.split()) else "B"
    return {"message": {"role": "assistant", "content": f"[[{said}]]"}}


def given(model):
    """Where the single commands find released responses."""
    return f"given/{model}/model_outputs.json"


def commands(workspace, released, server):
    """What the plan does, by hand; returns the files of rows under results/."""
    (workspace / "small").unlink(missing_ok=True)
    (workspace / "small").symlink_to(tiny_models.base(FAMILY))
    questions = {row["instruction"] for row in json.loads((workspace / SET).read_text())}
    for model in (*RELEASED, BASELINE):
        kept = [row for q, row in responses(released, model).items() if q in questions]
        write_rows(workspace / given(model), sorted(kept, key=lambda row: row.instruction))
    run(workspace, "generate", "small", "--set", SET, "--max-new-tokens", "6")
    outputs = [*map(given, RELEASED), "results/small/questions/model_outputs.json"]
    for judge, options in (("served", ["--judge-engine", server.url]), ("here", [])):
        run(
            workspace,
            "judge",
            *outputs,
            "--judge",
            judge,
            "--baseline",
            given(BASELINE),
            *options,
        )


def run(workspace, *arguments):
    done = alignboard(workspace, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def verdicts(*folders):
    """The rows of every annotations file, by generator, judge and instruction."""
    found = {}
    files = (path for folder in folders for path in folder.rglob("annotations.json"))
    for path in (path for path in files if ".store" not in path.parts):
        for row in json.loads(path.read_text()):
            key = (row["generator_2"], row["annotator"], row["instruction"])
            assert key not in found, "two files hold one verdict"
            found[key] = row
    return found


def to_ask(verdicts):
    """How often the endpoint is asked: once for equal responses, not for those equal to the baseline's."""
    asked = {
        (row["instruction"], row["output_2"])
        for (_, judge, _), row in verdicts.items()
        if judge != "here" and row["output_1"].strip() != row["output_2"].strip()
    }
    return len(asked)


def test_released_responses_a_generated_model_two_judges_and_a_benchmark(
    workspace, released, server
):
    plan_of(workspace, released, server)
    printed = run(workspace, "run", "mine")
    board = read_board(workspace / "leaderboards/mine.json")
    assert {row.model for row in board.rows} == {*RELEASED, "small"}
    judged = {(named(server), "questions"), ("here", "questions")}
    assert all(set(rates(board, row)) == judged for row in board.rows)
    (choice,) = [column for column in board.columns if column.name == "demo_choice acc"]
    measured = {row.model: board.score(row, choice) for row in board.rows}
    assert measured["small"].value is not None
    assert all(measured[model].value is None for model in RELEASED), "they have no weights"
    csv_text, json_text, page, markdown = (
        (workspace / f"leaderboards/mine.{suffix}").read_text()
        for suffix in ("csv", "json", "html", "md")
    )
    formats_agree(board, csv_text, json_text, page, printed, markdown)

    made, before, n_requests = (
        verdicts(workspace / "results"),
        counted(workspace),
        len(server.requests),
    )
    assert len(made) == 6 * N, "one verdict of each judge for each response"
    assert n_requests == to_ask(made) > 0
    commands(workspace, released, server)
    assert (counted(workspace), len(server.requests)) == (before, n_requests), "computed twice"
    by_hand = verdicts(workspace / "given", workspace / "results/small")
    assert by_hand == made


def test_the_plan_computes_nothing_that_the_commands_have_computed(workspace, released, server):
    plan_of(workspace, released, server)
    commands(workspace, released, server)
    made, before = verdicts(workspace / "given", workspace / "results/small"), counted(workspace)
    assert len(made) == 6 * N
    assert len(server.requests) == to_ask(made)
    run(workspace, "run", "mine")
    after = counted(workspace)
    assert {kind: after[kind] for kind in before} == before
    assert len(server.requests) == to_ask(made)
    assert verdicts(workspace / "results") == made
