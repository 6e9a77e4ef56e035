"""Plans: what they resolve to, one sentence for every mistake, and which jobs a change redoes."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from alignboard.errors import AlignboardError, InputError
from alignboard.models import sources
from alignboard.models.hub import resolve_commit
from alignboard.models.sources import pinned, source_identity, weights_identity
from alignboard.models.spec import ModelSpec
from alignboard.pipeline.plans.build import build_graph
from alignboard.pipeline.plans.plan import load_plan
from alignboard.pipeline.training import TrainingRequest, training_plan

ROOT = Path(__file__).parents[2]
SUITE = {
    "kind": "evaluation",
    "name": "small",
    "title": "Small",
    "instructions": {"set": "demo-world", "limit": 20},
    "benchmarks": [{"task": "demo_choice", "metric": "acc,none"}],
}
JUDGE = {"name": "rule", "title": "A rule", "kind": "simulated"}
PLAN = {
    "name": "small",
    "models": {"tiny-phi": {"pretrain": "phi"}, "tiny-llama": {"pretrain": "llama"}},
    "recipes": ["demo/sft", "demo/dpo", "demo/ipo"],
    "suites": ["small"],
    "judges": ["rule"],
    "baseline": "sft",
    "pairwise": {"judge": "rule", "n_prompts": 5},
}


@pytest.fixture
def write(tmp_path):
    """Write a declaration of the workspace; a plan by default."""

    def write(content, room="evaluate/plans", name="small"):
        path = tmp_path / room / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return path

    write(SUITE, "evaluate/suites")
    write(JUDGE, "evaluate/judges", "rule")
    for recipe in ("sft", "dpo", "ipo"):
        write((ROOT / "train" / "demo" / f"{recipe}.yaml").read_text(), "train/demo", recipe)
    return write


def jobs(tmp_path):
    return {job.name: job.key for job in build_graph(load_plan("small", tmp_path))}


def test_a_plan_resolves_to_models_with_their_baselines(write, tmp_path):
    write(PLAN)
    resolved = load_plan("small", tmp_path)
    assert [
        (m.name, m.method, m.start, m.baseline) for m in resolved.models if m.base == "tiny-phi"
    ] == [
        ("tiny-phi", "base", None, "tiny-phi-sft"),
        ("tiny-phi-sft", "sft", None, "tiny-phi-sft"),
        ("tiny-phi-dpo", "dpo", "tiny-phi-sft", "tiny-phi-sft"),
        ("tiny-phi-ipo", "ipo", "tiny-phi-sft", "tiny-phi-sft"),
    ]
    assert resolved.n_prompts == 20


def test_the_graph_has_what_the_plan_asks(write, tmp_path):
    write(PLAN)
    graph = build_graph(load_plan("small", tmp_path))
    names = list(graph.jobs)
    for job in graph:
        assert all(names.index(need) < names.index(job.name) for need in job.needs.values())
    needs = graph.jobs["train tiny-phi-dpo"].needs
    assert (needs["base"], needs["start"]) == ("checkpoint tiny-phi", "train tiny-phi-sft")
    assert graph.jobs[needs["data"]].needs["pairs"].startswith("pairs tiny-phi-sft ")
    assert graph.jobs["train tiny-phi-ipo"].needs == needs, "rows, tokens and reference are shared"
    assert "judge rule demo-world-first-20 tiny-phi-sft" not in graph.jobs, (
        "the baseline is not compared with itself"
    )
    assert {job.group for job in graph} == {
        "training data",
        "tiny-phi",
        "tiny-llama",
        "all models",
        "tasks of small",
    }
    assert len([name for name in names if name.startswith("lm-eval")]) == 8
    assert names[-1] == "board small"


def changed(before, after):
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


def test_a_changed_recipe_redoes_exactly_what_depends_on_it(write, tmp_path):
    write(PLAN)
    before = jobs(tmp_path)
    recipe = yaml.safe_load((tmp_path / "train/demo/dpo.yaml").read_text())
    recipe["batch"]["per_device"] = 16
    write(recipe, "train/demo", "dpo")
    assert changed(before, jobs(tmp_path)) == set(), "how a batch is divided changes no result"
    recipe["loss"]["beta"] = 0.2
    write(recipe, "train/demo", "dpo")
    asked = "demo-world-first-20"
    kinds = ("train", f"generate {asked}", "lm-eval small", f"judge rule {asked}")
    dpo = {f"{kind} {base}-dpo" for base in PLAN["models"] for kind in kinds}
    assert changed(before, jobs(tmp_path)) == dpo | {"pairwise small", "board small"}


def test_other_changes_redo_what_depends_on_them(write, tmp_path):
    write(PLAN)
    before = jobs(tmp_path)
    write(JUDGE | {"seed": 1}, "evaluate/judges", "rule")
    assert {name.split()[0] for name in changed(before, jobs(tmp_path))} == {
        "judge",
        "pairwise",
        "board",
    }
    write(JUDGE, "evaluate/judges", "rule")
    write(PLAN | {"n_prompts": 10})
    fewer = {name.replace("-first-10", "-first-20"): key for name, key in jobs(tmp_path).items()}
    assert {name.split()[0] for name in changed(before, fewer)} == {
        "generate",
        "judge",
        "pairwise",
        "board",
    }
    write(PLAN | {"title": "Another"})
    assert changed(before, jobs(tmp_path)) == {"board small"}
    write(PLAN | {"seed": 1})
    assert set(before.items()) & set(jobs(tmp_path).items()) == {
        ("tasks of small", before["tasks of small"])
    }
    write(PLAN | {"overrides": {"recipes": {"demo/ipo": {"duration": {"steps": 3}}}}})
    after = jobs(tmp_path)
    assert after["train tiny-phi-ipo"] != before["train tiny-phi-ipo"]
    assert after["train tiny-phi-dpo"] == before["train tiny-phi-dpo"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"recipies": []}, "no field 'recipies', did you mean 'recipes'"),
        (
            {"pairwise": {"judge": "rule", "n_promts": 3}},
            "no field 'pairwise.n_promts', did you mean 'n_prompts'",
        ),
        (
            {"models": {"a": {"pretrian": "phi"}}},
            "no field 'models.a.pretrian', did you mean 'pretrain'",
        ),
        ({"models": {"a": {"pretrain": "fi"}}}, "models.a.pretrain is 'fi'"),
        (
            {"models": {"a": {"pretrain": "phi", "source": "x"}}},
            "models.a needs exactly one of pretrain, source and outputs",
        ),
        ({"models": {"a/b": {"pretrain": "phi"}}}, "hold a slash"),
        ({"models": {".a": {"pretrain": "phi"}}}, "must not begin with a dot"),
        ({"models": {}}, "models is empty"),
        ({"name": "../x"}, "hold a slash"),
        ({"seed": "one"}, "Expected `int`"),
        ({"suites": ["smal"]}, "no evaluate/suites/smal.yaml, did you mean 'small'"),
        ({"suites": ["small", "small"]}, "both ask the set demo-world-first-20"),
        ({"suites": []}, "no suite has instructions"),
        (
            {"judges": ["rul"], "pairwise": None},
            "neither evaluate/judges/rul.yaml nor an evaluator of AlpacaEval, did you mean 'rule'",
        ),
        ({"judges": ["rule", "rule"]}, "names one judge twice"),
        ({"judges": ["../rule"]}, "hold a slash"),
        ({"pairwise": {"judge": "other", "n_prompts": 3}}, "not one of the plan's judges"),
        ({"pairwise": {"judge": "rule", "n_prompts": 0}}, "1 at least"),
        ({"n_prompts": 0}, "n_prompts is 0"),
        ({"recipes": ["demo/sfft"]}, "no train/demo/sfft.yaml, did you mean 'demo/sft'"),
        (
            {"recipes": ["demo/dpo", "demo/sft"]},
            "demo/dpo starts from demo/sft, which has to stand before it",
        ),
        ({"recipes": ["demo/sft", "demo/sft"]}, "would both make the model tiny-llama-sft"),
        ({"baseline": "stf"}, "baseline is 'stf'"),
        ({"overrides": {"recipes": {"demo/dop": {}}}}, "did you mean 'demo/dpo'"),
        ({"overrides": {"recipes": {"demo/dpo": {"loss": {"beta": -1}}}}}, "loss.beta"),
    ],
)
def test_a_mistake_is_one_sentence(change, told, write, tmp_path):
    path = write(PLAN | change)
    with pytest.raises(AlignboardError) as mistake:
        load_plan("small", tmp_path)
    message = str(mistake.value)
    assert told in message
    assert "\n" not in message
    if "There is no" not in message:
        assert str(path) in message or "/suites/" in message or "train/demo" in message


@pytest.mark.parametrize("content", ["", "[1]", "a: [", "1: 2"])
def test_a_file_that_is_no_mapping_is_one_sentence(content, write, tmp_path):
    write(content)
    with pytest.raises(InputError, match=r"small\.yaml"):
        load_plan("small", tmp_path)


def test_one_recipe_is_a_plan_of_its_chain(write, tmp_path):
    write(PLAN)
    graph = build_graph(training_plan(TrainingRequest("demo/dpo", "tiny-gemma"), tmp_path))
    assert [(job.kind, job.name.split()[1]) for job in graph] == [
        ("checkpoint", "tiny-gemma"),
        ("data", "demo-world"),
        ("tokens", "tiny-gemma"),
        ("train", "tiny-gemma-sft"),
        ("pairs", "tiny-gemma-sft"),
        ("data", "tiny-gemma-sft"),
        ("tokens", "tiny-gemma"),
        ("reference", "tiny-gemma"),
        ("train", "tiny-gemma-dpo"),
    ]
    graph = build_graph(training_plan(TrainingRequest("demo/sft", "org/Some-Model"), tmp_path))
    assert [job.kind for job in graph] == ["checkpoint", "data", "tokens", "train"]


def test_seeds_and_settings_share_what_comes_before_training(write, tmp_path):
    def needs(**settings):
        asked = TrainingRequest("demo/dpo", "tiny-phi", settings)
        graph = build_graph(training_plan(asked, tmp_path))
        job = graph.jobs["train tiny-phi-dpo"]
        return job.key, {role: graph.jobs[name].key for role, name in job.needs.items()}

    write(PLAN)
    key, shared = needs()
    for settings in ({"seed": 3}, {"loss": {"beta": 0.3}}, {"method": "ipo", "loss": {"beta": 1}}):
        other, also = needs(**settings)
        assert (other != key, also) == (True, shared), settings
    _, longer = needs(max_length=32)
    assert {role for role in shared if shared[role] != longer[role]} == {"reference"}
    _, on_all = needs(chat_template="{{ messages }}")
    # The pairs are the model's own samples, which are asked for by the template.
    moved = {role for role in shared if shared[role] != on_all[role]}
    assert moved == {"data", "tokens", "reference"}


def test_a_folder_is_told_by_its_content(tmp_path):
    with pytest.raises(InputError, match="no checkpoint"):
        source_identity(".", tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"1")
    first = source_identity(".", tmp_path)
    (tmp_path / "moved").mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tmp_path / name, tmp_path / "moved" / name)
    assert source_identity("moved", tmp_path) == first
    (tmp_path / "model.safetensors").write_bytes(b"2")
    assert source_identity(".", tmp_path) != first


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", "2"),
        ("config.json", '{"a": 1}'),
        ("tokenizer.json", "{}"),
        ("chat_template.jinja", "{{ messages }}"),
        ("tokenizer_config.json", '{"chat_template": "x"}'),
        ("generation_config.json", '{"eos_token_id": 5}'),
        ("code.py", "x = 1"),
        ("own/tokenizer.json", "{}"),
    ],
)
def test_whatever_changes_a_response_changes_the_identity(name, content, tmp_path):
    (tmp_path / "own").mkdir()
    for file, text in (("config.json", "{}"), ("model.safetensors", "1"), ("code.py", "")):
        (tmp_path / file).write_text(text)
    (tmp_path / "own" / "tokenizer.json").write_text("[]")
    spec = ModelSpec(name="one", base=".", tokenizer="own", trust_remote_code=True)
    first = weights_identity(spec, tmp_path)
    assert weights_identity(spec, tmp_path) == first
    (tmp_path / name).write_text(content)
    assert weights_identity(spec, tmp_path) != first


def test_what_is_loaded_is_the_commit_that_is_keyed(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "resolve_commit", lambda _repository, _revision: "b" * 40)
    assert pinned(ModelSpec(name="one", base="org/model")).revision == "b" * 40
    assert pinned(ModelSpec(name="one", base=str(tmp_path))).revision is None


def test_a_repository_is_told_by_its_commit(tmp_path, monkeypatch):
    commit = "a" * 40
    pinned = source_identity("org/model", tmp_path, revision=commit)
    assert pinned == {"id": "org/model", "commit": commit, "file": None}
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert source_identity("org/model", tmp_path)["commit"] is None
    resolve_commit.cache_clear()
    (cache / "models--org--model" / "refs").mkdir(parents=True)
    (cache / "models--org--model" / "refs" / "main").write_text(commit)
    assert source_identity("org/model", tmp_path) == pinned


def test_the_demo_plan_is_the_demo():
    resolved = load_plan("demo", ROOT)
    assert [entry.pretrain for entry in resolved.plan.models.values()] == [
        "phi",
        "mistral",
        "gemma",
        "llama",
    ]
    assert {model.method for model in resolved.models} == {"base", "sft", "dpo", "ipo", "simpo"}
    assert resolved.n_prompts >= 300
    assert len(resolved.judges) == 2
    assert sum(len(suite.benchmarks) for suite in resolved.benchmarks) == 2
    assert resolved.plan.pairwise is not None


def test_the_judge_of_the_demo_starts_from_a_checkpoint_that_is_there_anyway(write, tmp_path):
    write(PLAN | {"judges": ["rule", "demo-logprob"]})
    graph = build_graph(load_plan("small", tmp_path))
    assert graph.jobs["judge model"].needs == {"base": "checkpoint tiny-phi"}
    assert (
        graph.jobs["judge demo-logprob demo-world-first-20 tiny-llama-dpo"].needs["judge-model"]
        == "judge model"
    )
    assert "judge-model" not in graph.jobs["judge rule demo-world-first-20 tiny-llama-dpo"].needs
    write(
        PLAN | {"judges": ["rule", "demo-logprob"], "models": {"tiny-llama": {"pretrain": "llama"}}}
    )
    graph = build_graph(load_plan("small", tmp_path))
    assert graph.jobs["judge model"].needs == {"base": "checkpoint of the judge"}


def test_reading_a_plan_and_its_keys_loads_nothing_heavy():
    script = (
        "import sys; from alignboard.pipeline.runner import run_plan;"
        "from alignboard.pipeline.plans.build import build_graph; from alignboard.pipeline.plans.plan import load_plan;"
        "from pathlib import Path; build_graph(load_plan('demo', Path('.')));"
        "print(*sorted({'torch','transformers','trl','datasets','lm_eval','pandas','matplotlib'} & set(sys.modules)))"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.split() == []
