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
from test_board import formats_agree
from test_one_pipeline import LOCAL_JUDGE, alignboard, at, counted, named, plan, rates, write
from test_one_pipeline import ENDPOINT_JUDGE, SUITES

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
    write(tmp_path, SET, json.dumps([{"instruction": q} for q in questions]))
    write(tmp_path, "evaluate/judges/served.yaml", ENDPOINT_JUDGE)
    local = LOCAL_JUDGE.replace("MODEL", str(tiny_models.base(FAMILY)))
    write(tmp_path, "evaluate/judges/here.yaml", local)
    suite = {"kind": "evaluation", "name": "questions", "title": "questions"} | SUITES["questions"]
    write(tmp_path, "evaluate/suites/questions.yaml", suite)
    return tmp_path


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


def commands(workspace, released, server):
    """What the plan does, by hand; returns the files of rows under results/."""
    (workspace / "small").unlink(missing_ok=True)
    (workspace / "small").symlink_to(tiny_models.base(FAMILY))
    questions = {row["instruction"] for row in json.loads((workspace / SET).read_text())}
    for model in (*RELEASED, BASELINE):
        kept = [row for q, row in responses(released, model).items() if q in questions]
        write_rows(workspace / f"{model}.json", sorted(kept, key=lambda row: row.instruction))
    run(workspace, "generate", "small", "--set", SET, "--max-new-tokens", "6")
    outputs = [*(f"{model}.json" for model in RELEASED), "results/small/questions/model_outputs.json"]
    for judge, options in (("served", ["--judge-engine", server.url]), ("here", [])):
        run(workspace, "judge", *outputs, "--judge", judge, "--baseline", f"{BASELINE}.json", *options)


def run(workspace, *arguments):
    done = alignboard(workspace, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def verdicts(workspace):
    """The rows of every annotations file, by generator, judge and instruction, without what a file's place decides."""
    found = {}
    for path in workspace.glob("**/annotations.json"):
        for row in json.loads(path.read_text()):
            key = (row["generator_2"], row["annotator"], row["instruction"])
            found[key] = {k: v for k, v in row.items() if k not in ("dataset", "time_per_example")}
    return found


def test_released_responses_a_generated_model_two_judges_and_a_benchmark(
    workspace, released, server
):
    server.choice = prefer_fewer_words
    plan_of(workspace, released, server)
    printed = run(workspace, "run", "mine")
    board = read_board(workspace / "leaderboards/mine.json")
    assert [row.model for row in board.rows] == [*RELEASED, "small"]
    judged = {(named(server), "questions"), ("here", "questions")}
    assert all(set(rates(board, row)) == judged for row in board.rows)
    (choice,) = [column for column in board.columns if column.name == "demo_choice acc"]
    assert board.score(board.rows[2], choice).n == 8
    csv_text, json_text, page, markdown = (
        (workspace / f"leaderboards/mine.{suffix}").read_text()
        for suffix in ("csv", "json", "html", "md")
    )
    formats_agree(board, csv_text, json_text, page, printed, markdown)
    by_hand(workspace, released, server)


def by_hand(workspace, released, server):
    """The single commands make the plan's rows, in its workspace without computing any, and elsewhere alike."""
    made, before, n_requests = verdicts(workspace), counted(workspace), len(server.requests)
    assert len(made) == n_requests + 3 * N == 6 * N, "one verdict of each judge for each response"
    commands(workspace, released, server)
    assert (counted(workspace), len(server.requests)) == (before, n_requests), "computed twice"
    assert verdicts(workspace) == made


def test_the_plan_computes_nothing_that_the_commands_have_computed(workspace, released, server):
    server.choice = prefer_fewer_words
    plan_of(workspace, released, server)
    commands(workspace, released, server)
    made, before, n_requests = verdicts(workspace), counted(workspace), len(server.requests)
    assert len(made) == n_requests + 3 * N == 6 * N
    run(workspace, "run", "mine")
    after = counted(workspace)
    assert {kind: after[kind] for kind in before} == before
    assert len(server.requests) == n_requests
    assert verdicts(workspace) == made
