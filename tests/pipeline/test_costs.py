"""The dry run of a plan: calls, tokens, dollars and seconds by kind, as the single commands' dry runs have them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import tiny_models
from alignboard.cli.app import cli
from alignboard.pipeline.progress import cost_table
from commands import run_plan
from test_preflight import N, plan, server, workspace  # noqa: F401

PRICE = ["--price", "2", "10"]
RATE = {"prompt": 2, "answer": 10}


def told(*arguments):
    """What a command writes for ``--json -``."""
    done = CliRunner().invoke(cli, [*map(str, arguments), "--json", "told.json"])
    assert done.exit_code == 0, (done.output, done.exception)
    return json.loads(Path("told.json").read_text())


def sums(plan_name="mine"):
    """The known sums of a plan's dry run, by kind."""
    found = told("run", plan_name, "--dry-run")["costs"]
    fields = ("n_calls", "n_prompt", "n_new", "price", "seconds")
    return {one["kind"]: {name: one[name] for name in fields} for one in found}, {
        one["kind"]: one["unknown"] for one in found
    }


def known(value):
    return {"known": pytest.approx(value), "n_unknown": 0}


def unknown(value=0, n=1):
    return {"known": value, "n_unknown": n}


def test_a_plan_and_the_commands_tell_the_same_numbers(workspace, server):  # noqa: F811
    small, set_file = str(tiny_models.base("phi")), str(workspace / "questions.json")
    served = {"engine": server.url, "served_as": "gpt-x", "source": small, "price": RATE}
    models = {"small": {"source": small}, "served": served}
    models |= {name: {"outputs": f"given/{name}"} for name in ("base", "one")}
    plan(
        workspace,
        models=models,
        judges=[{"judge": "mine", "engine": server.url, "price": RATE}],
        recipes=[],
    )
    found, reasons = sums()
    common = ["--set", set_file, "--max-new-tokens", "4", "--dry-run"]
    (here,) = told("generate", small, *common)
    there = ["--engine", server.url, "--served-as", "gpt-x", *PRICE]
    (priced,) = told("generate", small, *common, *there)
    assert (here["n_prompt"], here["price"]) == (priced["n_prompt"], 0.0)
    assert here["n_new"] == 4 * N
    generated = found["generate"]
    assert generated["n_calls"] == known(2 * N)
    assert generated["n_prompt"] == known(here["n_prompt"] + priced["n_prompt"])
    assert generated["n_new"] == known(here["n_new"] + priced["n_new"])
    assert generated["price"] == known(priced["price"])
    assert priced["price"] > 0
    judging = ["--judge", "mine", "--judge-engine", server.url, *PRICE]
    baseline = ["--baseline", "given/base/model_outputs.json", "--dry-run"]
    ((one,),) = [
        model["costs"]
        for model in told("judge", "given/one/model_outputs.json", *judging, *baseline)
    ]
    judged = found["judge"]
    assert judged["n_calls"] == known(3 * N)
    assert judged["n_prompt"]["known"] >= one["n_prompt"] > 0
    assert judged["price"]["known"] > one["price"] > 0
    assert reasons["judge"] == [], "responses that are not there count as long as the baseline's"
    assert server.requests == []
    plan(workspace, models={name: models[name] for name in ("base", "one")}, judges=[
        {"judge": "mine", "engine": server.url, "price": RATE}
    ])  # fmt: skip
    found, _ = sums()
    assert found["judge"]["n_prompt"] == known(one["n_prompt"])
    assert found["judge"]["price"] == known(one["price"])


def test_what_is_done_is_not_counted(workspace, server):  # noqa: F811
    models = {"api": {"engine": server.url, "api": "chat", "served_as": "gpt-x", "price": RATE}}
    models["base"] = {"outputs": "given/base"}
    judges = [{"judge": "mine", "engine": server.url, "price": RATE}]
    plan(workspace, models=models, judges=judges)
    before, reasons = sums()
    assert before["generate"]["n_calls"] == known(N)
    assert before["generate"]["n_prompt"] == unknown()
    assert before["generate"]["price"] == unknown()
    assert reasons["generate"] == ["tokens of api: the server renders"]
    assert "outputs" in before
    run_plan("mine", workspace)
    assert sums()[0] == {}
    plan(workspace, models=models | {"one": {"outputs": "given/one"}}, judges=judges)
    after, _ = sums()
    assert set(after) == {"outputs", "judge", "board"}
    assert after["judge"]["n_calls"] == known(N)
    options = ["--judge", "mine", "--judge-engine", server.url, "--dry-run", *PRICE]
    options += ["--baseline", "given/base/model_outputs.json"]
    (model,) = told("judge", "results/api/questions/model_outputs.json", *options)
    assert (model["costs"][0]["n_calls"], model["costs"][0]["n_known"]) == (0, N)


def test_the_unknown_comes_first(workspace, server):  # noqa: F811
    """Neither the model's nor the baseline's responses are there, and nobody says a price."""
    small = str(tiny_models.base("phi"))
    models = {name: {"source": small} for name in ("first", "second")}
    plan(
        workspace, models=models, baseline="first", judges=[{"judge": "mine", "engine": server.url}]
    )
    result = run_plan("mine", workspace, dry_run=True)
    lines = cost_table(result.costs()).splitlines()
    assert lines[0] == "Not known:"
    assert "on second: the responses are not there yet" in lines[1]
    (judge,) = [line for line in lines if line.startswith("judge ")]
    assert judge.split()[:3] == ["judge", "1", str(N)]
    assert judge.count("unknown") == 3, "prompt tokens, dollars, seconds"
    printed = CliRunner().invoke(cli, ["run", "mine", "--dry-run"]).output
    assert printed.index("Not known") < printed.index("US dollars") < printed.index("jobs,")
    assert not (workspace / "leaderboards").exists()


def test_a_finished_generation_costs_nothing(workspace):  # noqa: F811
    small = str(tiny_models.base("phi"))
    command = ["generate", small, "--set", "questions.json", "--max-new-tokens", "4"]
    (before,) = told(*command, "--dry-run")
    assert (before["n_calls"], before["n_known"]) == (N, None), "only the weights could tell"
    told(*command)
    (after,) = told(*command, "--dry-run")
    assert (after["n_calls"], after["n_prompt"], after["n_new"]) == (0, 0, 0)
