"""Judging is a kept job: what is done loads nothing, asks nothing, and puts its files back."""

import json

import pytest
from click.testing import CliRunner

import tiny_models
from alignboard.cli.app import cli
from alignboard.errors import InputError
from alignboard.judges.backends import reward
from alignboard.models import loading
from alignboard.records import Generation
from alignboard.results.formats import write_rows

FILE = "results/one/model_outputs.json"
FOLDERS = {"outputs": "results/one/scorer-vs-base", "rate": "results/one/scorer"}


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A judge with weights, a baseline, and a model of four responses."""
    declared = f"kind: reward\nname: scorer\ntitle: x\nmodel: {tiny_models.reward()}\n"
    (tmp_path / "evaluate/judges").mkdir(parents=True)
    (tmp_path / "evaluate/judges/scorer.yaml").write_text(declared)
    for model in ("base", "one"):
        write(tmp_path, model, [f"{model} says {k}" for k in range(4)])
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def loads(monkeypatch):
    """The judges that were loaded."""
    found, open_reward = [], reward.open_reward

    def counted(spec, *args, **options):
        found.append(spec.name)
        return open_reward(spec, *args, **options)

    monkeypatch.setattr(reward, "open_reward", counted)
    return found


def write(workspace, model, texts):
    rows = [Generation(f"question {k}?", text, model) for k, text in enumerate(texts)]
    write_rows(workspace / "results" / model / "model_outputs.json", rows)


def judge(command, *options):
    against = ["--baseline", "base"] if command == "outputs" else []
    done = CliRunner().invoke(
        cli,
        ["judge", command, FILE, "--judge", "scorer", *against, *options],
        catch_exceptions=False,
    )
    assert done.exit_code == 0, done.output
    return done.stdout


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("command", FOLDERS)
def test_a_second_run_loads_nothing_and_writes_the_same_bytes(workspace, loads, command):
    folder = workspace / FOLDERS[command]
    assert ": 0 calls" not in judge(command, "--dry-run")
    first = judge(command, "--json", "first.json")
    assert loads == ["scorer"]
    before = contents(folder)
    assert judge(command, "--json", "again.json") == first
    assert (workspace / "again.json").read_bytes() == (workspace / "first.json").read_bytes()
    assert ": 0 calls" in judge(command, "--dry-run")
    rows, summary = sorted(folder.iterdir())
    rows.write_bytes(b"")
    summary.unlink()
    assert judge(command) == first
    assert contents(folder) == before
    assert loads == ["scorer"]


@pytest.mark.parametrize("command", FOLDERS)
def test_redo_judges_again(workspace, loads, command):
    kind = "judge" if command == "outputs" else command
    first = judge(command)
    before = contents(workspace / FOLDERS[command])
    assert judge(command, "--redo", kind) == first
    assert loads == ["scorer", "scorer"]
    assert contents(workspace / FOLDERS[command]) == before
    with pytest.raises(InputError, match="juge"):
        judge(command, "--redo", "juge")


@pytest.mark.parametrize("command", FOLDERS)
def test_other_responses_are_judged_anew(workspace, loads, command):
    judge(command)
    before = contents(workspace / FOLDERS[command])
    write(workspace, "one", ["other", "words", "were", "said"])
    judge(command)
    assert len(loads) == 2
    changed = contents(workspace / FOLDERS[command])
    assert changed != before
    write(workspace, "one", [f"one says {k}" for k in range(4)])
    judge(command)
    assert len(loads) == 2
    assert contents(workspace / FOLDERS[command]) == before


def test_another_judge_under_the_name_is_another_job(workspace, loads):
    judge("rate")
    path = workspace / "evaluate/judges/scorer.yaml"
    path.write_text(path.read_text() + "tie_within: 0.5\n")
    judge("rate")
    assert len(loads) == 2
    assert len(json.loads((workspace / FOLDERS["rate"] / "ratings.json").read_text())) == 4


def test_a_kind_that_is_not_here_is_refused(workspace):
    made = CliRunner().invoke(
        cli, ["judge", "rate", FILE, "--judge", "scorer", "--redo", "judge"], catch_exceptions=True
    )
    assert isinstance(made.exception, InputError)
    assert str(made.exception) == "--redo judge: no job here is of that kind; there is rate."


BASELINE = "gpt4_1106_preview"


def evaluate(*options):
    model = [str(tiny_models.base("phi")), "--name", "one", "--limit", "4", "--max-new-tokens", "3"]
    done = CliRunner().invoke(
        cli, ["evaluate", *model, "--judge", "scorer", *options], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def evaluated(workspace, loads):
    """What `evaluate` wrote of a model, with the judges and the generators loaded since then."""
    rows = [Generation(f"question {k}?", f"base says {k}", BASELINE) for k in range(805)]
    write_rows(workspace / "results" / BASELINE / "model_outputs.json", rows)
    (workspace / FILE).unlink()
    assert "4 answered now" in evaluate("--json", "first.json")
    files = [path for path in (workspace / "results/one").rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"model_outputs.json", "annotations.json"}
    loads.clear()
    loading.loads.clear()
    return {path: path.read_bytes() for path in files}


def read_again(evaluated):
    return {path: path.read_bytes() for path in evaluated}


def test_a_second_evaluation_loads_nothing_and_puts_files_back(workspace, evaluated, loads):
    assert ": 0 calls" in evaluate("--dry-run")
    assert "0 answered now" in evaluate("--json", "again.json")
    assert (workspace / "again.json").read_bytes() == (workspace / "first.json").read_bytes()
    for path in evaluated:
        path.unlink()
    evaluate()
    assert read_again(evaluated) == evaluated
    assert loads == loading.loads == []


def test_redo_evaluates_the_step_that_it_names(evaluated, loads):
    evaluate("--redo", "judge")
    assert loads == ["scorer"]
    assert [path for path in loading.loads if "phi" in path] == []
    evaluate("--redo", "generate")
    # The same responses are the same judging job.
    assert loads == ["scorer"]
    assert len([path for path in loading.loads if "phi" in path]) == 1
    assert read_again(evaluated) == evaluated
    with pytest.raises(InputError, match="no job here is of that kind; there is judge"):
        evaluate("--redo", "rate")
