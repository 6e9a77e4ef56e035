"""Every kind of job against a golden of what it makes: when that moves, its version has to be raised.

A job's key holds its kind's version and not its sources, so nobody but this test notices that a change of code made
another result under the same key. A golden of a json file is a digest of its canonical content, with every text, count
and name, and the list of its fractions, which have to agree to 1e-6; of weights it is a digest of their shapes, and the
sum and norm of every tensor. What follows from arithmetic in floating point is the same on machines of one instruction
set: on others it is held to counts, sums and norms within 0.2 %, and only what is `EXACT` to its digest.

``ALIGNBOARD_GOLDENS=write pytest -m slow tests/pipeline/test_job_goldens.py`` writes the goldens anew, after the
version was raised.
"""

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alignboard.demo import world
from alignboard.judges.load import decode_judge, load_judge
from alignboard.pipeline.executors.work import silent
from alignboard.pipeline.graph import Graph, Job
from alignboard.pipeline.judged_outputs import answers
from alignboard.pipeline.plans.build import build_graph
from alignboard.pipeline.plans.plan import load_plan
from alignboard.pipeline.plans.schema import PlanJudge
from alignboard.pipeline.plans.single import judging_graph, tournament_graph
from alignboard.pipeline.runner import run_graph
from alignboard.pipeline.store import WorkspacePaths
from alignboard.records import Generation
from alignboard.registry import lookup, names
from alignboard.results.formats import read_rows, write_rows
from commands import run_plan
from test_run import small_workspace

KINDS = sorted(name for name in names("job") if lookup("job", name).run.startswith("alignboard."))
"""every kind that is not another test's"""
GOLDENS = Path(__file__).parent / "job_goldens.json"
EXACT = {"outputs", "task-data", "contamination"}
"""kinds whose results follow from text alone: the same digest on every machine"""
# Times, versions and places, which are no result.
PASSING = {
    "versions",
    "seconds",
    "date",
    "memory",
    "memory_mib",
    "cpu_seconds",
    "total_evaluation_time_seconds",
}
PASSING |= {
    "start_time",
    "end_time",
    "git_hash",
    "pretty_env_info",
    "transformers_version",
    "created",
}
PASSING |= {"rows_digest", "recipe", "base", "base_fingerprint", "parent_fingerprint", "device"}
PASSING |= {
    "model_name_sanitized",
    "end_tokens",
    "config_general",
    "lm_eval_version",
    "libraries",
    "provenance",
}
PLACES = ("/", "results/.store/", "lm_eval/tasks/")
KEPT = """
name: kept
models:
  tiny-phi: {pretrain: phi}
recipes: [demo/sft, demo/dpo]
suites: [small]
judges: [rule]
baseline: sft
overrides:
  pretraining: {steps: 40, n_documents: 800}
  recipes:
    demo/sft: {duration: {steps: 6}, data: {n: 192}}
    demo/dpo:
      checkpoints: 2
      held_out: {rows: 4}
      duration: {steps: 4}
      batch: {global: 4, per_device: 4}
      data: {name: pairs.jsonl}
      pairs: null
"""
GIVEN = """
name: given
models:
  good: {outputs: given/good, method: dpo}
  poor: {outputs: given/poor, method: sft}
suites: [small]
judges: [rule]
baseline: poor
"""


def arithmetic() -> str:
    """What decides how floating point rounds: torch's version and the instructions that it uses."""
    import torch

    return f"torch {torch.__version__.partition('+')[0]} {torch.backends.cpu.get_cpu_capability()}"


def canonical(content: Any, fractions: list[float]) -> Any:
    """``content`` without what passes, its fractions taken out into a list."""
    if isinstance(content, dict):
        kept = sorted(content.items())
        # A set of PEFT's, in the order of this process's hashes.
        kept = [
            (k, sorted(v) if k == "target_modules" and isinstance(v, list) else v) for k, v in kept
        ]
        return {k: canonical(v, fractions) for k, v in kept if k not in PASSING}
    if isinstance(content, list):
        return [canonical(value, fractions) for value in content]
    if isinstance(content, str):
        return "a place" if content.startswith(PLACES) else content
    if isinstance(content, float) and not content.is_integer():
        fractions.append(content)
        return "a fraction"
    return content


def digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def golden_of(file: Path) -> dict[str, Any]:
    """A digest of what is discrete, and what is not as numbers."""
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        tensors = {name: tensor.double() for name, tensor in sorted(load_file(file).items())}
        shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
        values = [x for t in tensors.values() for x in (float(t.sum()), float((t**2).sum().sqrt()))]
        return {"digest": digest(shapes), "values": values}
    fractions: list[float] = []
    content = content_of(file)
    return {"digest": digest(canonical(content, fractions)), "values": rounded(fractions)}


def content_of(file: Path) -> Any:
    if file.suffix == ".arrow":
        from datasets import Dataset

        return Dataset.from_file(str(file)).to_list()
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines() if line]
    return json.loads(text)


