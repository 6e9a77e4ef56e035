"""One plan on real pieces, offline, and then the single commands on the same: nothing is computed twice."""

from __future__ import annotations

import csv
import json
import os

import pytest
import yaml
from click.testing import CliRunner

import commands
import tiny_models
from alignboard.boards.board import read_board
from alignboard.cli.app import cli
from alignboard.errors import AlignboardError, InputError
from alignboard.judges.backends.endpoint import judge_suffix
from alignboard.pipeline.plans.build import build_graph
from alignboard.pipeline.plans.plan import load_plan
from alignboard.records import Generation
from alignboard.reports.compare import compare as compare_models
from alignboard.results.formats import read_rows, write_rows
from alignboard.results.journal import Journal
from commands import run_plan
from faulty_endpoint import FaultyEndpoint, status

SET = "evaluate/questions.json"
N = 6
ENDPOINT_JUDGE = """
kind: prompted
name: served
title: A judge at an endpoint
model: some-judge
api_key_env: null
order: coin
prompt: {text: "{instruction} A: {first} B: {second}"}
verdict: {by: bracket}
"""
LOCAL_JUDGE = """
kind: prompted
name: here
title: A judge in this process
engine: local
model: MODEL
chat: false
prompt: {text: "first: {first} second: {second} question: {instruction} answer:"}
verdict: {by: logprob, first: [first], second: [second], min_mass: 0.0}
order: both
"""
RELEASED = {name: {"outputs": f"downloaded/{name}"} for name in ("good", "poor")}
SUITES = {
    "questions": {
        "instructions": {"set": SET, "max_new_tokens": 6},
        "benchmarks": [{"task": "demo_choice", "metric": "acc,none"}],
        "n_documents": 8,
    },
    "world": {"instructions": {"set": "demo-world", "limit": 4, "max_new_tokens": 6}},
}


def alignboard(folder, *arguments):
    return commands.alignboard(folder, *arguments, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})


