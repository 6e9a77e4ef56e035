"""Files of others send no key to a host of their choosing, and run no code, unless the user agrees."""

from __future__ import annotations

import json
import os
import sys

import pytest

import commands
import tiny_models
from alignboard.benchmarks.lm import BenchmarkedModel
from alignboard.benchmarks.run import run_tasks
from alignboard.benchmarks.task_files import digests
from alignboard.engines.openai.keys import require_consent
from alignboard.errors import InputError
from alignboard.judges.alpaca_eval.configs import evaluator_names, read_evaluator
from alignboard.judges.load import judge_names, load_judge
from alignboard.judges.opening import Access
from alignboard.models.loading import LoadedModel
from alignboard.pipeline.judges import Judges
from alignboard.pipeline.plans.build import build_graph
from alignboard.pipeline.plans.consent import Consent
from alignboard.pipeline.plans.plan import load_plan, require_code_consent
from alignboard.pipeline.runner import run_plan
from alignboard.records import Generation
from alignboard.results.formats import write_rows
from alignboard.suites import Benchmark
from alignboard.workspace import library
from faulty_endpoint import FaultyEndpoint
from test_run import small_workspace

KEY = "sk-a-key-of-some-length"
JUDGE = """
kind: prompted
name: mine
title: a judge of somebody else
model: tiny-judge
order: coin
prompt: {text: "{instruction} A: {first} B: {second}"}
verdict: {by: bracket}
"""
PLAN = """
name: small
models:
  one: {outputs: results/one}
suites: [small]
baseline: {outputs: results/base}
judges: [mine]
"""
SUITE = "kind: evaluation\nname: small\ntitle: s\ninstructions: {set: set.json}\n"


@pytest.fixture
def workspace(tmp_path):
    for room in ("judges", "plans", "suites", "tasks"):
        (tmp_path / "evaluate" / room).mkdir(parents=True)
    for model in ("base", "one"):
        rows = [Generation(f"question {i}?", f"{model} {i}", model) for i in range(3)]
        write_rows(tmp_path / "results" / model / "model_outputs.json", rows)
    questions = [{"instruction": f"question {i}?"} for i in range(3)]
    (tmp_path / "set.json").write_text(json.dumps(questions))
    (tmp_path / "evaluate/plans/small.yaml").write_text(PLAN)
    (tmp_path / "evaluate/suites/small.yaml").write_text(SUITE)
    return tmp_path


def declare(workspace, **fields):
    lines = "".join(f"{name}: {json.dumps(value)}\n" for name, value in fields.items())
    (workspace / "evaluate/judges/mine.yaml").write_text(JUDGE + lines)


def alignboard(folder, *arguments):
    environment = os.environ | {"OPENAI_API_KEY": KEY, "THE_SECRET": KEY}
    return commands.alignboard(folder, *arguments, env=environment)


def judge(workspace, *options):
    outputs = "results/one/model_outputs.json"
    return alignboard(
        workspace, "judge", outputs, "--judge", "mine", "--baseline", "base", *options
    )


def host(server):
    return server.url.split("/")[2]


# Code that a plan names.


PROGRAM = """
import json, pathlib, sys
pathlib.Path("escaped").touch()
for line in sys.stdin:
    print(json.dumps({"key": json.loads(line)["key"], "scores": [1, 2]}), flush=True)
"""


def test_a_plan_runs_no_program_until_it_is_trusted(workspace):
    (workspace / "program.py").write_text(PROGRAM)
    fields = {"name": "mine", "title": "x", "version": "1", "order": "both"}
    fields |= {"kind": "program", "command": [sys.executable, str(workspace / "program.py")]}
    (workspace / "evaluate/judges/mine.yaml").write_text(json.dumps(fields))
    for options in ((), ("--dry-run",)):
        refused = alignboard(workspace, "run", "small", *options)
        assert refused.returncode == 2
        assert refused.stderr.count("\n") == 1
        assert "the judge mine runs the command" in refused.stderr
        assert "--trust-code" in refused.stderr
    assert not (workspace / "escaped").exists()
    assert alignboard(workspace, "run", "small", "--trust-code").returncode == 0
    assert (workspace / "escaped").exists()


