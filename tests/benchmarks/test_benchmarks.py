"""Suites of lm-eval tasks: where tasks are found, groups, numbers of examples, and the plan that asks them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import tiny_models
from alignboard.benchmarks.lm import BenchmarkedModel
from alignboard.benchmarks.run import read_scores, run_tasks
from alignboard.benchmarks.task_files import digests, lm_eval_folder, rooms
from alignboard.boards.board import read_board
from alignboard.errors import InputError
from alignboard.models.loading import LoadedModel
from alignboard.pipeline.jobs.board_notes import conditions
from alignboard.pipeline.plans.build import build_graph
from alignboard.pipeline.plans.plan import load_plan
from alignboard.pipeline.plans.references import suite_files
from alignboard.pipeline.progress import job_table
from alignboard.results.journal import Journal
from alignboard.suites import Benchmark, EvaluationSuite, load_evaluation
from commands import run_plan

ROOT = Path(__file__).parents[2]
NOUNS = ("cat", "dog", "sun", "sea", "tree", "moon")


@pytest.fixture(scope="module")
def model():
    return LoadedModel.load(tiny_models.base())


def write(folder, name, content):
    path = folder / "evaluate" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def choice_task(workspace, name, n_test, **changes):
    """A multiple-choice task over a local file of ``n_test`` documents, and eight to show as examples."""
    rows = [
        {"question": f"{i} What is a {noun} ?", "choices": list(NOUNS[:4]), "label": i % 4}
        for i, noun in enumerate(NOUNS * 6)
    ]
    data = workspace / "data" / f"{name}.jsonl"
    data.parent.mkdir(exist_ok=True)
    splits = {"train": rows[-30:], "test": rows[:n_test]}
    for split, some in splits.items():
        data.with_suffix(f".{split}.jsonl").write_text("\n".join(map(json.dumps, some)))
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {s: str(data.with_suffix(f".{s}.jsonl")) for s in splits}},
        "training_split": "train",
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "question",
        "doc_to_choice": "choices",
        "doc_to_target": "label",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }
    return write(workspace, f"tasks/{name}", task | changes)


def group(workspace, name, members):
    """A group with the size-weighted mean of its members' accuracy, as mmlu has."""
    means = [{"metric": "acc", "weight_by_size": True}]
    return write(
        workspace, f"tasks/{name}", {"group": name, "task": members, "aggregate_metric_list": means}
    )


@pytest.fixture
def pair(tmp_path):
    """A workspace with a group of two tasks, of two documents and of four."""
    choice_task(tmp_path, "left", 2)
    choice_task(tmp_path, "right", 4)
    group(tmp_path, "pair", ["left", "right"])
    return tmp_path


def shots(path):
    content = json.loads(path.read_bytes())
    return content["n-shot"]


def test_a_group_with_its_number_of_examples_is_lm_evals(model, pair, tmp_path):
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    folder, out = pair / "evaluate" / "tasks", tmp_path / "out"
    choice_task(pair, "alone", 3)
    asked = [Benchmark("pair", "acc,none", 2), Benchmark("alone", "acc_norm,none", 1)]
    scores = run_tasks(BenchmarkedModel(model), asked, [folder], out, apply_chat_template=False)
    (file,) = out.glob("results_*.json")
    assert {"left": 2, "right": 2, "pair": 2, "alone": 1}.items() <= shots(file).items()
    ours = {(s.task, s.metric): s for s in scores}
    assert (ours["pair", "acc"].n_documents, ours["pair", "acc"].n_shot) == (6, 2)
    assert ours["pair", "acc"].value == pytest.approx(
        (2 * ours["left", "acc"].value + 4 * ours["right", "acc"].value) / 6
    )
    assert len(list(out.glob("samples_*.jsonl"))) == 3
    make: Any = HFLM
    lm = make(
        pretrained=model.model, tokenizer=model.tokenizer, batch_size=32, max_length=model.context
    )
    for name, n in (("pair", 2), ("alone", 1)):
        manager = TaskManager(include_defaults=False, include_path=str(folder))
        by_hand: Any = simple_evaluate(lm, tasks=[name], num_fewshot=n, task_manager=manager)
        for (task, metric), score in ours.items():
            if task in by_hand["results"]:
                numbers = by_hand["results"][task]
                assert score.value == numbers[f"{metric},none"]
                assert score.standard_error == numbers[f"{metric}_stderr,none"]
        for task, samples in by_hand["samples"].items():
            (rows,) = out.glob(f"samples_{task}_*.jsonl")
            hashes = [json.loads(line)["prompt_hash"] for line in rows.read_text().splitlines()]
            assert hashes == [sample["prompt_hash"] for sample in samples]
    assert read_scores(file) == scores