def write(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def plan(folder, **changes):
    content = {
        "name": "mine",
        "models": {
            "good": {"outputs": "downloaded/good/model_outputs.json", "method": "rlhf"},
            "poor": {"outputs": "downloaded/poor"},
            "small": {"source": str(tiny_models.base("phi"))},
            "small-one": {"source": str(tiny_models.adapters("phi")["one"]), "method": "dpo"},
        },
        "suites": ["questions"],
        "judges": ["served", "here"],
        "baseline": "good",
        "pairwise": {"judge": "served", "n_prompts": 3},
    }
    return write(folder, "evaluate/plans/mine.yaml", content | changes)


@pytest.fixture
def workspace(tmp_path):
    """Two models' released responses, a set, two judges, two suites."""
    questions = [f"name each kind: cow key {i}." for i in range(N)]
    for model, text in (("good", "cow is an animal"), ("poor", "no")):
        rows = [Generation(q, f"{text} {i}", f"{model}-7b") for i, q in enumerate(questions)]
        write_rows(tmp_path / "downloaded" / model / "model_outputs.json", rows[::-1])
    write(tmp_path, SET, json.dumps([{"instruction": q} for q in questions]))
    write(tmp_path, "evaluate/judges/served.yaml", ENDPOINT_JUDGE)
    write(
        tmp_path,
        "evaluate/judges/here.yaml",
        LOCAL_JUDGE.replace("MODEL", str(tiny_models.base("phi"))),
    )
    for name, suite in SUITES.items():
        content = {"kind": "evaluation", "name": name, "title": name} | suite
        write(tmp_path, f"evaluate/suites/{name}.yaml", content)
    plan(tmp_path)
    return tmp_path


@pytest.fixture
def server():
    """A judge that prefers what mentions an animal."""

    def choice(request):
        first, _, second = request.instruction.partition(" B: ")
        said = "A" if "animal" in first.partition(" A: ")[2] else "B" if "animal" in second else "A"
        return {"message": {"role": "assistant", "content": f"[[{said}]]"}}

    with FaultyEndpoint() as found:
        found.choice = choice
        yield found


def named(server):
    """What the judge at the endpoint is called there."""
    return "served" + judge_suffix([server.url])


def at(server):
    return {"judge": "served", "engine": server.url, "concurrency": 4}


def counted(workspace):
    """Rows computed so far, by kind."""
    with Journal(workspace / "results" / ".journal") as journal:
        return {k: n for k, n in journal.check().n_computed.items() if k != "done"}


def board_of(name, workspace):
    """The board that a run of the plan made, and its json file."""
    made = run_plan(name, workspace).board
    assert made is not None
    return read_board(made), made


def rates(board, row):
    """The win rates of a row that have a value, by judge and set."""
    columns = [column for column in board.columns if column.kind == "win rate"]
    found = {(column.judge, column.set): board.score(row, column) for column in columns}
    return {key: score for key, score in found.items() if score.value is not None}


def test_a_plan_and_the_single_commands_are_one_pipeline(workspace, server):
    judges = [at(server), "here"]
    plan(workspace, judges=judges)
    board, made = board_of("mine", workspace)
    served = (named(server), "questions")
    assert [(row.model, row.method, row.family) for row in board.rows] == [
        ("good", "rlhf", "good"),
        ("poor", "undeclared", "poor"),
        ("small", "base", "small"),
        ("small-one", "dpo", "small"),
    ]
    rows = {row.model: row for row in board.rows}
    assert rates(board, rows["poor"])[served].value == 0.0
    assert set(rates(board, rows["small"])) == {served, ("here", "questions")}
    assert rates(board, rows["good"]) == {}, "a baseline is not compared with itself"
    (choice,) = [column for column in board.columns if column.name == "demo_choice acc"]
    assert board.score(rows["small"], choice).value is not None
    assert board.score(rows["poor"], choice).value is None, "released responses have no weights"
    assert all(board.score(row, "rating").value is not None for row in board.rows)
    with made.with_suffix(".csv").open() as file:
        table = {row["model"]: row for row in csv.DictReader(file)}
    page = made.with_suffix(".html").read_text()
    markdown = made.with_suffix(".md").read_text()
    for model, row in rows.items():
        assert model in page
        assert model in markdown
        if served in rates(board, row):
            value = rates(board, row)[served].value
            assert float(table[model][f"{served[0]}: win rate %"]) == pytest.approx(value)
    before, n_requests = counted(workspace), len(server.requests)
    assert n_requests > 0
    single_commands(workspace, server)
    assert counted(workspace) == before
    assert len(server.requests) == n_requests


def single_commands(workspace, server):
    """What the plan asked, by hand; its files do not change."""
    files = {
        path: path.read_bytes() for path in (workspace / "results").glob("*/questions/**/*.json")
    }
    assert any(path.name == "judging.json" for path in files)
    models = {"small": tiny_models.base("phi"), "small-one": tiny_models.adapters("phi")["one"]}
    for name, folder in models.items():
        (workspace / name).symlink_to(folder)
    done = alignboard(workspace, "generate", *models, "--set", SET, "--max-new-tokens", "6")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("0 answered now") == len(models)
    renamed(workspace)
    outputs = [f"results/{name}/questions/model_outputs.json" for name in models]
    for judge, options in (("served", ["--judge-engine", server.url]), ("here", [])):
        command = ("judge", *outputs, "--judge", judge, "--baseline", "renamed.json")
        done = alignboard(workspace, *command, *options)
        assert done.returncode == 0, done.stderr
    for path, content in files.items():
        if path.name != "judging.json":  # which counts the calls under one run's verdicts
            assert path.read_bytes() == content, path


def renamed(workspace):
    """The baseline's responses under its name in the plan, in the order of the set."""
    rows = read_rows(workspace / "downloaded/good/model_outputs.json", Generation)[::-1]
    write_rows(
        workspace / "renamed.json", [Generation(r.instruction, r.output, "good") for r in rows]
    )


def test_several_sets_and_any_baseline(workspace, server):
    """Released responses as the baseline of one set; the second set has none there, so it needs another plan."""
    plan(workspace, suites=["questions", "world"], baseline="small", pairwise=None, judges=[])
    with pytest.raises(InputError, match=r"models\.good\.outputs: .* has no response to"):
        load_plan("mine", workspace)
    models = {"small": {"source": str(tiny_models.base("phi"))}}
    models["other"] = {"source": str(tiny_models.adapters("phi")["two"]), "method": "dpo"}
    plan(
        workspace,
        models=models,
        suites=["questions", "world"],
        baseline="small",
        pairwise={"judge": "served", "n_prompts": 2, "set": "world"},
        judges=[at(server)],
    )
    board, _ = board_of("mine", workspace)
    (other,) = [row for row in board.rows if row.model == "other"]
    sets = ("questions", "demo-world-first-4")
    assert list(rates(board, other)) == [(named(server), asked) for asked in sets]
    released = {"outputs": "downloaded/good/model_outputs.json"}
    plan(workspace, models=models, baseline=released, pairwise=None, judges=[at(server)])
    resolved = load_plan("mine", workspace)
    assert [resolved.baseline(m, resolved.sets[0]) for m in resolved.models] == ["good-7b"] * 2
    board, _ = board_of("mine", workspace)
    assert all((named(server), "questions") in rates(board, row) for row in board.rows)


def test_a_served_model_is_a_model_of_a_plan(workspace, server):
    server.choice = lambda _: {"message": {"role": "assistant", "content": "an animal [[B]]"}}
    models = {
        "api": {"engine": server.url, "api": "chat", "served_as": "gpt-x", "method": "rlhf"},
        "good": {"outputs": "downloaded/good"},
    }
    plan(workspace, models=models, judges=[at(server)], pairwise=None)
    board, _ = board_of("mine", workspace)
    assert rates(board, board.rows[0])[named(server), "questions"].n == N
    assert {r.body["model"] for r in server.requests} == {"gpt-x", "some-judge"}
    (remark,) = run_plan("mine", workspace, dry_run=True).remarks
    assert "models.api: api: chat gives no log-likelihoods" in remark, "said before the run"
    assert any(note.startswith("api has no benchmarks of") for note in board.notes)


def test_a_job_that_failed_is_not_done_and_is_asked_again(workspace, server):
    plan(workspace, models=RELEASED, judges=[at(server)], pairwise=None)
    server.always = status(401, b"no")
    with pytest.raises(AlignboardError):
        run_plan("mine", workspace)
    assert not (workspace / "leaderboards").exists()
    server.always = None
    assert run_plan("mine", workspace).board is not None


def test_a_hardened_judge_of_a_plan_has_its_secret(workspace, server):
    plan(workspace, models=RELEASED, judges=[at(server) | {"hardened": True}], pairwise=None)
    run_plan("mine", workspace)
    assert (workspace / "results/.journal/hardened-secret").is_file()
    (made,) = (workspace / "results/poor/questions").iterdir()
    assert "hardened" in made.name


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"models": {"a": {"source": "nosuch"}}}, "models.a: There is no model 'nosuch'"),
        ({"models": {"zephyr-7b-betta": {}}}, "did you mean 'zephyr-7b-beta'"),
        ({"models": {"a": {"outputs": "nowhere"}}}, "models.a.outputs: There are no responses"),
        ({"models": {"good": {"outputs": "downloaded/good", "recipes": ["x"]}}}, "no base weights"),
        (
            {"models": {"good": {"outputs": "downloaded/good", "api_key_env": "X"}}},
            "models.good.api_key_env has no meaning",
        ),
        ({"judges": [{"judge": "served", "odrer": "coin"}]}, "did you mean 'order'"),
        ({"baseline": {"outputs": "nowhere.json"}}, "baseline is 'nowhere.json'"),
        ({"pairwise": {"judge": "served", "n_prompts": 2, "set": "x"}}, "pairwise.set is 'x'"),
    ],
)
def test_a_mistake_is_one_sentence_before_anything_is_asked(changes, told, workspace):
    plan(workspace, **changes)
    with pytest.raises(AlignboardError) as mistake:
        load_plan("mine", workspace)
    assert told in str(mistake.value)
    assert "\n" not in str(mistake.value)


