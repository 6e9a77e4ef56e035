"""The journal: what was committed stays, whatever happens to the process; nothing is silently one of two."""

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignboard.errors import InputError
from alignboard.results.journal import Journal, JournalRow

WRITER = """
import sys
from pathlib import Path
from alignboard.results.journal import Journal, JournalRow

journal = Journal(Path(sys.argv[1]), sys.argv[2])
batch = 7
n = 0
while True:
    keys = [b"%d" % i for i in range(n, n + batch)]
    missing = [key for key in keys if key not in journal.get(keys)]
    journal.add([JournalRow(key, "generation", {"output": key.decode() * 50}) for key in missing])
    print(n, flush=True)
    n += batch
"""


def row(name, payload=None, kind="generation"):
    return JournalRow(name.encode(), kind, {"output": name} if payload is None else payload)


def test_rows_come_back_in_another_process_and_shard(tmp_path):
    with Journal(tmp_path, "one") as one, Journal(tmp_path, "two") as two:
        assert one.add([row("a"), row("b")]) == 2
        assert two.add([row("c", kind="judgment")]) == 1
        assert one.get([b"a", b"c", b"x"]) == {b"a": {"output": "a"}, b"c": {"output": "c"}}
        assert [r.key for r in two.rows("generation")] == [b"a", b"b"]
    with Journal(tmp_path) as reader:
        assert reader.get([b"b"]) == {b"b": {"output": "b"}}
        with pytest.raises(InputError, match="read only"):
            reader.add([row("d")])


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
@pytest.mark.parametrize("name", [b"a?b#c %41", b"latin \xff", b"line\nbreak"])
def test_a_folder_may_have_any_name(name, tmp_path):
    folder = tmp_path / os.fsdecode(name)
    with Journal(folder, "one") as one, Journal(folder, "two") as two:
        one.add([row("a")])
        assert two.get([b"a"]) == {b"a": {"output": "a"}}
    with Journal(folder) as reader:
        assert reader.get([b"a"]) == {b"a": {"output": "a"}}


def test_a_row_computed_twice_is_told(tmp_path):
    with Journal(tmp_path, "one") as one, Journal(tmp_path, "two") as two:
        one.add([row("a"), row("b")])
        assert one.add([row("b"), row("c")]) == 1
        two.add([row("c")])
        check = one.check()
    assert check.n_rows == {"generation": 3}
    assert check.n_computed == {"generation": 5}
    assert check.computed_twice == {"generation": 2}
    assert check.conflicts == []


def test_another_payload_under_a_key_is_ignored_and_reported(tmp_path, caplog):
    with Journal(tmp_path, "one") as journal:
        journal.add([row("a", 1)])
        assert journal.add([row("b"), row("a", 2)]) == 1
        assert journal.get([b"a", b"b"]) == {b"a": 1, b"b": {"output": "b"}}
        assert journal.check().computed_twice == {"generation": 1}
    assert "two different rows" in caplog.text


def test_shards_that_disagree_are_reported_and_the_first_counts(tmp_path, caplog):
    with Journal(tmp_path, "one") as one, Journal(tmp_path, "two") as two:
        one.add([row("a", 1), row("b", 1)])
        two.add([row("a", 2)])
        for journal in (one, two):
            assert journal.get([b"a", b"b"]) == {b"a": 1, b"b": 1}
        assert [r.payload for r in one.rows("generation")] == [1, 1]
        assert one.check().conflicts == [b"a".hex()]
    assert caplog.text.count("two different rows") == 2, "once by each reader"


def test_rows_that_differ_in_time_and_cost_only_are_the_same(tmp_path, caplog):
    said = {"said": {"text": "A", "seconds": 0.5, "price": 1.0, "n_prompt": 3}}
    again = {"said": {"text": "A", "seconds": 0.7}}
    with Journal(tmp_path, "one") as one, Journal(tmp_path, "two") as two:
        one.add([row("a", said)])
        one.add([row("a", again)])
        two.add([row("a", again)])
        assert two.get([b"a"]) == {b"a": said}
        assert two.check().conflicts == []
    assert not caplog.text


def test_the_log_cannot_be_rewritten(tmp_path):
    with Journal(tmp_path, "one") as journal:
        journal.add([row("a")])
    connection = sqlite3.connect(tmp_path / "journal-one.sqlite")
    for change in ("DELETE FROM computed", "UPDATE computed SET kind = 'x'"):
        with pytest.raises(sqlite3.DatabaseError, match="append-only"):
            connection.execute(change)
    connection.close()


def test_forgetting_leaves_the_log(tmp_path):
    with Journal(tmp_path, "one") as journal:
        journal.add([row("a")])
        journal.forget([b"a"])
        assert journal.get([b"a"]) == {}
        assert journal.add([row("a", 2)]) == 1
        assert journal.check().n_computed == {"generation": 2}