def test_a_plan_runs_no_python_of_a_repository_until_it_is_trusted(workspace):
    model = workspace / "model"
    model.mkdir()
    (model / "config.json").write_text('{"auto_map": {"AutoConfig": "evil.Config"}}')
    (model / "evil.py").write_text("import pathlib\npathlib.Path('escaped').touch()\n")
    (workspace / "own.yaml").write_text(f"name: own\nbase: {model}\ntrust_remote_code: true\n")
    (workspace / "evaluate/plans/small.yaml").write_text(
        "name: small\nmodels: {own: {source: own.yaml, trust_remote_code: true}}\nsuites: [small]\n"
    )
    with pytest.raises(
        InputError, match=r"models\.own runs Python of the repository .*--trust-code"
    ):
        run_plan("small", workspace, dry_run=True)
    require_code_consent(load_plan("small", workspace, Consent(code=True)))
    assert not (workspace / "escaped").exists()


def test_a_jury_of_programs_is_looked_into(workspace):
    program = {"kind": "program", "title": "x", "version": "1", "command": ["rm", "-r", "results"]}
    for name in ("a", "b", "c"):
        path = workspace / f"evaluate/judges/{name}.yaml"
        path.write_text(json.dumps(program | {"name": name}))
    jury = {"kind": "jury", "name": "mine", "title": "x", "judges": ["a", "b", "c"]}
    (workspace / "evaluate/judges/mine.yaml").write_text(json.dumps(jury))
    with pytest.raises(InputError, match="the judge c runs the command 'rm -r results'"):
        run_plan("small", workspace)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("hardened-pair", "mine"),
        ("mine", "mt-bench-single"),
        ("weighted_alpaca_eval_gpt4_turbo", "mine"),
    ],
)
def test_a_program_takes_no_name_of_a_known_judge(file, name, workspace):
    fields = {"kind": "program", "title": "x", "version": "1", "command": ["touch", "escaped"]}
    path = workspace / f"evaluate/judges/{file}.yaml"
    path.write_text(json.dumps(fields | {"name": name, "order": "both"}))
    with pytest.raises(InputError, match="is a known one, and this file runs a program"):
        load_judge(file, workspace)


# Keys.


@pytest.mark.parametrize("variable", ["OPENAI_API_KEY", "THE_SECRET"])
def test_a_judge_of_others_gets_no_key_at_its_own_address_without_consent(variable, workspace):
    with FaultyEndpoint() as server:
        server.choice = lambda _: {"message": {"role": "assistant", "content": "[[A]]"}}
        declare(workspace, base_url=server.url, api_key_env=variable)
        consent = f"--allow-key={variable}@{host(server)}"
        refused = judge(workspace)
        assert refused.returncode == 2
        assert consent.replace("=", " ") in refused.stderr
        assert KEY not in refused.stderr
        dry = judge(workspace, "--dry-run")
        assert (dry.returncode, consent.replace("=", " ") in dry.stderr) == (0, True)
        other = judge(workspace, f"--allow-key={variable}@somewhere.example")
        assert other.returncode == 2
        assert server.requests == []
        agreed = judge(workspace, consent)
        assert agreed.returncode == 0, agreed.stderr
        assert {one.authorization for one in server.requests} == {f"Bearer {KEY}"}