def test_a_published_suite_is_a_suite_of_a_plan(workspace, released, monkeypatch):
    """AlpacaEval 2 with its own set, baseline and judge, and with another judge and baseline."""
    for module in ("data.instruction_sets", "pipeline.judged_outputs"):
        monkeypatch.setattr(
            f"alignboard.{module}.released_file", lambda _repo, _commit, file, *_: released / file
        )
    names = ("phi-2-dpo", "zephyr-7b-beta")
    models = {name: {"outputs": str(released / "results" / name)} for name in names}
    content = {"name": "mine", "models": models, "suites": ["alpaca-eval-2"], "n_prompts": 20}
    write(workspace, "evaluate/plans/mine.yaml", content)
    resolved = load_plan("mine", workspace)
    assert list(resolved.judges) == ["weighted_alpaca_eval_gpt4_turbo"], "the suite's own judge"
    assert [resolved.baseline(m, resolved.sets[0]) for m in resolved.models] == [
        "gpt4_1106_preview"
    ] * 2
    other = {"judges": ["served"], "baseline": "zephyr-7b-beta"}
    write(workspace, "evaluate/plans/mine.yaml", content | other)
    graph = build_graph(load_plan("mine", workspace))
    job = graph.jobs["judge served alpaca-eval-first-20 phi-2-dpo"]
    assert job.needs["baseline"] == "outputs alpaca-eval-first-20 zephyr-7b-beta"