def test_examples_change_the_prompt_even_where_the_task_says_zero(model, tmp_path):
    choice_task(tmp_path, "none", 2, num_fewshot=0)
    folder = tmp_path / "evaluate" / "tasks"
    for n, expected in ((None, 0), (3, 3)):
        run_tasks(
            BenchmarkedModel(model), [Benchmark("none", "acc,none", n)], [folder], tmp_path / str(n)
        )
        (file,) = (tmp_path / str(n)).glob("results_*.json")
        assert shots(file) == {"none": expected}


@pytest.mark.parametrize(
    ("benchmark", "told"),
    [
        (Benchmark("lift", "acc,none"), "'lift' is neither declared in evaluate/tasks/lift.yaml"),
        (
            Benchmark("left", "acc"),
            "'left' reports no metric 'acc'; it has: acc,none; acc_norm,none",
        ),
        (
            Benchmark("pair", "acc_norm,none"),
            r"reports no metric 'acc_norm,none'; it has: acc,none\.$",
        ),
        (Benchmark("lost", "acc,none"), "the task 'lost' cannot be loaded"),
        (Benchmark("split"), "the task 'split' cannot be loaded: its data have no 'valid'"),
        (Benchmark("field"), "'field' cannot be loaded: a template of it .*'nothing' is undefined"),
        (Benchmark("target"), "'target': the target of its first document, 'answer', is none of"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(benchmark, told, model, pair, tmp_path):
    choice_task(pair, "lost", 1, dataset_kwargs={"data_files": {"test": "/nowhere.jsonl"}})
    choice_task(pair, "split", 1, test_split="valid")
    choice_task(pair, "field", 1, doc_to_text="{{nothing}}")
    choice_task(pair, "target", 1, doc_to_target="answer")
    with pytest.raises(InputError, match=told) as error:
        run_tasks(
            BenchmarkedModel(model), [benchmark], [pair / "evaluate" / "tasks"], tmp_path / "out"
        )
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists(), "the model was not asked"


def test_a_split_that_a_tasks_files_lack_is_named_before_the_load(pair):
    choice_task(pair, "split", 1, test_split="valid")
    own = EvaluationSuite(name="own", title="Own", benchmarks=[Benchmark("split")])
    with pytest.raises(InputError, match=r"split 'valid', which dataset_kwargs\.data_files lacks"):
        suite_files(own, pair, trusted=False)


@pytest.mark.parametrize("is_shared", [True, False])
def test_batches_are_halved_where_memory_runs_out(is_shared, model, pair, tmp_path, monkeypatch):
    from alignboard.benchmarks import lm

    model_class: Any = model.model.__class__
    sizes, original = [], model_class.forward

    def small(self, input_ids, **more):
        sizes.append(input_ids.numel())
        if input_ids.numel() > 40:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return original(self, input_ids, **more)

    folder, asked = pair / "evaluate" / "tasks", [Benchmark("pair", "acc,none", 1)]
    expected = run_tasks(BenchmarkedModel(model), asked, [folder], tmp_path / "a")
    monkeypatch.setattr(model_class, "forward", small)
    monkeypatch.setattr(lm, "can_share", lambda _model: is_shared)
    monkeypatch.setattr(lm.ContextOnce, "_try_passes", lambda *_: None)
    seen = []
    with Journal(tmp_path / "journal", "one") as journal:
        found = run_tasks(
            *(BenchmarkedModel(model), asked, [folder], tmp_path / "b"),
            journal=journal,
            on_progress=lambda *step: seen.append(step),
        )
        assert journal.check().computed_twice == {}
    assert [s.value for s in found] == [s.value for s in expected]
    assert max(sizes) > 40 >= sizes[-1]
    assert seen[-1] == (6, 6)


def test_lm_evals_own_names_are_found_without_indexing_them_all():
    names = ["arc_challenge", "hellaswag", "mmlu", "truthfulqa_mc2", "winogrande", "gsm8k"]
    folders = [lm_eval_folder(name) for name in names]
    assert [folder.name for folder in folders if folder] == [
        *("arc", "hellaswag", "mmlu", "truthfulqa", "winogrande", "gsm8k")
    ]
    assert lm_eval_folder("mmul") is None


def test_digests_are_of_everything_that_a_local_task_is_made_of(pair):
    assert digests(["mmlu"], pair) == {}, "lm-eval's version is in every key"
    files = digests(["pair"], pair)
    assert sorted(files) == [
        *(
            f"data/{name}.{split}.jsonl"
            for name in ("left", "right")
            for split in ("test", "train")
        ),
        *(f"evaluate/tasks/{name}.yaml" for name in ("left", "pair", "right")),
    ]
    choice_task(pair, "right", 3)
    changed = digests(["pair"], pair)
    assert {name for name in files if files[name] != changed[name]} == {"data/right.test.jsonl"}
    (pair / "evaluate/tasks/helpers.py").write_text("def text(doc):\n    return doc['question']\n")
    write(
        pair,
        "tasks/made",
        "task: made\ninclude: left.yaml\ndoc_to_text: !function helpers.text\n",
    )
    assert {"evaluate/tasks/helpers.py", "evaluate/tasks/left.yaml"} < digests(
        ["made"], pair, trusted=True
    ).keys()
    choice_task(pair, "lost", 1, dataset_kwargs={"data_files": "no/such.jsonl"})
    write(pair, "tasks/other", {"task": "another"})
    choice_task(pair, "typo", 1, tset_split="test")
    with pytest.raises(
        InputError, match=r"typo\.yaml: a task has no field 'tset_split', did you m"
    ):
        digests(["typo"], pair)
    with pytest.raises(InputError, match=r"other\.yaml: it declares 'another'"):
        digests(["other"], pair)
    with pytest.raises(InputError, match=r"lost\.yaml: dataset_kwargs\.data_files names 'no/such"):
        digests(["lost"], pair)


def test_a_task_includes_a_template_of_lm_evals_that_has_no_name(tmp_path):
    folder = lm_eval_folder("mmlu_anatomy")
    assert folder is not None
    file = folder / "default" / "mmlu_anatomy.yaml"
    write(tmp_path, "tasks/anatomy", {"include": str(file), "task": "anatomy"})
    files = [Path(name).name for name in digests(["anatomy"], tmp_path)]
    assert sorted(files) == ["_default_template_yaml", "anatomy.yaml", "mmlu_anatomy.yaml"]
    write(tmp_path, "tasks/nameless", {"output_type": "multiple_choice"})
    with pytest.raises(InputError, match=r"nameless\.yaml: a task, or a member of a group, has no"):
        digests(["nameless"], tmp_path)


def test_data_behind_a_link_are_part_of_the_digests(pair):
    (pair / "elsewhere").mkdir()
    (pair / "elsewhere/test.jsonl").write_text("{}")
    (pair / "kept").mkdir()
    (pair / "kept/linked").symlink_to(pair / "elsewhere")
    choice_task(pair, "linked", 1, dataset_path="kept", dataset_kwargs={})
    assert "elsewhere/test.jsonl" in digests(["linked"], pair)


def like_the_hub(path, name=None, **_):
    """Documents in the form of the data sets of the first Open LLM Leaderboard; what they say is made up."""
    import datasets

    choices = list(NOUNS[:4])
    questions = [f"{i} What is a {noun} ?" for i, noun in enumerate(NOUNS * 5)]
    rows = {
        "allenai/ai2_arc": {
            "choices": {"text": choices, "label": list("ABCD")},
            "answerKey": "B",
        },
        "Rowan/hellaswag": {
            **dict.fromkeys(("ctx_a", "ctx_b", "activity_label"), "the cat"),
            "endings": choices,
            "label": "1",
        },
        "cais/mmlu": {"choices": choices, "answer": 2, "subject": name},
        "truthfulqa/truthful_qa": {
            "mc1_targets": {"choices": choices, "labels": [1, 0, 0, 0]},
            "mc2_targets": {"choices": choices, "labels": [1, 1, 0, 0]},
        },
        "allenai/winogrande": {
            "sentence": "the cat _ the sea .",
            "option1": "sees",
            "option2": "is",
            "answer": "1",
        },
        "openai/gsm8k": {"answer": "It is so .\n#### 4"},
    }[path]
    some = datasets.Dataset.from_list([{"question": question, **rows} for question in questions])
    return datasets.DatasetDict(
        {split: some if split in {"train", "dev"} else some.select([0]) for split in SPLITS}
    )


SPLITS = ("train", "dev", "validation", "test")


def test_open_llm_v1_is_what_lm_evals_own_tasks_report(model, tmp_path, monkeypatch):
    """lm-eval's own declarations, all 57 subjects of mmlu among them, with made-up documents."""
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", like_the_hub)
    monkeypatch.setattr(model.model.config, "max_position_embeddings", 512)  # gsm8k writes 256
    declared = load_evaluation("open-llm-v1")
    scores = run_tasks(
        BenchmarkedModel(model),
        declared.benchmarks,
        rooms(tmp_path),
        tmp_path / "out",
        apply_chat_template=declared.apply_chat_template,
    )
    found = {(s.task, f"{s.metric},{s.filter}"): s for s in scores}
    for benchmark in declared.benchmarks:
        score = found[benchmark.task, str(benchmark.metric)]
        assert score.n_shot == benchmark.num_fewshot
        assert score.n_documents == (57 if benchmark.task == "mmlu" else 1)


PLAN = {"name": "p", "models": {"tiny-phi": {"pretrain": "phi"}}, "suites": ["s"]}


def suite(*tasks):
    return {"kind": "evaluation", "name": "s", "title": "S", "benchmarks": [*tasks]}


def test_a_suite_of_lm_evals_tasks_is_one_job_a_model(tmp_path):
    write(tmp_path, "plans/p", PLAN | {"suites": ["open-llm-v1"]})
    graph = build_graph(load_plan("p", tmp_path))
    assert list(graph.jobs) == ["checkpoint tiny-phi", "lm-eval open-llm-v1 tiny-phi", "board p"]
    parameters = graph.jobs["lm-eval open-llm-v1 tiny-phi"].parameters
    assert [(task["task"], task["num_fewshot"]) for task in parameters["tasks"]] == [
        *(("arc_challenge", 25), ("hellaswag", 10), ("mmlu", 5)),
        *(("truthfulqa_mc2", 0), ("winogrande", 5), ("gsm8k", 5)),
    ]
    assert parameters["apply_chat_template"] is False


def test_keys_of_benchmarks_name_what_changes_their_numbers(pair):
    def key(task):
        write(pair, "suites/s", suite(task))
        write(pair, "plans/p", PLAN)
        return build_graph(load_plan("p", pair)).jobs["lm-eval s tiny-phi"].key

    task = {"task": "pair", "metric": "acc,none", "num_fewshot": 1}
    keys = [key(task), key(task), key(task | {"num_fewshot": 2})]
    choice_task(pair, "left", 3)
    keys.append(key(task))
    choice_task(pair, "left", 3, doc_to_text="{{question}} ?")
    keys.append(key(task))
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4


def test_a_task_that_nobody_declares_is_told_when_the_plan_is_read(tmp_path):
    write(tmp_path, "suites/s", suite({"task": "arc_chalenge", "metric": "acc,none"}))
    write(tmp_path, "plans/p", PLAN)
    told = (
        r"suites/s\.yaml: the task 'arc_chalenge' .* nor by lm-eval, did you mean 'arc_challenge'"
    )
    with pytest.raises(InputError, match=told):
        load_plan("p", tmp_path)


def test_the_zephyr_plan_lists_its_jobs_without_weights_or_network(tmp_path):
    result = run_plan("zephyr-dpo", tmp_path, dry_run=True)
    assert [job.name.partition(" ")[0] for job in result.jobs[:8]] == [
        *("checkpoint", "data", "tokens", "train"),
        *("data", "tokens", "reference", "train"),
    ]
    names = [job.name for job in result.jobs[8:]]
    assert names == [
        "lm-eval open-llm-v1 mistral-7b",
        "lm-eval open-llm-v1 mistral-7b-sft-qlora",
        "lm-eval open-llm-v1 mistral-7b-dpo-qlora",
        *(name for name in names if name.startswith("contamination ")),
        "board zephyr-dpo",
    ]
    assert [name.split()[2] for name in names if name.startswith("contamination ")] == [
        "ultrachat_200k",
        "ultrafeedback_binarized",
    ]
    (board,) = [job for job in result.jobs if job.kind == "board"]
    assert conditions(board.parameters, None) == [
        "open-llm-v1 is asked in plain text, without the models' chat templates.",
        (
            "Trained on the base model in 4 bits, and evaluated on it unquantised, in its own precision: "
            "mistral-7b-sft-qlora, mistral-7b-dpo-qlora."
        ),
    ]
    table = job_table(result.jobs, result.done_before, result.expected, result.n_workers)
    assert re.search(r"train mistral-7b-sft-qlora +not known yet", table)
    assert "no estimate for 11 of them (never run on this machine); the rest about" in table


# The second example of the README, from its own plan file: tiny weights, a few steps, local documents.


def conversation(i):
    return [
        {"role": "user", "content": f"What is a {NOUNS[i % 6]} and a {NOUNS[i // 6 % 6]} ?"},
        {"role": "assistant", "content": f"{NOUNS[(i + 1) % 6]} ."},
    ]


def miniature(workspace):
    """The plan scaled down: what `open-llm-v1` asks is declared here, by the names that it has in lm-eval."""
    sft, preference = workspace / "sft.jsonl", workspace / "preference.jsonl"
    sft.write_text("\n".join(json.dumps({"messages": conversation(i)}) for i in range(24)))
    preference.write_text(
        "\n".join(
            json.dumps(
                {
                    "chosen": conversation(i),
                    "rejected": conversation(i)[:1] + conversation(i + 1)[1:],
                }
            )
            for i in range(24)
        )
    )
    for task in ("arc_challenge", "hellaswag", "truthfulqa_mc2", "winogrande", "one", "two"):
        choice_task(workspace, task, 3)
    group(workspace, "mmlu", ["one", "two"])
    exact = {
        "output_type": "generate_until",
        "doc_to_choice": None,
        "doc_to_target": "{{choices[label]}}",
        "generation_kwargs": {"until": ["."], "max_gen_toks": 4, "do_sample": False},
        "metric_list": [{"metric": "exact_match"}],
        "filter_list": [{"name": "strict-match", "filter": [{"function": "take_first"}]}],
    }
    choice_task(workspace, "gsm8k", 2, **exact)
    small = {
        "quantization": None,
        "chat_template": None,
        "max_length": 64,
        "lora": {"r": 4, "alpha": 4},
        "optimizer": {"name": "adamw_torch"},
        "batch": {"global": 4},
        "duration": {"epochs": None, "steps": 2},
    }
    plan = yaml.safe_load((ROOT / "evaluate/plans/zephyr-dpo.yaml").read_text())
    plan["models"]["mistral-7b"]["source"] = str(tiny_models.base("mistral"))
    plan["overrides"] = {
        "recipes": {
            "mistral-7b/sft-qlora": small | {"data": {"name": "sft.jsonl"}},
            "mistral-7b/dpo-qlora": small | {"data": {"name": "preference.jsonl"}},
        }
    }
    write(workspace, "plans/zephyr-dpo", plan)


@pytest.mark.slow
def test_the_zephyr_plan_in_miniature(tmp_path):
    miniature(tmp_path)
    result = run_plan("zephyr-dpo", tmp_path)
    assert len(result.timings) == 14
    assert result.board is not None
    board = read_board(result.board)
    assert [row.method for row in board.rows] == ["base", "sft-qlora", "dpo-qlora"]
    columns = [column for column in board.columns if column.kind == "benchmark"]
    assert [column.name for column in columns] == [
        "arc_challenge acc_norm",
        "hellaswag acc_norm",
        "mmlu acc",
        "truthfulqa_mc2 acc",
        "winogrande acc",
        "gsm8k exact_match (strict-match)",
        "open-llm-v1 mean",
    ]
    for row in board.rows:
        *values, mean = [board.score(row, column).value for column in columns]
        assert mean == pytest.approx(sum(v for v in values if v is not None) / 6)
    assert board.notes == [
        "open-llm-v1 is asked in plain text, without the models' chat templates."
    ]
    folder = tmp_path / "results" / "mistral-7b-dpo-qlora" / "lm_eval"
    shown = json.loads((folder / "results_open-llm-v1.json").read_bytes())
    assert shots(folder / "results_open-llm-v1.json")["arc_challenge"] == 25
    assert "evaluate/tasks/mmlu.yaml" in shown["alignboard"]["task_files_sha256"]
    assert (folder / "samples_one_open-llm-v1.jsonl").is_file()
    assert run_plan("zephyr-dpo", tmp_path).timings == []
    before = {job.name: job.key for job in result.jobs}
    (tmp_path / "preference.jsonl").write_text((tmp_path / "sft.jsonl").read_text())
    after = {job.name: job.key for job in run_plan("zephyr-dpo", tmp_path, dry_run=True).jobs}
    shared = ("data ", "tokens ", "reference ", "contamination ")  # named by their content
    assert {
        name for name, key in before.items() if not name.startswith(shared) and after[name] != key
    } == {
        "train mistral-7b-dpo-qlora",
        "lm-eval open-llm-v1 mistral-7b-dpo-qlora",
        "board zephyr-dpo",
    }