def rounded(fractions: list[float]) -> list[float]:
    """Up to 400 fractions; of more a sum and a norm for each 400th part of them, in their order."""
    found = [one for one in fractions if math.isfinite(one)]
    size = max(1, -(-len(found) // 400))
    parts = [found[k : k + size] for k in range(0, len(found), size)]
    return [float(f"{math.fsum(part):.10g}") for part in parts]


def sums(values: list[float]) -> list[float]:
    """How many they are, their sum and norm: what agrees on other machines, too."""
    return [len(values), math.fsum(values), math.sqrt(math.fsum(one * one for one in values))]


def made_by(folder: Path) -> dict[str, Any]:
    kinds = {".json", ".jsonl", ".safetensors", ".arrow"}
    files = [path for path in folder.rglob("*") if path.suffix in kinds]
    notes = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}
    notes |= {"state.json", "dataset_info.json"}  # how `datasets` keeps the rows
    return {
        path.name.split("_2")[0]: golden_of(path)  # lm-eval puts the time into names
        for path in sorted(files)
        if path.name not in notes and not path.name.startswith(".")
    }


def goldens_workspace(folder: Path) -> Path:
    """The scaled-down plan, one of two models that exist as responses alone, and one that keeps checkpoints.

    Of its training's pairs, which lie in a file, one has a prompt of the set.
    """
    workspace = small_workspace(folder)
    (workspace / "evaluate/plans/given.yaml").write_text(GIVEN)
    (workspace / "evaluate/plans/kept.yaml").write_text(KEPT)
    pairs = [
        {"prompt": prompt, "chosen": f"{world.parse(prompt).answer}.", "rejected": "that is easy."}
        for prompt in [*world.prompts("preference", 30, 0), *world.prompts("eval", 1, 0)]
    ]
    (workspace / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    references = [{"instruction": one, "output": "a cow."} for one in world.prompts("eval", 60, 0)]
    (workspace / "references.json").write_text(json.dumps(references))
    prompts = world.prompts("eval", 60, 0)
    for model, text in (("good", "cow cow cow."), ("poor", "no.")):
        rows = [Generation(prompt, text, model) for prompt in prompts]
        write_rows(workspace / "given" / model / "model_outputs.json", rows)
    return workspace


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, Any]:
    """What each kind of job makes of the plans: the version of the kind, and its golden."""
    workspace = goldens_workspace(tmp_path_factory.mktemp("goldens"))
    found: dict[str, Any] = {"arithmetic": arithmetic()}

    def add(job: Job, folder: Path) -> None:
        version = lookup("job", job.kind).version
        kind = found.setdefault(job.kind, {"version": version, "jobs": {}})
        if job.name not in kind["jobs"]:  # two plans have another training of one name
            kind["jobs"][job.name] = made_by(folder)

    for plan in ("small", "given", "kept"):
        run_plan(plan, workspace)
        for job in build_graph(load_plan(plan, workspace)):
            add(job, WorkspacePaths(workspace).folder(job))
    with contextlib.chdir(workspace):
        for graph, folder in of_commands():
            run_graph(graph, workspace, silent)
            for job in graph:
                add(job, folder)
    if os.environ.get("ALIGNBOARD_GOLDENS") == "write":
        GOLDENS.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    return found | {"workspace": workspace}


def of_commands() -> Iterator[tuple[Graph, Path]]:
    """The kinds that commands alone have, whose files lie beside what was judged."""
    likeness = decode_judge(
        {"kind": "reference", "name": "likeness", "title": "", "references": "references.json"}
    )
    rows = read_rows(Path("given/good/model_outputs.json"), Generation)
    rated = answers(rows, Path("given/good"))
    yield (
        judging_graph(likeness, [rated], PlanJudge(judge=""), Path.cwd(), ask=True, replace=False),
        Path("given/good/likeness"),
    )
    yield (
        tournament_graph(
            load_judge("rule"),
            [f"given/{name}/model_outputs.json" for name in ("good", "poor")],
            PlanJudge(judge=""),
            folder="tournament",
            budget=100,
            policy="open-pairs",
            seed=0,
            n_people=5,
        ),
        Path("tournament"),
    )


def differs(made: dict[str, Any], golden: dict[str, Any], *, exact: bool) -> bool:
    """Whether a file holds something else than its golden."""
    if exact:
        close = golden["values"] == pytest.approx(made["values"], rel=1e-6, abs=1e-9)
        return made["digest"] != golden["digest"] or not close
    return sums(made["values"]) != pytest.approx(sums(golden["values"]), rel=2e-3, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_kind_makes_is_its_versions(kind, made):
    goldens = json.loads(GOLDENS.read_text())
    golden = goldens[kind]
    exact = kind in EXACT or made["arithmetic"] == goldens["arithmetic"]
    if made[kind]["version"] != golden["version"]:
        pytest.fail(f"The version of {kind!r} was raised: write its golden anew (see the module).")
    for job, files in golden["jobs"].items():
        assert set(made[kind]["jobs"][job]) == set(files), job
        for name, expected in files.items():
            assert not differs(made[kind]["jobs"][job][name], expected, exact=exact), (
                f"{job}: {name} holds something else than version {golden['version']} made; if it is meant, raise "
                f"the version of {kind!r} in pipeline/kinds.py and write its golden anew."
            )


def test_every_kind_has_a_golden():
    assert set(json.loads(GOLDENS.read_text())) == {*KINDS, "arithmetic"}


def test_a_golden_notices_another_word_and_another_seventh_digit(tmp_path):
    rows = [{"output": "a cow", "preference": 1.25, "seconds": 3.1, "n": 4}]

    def golden(**changes):
        path = tmp_path / "rows.json"
        path.write_text(json.dumps([rows[0] | changes]))
        return golden_of(path)

    assert not differs(golden(seconds=9.9), golden(), exact=True)
    assert differs(golden(output="a cat"), golden(), exact=True), "of one length"
    assert differs(golden(n=5), golden(), exact=True)
    assert differs(golden(preference=1.25001), golden(), exact=True)
    assert not differs(golden(preference=1.25001), golden(), exact=False), "another machine"
    assert differs(golden(preference=1.3), golden(), exact=False)


@pytest.mark.slow
def test_a_kind_is_done_again_with_what_depends_on_it(made):
    again = run_plan("small", made["workspace"], redo=["judge"])
    assert {timing.job.kind for timing in again.timings} == {"judge", "board"}
    assert run_plan("small", made["workspace"]).timings == []