def published_plan(workspace, released, monkeypatch, **changes):
    """Two released models on twenty instructions of AlpacaEval 2, judged by a judge at an endpoint."""
    for module in ("data.instruction_sets", "pipeline.judged_outputs"):
        monkeypatch.setattr(
            f"alignboard.{module}.released_file", lambda _repo, _commit, file, *_: released / file
        )
    models = {
        name: {"outputs": str(released / "results" / name)}
        for name in ("phi-2-dpo", "zephyr-7b-beta")
    }
    content = {"name": "mine", "models": models, "suites": ["alpaca-eval-2"], "n_prompts": 20}
    write(workspace, "evaluate/plans/mine.yaml", content | changes)


def test_published_rows_stand_beside_a_plans_own(workspace, released, monkeypatch, server):
    shown = ["zephyr-7b-beta", "gpt4_1106_preview"]
    published_plan(workspace, released, monkeypatch, judges=[at(server)], published=shown)
    # Workers of their own would fetch the set.
    made = run_plan("mine", workspace).board
    assert made is not None
    board = read_board(made)
    assert [row.model for row in board.rows] == ["phi-2-dpo", *shown]
    reference = [column for column in board.columns if column.source == "published"]
    assert {column.judge for column in reference} == {"weighted_alpaca_eval_gpt4_turbo"}
    own = {column.key for column in board.columns if column.judge == named(server)}
    assert own
    assert not own & {column.key for column in reference}
    rows = {row.model: row for row in board.rows}
    (rate,) = [column for column in reference if column.name.startswith("published win rate")]
    assert board.score(rows["zephyr-7b-beta"], rate).value == pytest.approx(10.99, abs=0.01)
    assert board.score(rows["phi-2-dpo"], rate).value is None, "it was not asked for"
    assert own & set(rows["zephyr-7b-beta"].scores), "one row shows both"
    assert not own & set(rows["gpt4_1106_preview"].scores)
    assert rate.name in made.with_suffix(".md").read_text()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"published": ["zephyr-7b-betta"]}, "did you mean 'zephyr-7b-beta'"),
        ({"published": "all", "suites": ["questions"]}, "none of suites has a published board"),
    ],
)
def test_published_rows_that_are_not_there(changes, told, workspace, released, monkeypatch):
    published_plan(workspace, released, monkeypatch, judges=["served"])
    models = {"good": {"outputs": "downloaded/good"}, "poor": {"outputs": "downloaded/poor"}}
    if "suites" in changes:
        plan(workspace, models=models, pairwise=None, **changes)
    else:
        published_plan(workspace, released, monkeypatch, judges=["served"], **changes)
    with pytest.raises(InputError) as mistake:
        load_plan("mine", workspace)
    assert told in str(mistake.value)


