"""Everything cheap is checked before anything dear: of all models and judges before the first is asked."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import pytest
import yaml
from click.testing import CliRunner

import tiny_models
from alignboard.cli.app import cli
from alignboard.data.instruction_sets import Instruction, InstructionSet
from alignboard.errors import AlignboardError, InputError
from alignboard.models.registry import load_model
from alignboard.pipeline.kinds import job_kind
from alignboard.pipeline.plans.consent import Consent
from alignboard.pipeline.preflight import require_model
from alignboard.records import Generation
from alignboard.results.formats import write_rows
from commands import run_plan
from faulty_endpoint import FaultyEndpoint

N = 14
JUDGE = """
kind: prompted
name: mine
title: A judge at an endpoint
model: some-judge
api_key_env: null
order: coin
prompt: {text: "{instruction} A: {first} B: {second}"}
verdict: {by: bracket}
"""


def write(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """Responses of three models to one set, and a judge."""
    questions = [f"name each kind: cow key {i}." for i in range(N)]
    for model in ("base", "one", "two"):
        rows = [Generation(q, f"{model} says {i}", model) for i, q in enumerate(questions)]
        write_rows(tmp_path / "given" / model / "model_outputs.json", rows)
    write(tmp_path, "questions.json", json.dumps([{"instruction": q} for q in questions]))
    write(tmp_path, "evaluate/judges/mine.yaml", JUDGE)
    suite = {"kind": "evaluation", "name": "questions", "title": "Questions"} | {
        "instructions": {"set": "questions.json", "max_new_tokens": 4}
    }
    write(tmp_path, "evaluate/suites/questions.yaml", suite)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plan(folder, **changes):
    content = {
        "name": "mine",
        "models": {name: {"outputs": f"given/{name}"} for name in ("base", "one", "two")},
        "suites": ["questions"],
        "judges": ["mine"],
        "baseline": "base",
    }
    return write(folder, "evaluate/plans/mine.yaml", content | changes)


@pytest.fixture
def server():
    with FaultyEndpoint() as found:
        found.choice = lambda _: {"message": {"role": "assistant", "content": "[[A]]"}}
        yield found


def without_template(folder):
    """A copy of a tiny checkpoint that has lost its chat template."""
    copied = folder / "plain"
    shutil.copytree(tiny_models.base("phi"), copied)
    (copied / "chat_template.jinja").unlink(missing_ok=True)
    settings = json.loads((copied / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (copied / "tokenizer_config.json").write_text(json.dumps(settings))
    return copied


def asked(*texts):
    return InstructionSet("some", "Some", tuple(Instruction((text,)) for text in texts))


def test_all_models_are_checked_before_the_first_is_loaded(workspace, monkeypatch):
    def loaded(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("alignboard.models.loading.LoadedModel.load", loaded)
    plain = without_template(workspace)
    command = ["generate", str(tiny_models.base("phi")), str(plain), "--set", "questions.json"]
    refused = CliRunner().invoke(cli, command)
    assert isinstance(refused.exception, InputError)
    assert "plain: " in str(refused.exception)
    assert "chat template" in str(refused.exception)
    assert not list((workspace / "results").rglob("*.json"))


def test_a_prompt_without_room_for_a_response_is_found_before_weights_are_read(workspace):
    spec = load_model(str(tiny_models.base("phi")))
    long = asked("reverse the order of: cow.", "reverse the order of: " + "cow " * 3000)
    with pytest.raises(InputError, match=r"Instruction 2 has \d+ tokens .* too_long: skip"):
        require_model(spec, [long])
    require_model(spec, [asked("reverse the order of: cow.")])


def test_a_full_disk_and_a_place_that_cannot_be_written(workspace, monkeypatch):
    (workspace / "leaderboards").write_text("a file")
    plan(workspace)
    with pytest.raises(InputError, match=r"leaderboards cannot be made: .* is a file"):
        run_plan("mine", workspace)
    (workspace / "leaderboards").unlink()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5 << 20))
    with pytest.raises(InputError, match="has 5 MiB left; 100 MiB are needed"):
        run_plan("mine", workspace)


def judge(server, *models):
    outputs = [f"given/{name}/model_outputs.json" for name in models]
    options = ["--judge", "mine", "--judge-engine", server.url]
    baseline = ["--baseline", "given/base/model_outputs.json"]
    return CliRunner().invoke(cli, ["judge", *outputs, *options, *baseline])


def test_all_outputs_are_checked_before_the_first_is_judged(workspace, server):
    """The second model's verdicts have no place: nobody is asked about the first."""
    assert judge(server, "two").exit_code == 0
    (record,) = (workspace / "given" / "two").rglob("judging.json")
    record.write_text(record.read_text().replace(server.url, "http://elsewhere.example/v1"))
    n = len(server.requests)
    refused = judge(server, "one", "two")
    assert "is of another judge's model and address" in str(refused.exception)
    assert len(server.requests) == n


