"""What a job's key holds: content and a version; no source, no library, no place."""

import copy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from alignboard.pipeline.graph import Graph
from alignboard.pipeline.kinds import JobKind
from alignboard.pipeline.plans.build import build_graph
from alignboard.pipeline.plans.plan import load_plan
from alignboard.pipeline.progress import versions_text
from alignboard.pipeline.runner import other_versions
from alignboard.registry import register
from test_run import small_workspace

ROOT = Path(__file__).parents[2]
register("job", "keyed", JobKind(1, "nowhere:run"))
register("job", "keyed-2", JobKind(2, "nowhere:run"))


def keys(workspace):
    return {job.name: job.key for job in build_graph(load_plan("small", workspace))}


@pytest.fixture
def workspace(tmp_path):
    return small_workspace(tmp_path)


def changed(before, after):
    return {name for name in before if before[name] != after[name]}


def replace(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_comment_in_any_source_changes_no_key(tmp_path, workspace):
    copied = tmp_path / "src" / "alignboard"
    shutil.copytree(ROOT / "src" / "alignboard", copied)
    for name in ("train", "evaluate"):
        shutil.copytree(ROOT / name, tmp_path / name, dirs_exist_ok=True)
    script = (
        "import sys; from pathlib import Path; from alignboard.pipeline.plans.build import build_graph;"
        "from alignboard.pipeline.plans.plan import load_plan;"
        "print(*(job.key for job in build_graph(load_plan('small', Path(sys.argv[1])))))"
    )

    def run():
        command = [sys.executable, "-c", script, str(workspace)]
        environment = {"PYTHONPATH": str(tmp_path / "src"), "PATH": "/usr/bin:/bin"}
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        ).stdout

    before = run()
    for path in copied.rglob("*.py"):
        path.write_text(path.read_text() + "\n# a comment\n")
    assert run() == before
    assert len(before.split()) > 10


def test_a_comment_on_a_generated_task_changes_no_key_and_its_prompt_does(workspace):
    shipped = (ROOT / "evaluate/tasks/demo_exact.yaml").read_text()
    own = workspace / "evaluate" / "tasks" / "demo_exact.yaml"
    own.parent.mkdir(parents=True)
    own.write_text(shipped)
    before = keys(workspace)
    own.write_text("# a comment\n" + shipped)
    assert keys(workspace) == before
    own.write_text(shipped.replace("doc_to_text: question", "doc_to_text: answer"))
    after = changed(before, keys(workspace))
    assert after == {n for n in before if n.startswith(("tasks", "lm-eval", "board"))}


def test_a_changed_plan_changes_the_keys_that_depend_on_it(workspace):
    before = keys(workspace)
    plan = workspace / "evaluate" / "plans" / "small.yaml"
    replace(plan, "demo/dpo: {duration: {steps: 3}", "demo/dpo: {duration: {steps: 4}")
    now = keys(workspace)
    after = {name for name in before if before[name] != now.get(name)}
    assert "train tiny-phi-dpo" in after
    after = {name for name in after if not name.startswith("reference ")}  # of as many rows
    assert not {name for name in after if "dpo" not in name} - {"pairwise small", "board small"}


def test_decoding_changes_responses_and_what_is_made_of_them(workspace):
    before = keys(workspace)
    replace(
        workspace / "evaluate" / "suites" / "small.yaml", "max_new_tokens: 16", "max_new_tokens: 8"
    )
    after = changed(before, keys(workspace))
    assert {name for name in after if name.startswith("generate")} == {
        name for name in before if name.startswith("generate")
    }
    assert not {name for name in after if name.startswith(("checkpoint", "train", "lm-eval"))}


def test_a_judge_changes_its_own_verdicts(workspace):
    before = keys(workspace)
    replace(
        workspace / "evaluate" / "judges" / "rule.yaml",
        "kind: simulated",
        "kind: simulated, order: both",
    )
    after = changed(before, keys(workspace))
    assert {name for name in after if name.startswith("judge")} == {
        name for name in before if name.startswith("judge rule")
    }


def test_a_raised_version_changes_the_kind_and_what_follows():
    def graph(kind):
        found = Graph()
        found.add("first", "keyed", "g", {})
        found.add("second", kind, "g", {}, {"of": "first"})
        found.add("third", "keyed", "g", {}, {"of": "second"})
        return {job.name: job.key for job in found}

    assert changed(graph("keyed"), graph("keyed-2")) == {"second", "third"}


def test_other_versions_are_said_and_change_nothing(workspace):
    jobs = [job for job in build_graph(load_plan("small", workspace)) if job.kind == "generate"]
    from alignboard.pipeline.store import made_by

    records = {job.name: {"versions": copy.copy(made_by(job))} for job in jobs}
    assert other_versions(jobs, records) == {}
    records[jobs[0].name]["versions"]["torch"] = "1.0"
    assert other_versions(jobs, records) == {"generate": "1 made by torch 1.0"}
    assert "--redo generate" in versions_text(other_versions(jobs, records), 0)
    assert "2 finished jobs of an older scheme" in versions_text({}, 2)
