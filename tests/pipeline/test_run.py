"""The executor, with jobs that cost nothing: order, resumption, failure, and what a key is made of."""

import io
import os
import random
import re
import signal
import subprocess
import sys
import sysconfig
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest

from alignboard.boards.board import read_board
from alignboard.boards.files import to_text
from alignboard.errors import InputError
from alignboard.fetch.sources import cache_folder
from alignboard.pipeline import progress
from alignboard.pipeline.executors.doing import JobTask
from alignboard.pipeline.executors.processes import Processes
from alignboard.pipeline.executors.work import Event, RunFailedError, Settings, Work, silent
from alignboard.pipeline.graph import Graph
from alignboard.pipeline.jobs.generate import generate
from alignboard.pipeline.kinds import JobKind
from alignboard.pipeline.locks import in_use
from alignboard.pipeline.plans.build import build_graph
from alignboard.pipeline.plans.plan import load_plan
from alignboard.pipeline.progress import job_table, showing, time_table
from alignboard.pipeline.runner import run_plan
from alignboard.pipeline.store import WorkspacePaths, done_jobs, export
from alignboard.registry import register
from alignboard.results.formats import read_annotations
from alignboard.results.journal import Journal
from alignboard.training.processes import said_of
from alignboard.workspace import init_workspace

FAKE = '''
import os, signal, time
from dataclasses import replace
from pathlib import Path
from alignboard.errors import InputError
from alignboard.pipeline.kinds import JobKind
from alignboard.registry import register
from alignboard.results.journal import JournalRow

def work(task):
    """Rows, one batch after another; a file in its folder, exported, and the folder as a link."""
    texts = [folder.joinpath("text").read_text() for _, folder in sorted(task.inputs.items())]
    task.held["n"] = task.held.get("n", 0) + 1
    n = task.job.parameters.get("n", 4)
    for i in range(n):
        key = f"{task.job.key} {i}".encode()
        if key not in task.journal.get([key]):
            time.sleep(task.job.parameters.get("sleep", 0.0))
            task.journal.add([JournalRow(key, "generation", i)])
        task.progress(i + 1, n)
    text = f"{task.job.name}({','.join(texts)})"
    (task.folder / "text").write_text(text)
    (task.folder / "process").write_text(f"{os.getpid()} {task.held['n']}")
    return {f"results/{task.job.group}/{task.job.name}.txt": "text", f"results/{task.job.group}/{task.job.name}": "."}

def sorry(task):
    raise InputError("the recipe file is wrong.")

def defect(task):
    print("noise on stdout")
    raise ZeroDivisionError("oops")

def killed(task):
    os.kill(os.getpid(), signal.SIGKILL)

for name in ("work", "sorry", "defect", "killed"):
    register("job", name, JobKind(1, f"fake_jobs:{name}", imports=("json",)))
'''
for _name in ("work", "sorry", "defect", "killed"):
    register("job", _name, JobKind(1, f"fake_jobs:{_name}", imports=("json",)))


@pytest.fixture
def paths(tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "fake_jobs.py").write_text(FAKE)
    return WorkspacePaths(tmp_path / "workspace")


def settings(paths, n_workers=2):
    code = str(paths.workspace.parent / "code")
    path = {"PYTHONPATH": os.pathsep.join([code, *sys.path])}
    return Settings(n_workers, modules=("fake_jobs",), environment=path)


def timed(graph, paths, n_workers=2, on_event=silent):
    """Do what is missing; returns the timings of the jobs done now."""
    jobs = list(graph)
    with Journal(paths.journal, "run") as journal, in_use(paths):
        work = Work(jobs, set(done_jobs(jobs, paths, journal)), paths, journal, on_event)
        Processes(settings(paths, n_workers)).run(work)
        work.require_done()
    return work.timings


def execute(*arguments, **settings):
    """Do what is missing; returns the names of the jobs done now."""
    return [timing.job.name for timing in timed(*arguments, **settings)]


