"""Every kind of job against a golden of its numbers: when they move, its version has to be raised.

A job's key holds its kind's version and not its sources, so nobody but this test notices that a change of code made
another result under the same key. ``ALIGNBOARD_GOLDENS=write pytest -m slow tests/pipeline/test_job_goldens.py``
writes the goldens anew, after the version was raised.
"""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alignboard.demo import plugin
from alignboard.pipeline import kinds
from alignboard.pipeline.plans.build import build_graph
from alignboard.pipeline.plans.plan import load_plan
from alignboard.pipeline.runner import run_plan
from alignboard.pipeline.store import Places
from alignboard.registry import lookup
from test_run import small_workspace

KINDS = kinds.KINDS | plugin.KINDS
GOLDENS = Path(__file__).parent / "job_goldens.json"
UNKEPT = {"outputs", "rate", "tournament"}
"""kinds without a golden: copies of files, and jobs of commands whose files lie in no job's folder"""
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
PASSING |= {"recipe", "base", "base_fingerprint", "parent_fingerprint", "device"}
PASSING |= {"end_tokens", "config_general", "lm_eval_version", "libraries", "provenance"}


def numbers(content: Any) -> Iterator[float]:
    """Every number in ``content``, and the length of every text."""
    if isinstance(content, dict):
        for key, value in content.items():
            if key not in PASSING:
                yield from numbers(value)
    elif isinstance(content, list):
        for value in content:
            yield from numbers(value)
    elif isinstance(content, str):
        yield float(len(content)) if not content.startswith("/") else 0.0
    elif isinstance(content, int | float) and not isinstance(content, bool):
        yield float(content)


def summary(file: Path) -> list[float]:
    """How many numbers a file holds, their sum, and the root of the sum of their squares."""
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        tensors = [tensor.double() for tensor in load_file(file).values()]
        total = sum(float(tensor.sum()) for tensor in tensors)
        squares = sum(float((tensor**2).sum()) for tensor in tensors)
        return [sum(tensor.numel() for tensor in tensors), total, math.sqrt(squares)]
    lines = file.read_text(encoding="utf-8")
    content = (
        [json.loads(line) for line in lines.splitlines() if line]
        if file.suffix == ".jsonl"
        else json.loads(lines)
    )
    found = [one for one in numbers(content) if math.isfinite(one)]
    return [len(found), math.fsum(found), math.sqrt(math.fsum(one * one for one in found))]


def summaries(folder: Path) -> dict[str, list[float]]:
    files = [
        path for path in folder.rglob("*") if path.suffix in {".json", ".jsonl", ".safetensors"}
    ]
    tokenizer = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}
    return {
        path.name.split("_2")[0]: summary(path)  # lm-eval puts the time into names
        for path in sorted(files)
        if path.name not in tokenizer and not path.name.startswith(".")
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, Any]:
    """What each kind of job makes of the scaled-down plan: the version of the kind, and its numbers."""
    workspace = small_workspace(tmp_path_factory.mktemp("goldens"))
    run_plan("small", workspace)
    found: dict[str, Any] = {}
    for job in build_graph(load_plan("small", workspace)):
        kind = found.setdefault(job.kind, {"version": lookup("job", job.kind).version, "jobs": {}})
        kind["jobs"][job.name] = summaries(Places(workspace).folder(job))
    if os.environ.get("ALIGNBOARD_GOLDENS") == "write":
        GOLDENS.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    return found | {"workspace": workspace}


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(set(KINDS) - UNKEPT))
def test_the_numbers_of_a_kind_are_its_versions(kind, made):
    golden = json.loads(GOLDENS.read_text())[kind]
    if made[kind]["version"] != golden["version"]:
        pytest.fail(f"The version of {kind!r} was raised: write its golden anew (see the module).")
    for job, files in golden["jobs"].items():
        for name, expected in files.items():
            assert made[kind]["jobs"][job][name] == pytest.approx(expected, rel=2e-3, abs=1e-3), (
                f"{job}: {name} holds other numbers than version {golden['version']} made; if they are meant, raise "
                f"the version of {kind!r} in pipeline/kinds.py and write its golden anew."
            )


def test_every_built_in_kind_has_a_golden():
    assert set(json.loads(GOLDENS.read_text())) == set(KINDS) - UNKEPT


@pytest.mark.slow
def test_a_kind_is_done_again_with_what_depends_on_it(made):
    again = run_plan("small", made["workspace"], redo=["judge"])
    assert {timing.job.kind for timing in again.timings} == {"judge", "board"}
    assert run_plan("small", made["workspace"]).timings == []
