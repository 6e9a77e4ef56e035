"""`alignboard benchmark`: tasks and suites on local models, a repeated run, more documents, and bad input."""

import contextlib
import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

import tiny_models
from alignboard.boards.board import read_board
from alignboard.boards.columns import Score
from alignboard.boards.plots.style import new_axes
from alignboard.boards.scoring import benchmark_column
from alignboard.cli.app import cli
from alignboard.errors import InputError
from alignboard.models.loading import LoadedModel
from alignboard.pipeline.jobs.benchmark_steps import signal_notes, steps_of
from alignboard.pipeline.jobs.benchmarks import AT_CHANCE, SCORES, suite_scores
from alignboard.pipeline.plans.benchmark import BenchmarkRequest, benchmark_plan
from alignboard.pipeline.plans.build import build_graph
from alignboard.pipeline.store import WorkspacePaths
from alignboard.registry import lookup
from alignboard.results.journal import Journal
from scoring_endpoint import ScoringEndpoint

PIQA = [{"goal": f"Boil {n}", "sol1": "Heat.", "sol2": "Cool.", "label": n % 2} for n in range(6)]
BOARD = Path("leaderboards/benchmark-piqa.json")


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A workspace with a mirror of PIQA's validation split and a suite on it."""
    data = tmp_path / "m/baber/piqa/validation.jsonl"
    data.parent.mkdir(parents=True)
    data.write_text("".join(json.dumps(row) + "\n" for row in PIQA))
    declared = {
        "kind": "evaluation",
        "name": "own",
        "title": "Own",
        "benchmarks": [{"task": "piqa", "metric": "acc,none"}],
        "data_root": "m",
    }
    suites = tmp_path / "evaluate/suites"
    suites.mkdir(parents=True)
    (suites / "own.yaml").write_text(yaml.safe_dump(declared))
    (suites / "typo.yaml").write_text(yaml.safe_dump(declared | {"datta_root": "m"}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(cli, ["benchmark", *map(str, arguments)], catch_exceptions=True)


def test_tasks_are_asked_and_a_repeated_run_asks_nothing(workspace):
    base, adapter = tiny_models.base(), next(iter(tiny_models.adapters().values()))
    asked = ("--tasks", "piqa", "--data-root", "m", "--name", "b,a")
    dry = run(base, adapter, *asked, "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert "lm-eval piqa b" in dry.output
    assert not BOARD.exists()
    result = run(base, adapter, *asked, "--json", "out.json")
    assert result.exit_code == 0, result.output
    made = read_board(BOARD)
    assert {row.model for row in made.rows} == {"b", "a"}
    assert [column.name for column in made.columns] == ["piqa acc", "piqa acc_norm"]
    (results,) = Path("results/b/lm_eval").glob("results_*.json")
    record = json.loads(results.read_text())
    assert record["alignboard"]["chance"] == {"piqa": 0.5}
    assert list(record["alignboard"]["task_files_sha256"]) == ["data baber/piqa/validation.jsonl"]
    assert record["n-samples"]["piqa"]["effective"] == 6
    again = run(base, adapter, *asked, "--json", "again.json")
    assert all(job["done_before"] for job in json.loads(Path("again.json").read_text())["jobs"])
    assert again.exit_code == 0


def test_a_base_model_without_a_chat_template_is_asked_in_plain_text(workspace):
    bare = workspace / "bare"
    shutil.copytree(tiny_models.base(), bare)
    (bare / "chat_template.jinja").unlink(missing_ok=True)
    settings = bare / "tokenizer_config.json"
    stated = json.loads(settings.read_text())
    stated.pop("chat_template", None)
    settings.write_text(json.dumps(stated))
    asked = ("--tasks", "piqa", "--data-root", "m")
    done = run(tiny_models.base(), bare, *asked, "--name", "b,bare")
    assert done.exit_code == 0, done.output
    with_template, without = (row.scores for row in read_board(BOARD).rows)
    assert with_template == without
    refused = run(bare, *asked, "--chat-template").exception
    assert isinstance(refused, InputError)
    assert "has no chat template of its own" in str(refused)


@pytest.mark.slow
def test_two_workers_share_the_requests_of_every_model(workspace):
    base, adapter = tiny_models.base(), next(iter(tiny_models.adapters().values()))
    asked = (base, adapter, "--tasks", "piqa", "--data-root", "m", "--name", "b,a")
    assert run(*asked, "--workers", 2).exit_code == 0
    shared = read_board(BOARD)
    folder = WorkspacePaths(workspace).journal
    with Journal(folder) as journal:
        assert journal.check().n_computed["benchmark-request"] == 2 * 6 * 2
        assert not journal.check().computed_twice.get("benchmark-request")
    with contextlib.closing(sqlite3.connect(folder / "journal-worker-1.sqlite")) as rows:
        assert rows.execute("SELECT count(*) FROM rows").fetchone() == (2 * 3 * 2,)
    BOARD.unlink()
    shutil.rmtree("results")
    assert run(*asked).exit_code == 0
    assert [row.scores for row in read_board(BOARD).rows] == [row.scores for row in shared.rows]


def test_a_limit_takes_the_first_documents_and_stands_beside_the_whole(workspace):
    for more in (("--limit", "2"), ()):
        done = run(tiny_models.base(), "--suite", "own", "--name", "b", *more)
        assert done.exit_code == 0, done.output
    folder = Path("results/b/lm_eval")
    sizes = {
        path.stem: json.loads(path.read_text())["n-samples"]["piqa"]["effective"]
        for path in folder.glob("results_*.json")
    }
    assert sizes == {"results_own-first-2": 2, "results_own": 6}
    first, whole = (
        [json.loads(line)["doc_hash"] for line in path.read_text().splitlines()]
        for path in sorted(folder.glob("samples_*.jsonl"), key=lambda one: one.stat().st_size)
    )
    assert first == whole[:2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--tasks", "piqua"), r"the task 'piqua' .*did you mean 'piqa'"),
        (("--suite", "typo"), "a suite has no field 'datta_root', did you mean 'data_root'"),
        ((), "Name the tasks by --tasks T,T, or a suite by --suite NAME"),
        (("--tasks", "piqa", "--suite", "own"), "Name the tasks by --tasks"),
        (("--suite", "own", "--checkpoints", "none"), "there is no checkpoint-<step>"),
        (("--suite", "own", "--name", "a,b"), "--name has 2 of the 1 models' names"),
        (("--suite", "alpaca-eval-2"), "has no benchmarks"),
        (("--suite", "own", "--gpus", "0,0"), "--gpus names GPU 0 twice"),
        (
            ("--suite", "own", "--engine", "http://x/v1", "--workers", 2),
            "loaded here; --concurrency",
        ),
    ],
)
def test_bad_input_is_one_sentence(workspace, arguments, message):
    result = run(tiny_models.base(), *arguments)
    assert isinstance(result.exception, InputError)
    assert "\n" not in str(result.exception)
    with pytest.raises(InputError, match=message):
        raise result.exception


def test_a_dry_run_names_the_data_sets_of_the_hub(workspace):
    told = "from the hub or a mirror (--data-root DIR): allenai/ai2_arc, baber/piqa"
    asked = (tiny_models.base(), "--tasks", "piqa,arc_easy", "--dry-run")
    assert told in run(*asked).output
    assert "from the hub" not in run(*asked[:2], "piqa", *asked[3:], "--data-root", "m").output


def test_what_a_suite_lacks_is_known_before_it_runs(workspace):
    base, adapter = tiny_models.base(), next(iter(tiny_models.adapters().values()))
    said = run(base, adapter, "--name", "b,a", "--suite", "nous", "--dry-run").stderr
    told = "nous: BigBench's 18 multiple_choice_grade tasks of the fork are not in lm-eval"
    assert said.count(told) == 1


def test_tasks_that_are_no_suite_are_named_without_a_file(workspace):
    said = str(run(tiny_models.base(), "--tasks", "piqua").exception)
    assert said.startswith("the task 'piqua'")
    (workspace / "evaluate/suites/piqua.yaml").write_text("")
    said = str(run(tiny_models.base(), "--tasks", "piqua").exception)
    assert said.startswith("evaluate/suites/piqua.yaml: the task 'piqua'")


def test_a_base_asked_in_a_template_that_it_does_not_bring_is_flagged(workspace):
    shutil.copytree(tiny_models.base(), "base")
    Path("base/chat_template.jinja").unlink()
    without = run("base", "--suite", "own", "--chat-template")
    assert "no chat template" in str(without.exception)
    entry = {"name": "bare", "base": str(workspace / "base"), "format": "transformers"}
    (workspace / "evaluate/models").mkdir()
    (workspace / "evaluate/models/bare.yaml").write_text(
        yaml.safe_dump(entry | {"prompt": {"chat": "instruct-output"}})
    )
    asked = ("--suite", "own", "--chat-template", "--name", "bare,own")
    result = run("bare", tiny_models.base(), *asked)
    assert result.exit_code == 0, result.output
    flags = {
        row.model: row.flags for row in read_board(Path("leaderboards/benchmark-own.json")).rows
    }
    assert flags["own"] == []
    assert any(
        "in a chat template that its checkpoint does not bring" in one for one in flags["bare"]
    )


def test_models_of_one_base_are_one_group_of_jobs(workspace):
    """A process, or a GPU, takes a group as a whole (tests/pipeline/test_executors.py): one load a base."""
    families = ("phi", "mistral")
    models = {
        f"{family}-{name}": str(path)
        for family in families
        for name, path in [
            ("base", tiny_models.base(family)),
            *tiny_models.adapters(family).items(),
        ]
    }
    asked = BenchmarkRequest(list(models.values()), suite="own", names=list(models))
    graph = build_graph(benchmark_plan(asked, workspace))
    groups = {job.parameters["model"]: job.group for job in graph if job.kind == "lm-eval"}
    assert groups.keys() == models.keys()
    own = [{groups[name] for name in models if name.startswith(family)} for family in families]
    assert [len(one) for one in own] == [1, 1]
    assert own[0] != own[1]


def test_a_model_without_a_tokenizer_is_refused_before_the_run(workspace):
    import shutil

    shutil.copytree(tiny_models.base(), "bare")
    for path in Path("bare").glob("*token*"):
        path.unlink()
    result = run("bare", "--suite", "own")
    assert isinstance(result.exception, InputError)
    assert "holds no files of a tokenizer" in str(result.exception)
    assert "\n" not in str(result.exception)
    assert not Path("results/bare/lm_eval").exists()


def test_checkpoints_are_asked_in_the_order_of_their_steps_on_one_load(workspace):
    import shutil

    adapter = next(iter(tiny_models.adapters().values()))
    for step in (20, 100):
        shutil.copytree(adapter, f"run/checkpoint-{step}")
    Path("run/checkpoint-last").mkdir()
    asked = BenchmarkRequest(
        [str(tiny_models.base())], suite="own", names=["b"], checkpoints=Path("run")
    )
    resolved = benchmark_plan(asked, workspace)
    assert list(resolved.entries) == ["b", "run@20", "run@100"]
    assert len({entry.group for entry in resolved.entries.values()}) == 1
    assert [model.method for model in resolved.models][1:] == ["step 20", "step 100"]


def test_a_training_is_a_curve_on_one_load_and_the_board_says_which_benchmark_decides(
    workspace, monkeypatch
):
    import shutil

    loads = []
    kept = LoadedModel.load
    monkeypatch.setattr(LoadedModel, "load", lambda *a, **k: loads.append(a) or kept(*a, **k))

    one, two = tiny_models.adapters().values()
    for step, adapter in ((20, one), (100, two), (60, one)):
        shutil.copytree(adapter, f"run/checkpoint-{step}")
    result = run(tiny_models.base(), "--suite", "own", "--name", "b", "--checkpoints", "run")
    assert result.exit_code == 0, result.output
    assert len(loads) == 1
    made = read_board(Path("leaderboards/benchmark-own.json"))
    step, piqa = made.columns
    rows = [row for row in made.rows if row.model != "b"]
    assert {row.model: made.score(row, step).value for row in rows} == {
        "run@20": 20, "run@60": 60, "run@100": 100,
    }  # fmt: skip
    (note,) = [note for note in made.notes if note.startswith("piqa acc: ")]
    maker: Any = lookup("plot", "curves")
    (panel,) = maker(made)
    assert panel.heading == "Piqa acc against step, ±1.96 SE"
    (line,) = panel.draw(new_axes()).lines
    assert list(line.get_xdata()) == [20, 60, 100]
    by_step = [
        made.score(row, piqa).value for row in sorted(rows, key=lambda row: int(row.model[4:]))
    ]
    assert list(line.get_ydata()) == by_step
    assert note in Path("leaderboards/benchmark-own.md").read_text()


def test_signal_is_held_against_the_noise_of_steps():
    columns = [benchmark_column(task, "acc,none") for task in ("noisy", "clear", "flat")]
    values = {"r@1": (50, 50, 25), "r@2": (54, 60, 25), "r@3": (50, 71, 25), "base": (49, 30, 25)}
    scores = {
        model: {c.key: Score(float(v)) for c, v in zip(columns, own, strict=True)}
        for model, own in values.items()
    }
    steps = steps_of([{"model": m, "method": f"step {m[-1]}"} for m in values])
    assert steps == {"r@1": 1, "r@2": 2, "r@3": 3}
    assert signal_notes(columns, scores, steps) == [
        "clear acc: scores lie 41 apart, and a step moves one by 0.5 (standard deviation over 2 steps), ratio 82.",
        (
            "noisy acc: scores lie 5 apart, and a step moves one by 4 (standard deviation over 2 steps), ratio 1.25; "
            "it decides nothing between them."
        ),
        "flat acc: all models have one score; it decides nothing between them.",
    ]
    assert signal_notes(columns, scores, {"r@1": 1, "r@2": 2}) == []


def test_a_request_is_a_plan_of_one_step(workspace):
    asked = BenchmarkRequest(
        [str(tiny_models.base())], suite="own", names=["b"], chat_template=True
    )
    resolved = benchmark_plan(asked, workspace)
    assert [suite.name for suite in resolved.benchmarks] == ["own"]
    assert resolved.benchmarks[0].apply_chat_template
    assert list(resolved.entries) == ["b"]


def scores(folder, model, **numbers):
    place = folder / model
    place.mkdir()
    table: dict[str, dict[str, dict[str, float]]] = {}
    for task, (value, error) in numbers.items():
        table[task] = {"acc,none": {"value": value, "standard_error": error}}
    (place / SCORES).write_text(json.dumps(table))
    return place


def test_parts_are_rescaled_from_chance_and_averaged_before_the_whole(tmp_path):
    suite = {
        "name": "s",
        "average": "rescaled mean",
        "benchmarks": [
            {"task": "a", "metric": "acc,none", "part": "P", "chance": 0.5},
            {"task": "b", "metric": "acc,none", "part": "P", "chance": 0.2},
            {"task": "c", "metric": "acc,none"},
        ],
    }
    place = scores(tmp_path, "m", a=(0.75, 0.05), b=(0.1, 0.04), c=(0.4, 0.03))
    columns, found = suite_scores(suite, ["m"], {"lm-eval s m": place}, several=False)
    own = found["m"]
    assert [column.name for column in columns] == ["a acc", "b acc", "c acc", "s P", "s mean"]
    part, mean = own["lm-eval/s/P"], own["lm-eval/s/mean"]
    assert part.value == pytest.approx((50 + 0) / 2)  # 0.1 is below the chance of 0.2
    assert part.standard_error == pytest.approx((10**2 + 5**2) ** 0.5 / 2)
    assert mean.value == pytest.approx((25 + 40) / 2)
    assert own["lm-eval/b acc,none"].note == AT_CHANCE
    assert own["lm-eval/a acc,none"].note is None


def test_the_command_takes_an_endpoint(workspace):
    asked = ("--tasks", "piqa", "--data-root", "m", "--name", "b")
    model = LoadedModel.load(tiny_models.base())
    with ScoringEndpoint(model, "sglang", {"here": None}) as server:
        engine = ("--engine", server.url, "--served-as", "here")
        result = run(tiny_models.base(), *asked, *engine)
        assert result.exit_code == 0, result.output
        n = len(server.requests)
        assert run(tiny_models.base(), *asked, *engine).exit_code == 0
        assert len(server.requests) == n
        local = run(tiny_models.base(), *asked[:-1], "c")
    assert local.exit_code == 0, local.output
    found = [
        json.loads(Path(f"results/{name}/lm_eval/results_piqa.json").read_text()) for name in "bc"
    ]
    assert found[0]["results"] == found[1]["results"]
    assert found[0]["alignboard"]["served_as"] == "here"


def test_what_an_endpoint_cannot_give_is_told_before_the_run(workspace):
    asked = ("--tasks", "piqa", "--data-root", "m", "--engine", "http://127.0.0.1:9/v1")
    chat = run(tiny_models.base(), *asked, "--api", "chat", "--chat-template")
    assert isinstance(chat.exception, InputError)
    assert "gives no log-likelihoods, which the task 'piqa' (multiple_choice)" in str(
        chat.exception
    )
    plain = run(tiny_models.base(), *asked, "--api", "chat")
    assert "takes turns, and piqa is run in plain text" in str(plain.exception)
    adapter = next(iter(tiny_models.adapters().values()))
    unnamed = run(adapter, *asked)
    assert "say served_as: that name" in str(unnamed.exception)
