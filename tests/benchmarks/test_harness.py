"""lm-eval through the library: its files, our digests, and the numbers that it gives by hand."""

import contextlib
import json
import math
import os
import random
import subprocess
import sys
from dataclasses import replace

import pytest

import tiny_models
from alignboard.benchmarks.harness import calm, sandboxed
from alignboard.benchmarks.lm import BenchmarkedModel
from alignboard.benchmarks.run import (
    generated_files,
    read_scores,
    run_tasks,
)
from alignboard.demo import world
from alignboard.demo.tasks import TASKS, write_task_data
from alignboard.engines.generate import Decoding, generate
from alignboard.errors import InputError
from alignboard.models import loading
from alignboard.models.loading import LoadedModel
from alignboard.suites import Benchmark

N = 40
CHOICE = Benchmark("demo_choice", "acc,none")
EXACT = Benchmark("demo_exact", "exact_match,none")


@pytest.fixture(scope="module")
def task_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    write_task_data(folder, seed=0, n=N)
    return folder


@pytest.fixture(scope="module")
def model():
    loaded = LoadedModel.load(tiny_models.base())
    for name, path in tiny_models.adapters().items():
        loaded.add_adapter(name, path)
    return loaded


@pytest.fixture(scope="module")
def scored(model, task_folder, tmp_path_factory):
    """The scores and the folder of results of one adapter."""
    out = tmp_path_factory.mktemp("results") / "one" / "lm_eval"
    before = len(loading.loads)
    with model.using("one"):
        files = generated_files(task_folder)
        scores = run_tasks(
            BenchmarkedModel(model), [CHOICE, EXACT], [task_folder], out, task_files=files
        )
    assert len(loading.loads) == before
    return scores, out


@pytest.mark.parametrize("quarantine", [contextlib.nullcontext, sandboxed])
def test_a_template_is_compiled_once_and_filled_in_each_time(quarantine, monkeypatch):
    from jinja2 import Environment
    from lm_eval import utils

    compiled = []
    kept = Environment.compile
    monkeypatch.setattr(
        Environment, "compile", lambda *given: compiled.append(given[1]) or kept(*given)
    )
    own = utils.env
    with calm(), quarantine():
        texts = [
            utils.apply_template(template, {"n": n, "word": "axb"})
            for n in range(3)
            for template in ("{{n}} apples\n", "{{word|regex_replace('x', 'y')}}{{n}}\n")
        ]
    assert texts == ["0 apples\n", "ayb0\n", "1 apples\n", "ayb1\n", "2 apples\n", "ayb2\n"]
    assert len(compiled) == 2
    assert utils.env is own


def test_task_data_is_the_same_to_the_byte(task_folder, tmp_path):
    write_task_data(tmp_path, seed=0, n=N)
    for name in TASKS:
        assert (tmp_path / f"{name}.jsonl").read_bytes() == (
            task_folder / f"{name}.jsonl"
        ).read_bytes()
    write_task_data(tmp_path, seed=1, n=N)
    assert (tmp_path / "demo_exact.jsonl").read_bytes() != (
        task_folder / "demo_exact.jsonl"
    ).read_bytes()


def test_documents_are_held_out_and_have_one_right_choice(task_folder):
    lines = (task_folder / "demo_choice.jsonl").read_text().splitlines()
    assert len(lines) == N
    labels = set()
    for row in map(json.loads, lines):
        task = world.parse(row["question"])
        assert task.split == "eval"
        assert len(set(row["choices"])) == 4
        right = [world.check(row["question"], choice) for choice in row["choices"]]
        assert right == [i == row["label"] for i in range(4)]
        labels.add(row["label"])
    assert labels == {0, 1, 2, 3}


def test_scores_and_files_are_lm_evals(scored):
    scores, out = scored
    assert {(s.task, s.metric) for s in scores} == {
        ("demo_choice", "acc"),
        ("demo_exact", "exact_match"),
    }
    assert {s.n_documents for s in scores} == {N}
    assert {s.n_shot for s in scores} == {0}
    names = sorted(path.name.partition("_2")[0] for path in out.iterdir())
    assert names == ["results", "samples_demo_choice", "samples_demo_exact"]
    results = json.loads(next(out.glob("results_*.json")).read_bytes())
    assert results["fewshot_as_multiturn"] is True
    assert results["chat_template_sha"] == results["alignboard"]["chat_template_sha256"]
    assert results["model_name"] == str(tiny_models.adapters()["one"])
    for score in scores:
        rows = [json.loads(line) for line in next(out.glob(f"samples_{score.task}_*.jsonl")).open()]
        values = [float(row[score.metric]) for row in rows]
        assert len(values) == N
        assert sum(values) / N == pytest.approx(score.value)
        p = score.value
        assert score.standard_error == pytest.approx(math.sqrt(p * (1 - p) / (N - 1)))


