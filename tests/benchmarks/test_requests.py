"""lm-eval's requests through our model class: the numbers are lm-eval's, and no result is computed twice."""

import contextlib
import json
import multiprocessing
import os
import random
import sqlite3
import subprocess
import sys
from weakref import WeakKeyDictionary

import pytest

import tiny_models
from alignboard.benchmarks.lm import BenchmarkedModel
from alignboard.benchmarks.request_rows import RequestRows
from alignboard.benchmarks.run import run_tasks
from alignboard.benchmarks.shards import Shards, parts
from alignboard.demo import world
from alignboard.errors import InputError
from alignboard.models.loading import LoadedModel
from alignboard.models.spec import ModelSpec
from alignboard.pipeline.answerers import LocalModels
from alignboard.pipeline.jobs.benchmarks import suite_notes
from alignboard.pipeline.store import WorkspacePaths
from alignboard.results.journal import Journal
from benchmark_tasks import (
    BENCHMARKS,
    TASKS,
    asked_rows,
    assert_alike,
    responses,
    stamp,
    write_tasks,
)

FAMILIES = ("phi", "mistral", "gemma", "llama")


@pytest.fixture(scope="module")
def model():
    loaded = LoadedModel.load(tiny_models.base())
    for name, path in tiny_models.adapters().items():
        loaded.add_adapter(name, path)
    return loaded


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tasks(tmp_path_factory.mktemp("tasks"))


def check_own_passes(model, folder, tmp_path, chat, monkeypatch):
    """Scores and responses are those of lm-eval's own passes over the same model."""
    from alignboard.benchmarks import lm

    ours = run_tasks(
        BenchmarkedModel(model), BENCHMARKS, [folder], tmp_path / "a", apply_chat_template=chat
    )
    assert stamp(tmp_path / "a")["passes"] == "context-once"
    assert "generations" not in stamp(tmp_path / "a")
    monkeypatch.setattr(lm, "can_share", lambda _model: False)
    monkeypatch.setattr(lm, "changes_greedy", lambda _own: "a test")
    theirs = run_tasks(
        BenchmarkedModel(model), BENCHMARKS, [folder], tmp_path / "b", apply_chat_template=chat
    )
    assert stamp(tmp_path / "b")["passes"] == "lm-eval (the model's architecture)"
    assert stamp(tmp_path / "b")["generations"] == "lm-eval (a test)"
    for one, other in zip(ours, theirs, strict=True):
        assert one.value == pytest.approx(other.value, rel=1e-6)
        assert (one.task, one.metric, one.n_shot) == (other.task, other.metric, other.n_shot)
    found, expected = responses(tmp_path / "a"), responses(tmp_path / "b")
    assert found.keys() == expected.keys()
    assert len(found) == 48
    for key, value in found.items():
        assert_alike(value, expected[key])


@pytest.mark.parametrize("chat", [False, True])
def test_responses_are_those_of_lm_evals_own_passes(model, folder, tmp_path, chat, monkeypatch):
    with model.using("one"):
        check_own_passes(model, folder, tmp_path, chat, monkeypatch)


def test_generations_end_where_lm_evals_do(model, monkeypatch):
    """Stop texts, texts of special tokens, the model's own end, a limit, contexts that are cut."""
    from lm_eval.api.instance import Instance

    from alignboard.benchmarks import lm

    monkeypatch.setattr(model.model.config, "max_position_embeddings", 60)
    settings = [
        {"until": [], "max_gen_toks": 20, "do_sample": False},
        {"until": ["the", "\n\n"], "max_gen_toks": 20},
        {"until": [model.tokenizer.eos_token, "."], "max_gen_toks": 45, "top_p": 0.9},
        {"until": "sea", "max_gen_toks": 2, "temperature": 0.0},
    ]
    turns = [[{"role": "user", "content": text}] for text in world.prompts("eval", 24, seed=0)]

    def generated(batch_size):
        one = BenchmarkedModel(model).lm(RequestRows({}, None, lambda *_: None))
        one.batch_size_per_gpu = batch_size
        requests = [
            Instance(
                "generate_until",
                {},
                (one.apply_chat_template(own), settings[k % 4]),
                k,
                ("t", k, 1),
            )
            for k, own in enumerate(turns)
        ]
        return one.generate_until(requests), one.own_generation

    ours, none = generated(8)
    monkeypatch.setattr(lm, "changes_greedy", lambda _own: "a test")
    theirs, why = generated(1)
    assert (none, why) == (None, "a test")
    assert ours == theirs
    assert len(set(ours)) > 8


