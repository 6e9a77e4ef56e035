"""What a job's key holds: content and a version; no source, no library, no place."""

import copy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from alignboard.errors import InputError
from alignboard.judges.prompting import prompts
from alignboard.models import sources
from alignboard.pipeline.finished import other_versions
from alignboard.pipeline.graph import Graph
from alignboard.pipeline.kinds import JobKind
from alignboard.pipeline.plans.build import build_graph
from alignboard.pipeline.plans.plan import load_plan
from alignboard.pipeline.progress import versions_text
from alignboard.pipeline.runner import run_plan
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


SLOTS = "prompt: {text: '{instruction}{first}{second}'}, verdict: {by: bracket}"
LOCAL = {
    "here": f"kind: prompted, engine: local, model: judges/phi, {SLOTS}",
    "adapted": "kind: reward, model: judges/phi, adapter: judges/lora",
    "entered": "kind: pair-ranker, model: own-ranker",
    "hosted": f"kind: prompted, model: some, {SLOTS}",
    "likeness": "kind: reference, references: judges/references.json",
    "panel": "kind: jury, judges: [here, hosted]",
}


@pytest.fixture
def judged(workspace):
    """The small plan with judges that load models of the workspace, and with some that load none."""
    for name, content in {
        "phi/config.json": "{}",
        "phi/model.safetensors": "1",
        "phi/tokenizer.json": "{}",
        "lora/adapter_config.json": '{"base_model_name_or_path": "judges/phi"}',
        "lora/adapter_model.safetensors": "1",
        "ranker/config.json": "{}",
        "ranker/model.safetensors": "1",
        "references.json": "[]",
        "../evaluate/models/own-ranker.yaml": "{name: own-ranker, base: judges/ranker}",
    }.items():
        path = workspace / "judges" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    for name, content in LOCAL.items():
        path = workspace / "evaluate" / "judges" / f"{name}.yaml"
        path.write_text(f"{{name: {name}, title: {name}, {content}}}")
    plan = workspace / "evaluate" / "plans" / "small.yaml"
    replace(plan, "judges: [rule, demo-logprob]", f"judges: [rule, {', '.join(LOCAL)}]")
    replace(plan, "pairwise: {judge: rule,", "pairwise: {judge: panel,")
    return workspace


@pytest.mark.parametrize(
    ("file", "content", "judges"),
    [
        ("judges/phi/model.safetensors", "2", {"here", "adapted", "panel"}),
        ("judges/phi/tokenizer.json", '{"a": 1}', {"here", "adapted", "panel"}),
        ("judges/phi/chat_template.jinja", "{{ messages }}", {"here", "adapted", "panel"}),
        ("judges/lora/adapter_model.safetensors", "2", {"adapted"}),
        ("judges/ranker/model.safetensors", "2", {"entered"}),
        (
            "evaluate/models/own-ranker.yaml",
            "{name: own-ranker, base: judges/ranker, context: 128}",
            {"entered"},
        ),
        ("judges/references.json", "[1]", {"likeness"}),
    ],
)
def test_what_a_local_judge_is_made_of_changes_its_verdicts_and_no_others(
    file, content, judges, judged
):
    before = keys(judged)
    touched = judged / "judges" / "phi" / "config.json"
    touched.write_bytes(touched.read_bytes())
    assert keys(judged) == before
    (judged / file).write_text(content)
    after = changed(before, keys(judged))
    own = {name for name in before if name.startswith("judge ") and name.split()[1] in judges}
    of_the_jury = {"pairwise small"} if "panel" in judges else set()
    assert after == own | of_the_jury | {"board small"}
    assert len(own) == 2 * len(judges)


def test_a_judge_of_the_hub_is_keyed_and_loaded_at_its_commit(judged, monkeypatch):
    path = judged / "evaluate" / "judges" / "here.yaml"
    replace(path, "judges/phi", "org/judge")

    def keyed(commit):
        monkeypatch.setattr(sources, "resolve_commit", lambda _repository, _revision=None: commit)
        graph = build_graph(load_plan("small", judged))
        return {job.name: job for job in graph if job.name.startswith("judge here ")}

    first, second = keyed("a" * 40), keyed("b" * 40)
    assert all(first[name].key != second[name].key for name in first)
    for job in second.values():
        (loaded,) = job.hints["judge_models"].values()
        assert (loaded["base"], loaded["revision"]) == ("org/judge", "b" * 40)
    monkeypatch.setattr(sources, "resolve_commit", lambda _repository, _revision=None: None)
    with pytest.raises(InputError, match="which commit of org/judge is meant"):
        run_plan("small", judged)


def test_the_prompt_of_an_installed_package_is_part_of_a_key(judged, monkeypatch):
    path = judged / "evaluate" / "judges" / "hosted.yaml"
    file = "alpaca_eval:evaluators_configs/alpaca_eval_gpt4/alpaca_eval.txt"
    replace(path, "text: '{instruction}{first}{second}'", f"file: '{file}'")
    before = keys(judged)
    monkeypatch.setattr(prompts, "package_text", lambda _file: "{instruction} {first} or {second}?")
    after = changed(before, keys(judged))
    assert {n.split()[1] for n in after if n.startswith("judge ")} == {"hosted", "panel"}


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