def diamond(**parameters):
    """Two groups that need one common job, and one job that needs both."""
    graph = Graph()
    graph.add("root", "work", "root", {})
    for group in ("a", "b"):
        graph.add(f"{group}1", "work", group, parameters.get(group, {}), {"root": "root"})
        graph.add(f"{group}2", "work", group, {}, {"first": f"{group}1"})
    graph.add("end", "work", "end", {}, {"a": "a2", "b": "b2"})
    return graph


def text(graph, paths, name):
    return paths.folder(graph.jobs[name]).joinpath("text").read_text()


def test_jobs_are_done_in_order_and_once(paths):
    graph, events = diamond(), []
    names = execute(graph, paths, on_event=events.append)
    assert sorted(names) == sorted(graph.jobs)
    for job in graph:
        assert all(names.index(need) < names.index(job.name) for need in job.needs.values())
    assert text(graph, paths, "end") == "end(a2(a1(root())),b2(b1(root())))"
    assert (paths.results / "end" / "end.txt").read_text() == text(graph, paths, "end")
    kinds = [event.kind for event in events if event.job.name == "end"]
    assert (kinds[0], kinds[-1]) == ("start", "done")
    assert execute(graph, paths) == []


def test_a_group_stays_in_one_process_and_a_process_takes_many_groups(paths):
    graph = diamond()
    execute(graph, paths, n_workers=2)
    process = {
        name: paths.folder(graph.jobs[name]).joinpath("process").read_text().split()
        for name in graph.jobs
    }
    assert process["a1"][0] == process["a2"][0]
    assert process["b1"][0] == process["b2"][0]
    assert process["a2"][1] == "2", "what a group holds is there for its next job"
    assert len({pid for pid, _ in process.values()}) <= 2


def test_a_changed_parameter_redoes_exactly_what_depends_on_it(paths):
    execute(diamond(), paths)
    changed = diamond(a={"n": 5})
    assert sorted(execute(changed, paths)) == ["a1", "a2", "end"]
    assert execute(diamond(), paths) == [], "the old results are still there"
    assert changed.dependents(["a1"]) == {"a1", "a2", "end"}


def test_a_deleted_or_changed_export_is_copied_again(paths):
    graph = diamond()
    execute(graph, paths)
    job, exports = graph.jobs["a1"], {"results/a/a1.txt": "text", "results/a/a1": "."}
    assert export(job, exports, paths) == []
    target, link = paths.results / "a" / "a1.txt", paths.results / "a" / "a1"
    assert (link / "text").read_text() == target.read_text() == "a1(root())"
    target.write_text("a1(root(,")
    link.unlink()
    assert export(job, exports, paths, only_check=True) == ["results/a/a1.txt", "results/a/a1"]
    assert target.read_text() == "a1(root(,"
    export(job, exports, paths)
    assert (link / "text").read_text() == target.read_text() == "a1(root())"
    os.utime(target, (1, 1))
    assert export(job, exports, paths) == [], "another time with the same content is no change"


def test_keys_do_not_depend_on_the_order_of_parameters_and_names_are_unique():
    graph = Graph()
    graph.add("x", "work", "g", {"a": 1, "b": 2})
    graph.add("x", "work", "g", {"b": 2, "a": 1})
    with pytest.raises(ValueError, match="two different jobs"):
        graph.add("x", "work", "g", {"a": 1})


def test_a_failure_is_told_and_the_rest_is_done(paths):
    graph = diamond()
    graph.add("bad", "sorry", "c", {}, {"root": "root"})
    graph.add("after", "work", "c", {}, {"bad": "bad"})
    with pytest.raises(
        RunFailedError, match=r"bad: the recipe file is wrong\. 1 jobs that depend on it"
    ):
        execute(graph, paths)
    assert text(graph, paths, "end").startswith("end(")


