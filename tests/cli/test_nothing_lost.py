"""Nothing is lost and nothing is paid for twice: result files, claims, commits, text that no file can hold."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing

import msgspec
import pytest

import tiny_models
from alignboard.errors import InputError
from alignboard.judges.calls import Judge
from alignboard.judges.runner import judge_pairs
from alignboard.pipeline.judging import JournalReplies
from alignboard.pipeline.replacing import n_preferences, n_rows, require_no_loss
from alignboard.records import Generation
from alignboard.results.claims import Claims
from alignboard.results.commits import Commits
from alignboard.results.formats import read_rows, write_rows
from alignboard.results.journal import Journal, JournalRow
from alignboard.text import storable
from commands import alignboard
from faulty_endpoint import FaultyEndpoint
from judging_doubles import Recorder, longest, pairs, spec

JUDGE = """
kind: prompted
name: mine
title: a judge of mine
model: tiny-judge
api_key_env: null
order: coin
prompt: {text: "{instruction} A: {first} B: {second}"}
verdict: {by: bracket}
"""
HALF = "\ud83d"


@pytest.fixture
def workspace(tmp_path):
    """A judge, a baseline and a model of 6 answers."""
    judges = tmp_path / "evaluate" / "judges"
    judges.mkdir(parents=True)
    (judges / "mine.yaml").write_text(JUDGE)
    for model in ("base", "one"):
        rows = [Generation(f"question {i}?", f"{model} says {i}", model) for i in range(6)]
        write_rows(tmp_path / "results" / model / "model_outputs.json", rows)
    return tmp_path


def judge(workspace, *options):
    outputs = "results/one/model_outputs.json"
    return alignboard(
        workspace, "judge", outputs, "--judge", "mine", "--baseline", "base", *options
    )


# Result files.


def test_verdicts_are_not_replaced_by_fewer_without_being_asked(workspace):
    annotations = workspace / "results/one/mine-vs-base/annotations.json"
    rows = [
        {"instruction": f"question {i}?", "preference": 2.0, "output_1": "", "output_2": ""}
        for i in range(6)
    ]
    annotations.parent.mkdir(parents=True)
    annotations.write_text(json.dumps(rows))
    before = annotations.read_bytes()
    refused = judge(workspace, "--reparse")
    assert refused.returncode == 2
    assert (
        "holds 6 scored rows and the new file would hold 0 (why rows are missing: not asked yet)"
        in " ".join(refused.stderr.split())
    )
    assert "--replace" in refused.stderr
    assert annotations.read_bytes() == before
    asked = judge(workspace, "--reparse", "--replace")
    assert asked.returncode == 3
    assert annotations.with_name("annotations.json.1").read_bytes() == before
    assert {row["preference"] for row in json.loads(annotations.read_text())} == {None}


def test_a_file_with_as_many_scored_rows_takes_the_place_of_another(tmp_path):
    path = tmp_path / "annotations.json"
    path.write_text('[{"preference": 1.5}, {"preference": null}]')
    require_no_loss(path, 1, n_preferences)
    with pytest.raises(InputError, match="holds 1 scored rows"):
        require_no_loss(path, 0, n_preferences)
    with pytest.raises(InputError, match="holds 2 scored rows"):
        require_no_loss(path, 1, n_rows)
    path.write_text('[{"preference": 1.5}, {"pref')
    with pytest.raises(InputError, match="cannot be read"):
        require_no_loss(path, 5, n_preferences)
    for _ in range(2):
        require_no_loss(path, 0, n_preferences, replace=True)
    assert len(list(tmp_path.glob("annotations.json.*"))) == 2


# Claims.


def judged_in_a_thread(folder, worker, backend, found):
    def work():
        with Journal(folder, worker) as journal:
            found[worker] = judge_pairs(Judge(spec(), backend), pairs(6), JournalReplies(journal))

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_two_workers_with_the_same_calls_make_each_once(tmp_path):
    def slowly(call):
        time.sleep(0.02)
        return msgspec.structs.replace(longest(call), seconds=time.monotonic())

    askers = {worker: Recorder(slowly) for worker in ("one", "two")}
    found = {}
    threads = [judged_in_a_thread(tmp_path, *one, found) for one in askers.items()]
    for thread in threads:
        thread.join()
    asked = [call.key for backend in askers.values() for call in backend.asked]
    assert len(asked) == len(set(asked)) == 12
    assert found["one"] == found["two"]
    with Journal(tmp_path) as journal:
        assert journal.check().n_computed == {"judge-reply": 12}
        assert journal.check().conflicts == []


def test_a_call_that_failed_elsewhere_is_made_here(tmp_path):
    started = threading.Event()

    def fails(call):
        started.set()
        time.sleep(0.02)

    found = {}
    first = judged_in_a_thread(tmp_path, "one", Recorder(fails), found)
    started.wait(10)
    second = judged_in_a_thread(tmp_path, "two", Recorder(longest), found)
    first.join()
    second.join()
    assert {one.status for one in found["one"]} == {"failed"}
    assert {one.status for one in found["two"]} == {"scored"}


def test_claims_of_a_living_owner_hold_and_those_of_a_dead_one_do_not(tmp_path):
    code = (
        "import sys, pathlib; from alignboard.results.claims import Claims; "
        "print(sorted(Claims(pathlib.Path(sys.argv[1])).claim(['a', 'b'])), flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "['a', 'b']\n"
    own = Claims(tmp_path)
    assert own.claim(["a", "b", "c"]) == {"c"}
    assert own.claim(["c"]) == {"c"}, "an owner has its own claims"
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    assert own.claim(["a", "b", "c"]) == {"a", "b", "c"}
    own.release(["a"])
    third = Claims(tmp_path)
    assert third.claim(["a", "b"]) == {"a"}
    own.close()
    assert third.claim(["b"]) == {"b"}
    third.close()
    assert [path.name for path in tmp_path.iterdir()] == ["claims.sqlite"]


# Commits.


def test_a_row_is_committed_whatever_comes_next(tmp_path):
    with Journal(tmp_path, "one") as journal:
        commits = Commits(journal)
        for name in (b"a", b"b", b"c"):
            commits.add(JournalRow(name, "any", 1))
        deadline = time.monotonic() + 10
        with Journal(tmp_path) as reader:
            while len(reader.get([b"a", b"b", b"c"])) < 3:
                assert time.monotonic() < deadline, "nobody called flush, and nobody has to"
                time.sleep(0.01)
        commits.flush()


def test_what_a_commit_raises_is_raised_where_rows_are_handed_over(tmp_path):
    with Journal(tmp_path, "one") as journal:
        commits = Commits(journal)
        commits.add(JournalRow(b"a", "any", float("nan")))
        with pytest.raises(ValueError, match="JSON"):
            commits.flush()
        commits.add(JournalRow(b"b", "any", 1))
        commits.flush()
        assert journal.get([b"b"]) == {b"b": 1}


def test_a_crash_costs_few_rows_however_slow_the_disk_is(tmp_path):
    rows = [JournalRow(bytes([n // 256, n % 256]), "any", n) for n in range(500)]
    handed = []

    def produce(commits):
        for row in rows:
            commits.add(row)
            handed.append(row)
        commits.flush()

    with Journal(tmp_path, "one") as journal:
        journal.add(rows[:1])
        with closing(sqlite3.connect(tmp_path / "journal-one.sqlite")) as writer:
            writer.execute("BEGIN IMMEDIATE")  # commits take as long as this is open
            producer = threading.Thread(target=produce, args=(Commits(journal),))
            producer.start()
            producer.join(1)
            assert 1 <= len(handed) <= 64
            writer.rollback()
        producer.join(30)
        assert len(journal.get([row.key for row in rows])) == len(rows)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_answers_that_were_paid_for_are_kept_while_the_next_is_waited_for(how, tmp_path):
    base = str(tiny_models.base("phi"))
    with FaultyEndpoint() as server:
        # The fifth of five never comes.
        answer, numbers = server.choice, iter(range(100))

        def choice(request):
            if next(numbers) == 4:
                server.wait(60)
            return {} if answer is None else answer(request)

        server.choice = choice
        options = ["--set", "demo-world", "--limit", "5", "--max-new-tokens", "8", "--api", "chat"]
        command = [sys.executable, "-m", "alignboard", "generate", base, *options]
        process = subprocess.Popen(
            [*command, "--engine", server.url, "--served-as", "tiny"],
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while len(server.answered) < 4:
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(2)
        process.send_signal(how)
        process.wait()
    with Journal(tmp_path / "results" / ".journal") as journal:
        assert journal.check().n_rows == {"generation": 4}


# Text that no file can hold.


def test_half_a_surrogate_pair_in_a_reply_is_no_dead_end(workspace):
    with FaultyEndpoint() as server:
        content = {"role": "assistant", "content": f"[[A]] {HALF} because"}
        server.choice = lambda _: {"message": content}
        for _ in range(2):
            done = judge(workspace, "--judge-engine", server.url)
            assert done.returncode == 0, done.stderr
        assert len(server.requests) == 6
    (annotations,) = (workspace / "results" / "one").rglob("annotations.json")
    rows = json.loads(annotations.read_text())
    assert "\ufffd because" in str(rows[0]["raw_completion"])


def test_replies_that_an_older_version_committed_are_readable(workspace):
    with Journal(workspace, "old") as journal:
        journal.add([JournalRow(b"k", "judge-reply", {"said": {"text": HALF}})])
        assert journal.get([b"k"]) == {b"k": {"said": {"text": "\ufffd"}}}


def test_outputs_with_half_a_pair_can_be_written_again(tmp_path):
    path = tmp_path / "model_outputs.json"
    path.write_text(json.dumps([{"instruction": "a", "output": HALF, "generator": "m"}]))
    rows = read_rows(path, Generation)
    write_rows(path, rows)
    assert read_rows(path, Generation) == rows


def test_whole_pairs_stay_what_they_are():
    assert storable({"\ud83d\ude00": ["é😀", 1, None, f"{HALF}x"]}) == {
        "😀": ["é😀", 1, None, "\ufffdx"]
    }