def test_it_is_durable_as_promised(tmp_path):
    with Journal(tmp_path, "one") as journal:
        journal.add([row("a")])
        own = journal._own().connection
        assert own.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert own.execute("PRAGMA synchronous").fetchone() == (2,)


@pytest.mark.parametrize("name", ["", "a/b", "../x", "a b"])
def test_a_worker_is_the_name_of_a_file(name, tmp_path):
    with pytest.raises(InputError, match="worker"):
        Journal(tmp_path, name)


def test_damaged_and_newer_files_are_one_sentence(tmp_path):
    (tmp_path / "journal-bad.sqlite").write_bytes(b"no database at all" * 100)
    with (
        Journal(tmp_path, "one") as journal,
        pytest.raises(InputError, match=r"journal-bad\.sqlite"),
    ):
        journal.get([b"a"])
    (tmp_path / "journal-bad.sqlite").unlink()
    newer = sqlite3.connect(tmp_path / "journal-newer.sqlite")
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with Journal(tmp_path, "one") as journal, pytest.raises(InputError, match="newer"):
        journal.get([b"a"])


@settings(max_examples=50, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_payload_comes_back(tmp_path_factory, payload):
    folder = tmp_path_factory.mktemp("journal")
    with Journal(folder, "one") as journal:
        journal.add([JournalRow(b"k", "any", payload)])
    with Journal(folder) as reader:
        assert reader.get([b"k"])[b"k"] == payload


def test_half_a_surrogate_pair_comes_back_as_text_that_files_can_hold(tmp_path):
    with Journal(tmp_path, "one") as journal:
        journal.add([row("a", {"output": "\ud800 </script> \x00"})])
        assert journal.get([b"a"]) == {b"a": {"output": "\ufffd </script> \x00"}}


def test_kill_at_random_moments_loses_and_repeats_nothing(tmp_path):
    """Every batch that a killed writer reported is there whole; a resumed writer computes no row twice."""
    rng = random.Random(0)
    reported = -1
    for _ in range(6):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), "w"], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.15))
        os.kill(writer.pid, signal.SIGKILL)
        lines = writer.stdout.read().split()
        writer.wait()
        reported = max([reported, *map(int, lines)])
    with Journal(tmp_path) as journal:
        keys = {int(r.key) for r in journal.rows("generation")}
        check = journal.check()
    assert set(range(reported + 7)) <= keys
    assert len(keys) % 7 == 0, "a batch is there whole or not at all"
    assert check.computed_twice == {}
    assert check.n_computed == check.n_rows == {"generation": len(keys)}
    assert len(keys) > 7


FIRST = """
import sys
from pathlib import Path
from alignboard.results.journal import Journal, JournalRow

with Journal(Path(sys.argv[1]), "w") as journal:
    journal.add([JournalRow(b"k", "generation", {"output": "k"})])
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize(
    ("call", "n"), [("pwrite64", 14), ("fdatasync", 9), ("unlink", 5), ("link", 2)]
)
def test_a_file_whose_making_was_killed_can_be_read(call, n, tmp_path):
    """SIGKILL at each of the first system calls of a new file: readers, who cannot roll back, need not."""
    n_kills = 0
    for when in range(1, n):
        folder = tmp_path / str(when)
        folder.mkdir()
        inject = f"inject={call}:signal=SIGKILL:when={when}"
        traced = ["strace", "-f", "-o", os.devnull, "-e", f"trace={call}", "-e", inject]
        done = subprocess.run(
            [*traced, sys.executable, "-c", FIRST, str(folder)], capture_output=True, check=False
        )
        n_kills += done.returncode != 0
        with Journal(folder) as journal:
            assert journal.check().n_rows in ({}, {"generation": 1})
    assert n_kills


def test_a_reader_beside_a_writer(tmp_path):
    """Readers see committed batches only, while another process writes."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path), "w"], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    writer.stdout.readline()
    try:
        with Journal(tmp_path, "reader") as journal:
            for _ in range(20):
                assert sum(1 for _ in journal.rows("generation")) % 7 == 0
    finally:
        writer.kill()
        writer.wait()


def test_payloads_are_json_text(tmp_path):
    """Anybody can read a journal with sqlite3 and json alone."""
    with Journal(tmp_path, "one") as journal:
        journal.add([row("a", {"b": [1, None]})])
    connection = sqlite3.connect(tmp_path / "journal-one.sqlite")
    assert json.loads(connection.execute("SELECT payload FROM rows").fetchone()[0]) == {
        "b": [1, None]
    }
    connection.close()
