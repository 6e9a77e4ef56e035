"""Repeated responses and verdicts: what is asked anew, and how the variance is split on the board and in compare."""

import json

import numpy as np
import pytest
import yaml

from alignboard.boards.board import read_board
from alignboard.errors import AlignboardError
from alignboard.pipeline.executors.machine import Machine
from alignboard.pipeline.plans.plan import load_plan
from alignboard.pipeline.runner import run_plan
from alignboard.records import Generation
from alignboard.reports.compare import compare
from alignboard.results.formats import write_rows
from alignboard.stats.repeats import repeated_mean
from faulty_endpoint import FaultyEndpoint

N = 12
JUDGE = """
kind: prompted
name: served
title: A judge at an endpoint
model: some-judge
api_key_env: null
base_url: URL
order: coin
prompt: {text: "{instruction} A: {first} B: {second}"}
verdict: {by: bracket}
sampling: {temperature: 1.0}
"""


@pytest.fixture
def server():
    """Models of which a response is good or bad by its seed, and a judge who is right but with some seeds."""

    def choice(request):
        seed, text, model = request.body["seed"], request.instruction, request.body["model"]
        if model != "some-judge":
            good = (int(text[-2:]) ** 2 + seed) % (len(model) - 2) > 0
            return {
                "message": {
                    "role": "assistant",
                    "content": f"{'good' if good else 'bad'} {seed} {model}",
                }
            }
        right = (int(text.partition(" A: ")[0][-2:]) + seed) % 8 > 0
        said = "AB"[(("good" in text.partition(" B: ")[2]) + right + 1) % 2]
        return {"message": {"role": "assistant", "content": f"[[{said}]]"}}

    with FaultyEndpoint() as found:
        found.choice = choice
        yield found


@pytest.fixture
def workspace(tmp_path, server):
    questions = [f"question {i:02}" for i in range(N)]
    rows = [Generation(q, "as it is", "reference") for q in questions]
    write_rows(tmp_path / "downloaded" / "reference" / "model_outputs.json", rows)
    served = {"engine": server.url, "api": "chat", "served_as": "gpt-x"}
    files = {
        "evaluate/questions.json": json.dumps([{"instruction": q} for q in questions]),
        "evaluate/judges/served.yaml": JUDGE.replace("URL", server.url),
        "evaluate/suites/questions.yaml": yaml.safe_dump(
            {
                "kind": "evaluation",
                "name": "questions",
                "title": "questions",
                "instructions": {"set": "evaluate/questions.json", "temperature": 1.0},
            }
        ),
        "evaluate/plans/mine.yaml": yaml.safe_dump(
            {
                "name": "mine",
                "models": {
                    "api": served,
                    "other": served | {"served_as": "gpt-yy"},
                    "reference": {"outputs": "downloaded/reference"},
                },
                "suites": ["questions"],
                "judges": ["served"],
                "baseline": "reference",
                "repeats": {"responses": 3, "verdicts": 2},
            }
        ),
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_a_plan_repeats_responses_and_verdicts_and_splits_their_variance(workspace, server):
    made = run_plan("mine", workspace, machine=Machine(executor="in-process")).board
    assert made is not None
    asked = [request.body["model"] for request in server.requests]
    assert asked.count("gpt-x") == asked.count("gpt-yy") == 3 * N
    assert asked.count("some-judge") == 2 * 3 * 2 * N
    board = read_board(made)
    assert [row.model for row in board.rows] == ["api", "other", "reference"]
    rate = next(one for one in board.columns if one.kind == "win rate")
    table = np.empty((N, 1, 3, 2))
    for response in range(3):
        for verdict in range(2):
            run = f"api-response{response}-verdict{verdict}"
            folder = workspace / "results" / run / "questions" / "served-vs-reference"
            rows = json.loads((folder / "annotations.json").read_text())
            assert {row["generator_2"] for row in rows} == {run}
            table[:, 0, response, verdict] = [100 * (row["preference"] - 1) for row in rows]
    expected = repeated_mean(table)
    score = board.score(board.rows[0], rate)
    assert (score.value, score.standard_error) == (expected.value, expected.standard_error)
    parts = expected.parts
    assert min(parts["decoding"], parts["judging"]) > 0
    assert score.note == (
        f"3 responses x 2 verdicts; SD of a run: prompts {parts['prompts']:.1f}, decoding {parts['decoding']:.1f}, "
        f"judging {parts['judging']:.1f}; rerun {expected.rerun_low:.1f} to {expected.rerun_high:.1f}"
    )
    ranks = board.score(board.rows[0], next(c for c in board.columns if c.of == rate.key))
    assert (ranks.n, ranks.reason) == (N, None)
    (said,) = [note for note in board.notes if note.startswith("Rows of several runs")]
    assert "contains new responses and verdicts; training seeds are one draw" in said
    n_asked = len(server.requests)
    run_plan("mine", workspace, machine=Machine(executor="in-process"))
    assert len(server.requests) == n_asked

    found = compare("api", "other", results=workspace / "results", judge="served")
    (row,) = found.rows
    other = board.score(board.rows[1], rate)
    assert score.value is not None
    assert other.value is not None
    assert 100 * row.found.estimate == pytest.approx(score.value - other.value)
    assert 0 < row.sampling_share <= 1


def change(workspace, **fields):
    path = workspace / "evaluate/plans/mine.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | fields))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"repeats": {"responses": 0}}, "repeats needs 1 response and 1 verdict at least"),
        ({"repeats": {"answers": 2}}, "answers"),
        ({"pairwise": {"judge": "served", "n_prompts": 2}}, "pairwise compares single runs"),
    ],
)
def test_a_mistake_in_repeats_is_one_sentence(workspace, fields, told):
    change(workspace, **fields)
    with pytest.raises(AlignboardError, match=told):
        load_plan("mine", workspace)