def test_our_digests_stand_beside_the_numbers(scored, model, task_folder):
    _, out = scored
    stamp = json.loads(next(out.glob("results_*.json")).read_bytes())["alignboard"]
    with model.using("one"):
        assert stamp["weights_sha256"] == model.fingerprint
        assert stamp["adapter_sha256"] == model.adapter_fingerprint
    assert sorted(stamp["task_files_sha256"]) == sorted(path.name for path in task_folder.iterdir())


def test_exact_match_is_the_worlds_own_check(scored, model):
    scores, _ = scored
    instructions = world.prompts("eval", N, 0)
    with model.using("one"):
        answers = generate(model, instructions, Decoding(32))
    right = sum(world.check(answer.instruction, answer.output) for answer in answers)
    assert next(s.value for s in scores if s.metric == "exact_match") == pytest.approx(right / N)


def test_the_filter_forgives_filler_and_nothing_else(task_folder):
    import yaml
    from lm_eval.api.metrics import exact_match_hf_evaluate

    task = yaml.safe_load((task_folder / "demo_exact.yaml").read_text())
    ignored = task["metric_list"][0]["regexes_to_ignore"]
    rng = random.Random(0)
    for text in world.prompts("eval", 300, 3):
        reply, _ = world.reply(world.parse(text), rng, p_padded=0.6, p_wrong=0.4)
        said = reply.replace(".", " .") if rng.random() < 0.5 else reply
        score = exact_match_hf_evaluate(
            [said], [world.parse(text).answer], regexes_to_ignore=ignored, ignore_case=True
        )["exact_match"]
        assert score == world.check(text, said), said


def test_a_second_run_replaces_the_first_and_leaves_others_alone(model, task_folder, tmp_path):
    foreign = tmp_path / "results_2024-01-01T00-00-00.000000.json"
    foreign.write_text('{"results": {"arc": {"acc,none": 0.5, "acc_stderr,none": "N/A"}}}')
    first = run_tasks(BenchmarkedModel(model), [CHOICE], [task_folder], tmp_path)
    second = run_tasks(BenchmarkedModel(model), [CHOICE], [task_folder], tmp_path)
    assert first == second
    assert foreign.exists()
    assert len(list(tmp_path.iterdir())) == 3
    (score,) = read_scores(foreign)
    assert (score.value, math.isnan(score.standard_error)) == (0.5, True)


def test_where_generated_documents_lie_is_no_part_of_their_digests(task_folder, tmp_path):
    write_task_data(tmp_path, seed=0, n=N)
    assert generated_files(tmp_path) == generated_files(task_folder)
    write_task_data(tmp_path, seed=1, n=N)
    changed, before = generated_files(tmp_path), generated_files(task_folder)
    assert {name for name in before if changed[name] != before[name]} == {
        "demo_choice.jsonl",
        "demo_exact.jsonl",
    }


def test_what_cannot_be_read_is_refused(tmp_path):
    broken = tmp_path / "results_x.json"
    broken.write_text("{")
    with pytest.raises(InputError, match="not a results file"):
        read_scores(broken)


@pytest.mark.slow
@pytest.mark.parametrize("adapter", [None, "one"])
def test_the_numbers_are_those_of_lm_eval_by_hand(adapter, model, task_folder, tmp_path):
    with model.using(adapter):
        ours = run_tasks(BenchmarkedModel(model), [CHOICE, EXACT], [task_folder], tmp_path / "ours")
    peft = f",peft={tiny_models.adapters()[adapter]}" if adapter else ""
    subprocess.run(
        [
            *(sys.executable, "-m", "lm_eval", "run", "--model", "hf"),
            *("--model_args", f"pretrained={tiny_models.base()}{peft},dtype=float32"),
            *("--tasks", ",".join(TASKS), "--include_path", str(task_folder)),
            *("--device", "cpu", "--batch_size", "32", "--apply_chat_template"),
            *("--log_samples", "--output_path", str(tmp_path / "hand.json")),
        ],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"},
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    (by_hand,) = tmp_path.glob("hand_*.json")
    # The command line writes no chance level; ours does.
    assert [replace(score, chance=None) for score in ours] == read_scores(by_hand)
    (mine,) = (tmp_path / "ours").glob("results_*.json")
    one, other = json.loads(mine.read_bytes()), json.loads(by_hand.read_bytes())
    for key in ("task_hashes", "versions", "n-shot", "n-samples", "chat_template_sha"):
        assert one[key] == other[key]