def test_a_plan_and_the_commands_agree_on_what_a_name_means(workspace, server):
    """A name of the plan that is another model's in results/ is refused before anything is asked."""
    models = {"api": {"engine": server.url, "api": "chat", "served_as": "gpt-x"}} | RELEASED
    plan(workspace, models=models, judges=[at(server)], pairwise=None)
    run_plan("mine", workspace)
    record = json.loads((workspace / "results/api/model.json").read_text())
    assert record == {"base": "gpt-x"}
    models["api"]["served_as"] = "gpt-y"
    plan(workspace, models=models, judges=[at(server)], pairwise=None)
    n = len(server.requests)
    with pytest.raises(InputError, match="results of gpt-x, and gpt-y has the same name"):
        run_plan("mine", workspace)
    assert len(server.requests) == n


def test_compare_takes_the_models_and_the_judge_of_a_plan(workspace, server, monkeypatch):
    monkeypatch.chdir(workspace)
    rows = [
        Generation(f"name each kind: cow key {i}.", f"some animal {i}", "fair-7b") for i in range(N)
    ]
    write_rows(workspace / "downloaded" / "fair" / "model_outputs.json", rows)
    given = {name: {"outputs": f"downloaded/{name}"} for name in ("fair", "good", "poor")}
    suite = {"kind": "evaluation", "name": "alone", "title": "alone", "instructions": {"set": SET}}
    write(workspace, "evaluate/suites/alone.yaml", suite)
    path = plan(
        workspace,
        models=given,
        judges=[at(server)],
        baseline="fair",
        suites=["alone"],
        pairwise=None,
    )
    run_plan("mine", workspace)

    def compare(*arguments):
        return CliRunner().invoke(cli, ["compare", *arguments], catch_exceptions=False)

    whole = compare("--plan", "mine", "--json", "whole.json", "--csv", "whole.csv")
    assert whole.exit_code == 0, whole.output
    (pair,) = json.loads((workspace / "whole.json").read_text())["pairs"]
    assert (pair["a"], pair["b"], pair["n"]) == ("good", "poor", N)
    assert pair["estimate"] > 0
    named = compare("poor", "good", "--plan", str(path), "--json", "named.json")
    assert named.exit_code == 0, named.output
    (other,) = json.loads((workspace / "named.json").read_text())["pairs"]
    assert other["estimate"] == -pair["estimate"]
    declared = load_plan("mine", workspace)
    (row,) = compare_models(plan=declared).rows
    assert (row.a, row.b, row.found.estimate) == ("good", "poor", pair["estimate"])
    with pytest.raises(InputError, match="no verdicts on a model 'fair'"):
        compare_models("fair", "good", plan=declared)
    for arguments, wanted in (
        (("fair", "good", "--plan", "mine"), "no verdicts on a model 'fair'"),
        (("--plan", "mine", "--from", "results"), "leave out --from"),
        ((), "--plan PLAN"),
    ):
        refused = CliRunner().invoke(cli, ["compare", *arguments])
        assert wanted in str(refused.exception)
    plan(
        workspace,
        models=given,
        judges=[at(server), "here"],
        baseline="fair",
        suites=["alone"],
        pairwise=None,
    )
    refused = CliRunner().invoke(cli, ["compare", "--plan", "mine"])
    assert "name one of its judges with --judge" in str(refused.exception)
