"""Damaged files are noticed and said, with advice that loses nothing: journals, stores, full and read-only disks."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from alignboard.errors import InputError
from alignboard.pipeline.graph import Graph
from alignboard.pipeline.kinds import JobKind
from alignboard.pipeline.store import WorkspacePaths, commit_folder, done_jobs, done_row, export
from alignboard.registry import register
from alignboard.results.journal import Journal, JournalRow
from alignboard.text import csv_cell
from alignboard.workspace import model_name

N = 200
N_CORRUPTIONS = 1500
COSTS = {"seconds": 1.0, "cpu_seconds": 1.0, "import_seconds": 0.0}

register("job", "work", JobKind(1, "fake_jobs:work", imports=("json",)))


def filled(folder, worker="one"):
    with Journal(folder, worker) as journal:
        journal.add([JournalRow(b"%d" % i, "any", {"text": f"row {i} " * 20}) for i in range(N)])
        journal.settle()
    return folder / f"journal-{worker}.sqlite"


def read_all(folder):
    with Journal(folder) as journal:
        return {row.key: row.payload for row in journal.rows("any")}


# The journal.


def test_a_changed_payload_is_reported_and_computed_again(tmp_path, caplog):
    path = filled(tmp_path)
    connection = sqlite3.connect(path)
    connection.execute(
        "UPDATE rows SET payload = replace(payload, 'row 7 ', 'row 8 ') WHERE key = ?", (b"7",)
    )
    connection.commit()
    connection.close()
    with Journal(tmp_path, "one") as journal:
        assert journal.get([b"7", b"8"]).keys() == {b"8"}
        assert "is damaged and left out" in caplog.text
        assert len(list(journal.rows("any"))) == N - 1
        journal.add([JournalRow(b"7", "any", "again")])
        assert journal.get([b"7"]) == {b"7": "again"}


@pytest.mark.parametrize("how", ["empty", "cut", "zeroed", "no database"])
@pytest.mark.parametrize("own", [True, False])
def test_a_damaged_file_is_a_sentence_that_loses_nothing(how, own, tmp_path):
    path = filled(tmp_path)
    content = path.read_bytes()
    damaged = {
        "empty": b"",
        "cut": content[: len(content) // 2],
        "zeroed": content[:8192] + b"\0" * 4096 + content[12288:],
        "no database": b"no database at all" * 1000,
    }
    path.write_bytes(damaged[how])
    with (
        Journal(tmp_path, "one" if own else "two") as journal,
        pytest.raises(InputError, match=r"journal-one\.sqlite is (empty|damaged)") as caught,
    ):
        journal.get([b"1"])
    assert "put a copy in its place" in str(caught.value).lower()
    assert "move it away" not in str(caught.value)


def test_no_corruption_loses_or_changes_a_row_in_silence(tmp_path, caplog):
    """Of many random corruptions each is an error, a report, or no loss at all."""
    path, rng = filled(tmp_path / "whole"), random.Random(0)
    content, expected = path.read_bytes(), read_all(tmp_path / "whole")
    outcomes = {"said": 0, "reported": 0, "harmless": 0}
    for n in range(N_CORRUPTIONS):
        folder = tmp_path / str(n)
        folder.mkdir()
        (folder / path.name).write_bytes(_corrupted(content, rng))
        caplog.clear()
        try:
            found = read_all(folder)
        except InputError:
            outcomes["said"] += 1
            continue
        assert all(expected[key] == value for key, value in found.items())
        if len(found) < N:
            assert "is damaged and left out" in caplog.text
            outcomes["reported"] += 1
        else:
            outcomes["harmless"] += 1
    assert outcomes["said"] > 50, outcomes


def _corrupted(content: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(content)
    match rng.randrange(4):
        case 0:
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        case 1:
            start = 4096 * rng.randrange(len(damaged) // 4096)
            damaged[start : start + 4096] = bytes(4096)
        case 2:
            del damaged[rng.randrange(len(damaged)) :]
        case 3:
            start, other = (4096 * rng.randrange(len(damaged) // 4096) for _ in range(2))
            damaged[start : start + 4096] = content[other : other + 4096]
    return bytes(damaged)


def test_a_journal_without_checksums_is_read_and_gets_them(tmp_path):
    path = tmp_path / "journal-one.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript(
        "CREATE TABLE rows (key BLOB PRIMARY KEY, kind TEXT NOT NULL, payload TEXT NOT NULL) WITHOUT ROWID;"
        "CREATE TABLE computed (n INTEGER PRIMARY KEY AUTOINCREMENT, key BLOB NOT NULL, kind TEXT NOT NULL);"
        "PRAGMA user_version = 1;"
    )
    connection.execute("INSERT INTO rows VALUES (?, 'any', '1')", (b"a",))
    connection.commit()
    connection.close()
    assert read_all(tmp_path) == {b"a": 1}
    with Journal(tmp_path, "one") as journal:
        assert journal.get([b"a"]) == {b"a": 1}
        sums = journal._own().connection.execute("SELECT sum FROM rows").fetchall()
    assert len(sums[0][0]) == 16


def test_a_full_disk_is_a_sentence_and_keeps_what_was_committed(tmp_path):
    filled(tmp_path)
    with Journal(tmp_path, "one") as journal:
        own = journal._own().connection
        pages = own.execute("PRAGMA page_count").fetchone()[0]
        own.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(InputError, match=r"database or disk is full.*make room") as caught:
            journal.add([JournalRow(b"%d more" % i, "any", "x" * 1000) for i in range(N)])
        assert "move" not in str(caught.value)
        assert len(journal.get([b"%d" % i for i in range(N)])) == N


# The store.


@pytest.fixture
def store(tmp_path):
    """A job that is done, with one exported file and one that is not."""
    paths, graph = WorkspacePaths(tmp_path / "workspace"), Graph()
    graph.add("one", "work", "group", {}, {})
    job = graph.jobs["one"]
    make(paths, job, "good")
    return paths, job


def make(paths, job, text):
    temporary = paths.store / ".tmp-one"
    temporary.mkdir(parents=True)
    (temporary / "text").write_text(text)
    (temporary / "weights").write_text("numbers")
    commit_folder(temporary, paths.folder(job), {"results/one/text": "text"}, COSTS)


def done(paths, job):
    with Journal(paths.journal) as journal:
        return done_jobs([job], paths, journal)


def test_a_lost_journal_costs_no_job(store):
    paths, job = store
    assert done(paths, job)["one"]["exports"] == {"results/one/text": "text"}
    with Journal(paths.journal, "run") as journal:
        journal.add([done_row(job, {"results/one/text": "text"}, COSTS)])
    assert done(paths, job)["one"]["seconds"] == 1.0
    shutil.rmtree(paths.journal)
    assert set(done(paths, job)) == {"one"}


@pytest.mark.parametrize("name", ["text", "weights"])
@pytest.mark.parametrize("how", ["emptied", "removed"])
def test_a_file_that_is_gone_is_noticed_and_made_again(how, name, store):
    paths, job = store
    with Journal(paths.journal, "run") as journal:
        journal.add([done_row(job, {"results/one/text": "text"}, COSTS)])
    export(job, {"results/one/text": "text"}, paths)
    file = paths.folder(job) / name
    file.write_text("") if how == "emptied" else file.unlink()
    assert done(paths, job) == {}
    assert (paths.results / "one" / "text").read_text() == "good"
    make(paths, job, "good")
    assert file.read_text()
    assert set(done(paths, job)) == {"one"}


def test_a_whole_folder_stays_when_it_is_made_again(store):
    paths, job = store
    make(paths, job, "other")
    assert (paths.folder(job) / "text").read_text() == "good"
    assert list(paths.store.glob(".tmp-*")) == []


def test_a_folder_of_results_that_is_a_link_elsewhere_gets_links_that_lead_back(store):
    paths, job = store
    elsewhere = paths.workspace.parent / "far" / "away"
    elsewhere.mkdir(parents=True)
    paths.results.mkdir(exist_ok=True)
    (paths.results / "model").symlink_to(elsewhere)
    exports = {"results/model/folder": "."}
    export(job, exports, paths)
    assert (paths.results / "model" / "folder" / "text").read_text() == "good"
    assert export(job, exports, paths) == []


def test_a_plan_replaces_no_file_of_results_by_one_with_fewer_scored_rows(store):
    paths, job = store
    exports = {"results/one/judge/annotations.json": "annotations.json"}
    target = paths.results / "one/judge/annotations.json"
    target.parent.mkdir(parents=True)
    scored = [{"preference": 2.0}] * 3
    source = paths.folder(job) / "annotations.json"
    source.write_text(json.dumps(scored[:1] + [{"preference": None}] * 2))
    for content in (json.dumps(scored), "[{"):
        target.write_text(content)
        with pytest.raises(InputError, match=r"annotations\.json .*move it away"):
            export(job, exports, paths)
        assert target.read_text() == content
        assert list(target.parent.iterdir()) == [target]
    target.write_text(json.dumps(scored))
    kept = paths.store / "another job"
    kept.mkdir()
    shutil.copy2(target, kept / "annotations.json")
    assert export(job, exports, paths) == list(exports), "the store still has what is replaced"
    assert target.read_bytes() == source.read_bytes()


# Names and texts.


@pytest.mark.parametrize("name", ["x" * 300, "\ud83d", ".journal", ".store", "..", "a/b", ""])
def test_names_that_no_folder_of_results_can_have(name):
    with pytest.raises(InputError):
        model_name(name)


def test_a_formula_behind_a_semicolon_is_none():
    assert csv_cell("a;=1+1") == "'a;=1+1"
    assert csv_cell("a; b") == "a; b"


def test_a_forged_line_or_escape_is_printed_as_text(tmp_path):
    rows = [
        {"instruction": "q", "output": "a", "generator": "evil\x1b[2J\nwin rate 100 %"},
    ]
    (tmp_path / "model_outputs.json").write_text(json.dumps(rows))
    (tmp_path / "base.json").write_text(
        json.dumps([rows[0] | {"generator": "base", "output": "b"}])
    )
    command = [
        sys.executable,
        "-m",
        "alignboard",
        "judge",
        "model_outputs.json",
        "--baseline",
        "base.json",
    ]
    done = subprocess.run(
        [*command, "--judge", "mt-bench-pair", "--dry-run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "\x1b" not in done.stdout + done.stderr
    assert "\\x1b[2J\\nwin rate" in done.stdout + done.stderr


# WorkspacePaths.


NAMES = ["ünï", "it's", 'a "quoted" one', "back\\slash", "line\nbreak", "[1] run", "what?*"]


@pytest.mark.parametrize("name", NAMES)
def test_task_data_are_found_in_a_folder_of_any_name_and_after_a_move(name, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    from alignboard.benchmarks.mirror import served
    from alignboard.demo.tasks import TASKS, write_task_data
    from alignboard.suites import read_yaml

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    workspace, inner = tmp_path / name, Path("results/.store/tasks")
    (workspace / inner).mkdir(parents=True)
    write_task_data(workspace / inner, seed=0, n=5, workspace=workspace, found_at=inner)
    workspace = workspace.rename(tmp_path / f"moved {name}")
    monkeypatch.chdir(workspace)
    for task in TASKS:
        text = (workspace / inner / f"{task}.yaml").read_text()
        assert str(tmp_path) not in text, "no absolute path is kept"
        declared = read_yaml(workspace / inner / f"{task}.yaml")
        files = declared["dataset_kwargs"]["data_files"]
        with served(None):
            found = datasets.load_dataset("json", data_files=files)
        assert found["test"].num_rows == 5


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_any_name_is_read(name, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    from alignboard.benchmarks.mirror import Mirror, served
    from alignboard.benchmarks.task_data import dataset_settings
    from alignboard.benchmarks.task_files import digests
    from alignboard.data.preferences.sources import PreferenceSource, open_source
    from alignboard.suites import Benchmark

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    workspace, rows = tmp_path / name, Path(f"rows {name}.jsonl")
    mirrored = workspace / "mirror" / "owner" / "set" / f"train-{name}.jsonl"
    mirrored.parent.mkdir(parents=True)
    monkeypatch.chdir(workspace)
    for path in (rows, mirrored.with_name("train.jsonl")):
        path.write_text('{"prompt": "q", "chosen": "a", "rejected": "b"}\n')
    assert open_source(PreferenceSource(str(rows))).num_rows == 1
    settings = dataset_settings(Benchmark(task="any", metric="acc", data=str(rows)))
    with served(Mirror("mirror", workspace)):
        assert (
            datasets.load_dataset("json", **settings["dataset_kwargs"])["documents"].num_rows == 1
        )
        assert datasets.load_dataset("owner/set")["train"].num_rows == 1
    (workspace / "evaluate/tasks").mkdir(parents=True)
    declared = {
        "task": "own",
        "dataset_path": "json",
        **{k: settings[k] for k in ("dataset_kwargs",)},
    }
    (workspace / "evaluate/tasks/own.yaml").write_text(json.dumps(declared))
    assert rows.name in " ".join(digests(["own"], workspace))