def test_a_plan_of_others_gets_no_key_either(workspace):
    address = "http://127.0.0.1:9/v1"
    declare(workspace, base_url=address)
    consent = Consent(frozenset({"OPENAI_API_KEY@127.0.0.1:9"}))
    with pytest.raises(InputError, match=r"--allow-key OPENAI_API_KEY@127\.0\.0\.1:9"):
        load_plan("small", workspace)
    assert load_plan("small", workspace, consent).judges
    refused = alignboard(workspace, "run", "small", "--dry-run")
    assert (refused.returncode, "--allow-key" in refused.stderr) == (2, True)
    agreed = alignboard(workspace, "run", "small", "--dry-run", "--allow-key", *consent.keys)
    assert agreed.returncode == 0, agreed.stderr
    plan = workspace / "evaluate/plans/small.yaml"
    declare(workspace, api_key_env=None)
    served = f"{{engine: '{address}', api_key_env: HOME"
    plan.write_text(PLAN.replace("[mine]", f"[{served}, judge: mine}}]"))
    with pytest.raises(InputError, match=r"judges\.mine would send the key in HOME"):
        load_plan("small", workspace)
    plan.write_text(PLAN.replace("{outputs: results/one}", f"{served}, api: chat}}"))
    with pytest.raises(InputError, match=r"models\.one would send the key in HOME"):
        load_plan("small", workspace)


@pytest.mark.parametrize(
    "url",
    [
        "http://api.openai.com/v1",
        "https://api.openai.com.evil.example/v1",
        "https://evil.example/https://api.openai.com/v1",
        "https://api.openai.com:444/v1",
    ],
)
def test_an_address_that_looks_like_the_keys_own_is_not(url):
    with pytest.raises(InputError, match="--allow-key"):
        require_consent("It", "OPENAI_API_KEY", [url], ())
    require_consent("It", "OPENAI_API_KEY", ["https://api.openai.com/v1"], ())
    require_consent("It", None, [url], ())


def test_the_librarys_and_alpaca_evals_judges_need_no_consent():
    declared = [load_judge(name) for name in judge_names()]
    evaluators = [read_evaluator(name) for name in evaluator_names()]
    assert len(declared) > 10
    assert len(evaluators) > 10
    for one in [*declared, *evaluators]:
        Judges(Access()).require_key_consent(one)  # raises where consent is needed


# The code of tasks.

TASK = {
    "task": "evil",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "documents.jsonl"}},
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "question",
    "doc_to_choice": "choices",
    "doc_to_target": "label",
    "metric_list": [{"metric": "acc"}],
}
ESCAPE = "{{ cycler.__init__.__globals__.os.system('touch escaped') }}"


def task(workspace, name="evil", text="", **changes):
    documents = [{"question": f"q {i}?", "choices": ["a", "b"], "label": i % 2} for i in range(4)]
    (workspace / "documents.jsonl").write_text("\n".join(map(json.dumps, documents)))
    content = TASK | {"task": name} | changes
    path = workspace / "evaluate" / "tasks" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content)[:-1] + ("," + text if text else "") + "}\n")
    return path


@pytest.mark.parametrize(
    "change",
    [
        {"text": '"process_docs": !function os.system'},
        {"text": '"class": !function helpers.Task'},
        {"text": '"custom_dataset": !function helpers.load'},
        {"metric_list": [{"metric": "./folder"}]},
        {"metric_list": [{"metric": "bleu", "hf_evaluate": True}]},
        {"dataset_path": "pandas"},
        {"doc_to_text": ESCAPE},
        {"doc_to_text": "{{ question | attr('x') }}"},
        {"fewshot_config": {"sampler": "first_n", "doc_to_text": ESCAPE}},
    ],
)
def test_a_task_that_runs_code_is_refused_until_it_is_trusted(change, workspace):
    path = task(workspace, **change)
    with pytest.raises(InputError, match="--trust-tasks") as caught:
        digests(["evil"], workspace)
    assert str(path) in str(caught.value)
    assert digests(["evil"], workspace, trusted=True)