def simulated(rng, shape, sd, prompts=None):
    """Values (prompts, seeds, responses, verdicts); ``sd`` of prompts, seeds, both, responses, verdicts."""
    own = rng.normal(0, sd[0], (shape[0], 1, 1, 1)) if prompts is None else prompts
    return own + sum(
        rng.normal(0, one, tuple(n if k in axes else 1 for k, n in enumerate(shape)))
        for one, axes in zip(sd[1:], ((1,), (0, 1), (0, 1, 2), (0, 1, 2, 3)), strict=True)
    )


def test_the_split_finds_the_parts_that_were_simulated():
    rng = np.random.default_rng(7)
    shape, sd = (60, 4, 3, 2), (0.3, 0.05, 0.1, 0.2, 0.15)
    found = [repeated_mean(simulated(rng, shape, sd)).parts for _ in range(300)]
    variances = {part: np.mean([one[part] ** 2 for one in found]) for part in found[0]}
    assert variances == pytest.approx(
        {
            "prompts": 0.3**2 / 60,
            "training": 0.05**2 + 0.1**2 / 60,
            "decoding": 0.2**2 / 60,
            "judging": 0.15**2 / 60,
        },
        rel=0.1,
    )


@pytest.mark.parametrize("shape", [(50, 1, 3, 1), (50, 1, 2, 2), (50, 4, 2, 1)])
def test_limits_hold_the_mean_and_a_rerun(shape):
    rng = np.random.default_rng(8)
    sd = (0.3, 0.03 if shape[1] > 1 else 0.0, 0.1 if shape[1] > 1 else 0.0, 0.2, 0.1)
    held = rerun = 0
    for _ in range(1000):
        prompts = rng.normal(0, sd[0], (shape[0], 1, 1, 1))
        found = repeated_mean(simulated(rng, shape, sd, prompts))
        held += found.low <= 0 <= found.high
        again = simulated(rng, (shape[0], 1, 1, 1), sd, prompts).mean()
        rerun += found.rerun_low <= again <= found.rerun_high
    assert 0.93 <= held / 1000 <= 0.98
    assert 0.93 <= rerun / 1000 <= 0.98