@pytest.mark.parametrize(
    ("kind", "told"), [("defect", "ZeroDivisionError: oops"), ("killed", "ended by signal 9")]
)
def test_a_defect_names_its_log_and_a_killed_worker_its_signal(kind, told, paths):
    graph = Graph()
    graph.add("bad", kind, "g", {})
    graph.add("good", "work", "h", {})
    with pytest.raises(RunFailedError, match=told) as failure:
        execute(graph, paths, n_workers=1)
    assert "worker-0.log" in str(failure.value)
    assert text(graph, paths, "good") == "good()"
    assert list(paths.store.glob(".tmp-*")) == []


RUN = """
import sys
sys.path[:0] = sys.argv[2:]
from dataclasses import replace
from pathlib import Path
import test_run
graph = test_run.diamond(a={"n": 30, "sleep": 0.02}, b={"n": 30, "sleep": 0.02})
print("ready", flush=True)
test_run.execute(graph, test_run.WorkspacePaths(Path(sys.argv[1])))
"""


@pytest.mark.parametrize(
    "stop",
    [
        signal.SIGKILL,
        *(pytest.param(one, marks=pytest.mark.slow) for one in (signal.SIGINT, signal.SIGTERM)),
    ],
)
def test_stopped_at_any_moment_it_goes_on_and_repeats_no_row(stop, paths):
    arguments = [
        sys.executable,
        "-c",
        RUN,
        str(paths.workspace),
        *map(str, Path(__file__).parents[:2]),
    ]
    for pause in (0.3, 0.6, 0.9):
        process = subprocess.Popen(
            arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(pause)
        process.send_signal(stop)
        process.wait()
    finished = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    graph = diamond(a={"n": 30, "sleep": 0.02}, b={"n": 30, "sleep": 0.02})
    assert text(graph, paths, "end") == "end(a2(a1(root())),b2(b1(root())))"
    with Journal(paths.journal) as journal:
        check = journal.check()
    assert check.n_rows["generation"] == check.n_computed["generation"] == 4 + 30 + 30 + 4 + 4 + 4
    assert "generation" not in check.computed_twice
    assert list(paths.store.glob(".tmp-*")) == []


def test_progress_lines_tables_and_estimates(paths, capsys):
    graph = diamond()
    with showing(len(graph)) as listener:
        timings = timed(graph, paths, on_event=listener)
    lines = capsys.readouterr().err.splitlines()
    assert any("6/6 done   end in" in line for line in lines)
    table = job_table(list(graph), {"root"}, dict.fromkeys(graph.jobs, 2.0), 2)
    assert re.search(r"root +done", table)
    assert "6 jobs, 5 to do: about 10 s of one core, 5 s or more with 2 at a time." in table
    assert "nothing to do" in job_table(list(graph), set(graph.jobs), {}, 2)
    spent = time_table(timings, 1.0)
    assert spent.splitlines()[-1].startswith("1.0 s in all")
    assert "imports" in spent


def test_a_job_at_work_tells_a_pipe_how_far_it_is(monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", 0.05)
    job = next(iter(diamond()))
    with showing(3) as listener:
        listener(Event("start", job, 0))
        listener(Event("progress", job, 0, 10, 50))  # what was known before is no part of the rate
        time.sleep(0.2)
        listener(Event("progress", job, 0, 30, 50))
        time.sleep(0.2)
        listener(Event("done", job, 0, seconds=0.4))
        time.sleep(0.2)
    lines = capsys.readouterr().err.splitlines()
    told = [line for line in lines if " at work " in line]
    assert any(line.endswith(f"0/3 at work {job.name} 10/50") for line in told)
    (rate, left) = re.findall(r" 30/50, ([\d.]+)/s, (\d+) s left$", "\n".join(told), re.MULTILINE)[
        -1
    ]
    assert float(left) == pytest.approx(20 / float(rate), abs=0.6)
    assert " at work " not in lines[-1], "the job has ended"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_a_name_forges_no_line_of_progress_and_is_no_markup(kind, monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0.05)
    monkeypatch.setenv("COLUMNS", "200")
    named = "judge one\x1b[2J\n[9.9 s] 1/1 done judge [/two] [red]three"
    stream, job = kind(), replace(next(iter(diamond())), name=named)
    with showing(1, stream) as listener:
        listener(Event("waiting", job, 0))
        listener(Event("start", job, 0))
        listener(Event("progress", job, 0, 1, 2, message="at \x1b[2J\nforged"))
        time.sleep(0.3)
        listener(Event("failed", job, 0))
    text = stream.getvalue()
    visible = r"judge one\x1b[2J\n[9.9 s] 1/1 done judge [/two] [red]three"
    plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", text)  # without the colours
    for what in ("(waiting|waits) for another run", "failed"):
        assert re.search(rf"{what}[: ]*{re.escape(visible)}", plain, re.IGNORECASE), plain
    assert "\x1b[2J" not in text
    assert not re.search(r"^(\[9.9 s\]|forged)", plain, re.MULTILINE)


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_a_training_at_work_shows_loss_margin_accuracy_and_the_time_left(kind, monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0.05)
    monkeypatch.setenv("COLUMNS", "200")
    stream, job = kind(), next(iter(diamond()))
    log = {"loss": 0.61234, "rewards/margins": 0.25, "rewards/accuracies": 0.75, "grad_norm": 1.0}
    with showing(3, stream) as listener:
        listener(Event("start", job, 0))
        for step in range(10, 40, 10):
            listener(Event("progress", job, 0, step, 50, message=said_of(log)))
            time.sleep(0.15)
    shown = stream.getvalue()
    assert "loss 0.612, margin 0.25, accuracy 0.75" in shown
    assert re.search(
        r"30/50.* s left, loss" if kind is io.StringIO else r"30/50.*0:00:0\d.*loss", shown
    )


def test_init_makes_a_workspace_from_the_library_and_refuses_a_full_folder(tmp_path):
    copied = init_workspace(tmp_path / "new")
    assert (tmp_path / "new" / "evaluate" / "suites" / "alpaca-eval-2.yaml") in copied
    assert {path.name for path in (tmp_path / "new").iterdir()} == {
        "train",
        "evaluate",
        "results",
        "leaderboards",
    }
    with pytest.raises(InputError, match="not empty"):
        init_workspace(tmp_path / "new")
    (tmp_path / "file").write_text(textwrap.dedent("x"))
    with pytest.raises(InputError, match="is a file"):
        init_workspace(tmp_path / "file")


# A real plan, scaled down: one family, few steps, real trainers, real files.

ASKED = "demo-world-first-60"
SMALL = {
    "evaluate/judges/rule.yaml": "{name: rule, title: A rule, kind: simulated}\n",
    "evaluate/suites/small.yaml": """
kind: evaluation
name: small
title: A small part of the demo world
instructions: {set: demo-world, limit: 60, max_new_tokens: 16}
benchmarks:
  - {task: demo_choice, metric: "acc,none"}
  - {task: demo_exact, metric: "exact_match,none"}
n_documents: 20
""",
    "evaluate/plans/small.yaml": """
name: small
models:
  tiny-phi: {pretrain: phi}
recipes: [demo/sft, demo/dpo]
suites: [small]
judges: [rule, demo-logprob]
baseline: sft
pairwise: {judge: rule, n_prompts: 20}
overrides:
  pretraining: {steps: 40, n_documents: 800}
  judge_model_training: {steps: 4}
  recipes:
    demo/sft: {duration: {steps: 6}, data: {n: 192}}
    demo/dpo: {duration: {steps: 3}, pairs: {prompts: 48}, batch: {global: 1, per_device: 1}}
""",
}
RUN_PLAN = """
import sys
from dataclasses import replace
from pathlib import Path
from alignboard.pipeline.progress import showing
from alignboard.pipeline.runner import run_plan
with showing(0) as listener:
    result = run_plan("small", Path(sys.argv[1]), on_progress=listener)
heavy = {"torch", "transformers", "trl", "lm_eval", "pandas"} & set(sys.modules)
print(len(result.timings), len(result.jobs), sorted(heavy), len({t.worker for t in result.timings}))
"""


def small_workspace(folder):
    for name, text in SMALL.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def start(workspace):
    return subprocess.Popen(
        [sys.executable, "-c", RUN_PLAN, str(workspace)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(workspace):
    process = start(workspace)
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out


def products(workspace):
    """What a run leaves for people, byte for byte; of lm-eval's files only the names, for they hold the time."""
    paths = [*(workspace / "leaderboards").iterdir(), *(workspace / "results").rglob("*.json")]
    names = [path.relative_to(workspace) for path in paths if path.is_file()]
    return {
        str(name): b"" if "lm_eval" in name.parts else (workspace / name).read_bytes()
        for name in names
        if not any(part.startswith(".") for part in name.parts)
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A workspace in which the small plan was run without interruption."""
    workspace = small_workspace(tmp_path_factory.mktemp("finished"))
    from commands import run_plan  # not above: workers of other tests import this file

    result = run_plan("small", workspace)
    assert (len(result.timings), len(result.jobs)) == (23, 23)
    return workspace


def test_a_run_leaves_the_files_of_the_ecosystem(finished):
    found = set(products(finished))
    for model in ("tiny-phi", "tiny-phi-sft", "tiny-phi-dpo"):
        assert f"results/{model}/{ASKED}/model_outputs.json" in found
    assert f"results/tiny-phi-dpo/{ASKED}/rule-vs-tiny-phi-sft/annotations.json" in found
    assert {f"leaderboards/small.{suffix}" for suffix in ("csv", "md", "json")} <= found
    assert (
        finished / "results" / "tiny-phi-dpo" / "adapter" / "adapter_model.safetensors"
    ).is_file()
    assert (finished / "results" / "tiny-phi" / "checkpoint" / "model.safetensors").is_file()
    board = read_board(finished / "leaderboards" / "small.json")
    assert [(row.model, row.method, row.scores["length"].n) for row in board.rows] == [
        ("tiny-phi", "base", 60),
        ("tiny-phi-sft", "sft", 60),
        ("tiny-phi-dpo", "dpo", 60),
    ]
    rates = {column.judge: column for column in board.columns if column.kind == "win rate"}
    assert list(rates) == ["rule", "demo-logprob"]
    score = board.score(board.rows[2], rates["rule"])
    assert sum(score.counts.values()) == score.n == 60
    assert board.score(board.rows[1], rates["rule"]).reason == "baseline"
    assert f"results/tiny-phi/{ASKED}/demo-logprob-vs-tiny-phi-sft/annotations.json" in found
    assert board.rows[2].scores["rating"].n == 40
    annotations = read_annotations(
        finished / f"results/tiny-phi-dpo/{ASKED}/rule-vs-tiny-phi-sft/annotations.json"
    )
    assert score.value == pytest.approx(100 * float((annotations.preference - 1).mean()))
    assert "tiny-phi-dpo" in to_text(board)
    benchmarks = {column.name for column in board.columns if column.kind == "benchmark"}
    assert benchmarks == {"demo_choice acc", "demo_exact exact_match"}
    assert "results/tiny-phi-dpo/lm_eval/results_small.json" in found
    assert not list((finished / "results" / ".journal").glob("*-wal")), (
        "shards can be copied as they are"
    )


def test_what_is_kept_names_no_folder_of_this_machine(finished):
    """The next workspace, or machine, may have another path: trainings and lm-eval's results are read there too."""
    texts = [
        path
        for folder in ("results", "leaderboards")
        for path in (finished / folder).rglob("*")
        if path.suffix in {".json", ".jsonl", ".md", ".csv", ".html", ".yaml"}
    ]
    assert {"adapter_config.json", "training.json"} < {path.name for path in texts}
    roots = (str(finished), sysconfig.get_path("purelib"), str(cache_folder()))
    naming = [
        (str(path.relative_to(finished)), root)
        for path in texts
        for root in roots
        if root in path.read_text(encoding="utf-8")
    ]
    assert naming == []


def test_a_second_run_does_nothing(finished):
    before = products(finished)
    assert finish(finished).split(maxsplit=2)[0] == "0"
    assert "[]" in finish(finished), "nothing that is slow to load was loaded"
    assert products(finished) == before
    (finished / "leaderboards" / "small.csv").unlink()
    (finished / "results" / "tiny-phi-dpo" / ASKED / "model_outputs.json").write_text("[]")
    assert finish(finished).split()[0] == "0"
    assert products(finished) == before, "what was deleted or changed is put back without computing"


def test_dry_run_changes_nothing(finished, tmp_path):
    workspace = small_workspace(tmp_path / "new")
    result = run_plan("small", workspace, dry_run=True)
    assert not (workspace / "results").exists()
    assert result.done_before == set()
    assert "23 jobs, 23 to do" in job_table(result.jobs, result.done_before, result.expected, 2)
    again = run_plan("small", finished, dry_run=True)
    assert again.done_before == {job.name for job in again.jobs}
    measured = {job.kind: again.expected[job.name] or 0.0 for job in again.jobs}
    assert 0 < measured["judge"] < measured["checkpoint"]


def test_one_load_of_a_base_serves_all_its_models(finished):
    """The jobs of one group in this process: they share what they hold."""
    loading = pytest.importorskip("alignboard.models.loading")
    paths, held, before = WorkspacePaths(finished), {}, len(loading.loads)
    graph = build_graph(load_plan("small", finished))
    with Journal(finished / "another-journal", "test") as journal:
        for job in [job for job in graph if job.kind == "generate"]:
            inputs = {role: paths.folder(graph.jobs[need]) for role, need in job.needs.items()}
            folder = finished / "again" / job.folder
            folder.mkdir(parents=True)
            generate(JobTask(job, paths, folder, journal, inputs, held))
            (made,) = folder.rglob("model_outputs.json")
            same = paths.folder(job) / made.relative_to(folder)
            assert made.read_bytes() == same.read_bytes()
        assert journal.check().computed_twice.keys() <= {"done"}
    assert len(loading.loads) == before + 1


@pytest.mark.slow
def test_killed_while_answering_it_ends_with_the_same_board(finished, tmp_path):
    workspace = small_workspace(tmp_path)
    process = start(workspace)
    with Journal(workspace / "results" / ".journal") as journal:
        while not journal.check().n_rows.get("generation"):
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)  # its workers notice by themselves
    process.communicate()
    finish(workspace)
    assert products(workspace) == products(finished)
    assert_nothing_twice(workspace)


def assert_nothing_twice(workspace):
    with Journal(workspace / "results" / ".journal") as journal:
        check = journal.check()
    assert check.conflicts == []
    assert not {"generation", "judge-reply"} & check.computed_twice.keys()
    for kind in ("generation", "judge-reply"):
        assert check.n_rows[kind] == check.n_computed[kind] > 0


@pytest.mark.slow
def test_killed_at_ten_random_moments_it_ends_with_the_same_board(finished, tmp_path):
    workspace, rng = small_workspace(tmp_path / "0"), random.Random(0)
    for n in range(1, 11):
        process = start(workspace)
        try:
            process.wait(rng.uniform(0.5, 12))
        except subprocess.TimeoutExpired:
            if n % 2:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
            process.communicate()
        else:  # it was done sooner than the moment drawn: the next kills are for a new one
            assert_ended_alike(workspace, finished)
            workspace = small_workspace(tmp_path / str(n))
    finish(workspace)
    assert_ended_alike(workspace, finished)


def assert_ended_alike(workspace, finished):
    assert products(workspace) == products(finished)
    assert_nothing_twice(workspace)
