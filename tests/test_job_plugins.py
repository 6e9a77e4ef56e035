"""A kind of job of another package: one file and one registration, and every worker does it."""

import os
import sys

import pytest

from alignboard import registry
from alignboard.errors import InputError
from alignboard.pipeline.executors.processes import Processes
from alignboard.pipeline.executors.work import Settings, Work, silent
from alignboard.pipeline.graph import Graph
from alignboard.pipeline.kinds import job_kind
from alignboard.pipeline.store import Places
from alignboard.results.journal import Journal

PACKAGE = '''
"""Counts the letters of a text."""

from alignboard.pipeline.kinds import JobKind
from alignboard.registry import register


def count(task):
    n = len(task.job.parameters["text"])
    (task.folder / "n").write_text(str(n))
    return {"results/letters.txt": "n"}


def plugin():
    register("job", "letters", JobKind(3, "letter_jobs:count", seconds=0.1))
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The folder of an installed package with an entry point."""
    folder = tmp_path / "site"
    info = folder / "letter_jobs-1.dist-info"
    info.mkdir(parents=True)
    (folder / "letter_jobs.py").write_text(PACKAGE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: letter-jobs\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[alignboard.plugins]\nletters = letter_jobs:plugin\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(registry._STATE, "plugins_loaded", False)
    before = dict(registry._STATE.targets.get("job", {}))
    yield folder
    registry._STATE.targets["job"] = before
    sys.modules.pop("letter_jobs", None)


def test_a_kind_of_another_package_runs_in_a_worker(package, tmp_path):
    assert job_kind("letters").version == 3
    places, graph = Places(tmp_path / "workspace"), Graph()
    graph.add("count", "letters", "any", {"text": "alignboard"})
    path = os.pathsep.join([str(package), *sys.path])
    settings = Settings(1, environment={"PYTHONPATH": path})
    with Journal(places.journal, "run") as journal:
        work = Work(list(graph), set(), places, journal, silent)
        Processes(settings).run(work)
        work.require_done()
    assert (places.results / "letters.txt").read_text() == "10"


def test_an_unknown_kind_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'judge'"):
        job_kind("juge")
