"""Work in forked processes: results in order, errors as they are, and a process that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from alignboard.errors import AlignboardError, InputError
from alignboard.parallel import fork_map


@pytest.fixture(autouse=True)
def _four_cores(monkeypatch):
    """What `fork_map` asks for before it forks, whatever tests before these have imported or started."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    monkeypatch.delitem(sys.modules, "torch", raising=False)


@pytest.mark.parametrize("n", [2, 7, 33, 1000])
def test_results_stand_in_the_order_of_the_items(n):
    found = fork_map(lambda item: (item, "x" * 2000), range(n), least=2)
    assert found == [(item, "x" * 2000) for item in range(n)]


def test_several_processes_share_the_work():
    def slow(item):
        signal.sigtimedwait([], 0.02)
        return os.getpid()

    assert len(set(fork_map(slow, range(40), least=2))) > 1


def test_few_items_and_items_within_a_process_are_done_where_they_are():
    assert fork_map(lambda _: os.getpid(), range(3), least=4) == [os.getpid()] * 3
    nested = fork_map(
        lambda _: {os.getpid()} == set(fork_map(lambda _: os.getpid(), range(9), least=2)),
        range(8),
        least=2,
    )
    assert nested == [True] * 8


def test_an_error_is_raised_as_it_is_and_says_where_it_was_raised():
    def refuse(item):
        raise InputError(f"file {item}: no rows.")

    with pytest.raises(InputError, match=r"file \d: no rows\.") as raised:
        fork_map(refuse, range(8), least=2)
    assert "in refuse" in raised.value.__notes__[0]


def test_a_process_that_is_killed_is_said(monkeypatch):
    parent, fork, children = os.getpid(), os.fork, []
    monkeypatch.setattr(os, "fork", lambda: children.append(fork()) or children[-1])

    def killed(item):
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        signal.sigtimedwait([], 0.05)
        return item

    with pytest.raises(AlignboardError, match="ended before its work was done"):
        fork_map(killed, range(40), least=2)
    assert children
    for child in children:
        with pytest.raises(ChildProcessError):  # waited for
            os.waitpid(child, os.WNOHANG)


def test_processes_end_with_a_parent_that_is_killed(tmp_path):
    script = """
import os, time
from pathlib import Path
from alignboard.parallel import fork_map
os.sched_getaffinity = lambda _: {0, 1}
def slow(item):
    Path(f"{item} {os.getpid()}").touch()
    time.sleep(0.03)
fork_map(slow, range(320), least=2)
"""
    with subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path) as process:
        while len(seen := {int(path.name.split()[1]) for path in tmp_path.iterdir()}) < 2:
            time.sleep(0.01)
        process.kill()
    (child,) = seen - {process.pid}
    while _is_running(child):
        time.sleep(0.05)
    assert len(list(tmp_path.iterdir())) < 100


def _is_running(process):
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_worker_whose_run_is_gone_begins_nothing(tmp_path):
    (tmp_path / "late.py").write_text("import time; time.sleep(1); open('begun', 'w').close()")
    module = "alignboard.pipeline.executors.worker"
    path = os.pathsep.join([str(tmp_path), *sys.path])
    ended = subprocess.run(
        [sys.executable, "-m", module, "workspace", "0", "", "late"],
        input=b"{}\n",
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    assert ended.returncode == 1
    assert [one.name for one in tmp_path.iterdir() if one.name != "__pycache__"] == ["late.py"]
