"""Executors and locks: devices, a third executor of another package, interrupts, and runs side by side."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from click.testing import CliRunner

from alignboard import registry
from alignboard.cli.app import cli
from alignboard.demo import world
from alignboard.errors import InputError
from alignboard.pipeline import locks
from alignboard.pipeline.evaluation import hardening_secret
from alignboard.pipeline.executors.doing import Doer
from alignboard.pipeline.executors.in_process import InProcess
from alignboard.pipeline.executors.machine import Machine
from alignboard.pipeline.executors.processes import Processes
from alignboard.pipeline.executors.work import RunFailedError, Settings, Work, silent
from alignboard.pipeline.graph import Graph
from alignboard.pipeline.locks import held, in_use, is_being_made, making
from alignboard.pipeline.plans.build import build_graph
from alignboard.pipeline.plans.plan import load_plan
from alignboard.pipeline.preflight import is_light, required_modules
from alignboard.pipeline.store import WorkspacePaths, commit_folder, done_jobs
from alignboard.records import Generation
from alignboard.results.formats import write_rows
from alignboard.results.journal import Journal, JournalRow

PACKAGE = '''
"""Jobs that say where they were done, and an executor on threads."""

import os, time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path

from alignboard.errors import InputError
from alignboard.pipeline.executors.doing import Doer
from alignboard.pipeline.executors.work import PAUSE
from alignboard.pipeline.kinds import JobKind
from alignboard.registry import register

AT_IMPORT = os.environ.get("CUDA_VISIBLE_DEVICES")


def where(task):
    """Leaves the device that was visible when this module was imported, and the process."""
    time.sleep(task.job.parameters.get("sleep", 0.0))
    if task.job.parameters.get("die"):
        print("last words of a worker", flush=True)
        os._exit(3)
    task.held["n"] = task.held.get("n", 0) + 1
    (task.folder / "where").write_text(f"{AT_IMPORT} {os.getpid()} {task.held['n']}")
    return {f"results/{task.job.name}.txt": "where"}


class Threads:
    """Every worker is a thread with a journal of its own."""

    def __init__(self, settings):
        self._n = settings.n_workers

    def run(self, work):
        pools = [ThreadPoolExecutor(1) for _ in range(self._n)]
        doers, running = {}, {}
        while True:
            for worker, pool in enumerate(pools):
                if worker not in running and (job := work.take(worker)) is not None:
                    if worker not in doers:
                        doers[worker] = pool.submit(Doer, work.paths, f"thread-{worker}").result()
                    running[worker] = pool.submit(doers[worker].do, job, lambda _done, _total: None)
            if not running and not work.is_waiting:
                break
            wait(running.values(), PAUSE, FIRST_COMPLETED)
            for worker in [worker for worker, future in running.items() if future.done()]:
                work.report(worker, running.pop(worker).result())
        for worker, doer in doers.items():
            pools[worker].submit(doer.close).result()
        for pool in pools:
            pool.shutdown()


def plugin():
    register("job", "where", JobKind(1, "where_jobs:where"))
    register("executor", "threads", "where_jobs:Threads")
'''


@pytest.fixture(autouse=True)
def package(tmp_path, monkeypatch):
    """The folder of an installed package with an entry point."""
    folder = tmp_path / "site"
    info = folder / "where_jobs-1.dist-info"
    info.mkdir(parents=True)
    (folder / "where_jobs.py").write_text(PACKAGE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: where-jobs\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[alignboard.plugins]\nwhere = where_jobs:plugin\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *sys.path]))
    monkeypatch.setattr(registry._STATE, "plugins_loaded", False)
    yield folder
    for kind, name in (("job", "where"), ("executor", "threads")):
        registry._STATE.targets.get(kind, {}).pop(name, None)
    sys.modules.pop("where_jobs", None)


@pytest.fixture
def paths(tmp_path):
    (tmp_path / "workspace").mkdir()
    return WorkspacePaths(tmp_path / "workspace")


def groups(n, **parameters):
    """So many groups of two jobs, one after the other."""
    graph = Graph()
    for group in range(n):
        first = graph.add(f"{group}a", "where", str(group), parameters)
        graph.add(f"{group}b", "where", str(group), {}, {"first": first})
    return graph


def execute(graph, paths, executor, on_event=silent):
    jobs = list(graph)
    with Journal(paths.journal, "run") as journal, in_use(paths):
        work = Work(jobs, set(done_jobs(jobs, paths, journal)), paths, journal, on_event)
        executor.run(work)
    return work


def done_where(graph, paths):
    """Job -> [device, process, how many jobs the group had]."""
    return {
        name: (paths.folder(graph.jobs[name]) / "where").read_text().split() for name in graph.jobs
    }


def test_every_worker_sees_one_device_and_a_group_stays_on_it(paths):
    graph = groups(3, sleep=0.5)
    most = []

    def count(event):
        most.append((most[-1] if most else 0) + {"start": 1, "done": -1}.get(event.kind, 0))

    execute(graph, paths, Processes(Settings(2, ("0", "GPU-1f"))), count).require_done()
    found = done_where(graph, paths)
    assert {device for device, _, _ in found.values()} == {"0", "GPU-1f"}
    assert len({process for _, process, _ in found.values()}) == 2, "more work than devices waits"
    assert max(most) == 2
    for group in range(3):
        assert found[f"{group}a"][:2] == found[f"{group}b"][:2]
        assert found[f"{group}b"][2] == "2", "what the first job loaded was there for the second"


def test_a_worker_that_dies_fails_its_job_and_the_next_one_has_its_device(paths):
    graph = groups(2)
    graph.add("bad", "where", "bad", {"die": True})
    graph.add("after", "where", "after", {}, {"bad": "bad", "0b": "0b"})
    work = execute(graph, paths, Processes(Settings(1, ("3",))))
    with pytest.raises(
        RunFailedError, match=r"ended with exit code 3; .*: last words of a worker"
    ) as failure:
        work.require_done()
    assert "1 jobs that depend on it, or only lead there, were not started" in str(failure.value)
    assert {timing.job.name for timing in work.timings} == {"0a", "0b", "1a", "1b"}
    for name in ("0a", "0b", "1a", "1b"):
        assert (paths.results / f"{name}.txt").read_text().startswith("3 ")


def test_an_executor_of_another_package_joins_by_one_registration(paths):
    graph = groups(3)
    execute(graph, paths, Machine(2, executor="threads").open({})).require_done()
    found = done_where(graph, paths)
    assert {int(process) for _, process, _ in found.values()} == {os.getpid()}
    assert [found[f"{group}b"][2] for group in range(3)] == ["2"] * 3
    assert execute(graph, paths, Processes(Settings(1))).timings == [], "all was done by threads"


def test_in_process_does_everything_here(paths, capsys):
    graph = groups(2)
    graph.add("defect", "where", "2", {"sleep": "long"})
    work = execute(graph, paths, InProcess(Settings(1)))
    with pytest.raises(RunFailedError, match=r"defect: TypeError: .*worker-0\.log"):
        work.require_done()
    assert {int(process) for _, process, _ in done_where(groups(2), paths).values()} == {
        os.getpid()
    }
    assert capsys.readouterr() == ("", ""), "what libraries print goes to the log"
    assert "Traceback" in (paths.logs / "worker-0.log").read_text()
    with pytest.raises(InputError, match="has one worker, not 2"):
        InProcess(Settings(2))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--gpus", "0,0"), "names GPU 0 twice"),
        (("--gpus", "0,1", "--workers", "3"), "leave --workers 3 out"),
        (("--gpus", ","), "names no GPU"),
        (("--executor", "proceses"), "did you mean 'processes'"),
        (("--executor", "in-process", "--gpus", "0,1"), "has one worker"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(options, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["run", "demo", "--dry-run", *options])
    assert isinstance(result.exception, InputError)
    assert told in str(result.exception)


PLAN = """
name: mine
models: {MODELS}
suites: [some]
judges: [JUDGE]
baseline: a
"""
SUITE = """
kind: evaluation
name: some
title: Some
instructions: {set: demo-world, limit: 4}
"""
SERVED = "engine: 'http://127.0.0.1:9/v1', api: chat"


@pytest.mark.parametrize(
    ("models", "judge", "light"),
    [
        ("a: {pretrain: phi}, b: {pretrain: gemma}", "rule", True),
        (f"a: {{pretrain: phi}}, b: {{{SERVED}}}", "rule", True),
        ("a: {pretrain: phi}, b: {source: owner/name}", "rule", False),
        ("a: {pretrain: phi}, b: {pretrain: gemma}", "skywork-reward", False),
        ("a: {pretrain: phi}, b: {pretrain: gemma}", "demo-logprob", True),
    ],
)
def test_a_plan_that_loads_no_large_model_has_a_worker_per_core(models, judge, light, paths):
    for name, text in {
        "judges/rule.yaml": "{name: rule, title: A rule, kind: simulated}\n",
        "suites/some.yaml": SUITE,
        "plans/mine.yaml": PLAN.replace("MODELS", models).replace("JUDGE", judge),
    }.items():
        path = paths.workspace / "evaluate" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    resolved = load_plan("mine", paths.workspace)
    assert is_light(resolved) is light
    default = Machine().with_default(only_light=light).n_workers
    assert default == (len(os.sched_getaffinity(0)) if light else 1)
    assert Machine(devices=("0", "1", "2")).with_default(only_light=light).n_workers == 3


INTERRUPTED = """
import sys
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from alignboard.cli.boundary import guarded
from alignboard.pipeline.executors.processes import Processes
from alignboard.pipeline.executors.work import Settings
import test_executors
graph, paths = test_executors.groups(2, sleep=0.0), test_executors.WorkspacePaths(Path(sys.argv[1]))
graph.add("long", "where", "0", {"sleep": 60}, {"first": "0b"})
tell = lambda event: print(event.kind, event.job.name, flush=True)
sys.exit(guarded(lambda: test_executors.execute(graph, paths, Processes(Settings(1)), tell)))
"""


def test_an_interrupt_ends_all_and_what_is_done_is_kept(paths):
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            INTERRUPTED,
            str(paths.workspace),
            *map(str, Path(__file__).parents[:2]),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    while "start long" not in process.stdout.readline():
        assert process.poll() is None
    worker = int((paths.results / "0b.txt").read_text().split()[1])
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "what is done is kept" in told
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)
    assert list(paths.store.glob(".tmp-*")) == []
    again = execute(groups(2, sleep=0.0), paths, InProcess(Settings(1)))
    assert {timing.job.name for timing in again.timings} == {"1a", "1b"}


def test_a_job_of_another_run_is_waited_for_and_not_done_twice(paths):
    graph, events = groups(2), []
    other = graph.jobs["0a"]
    with in_use(paths), making(paths, other.folder, []):
        assert is_being_made(paths, other.folder)
        thread = threading.Thread(
            target=lambda: events.append(
                execute(graph, paths, InProcess(Settings(1)), events.append)
            )
        )
        thread.start()
        deadline = time.monotonic() + 30
        while not (paths.results / "1b.txt").exists():
            assert time.monotonic() < deadline, "work that needs not wait does not wait"
            time.sleep(0.05)
        temporary = paths.store / ".other"
        temporary.mkdir()
        (temporary / "where").write_text("elsewhere 0 1")
        costs = {"seconds": 9.0, "cpu_seconds": 9.0, "import_seconds": 0.0}
        commit_folder(temporary, paths.folder(other), {"results/0a.txt": "where"}, costs)
    thread.join(30)
    work = events.pop()
    work.require_done()
    assert [event.job.name for event in events if event.kind == "waiting"] == ["0a"]
    assert {timing.job.name for timing in work.timings} == {"0b", "1a", "1b"}
    assert (paths.results / "0a.txt").read_text() == "elsewhere 0 1"
    assert done_where(graph, paths)["0a"][0] == "elsewhere"


def test_products_have_locks_of_their_own(paths, monkeypatch):
    monkeypatch.setattr(locks, "_PATIENCE", 0.1)
    with in_use(paths), held(paths, "results/a", "results/b"), in_use(paths):
        with held(paths, "results/c"):
            pass
        with pytest.raises(InputError, match="at work on results/b"), held(paths, "results/b"):
            pass
    with held(paths, "results/b"):
        pass


def test_only_whoever_is_alone_cleans_up(paths):
    with in_use(paths):
        half = paths.store / ".tmp-half"
        half.mkdir()
        with in_use(paths):
            pass
        assert half.exists()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    made = paths.journal / f".journal-a.sqlite.{gone.pid}.tmp-wal"
    for path in (made, own := paths.journal / f".journal-a.sqlite.{os.getppid()}.tmp-wal"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with in_use(paths):
        assert not half.exists()
        assert (made.exists(), own.exists()) == (False, True)


def test_a_device_that_torch_does_not_find_fails_the_job(paths):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    graph = groups(1)
    work = execute(graph, paths, InProcess(Settings(1, ("7",))))
    with pytest.raises(RunFailedError, match=r"--gpus names GPU 7, and torch .* finds no such GPU"):
        work.require_done()


def make_shard_and_secret(paths):
    doer = Doer(paths, "worker-0")
    doer._journal.add([JournalRow(os.urandom(8), "generation", 1)])
    doer.close()
    return hardening_secret(paths.journal)


def test_processes_that_make_a_shard_or_a_secret_at_once_share_it(paths):
    with ProcessPoolExecutor(4, get_context("fork")) as pool:
        found = list(pool.map(make_shard_and_secret, [paths] * 8))
    assert len(set(found)) == 1
    with Journal(paths.journal) as journal:
        assert journal.check().n_rows == {"generation": 8}


def test_commands_on_different_products_run_side_by_side_and_looks_need_no_lock(paths, monkeypatch):
    monkeypatch.chdir(paths.workspace)
    monkeypatch.setattr(locks, "_PATIENCE", 0.1)
    for model in ("base", "one", "two"):
        rows = [Generation(f"question {i}?", f"{model} says {i}", model) for i in range(3)]
        write_rows(paths.results / model / "model_outputs.json", rows)

    def judge(model, *options):
        outputs = ["judge", f"results/{model}/model_outputs.json", "--judge", "demo-simulated"]
        return CliRunner().invoke(cli, [*outputs, "--baseline", "base", *options])

    done = {0, 3}  # 3: the demo's judge has no verdict on questions of another world
    assert judge("one", "--dry-run").exit_code == 0
    assert not paths.store.exists(), "a dry run leaves nothing"
    assert judge("one").exit_code in done
    folder = "demo-simulated-vs-base"
    with in_use(paths), held(paths, f"results/one/{folder}"):
        refused = judge("one")
        assert f"at work on results/one/{folder}" in str(refused.exception)
        for options in ("--dry-run",), ("--reparse",):
            assert judge("one", *options).exit_code in done
        assert judge("two").exit_code in done, "another product"
    assert (paths.results / "two" / folder / "annotations.json").is_file()


RELEASED = """
name: mine
models: {one: {outputs: one.json}, two: {outputs: two.json}}
suites: [some]
judges: [demo-simulated]
baseline: one
"""


def released_plan(paths):
    """A plan of released responses and a judge without weights."""
    for name, text in {"suites/some.yaml": SUITE, "plans/mine.yaml": RELEASED}.items():
        path = paths.workspace / "evaluate" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for model in ("one", "two"):
        prompts = world.prompts("eval", 4, 0)
        rows = [Generation(prompt, f"{model} {k}", model) for k, prompt in enumerate(prompts)]
        write_rows(paths.workspace / f"{model}.json", rows)


def test_a_plan_needs_the_libraries_of_its_jobs_and_no_others(paths, tmp_path):
    released_plan(paths)
    missing = tmp_path / "missing"
    missing.mkdir()
    for name in ("torch", "transformers", "trl", "peft", "lm_eval"):
        (missing / f"{name}.py").write_text("raise ModuleNotFoundError(name=__name__)")
    path = os.pathsep.join([str(missing), os.environ["PYTHONPATH"]])
    done = subprocess.run(
        [sys.executable, "-m", "alignboard", "run", "mine"],
        cwd=paths.workspace,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (paths.leaderboards / "mine.html").is_file()
    resolved = load_plan("mine", paths.workspace)
    assert required_modules(resolved, build_graph(resolved)) == []


def test_what_a_training_needs_is_named_before_it_starts(paths):
    graph = Graph()
    for kind in ("train", "lm-eval"):
        graph.add(kind, kind, "g", {})
    graph.add("served", "generate", "h", {})
    released_plan(paths)
    found = required_modules(load_plan("mine", paths.workspace), graph)
    assert found == ["torch", "transformers", "peft", "accelerate", "trl", "lm_eval"]


@pytest.mark.slow
def test_bitsandbytes_reports_no_missing_kernel():
    pytest.importorskip("bitsandbytes")
    code = "from alignboard.startup import prepare; prepare(); import bitsandbytes"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "gemm_4bit" not in done.stderr


def test_a_large_base_is_held_for_no_verdict_that_waits_for_another_base(paths):
    released_plan(paths)
    for name in ("large", "other"):
        (paths.workspace / name).mkdir()
        (paths.workspace / name / "config.json").write_text("{}")
    plan = RELEASED.replace("two: {outputs: two.json}", "a: {source: large}, b: {source: other}")
    path = paths.workspace / "evaluate/plans/mine.yaml"
    path.write_text(plan.replace("baseline: one", "baseline: b"))
    graph = build_graph(load_plan("mine", paths.workspace))
    group = {job.name: job.group for job in graph}
    verdicts = group["judge demo-simulated demo-world-first-4 a"]
    bases = {group[f"generate demo-world-first-4 {name}"] for name in ("a", "b")}
    assert len(bases) == 2
    assert verdicts not in bases


def test_two_runs_of_one_plan_at_once_do_each_job_once(paths):
    released_plan(paths)
    command = [sys.executable, "-m", "alignboard", "run", "mine", "--json", "-"]
    runs = [
        subprocess.Popen(
            command,
            cwd=paths.workspace,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    ended = [run.communicate(timeout=300) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], ended
    done = [
        job["name"]
        for out, _ in ended
        for job in json.loads(out)["jobs"]
        if job["seconds"] is not None
    ]
    assert sorted(done) == sorted(build_graph(load_plan("mine", paths.workspace)).jobs)
    assert list(paths.store.glob(".tmp-*")) == []
    with Journal(paths.journal) as journal:
        assert journal.check().computed_twice.keys() <= {"done"}