def test_a_task_that_leaves_no_room_for_its_prompt_is_one_sentence(
    model, folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(model.model.config, "max_position_embeddings", 12)
    with pytest.raises(
        InputError, match=r"'written' generates up to 12 tokens, and the model takes 12 with"
    ):
        run_tasks(BenchmarkedModel(model), [BENCHMARKS[2]], [folder], tmp_path / "a")


def test_what_is_not_greedy_is_generated_by_lm_eval(model):
    from transformers import GenerationConfig

    from alignboard.benchmarks.lm import changes_greedy, not_greedy
    from alignboard.models.own_decoding import read_own_decoding

    greedy = {"until": ["."], "max_gen_toks": 8, "do_sample": False, "temperature": 0.0}
    assert not_greedy(greedy) is None
    assert not_greedy(greedy | {"do_sample": True}) == "sampling"
    assert not_greedy(greedy | {"num_beams": 4}) == "num_beams of the task"
    assert changes_greedy(model.own_decoding) is None
    released = GenerationConfig(do_sample=True, temperature=0.6, top_p=0.9, eos_token_id=[1, 2])
    assert changes_greedy(read_own_decoding(released.to_dict(), "it")) is None
    beams = changes_greedy(read_own_decoding({"num_beams": 4, "repetition_penalty": 1.1}, "it"))
    assert beams == "num_beams of the model's generation configuration"


def texts(model, asked, folder, out):
    run_tasks(BenchmarkedModel(model), asked, [folder], out)
    return responses(out)


def test_what_the_generation_configuration_says_is_what_lm_eval_does(
    model, folder, tmp_path, monkeypatch
):
    """A penalty shapes our texts as lm-eval's own loop has them; a stop string, which that cannot take, ends them."""
    from alignboard.benchmarks import lm

    own, asked = model.model.generation_config, BENCHMARKS[2:3]
    plain = texts(model, asked, folder, tmp_path / "plain")
    monkeypatch.setattr(own, "repetition_penalty", 1.8)
    monkeypatch.setattr(own, "no_repeat_ngram_size", 2)
    ours = texts(model, asked, folder, tmp_path / "ours")
    with monkeypatch.context() as patched:
        patched.setattr(lm, "changes_greedy", lambda _own: "a test")
        assert texts(model, asked, folder, tmp_path / "theirs") == ours
    assert ours != plain
    monkeypatch.setattr(own, "repetition_penalty", 1.0)
    monkeypatch.setattr(own, "no_repeat_ngram_size", 0)
    monkeypatch.setattr(own, "stop_strings", ["a"])
    stopped = texts(model, asked, folder, tmp_path / "stopped")
    assert stopped == {
        key: [[one.partition("a")[0] for one in some] for some in value]
        for key, value in plain.items()
    }
    assert stopped != plain


def test_passes_that_a_model_does_not_heed_are_found(model, folder, tmp_path, monkeypatch):
    from alignboard.benchmarks import lm, scoring

    kept = scoring.attended
    monkeypatch.setattr(lm, "_TRIED_MODELS", WeakKeyDictionary())
    monkeypatch.setattr(scoring, "attended", lambda c, seen, *rest: kept(c, seen | True, *rest))
    asked = BENCHMARKS[:1]
    run_tasks(BenchmarkedModel(model), asked, [folder], tmp_path / "a", apply_chat_template=False)
    assert stamp(tmp_path / "a")["passes"].startswith("lm-eval (log-probabilities of -")
    monkeypatch.setattr(lm, "_TRIED_MODELS", WeakKeyDictionary())
    monkeypatch.setattr(scoring, "attended", kept)
    run_tasks(BenchmarkedModel(model), asked, [folder], tmp_path / "b", apply_chat_template=False)
    found, expected = responses(tmp_path / "a"), responses(tmp_path / "b")
    for key, value in found.items():
        assert_alike(value, expected[key])


def test_reasoning_is_removed_before_stops_and_filters(model, folder, tmp_path, monkeypatch):
    """A reply that never comes to an answer has none; a template without reasoning leaves replies as they are."""
    replies = iter(["<think>a. b</think>sea. no", "<think>dog. never ends", "cat. no"])
    monkeypatch.setattr(
        *("lm_eval.models.huggingface.HFLM.tok_decode",),
        lambda _self, tokens, *_: next(replies, "sea. x") if isinstance(tokens, list) else "</s>",
    )

    def run(template, name):
        monkeypatch.setattr(model, "base_chat_template", template)
        with model.using(None):
            run_tasks(BenchmarkedModel(model), [BENCHMARKS[2]], [folder], tmp_path / name)
        return [responses(tmp_path / name)["written", k][0][0] for k in range(12)]

    found = run(model.base_chat_template + "{# <think> #}", "a")
    assert sorted(found)[:2] == ["", "cat"]
    assert set(found) == {"", "cat", "sea"}
    replies = iter(["<think>a. b</think>sea. no"])
    assert "<think>a" in run(model.base_chat_template.removesuffix("{# <think> #}"), "b")


def test_our_passes_are_tried_once_a_model(model, folder, tmp_path, monkeypatch):
    from alignboard.benchmarks import lm

    tried = []
    kept = lm.ContextOnce._difference
    monkeypatch.setattr(
        lm.ContextOnce,
        "_difference",
        lambda self, some: tried.append(len(some)) or kept(self, some),
    )
    monkeypatch.setattr(lm, "_TRIED_MODELS", WeakKeyDictionary())
    for name in "ab":
        run_tasks(BenchmarkedModel(model), BENCHMARKS[:1], [folder], tmp_path / name)
    assert tried == [2]


def test_a_repeated_or_longer_run_computes_what_is_new(model, tmp_path):
    with Journal(tmp_path / "journal", "one") as journal:

        def run(n, name):
            tasks = write_tasks(tmp_path / "tasks", n)
            return run_tasks(
                BenchmarkedModel(model), BENCHMARKS, [tasks], tmp_path / name, journal=journal
            )

        run(4, "a")
        assert asked_rows(journal) == (4 * (4 + 4 + 1 + 1), 0)
        longer = run(9, "b")
        assert asked_rows(journal) == (9 * (4 + 4 + 1 + 1), 0)
        assert run(9, "c") == longer
        assert asked_rows(journal) == (9 * (4 + 4 + 1 + 1), 0)
        assert responses(tmp_path / "b") == responses(tmp_path / "c")


def test_adapters_templates_and_the_base_share_no_result(model, folder, tmp_path):
    """lm-eval's own cache gives the second adapter the first one's answers."""
    found = {}
    with Journal(tmp_path / "journal", "one") as journal:
        for number, (adapter, chat) in enumerate(
            [(None, False), ("one", False), ("two", False), ("one", True)], start=1
        ):
            out = tmp_path / f"{adapter}-{chat}"
            with model.using(adapter):
                run_tasks(
                    *(BenchmarkedModel(model), BENCHMARKS, [folder], out),
                    apply_chat_template=chat,
                    journal=journal,
                )
            found[adapter, chat] = responses(out)
            assert asked_rows(journal) == (number * 12 * 10, 0)
    counted = [
        json.loads(next((tmp_path / name).glob("results_*.json")).read_text())["config"]
        for name in ("None-False", "one-False", "two-False")
    ]
    of_base, of_one, of_two = (one["model_num_parameters"] for one in counted)
    assert of_base < of_one == of_two
    assert of_base == sum(
        w.numel() for w in LoadedModel.load(tiny_models.base()).model.parameters()
    )
    assert all(
        found["one", False][key] != found["two", False][key]
        for key in found["one", False]
        if key[0] != "written"
    )


def test_an_adapter_that_changes_nothing_is_found(model, folder, tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(tiny_models.base())
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    get_peft_model(plain, config).save_pretrained(str(tmp_path / "untrained"))
    model.add_adapter("untrained", tmp_path / "untrained")
    moved = {}
    for adapter in (None, "one", "untrained"):
        with model.using(adapter):
            run_tasks(BenchmarkedModel(model), BENCHMARKS[:1], [folder], tmp_path / str(adapter))
        moved[adapter] = stamp(tmp_path / str(adapter))["adapter_moved_logprobs"]
    assert moved[None] is None
    assert moved["one"] > 0.01
    assert moved["untrained"] == 0


def test_what_is_cut_on_the_left_is_counted(model, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(model.model.config, "max_position_embeddings", 30)
    with Journal(tmp_path / "journal", "one") as journal:
        for name in ("a", "b"):  # the second time from the journal
            run_tasks(
                *(BenchmarkedModel(model), BENCHMARKS[:3], [folder], tmp_path / name),
                apply_chat_template=False,
                journal=journal,
            )
            cut = stamp(tmp_path / name)["cut_on_the_left"]
            assert cut["letter"]["requests"] == 48
            assert cut["letter"]["tokens"] > 48
            assert 0 < cut["written"]["requests"] <= 12


def test_the_board_notes_idle_adapters_cut_contexts_and_models_without_a_run(tmp_path):
    (tmp_path / "lm_eval").mkdir()
    found = {
        "adapter_moved_logprobs": 0.0,
        "cut_on_the_left": {"t": {"requests": 3, "tokens": 41}},
    }
    path = tmp_path / "lm_eval" / "results_s.json"
    path.write_text(json.dumps({"alignboard": found}))
    notes = suite_notes({"name": "s"}, ["tuned", "served"], {"lm-eval s tuned": tmp_path})
    assert [note.partition(":")[0] for note in notes] == [
        *("tuned", "tuned, t", "served has no benchmarks of s"),
    ]
    assert "not in force" in notes[0]
    assert "3 requests did not fit in the context and lost 41 tokens on the left" in notes[1]
    path.write_text(json.dumps({"alignboard": {"adapter_moved_logprobs": 0.2}}))
    assert suite_notes({"name": "s"}, ["tuned"], {"lm-eval s tuned": tmp_path}) == []


def test_embeddings_of_several_sizes_on_one_base_are_noted(tmp_path):
    inputs = {}
    for model, weights, rows in (("base", "w", 320), ("alike", "w", 320), ("other", "v", 300)):
        folder = inputs[f"lm-eval s {model}"] = tmp_path / model
        (folder / "lm_eval").mkdir(parents=True)
        found = {"weights_sha256": weights, "embedding_rows": rows}
        (folder / "lm_eval" / "results_s.json").write_text(json.dumps({"alignboard": found}))
    models = ["base", "alike", "other"]
    assert suite_notes({"name": "s"}, models, inputs) == []
    resized = {"weights_sha256": "w", "embedding_rows": 321}
    place = tmp_path / "alike" / "lm_eval" / "results_s.json"
    place.write_text(json.dumps({"alignboard": resized}))
    (note,) = suite_notes({"name": "s"}, models, inputs)
    assert "embeddings of several sizes (base 320, alike 321 rows)" in note


def test_a_result_that_json_cannot_say_is_computed_again(tmp_path):
    class Instance:
        args, task_name, doc_id = ("a", "b"), "t", 0

    with Journal(tmp_path / "journal", "one") as journal:
        rows = RequestRows({}, journal, lambda *_: None)
        opened = rows.open("loglikelihood", [Instance])
        opened.add_partial("loglikelihood", ("a", "b"), (float("-inf"), False))
        rows.flush()
        assert list(opened.values()) == [(float("-inf"), False)]
        assert rows.open("loglikelihood", [Instance]).missing == [0]


def test_every_task_is_split_between_neighbouring_documents():
    class One:
        def __init__(self, task, document):
            self.task_name, self.doc_id = task, document

    requests = [
        One(task, n) for task, size in (("a", 4), ("b", 1)) for n in range(size) for _ in "xy"
    ]
    assert parts(requests, 2) == [[0, 1, 2, 3, 8, 9], [4, 5, 6, 7]]
    assert sorted(k for part in parts(requests, 3) for k in part) == list(range(10))
    assert parts([], 2) == [[], []]


@pytest.mark.slow
def test_two_processes_share_the_requests_of_a_model(folder, tmp_path):
    spec = ModelSpec("tuned", str(tiny_models.base()), adapter=str(tiny_models.adapters()["one"]))
    paths, shown = WorkspacePaths(tmp_path), []
    with Journal(paths.journal, "worker-0") as journal, LocalModels().open(spec) as model:
        sharing = Shards(paths.journal, paths.logs, ("",)).of(spec, apply_chat_template=True)
        together = run_tasks(
            *(model.subject(), BENCHMARKS, [folder], tmp_path / "together"),
            journal=journal,
            on_progress=lambda done, of: shown.append((done, of)),
            sharing=sharing,
        )
        assert asked_rows(journal) == (12 * 10, 0)
        alone = run_tasks(model.subject(), BENCHMARKS, [folder], tmp_path / "alone")
        assert [one.value for one in together] == pytest.approx([one.value for one in alone])
        found, expected = responses(tmp_path / "together"), responses(tmp_path / "alone")
        for key, value in found.items():
            assert_alike(value, expected[key])
        with contextlib.closing(
            sqlite3.connect(paths.journal / "journal-worker-1.sqlite")
        ) as other:
            assert other.execute("SELECT count(*) FROM rows").fetchone() == (60,)
        assert shown[-1][0] == shown[-1][1]
        sharing.give("nonsense", [Asked(), Asked(1)], is_chat=False)
        with pytest.raises(RuntimeError, match=r"shares requests.*has no attribute 'nonsense'"):
            sharing.wait(lambda: None)


class Asked:
    """A request of no kind."""

    args, task_name = ("a", "b"), "t"

    def __init__(self, doc_id=0):
        self.doc_id = doc_id


RUN = """
from alignboard.benchmarks.lm import BenchmarkedModel
from alignboard.benchmarks.run import run_tasks
from alignboard.models.loading import LoadedModel
from alignboard.results.journal import Journal

model = LoadedModel.load(base)
model.add_adapter("one", adapter)
with Journal(out / "journal", "one") as journal, model.using("one"):
    run_tasks(BenchmarkedModel(model), benchmarks, [tasks], out / "lm_eval", journal=journal)
"""


@pytest.mark.slow
def test_ten_kills_at_random_moments_leave_the_same_files_and_nothing_twice(tmp_path):
    context, rng = multiprocessing.get_context("forkserver"), random.Random(0)
    context.set_forkserver_preload(["peft", "alignboard.benchmarks.lm", "lm_eval.evaluator"])
    given = {
        "base": tiny_models.base(),
        "adapter": tiny_models.adapters()["one"],
        "tasks": write_tasks(tmp_path / "tasks", 30),
        "benchmarks": BENCHMARKS,
    }

    def start(name):
        """A process of a server that has imported everything, so that kills fall into the work."""
        child = context.Process(target=exec, args=(RUN, given | {"out": tmp_path / name}))
        child.start()
        return child

    start("whole").join()
    folder, stages = tmp_path / "killed" / "journal", set[int]()
    for _ in range(10):
        child, wanted = start("killed"), max(stages, default=0) + rng.randrange(1, 25)
        while child.is_alive():
            with Journal(folder) as journal:
                n_asked = asked_rows(journal)[0] if folder.is_dir() else 0
            if n_asked >= wanted:
                child.kill()
            child.join(0.002)
        with Journal(folder) as journal:
            stages.add(asked_rows(journal)[0])
    assert len(stages) > 3, "kills fell into the work"
    last = start("killed")
    last.join()
    assert last.exitcode == 0
    whole, resumed = (responses(tmp_path / name / "lm_eval") for name in ("whole", "killed"))
    assert whole.keys() == resumed.keys()
    for key, value in whole.items():
        assert_alike(value, resumed[key])
    with Journal(tmp_path / "killed" / "journal") as journal:
        assert asked_rows(journal) == (30 * 10, 0)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_and_log_probabilities_are_the_lm_eval_commands(family, tmp_path):
    tasks, adapter = write_tasks(tmp_path / "tasks"), tiny_models.adapters(family)["one"]
    model = LoadedModel.load(tiny_models.base(family))
    model.add_adapter("one", adapter)
    with model.using("one"):
        ours = run_tasks(BenchmarkedModel(model), BENCHMARKS, [tasks], tmp_path / "ours")
    subprocess.run(
        [
            *(sys.executable, "-m", "lm_eval", "run", "--model", "hf"),
            "--model_args",
            f"pretrained={tiny_models.base(family)},peft={adapter},dtype=float32",
            *("--tasks", ",".join(TASKS), "--include_path", str(tasks)),
            *("--device", "cpu", "--batch_size", "8", "--apply_chat_template"),
            *("--log_samples", "--output_path", str(tmp_path / "theirs" / "hand.json")),
        ],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"},
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    from alignboard.benchmarks.run import read_scores

    (by_hand,) = (tmp_path / "theirs").glob("hand_*.json")
    theirs = {(s.task, s.metric, s.filter): s for s in read_scores(by_hand)}
    for score in ours:
        other = theirs[score.task, score.metric, score.filter]
        # Perplexities are made of log-probabilities, which agree to 1e-4; what counts documents agrees exactly.
        exact = score.task != "perplexity"
        assert score.value == pytest.approx(other.value, abs=1e-9 if exact else 0, rel=1e-6)
    found, expected = responses(tmp_path / "ours"), responses(tmp_path / "theirs")
    assert found.keys() == expected.keys()
    for key, value in found.items():
        assert_alike(value, expected[key])