def test_a_key_is_demanded_where_a_reply_is_missing(workspace, server, monkeypatch):
    own = JUDGE.replace("api_key_env: null", f"api_key_env: MINE\nbase_url: {server.url}")
    write(workspace, "evaluate/judges/mine.yaml", own)
    given = ["given/one/model_outputs.json", "--judge", "mine"]
    command = ["judge", *given, "--baseline", "given/base/model_outputs.json"]
    command += ["--allow-key", f"MINE@{server.url.split('/')[2]}"]
    monkeypatch.setenv("MINE", "a-key")
    assert CliRunner().invoke(cli, command).exit_code == 0
    monkeypatch.delenv("MINE")
    assert CliRunner().invoke(cli, command).exit_code == 0, "every reply is known"
    command[1] = "given/two/model_outputs.json"
    refused = CliRunner().invoke(cli, command)
    assert "environment variable MINE" in str(refused.exception)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (
            ("api_key_env: null", "api_key_env: OPENAI_API_KEY"),
            "environment variable OPENAI_API_KEY, which is to hold the key, is not set",
        ),
        (("{instruction} A:", "{instruction} {reference} A:"), "reference"),
        (
            ("model: some-judge\napi_key_env: null", "model: nowhere\nengine: local"),
            "There is no model 'nowhere'",
        ),
        (
            (
                JUDGE,
                "kind: program\nname: mine\ntitle: A program\ncommand: [no-such-program]\nversion: a",
            ),
            "Judge mine: there is no program 'no-such-program'",
        ),
    ],
    ids=["key", "field", "model", "program"],
)
def test_a_plans_judges_are_checked_before_its_models_are_asked(
    changed, told, workspace, monkeypatch
):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    write(workspace, "evaluate/judges/mine.yaml", JUDGE.replace(*changed))
    models = {"small": {"source": str(tiny_models.base("phi"))}, "base": {"outputs": "given/base"}}
    plan(workspace, models=models)
    with pytest.raises(AlignboardError) as mistake:
        run_plan("mine", workspace, consent=Consent(code=True))
    assert told in str(mistake.value)
    assert "Not everything could be done" not in str(mistake.value), "a job was started"
    run_plan("mine", workspace, dry_run=True, consent=Consent(code=True))


def test_a_plans_models_are_checked_before_the_first_is_asked(workspace, server):
    models = {
        "served": {"engine": server.url, "api": "chat", "served_as": "gpt-x"},
        "plain": {"source": str(without_template(workspace))},
    }
    plan(workspace, models=models, baseline="served")
    with pytest.raises(InputError, match=r"mine.yaml: models.plain: plain: .*chat template"):
        run_plan("mine", workspace)
    assert server.requests == []


def test_a_judge_that_gives_no_verdict_is_stopped_in_a_plan(workspace, server):
    """After a dozen replies, and not a dozen for every model."""
    server.choice = lambda _: {"message": {"role": "assistant", "content": "I cannot say."}}
    plan(workspace, judges=[{"judge": "mine", "engine": server.url, "concurrency": 1}])
    with pytest.raises(AlignboardError, match="none of its first 12 replies holds a verdict"):
        run_plan("mine", workspace)
    assert len(server.requests) <= 14


def test_peft_is_imported_for_models_with_an_adapter_alone():
    for kind in ("generate", "lm-eval"):
        base = job_kind(kind).imported({"base"}, {"spec": {"adapter": None}})
        assert "torch" in base
        assert "peft" not in base
        assert "peft" in job_kind(kind).imported({"base"}, {"spec": {"adapter": "a/folder"}})
        assert "peft" in job_kind(kind).imported({"base", "adapter"}, {})
    assert job_kind("generate").imported({"set"}, {}) == ()