def test_code_in_an_included_file_or_a_group_is_found(workspace):
    base = task(workspace, "base", '"process_docs": !function os.system')
    including = {"include": "base.yaml", "task": "evil"}
    (base.parent / "evil.yaml").write_text(json.dumps(including))
    (base.parent / "many.yaml").write_text(json.dumps({"group": "many", "task": ["evil"]}))
    for name in ("evil", "many"):
        with pytest.raises(InputError, match="--trust-tasks"):
            digests([name], workspace)


def test_lm_evals_own_tasks_and_plain_ones_are_trusted(workspace):
    task(workspace, "plain", doc_to_text="{{ question | upper }} {% if label %}_{% endif %}")
    assert digests(["plain", "mmlu", "gsm8k"], workspace)
    path = workspace / "evaluate" / "tasks" / "harmless.yaml"
    from alignboard.benchmarks.task_files import lm_eval_folder

    own = lm_eval_folder("gsm8k")
    assert own is not None
    path.write_text(json.dumps({"task": "harmless", "include": str(own / "gsm8k.yaml")}))
    assert digests(["harmless"], workspace)


@pytest.mark.parametrize("line", ["process_docs: !function utils.run", "include: other.yaml"])
def test_a_generated_task_of_the_workspace_is_looked_at(line, tmp_path):
    workspace = small_workspace(tmp_path)
    folder = workspace / "evaluate" / "tasks"
    folder.mkdir()
    shipped = (library() / "evaluate/tasks/demo_exact.yaml").read_text()
    (folder / "demo_exact.yaml").write_text(f"{shipped}{line}\n")
    (folder / "other.yaml").write_text("task: other\nprocess_docs: !function utils.run\n")
    with pytest.raises(InputError, match="--trust-tasks"):
        build_graph(load_plan("small", workspace))
    build_graph(load_plan("small", workspace, consent=Consent(tasks=True)))


def test_the_command_refuses_before_anything_is_run(workspace):
    task(workspace, doc_to_text=ESCAPE)
    suite = (
        "kind: evaluation\nname: small\ntitle: s\nbenchmarks: [{task: evil, metric: 'acc,none'}]\n"
    )
    (workspace / "evaluate/suites/small.yaml").write_text(suite)
    (workspace / "evaluate/plans/small.yaml").write_text(
        "name: small\nmodels: {tiny-phi: {pretrain: phi}}\nsuites: [small]\n"
    )
    for options in ((), ("--dry-run",)):
        refused = alignboard(workspace, "run", "small", *options)
        assert (refused.returncode, "--trust-tasks" in refused.stderr) == (2, True)
    assert alignboard(workspace, "run", "small", "--dry-run", "--trust-tasks").returncode == 0
    assert not (workspace / "escaped").exists()


@pytest.fixture(scope="module")
def model():
    return LoadedModel.load(tiny_models.base())


def test_a_template_cannot_leave_the_sandbox(model, workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    folders = [workspace / "evaluate" / "tasks"]
    asked = [Benchmark("evil", "acc,none")]
    # In parts, as no check of the text would find it.
    hidden = "{% set u = '_' %}{{ cycler[u ~ u ~ 'init' ~ u ~ u] }}"
    task(workspace, doc_to_text=hidden)
    with pytest.raises(InputError, match="--trust-tasks"):
        run_tasks(BenchmarkedModel(model), asked, folders, workspace / "out")
    task(workspace, doc_to_text="{% set u = '_' %}{{ question }}{{ u }}")
    found = [
        run_tasks(BenchmarkedModel(model), asked, folders, workspace / str(t), trusted=t)
        for t in (True, False)
    ]
    assert found[0] == found[1]


def test_a_task_under_the_name_of_one_of_lm_evals_is_looked_at(model, workspace):
    task(workspace, "sub/arc_easy", '"process_docs": !function os.system', task="arc_easy")
    with pytest.raises(InputError, match=r"is to stand in evaluate/tasks/arc_easy\.yaml"):
        run_tasks(
            BenchmarkedModel(model),
            [Benchmark("arc_easy", "acc,none")],
            [workspace / "evaluate" / "tasks"],
            workspace / "out",
        )
