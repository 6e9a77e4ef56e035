"""The campaign of kills in a small form, and what the campaigns found."""

from __future__ import annotations

import gzip
import importlib.util
import json
import random
import shutil
import sys
from pathlib import Path

import pytest

from alignboard.benchmarks.scores import read_scores
from alignboard.benchmarks.task_files import digests
from alignboard.boards.board import read_board
from alignboard.boards.examples import read_examples
from alignboard.boards.exports.every_eval_ever import read_folder
from alignboard.data.instruction_sets import read_references
from alignboard.errors import InputError
from alignboard.models.registry import load_model
from alignboard.records import Generation
from alignboard.reports.judges.humans import read_human
from alignboard.reports.samples import read_samples
from alignboard.results.formats import read_rows
from alignboard.training.imports.read import import_recipe

FOLDER = Path(__file__).parents[1] / "benchmarks"


def load(name):
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def faults():
    return load("faults")


# What mutated inputs found.

SCORES = {"results": {"t": {"acc,none": 0.5}}, "n-shot": {"t": 0}, "n-samples": {"t": 4}}


@pytest.mark.parametrize(
    "change",
    [
        *({"results": False}, {"results": {"t": "a"}}, {"results": {"t": {"acc,none": 10**400}}}),
        *(
            {"n-samples": "=1+1"},
            {"n-samples": {"t": {"effective": [[]]}}},
            {"n-samples": {"t": {}}},
        ),
        {"n-shot": {"t": "/etc/passwd"}},
    ],
)
def test_results_of_a_wrong_shape_are_a_sentence(change, tmp_path):
    path = tmp_path / "results_x.json"
    path.write_text(json.dumps(SCORES))
    assert read_scores(path)[0].n_documents == 4
    path.write_text(json.dumps(SCORES | change))
    with pytest.raises(InputError, match="is not a results file of lm-eval"):
        read_scores(path)


@pytest.mark.parametrize(
    "change",
    [
        *({"task": []}, {"task": [{}]}, {"task": [[]]}, {"task": None}, {"include": 3}),
        *({"metric_list": -1}, {"metric_list": [{"metric": {"a": 1}}]}, {"metric_list": [[]]}),
        *({"dataset_path": "x" * 5000, "dataset_kwargs": []}, {"dataset_kwargs": "x"}),
    ],
)
def test_a_task_of_a_wrong_shape_is_a_sentence(change, tmp_path):
    path = tmp_path / "evaluate" / "tasks" / "odd.yaml"
    path.parent.mkdir(parents=True)
    good = {"task": "odd", "dataset_path": "x" * 5000}
    path.write_text(json.dumps(good))
    assert digests(["odd"], tmp_path)
    path.write_text(json.dumps(good | change))
    with pytest.raises(InputError, match=r"odd\.yaml"):
        digests(["odd"], tmp_path)


def test_a_quote_without_an_end_in_the_header_of_a_csv_is_a_sentence(tmp_path):
    path = tmp_path / "outputs.csv"
    path.write_text('instruction,"output\na,b\n')
    with pytest.raises(InputError, match="not valid CSV"):
        read_rows(path, Generation)


def test_odd_boards_references_and_bases_are_sentences(tmp_path):
    board = tmp_path / "board.json"
    board.write_bytes(b'{"name": "sm\xd2all"}')
    with pytest.raises(InputError, match=r"board\.json is not a board"):
        read_board(board)
    references = tmp_path / "references.json"
    references.write_text('[{"instruction": ["a", "b"], "output": "x"}]')
    with pytest.raises(InputError, match="row 1: instruction has several turns"):
        read_references(references)
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": "9" * 3000})
    )
    with pytest.raises(InputError, match="which is not here"):
        load_model(str(tmp_path))


LABEL = {
    "instruction": "Q",
    "output_1": "a",
    "output_2": "b",
    "preference": 1,
    "annotator_index": 0,
}
SAMPLE = {"doc_id": 0, "doc": {}, "doc_hash": "1", "prompt_hash": "2", "filter": "none", "acc": 1.0}


def test_labels_samples_and_examples_that_are_none_are_sentences(tmp_path):
    labels = tmp_path / "labels.json"
    labels.write_bytes(json.dumps([LABEL]).encode().replace(b"Q", b"\xc2"))
    with pytest.raises(InputError, match=r"labels\.json is not readable JSON"):
        read_human(labels)
    samples = tmp_path / "samples_x.jsonl"
    for metrics in (None, 0.5, [["acc"]], [{}]):
        samples.write_text(json.dumps(SAMPLE | {"metrics": metrics}))
        with pytest.raises(InputError, match="row 1, field 'metrics': a list of names"):
            read_samples(samples)
    examples = tmp_path / "x.examples.json.gz"
    examples.write_bytes(gzip.compress(b'{"sets": ["\xff"]}'))
    with pytest.raises(InputError, match="does not hold the examples of a board"):
        read_examples(examples)


@pytest.mark.parametrize(
    "content", [b"\xff", b"[]", b'{"source_metadata": 3}', b"[" * 5000, b'{"source_metadata": []}']
)
def test_a_record_of_another_format_is_a_sentence(content, tmp_path):
    (tmp_path / "one.json").write_bytes(content)
    with pytest.raises(InputError, match=r"one\.json is no record of Every Eval Ever"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("lora_r", "x"), ("lora_r", {}), ("datasets", [3]), ("datasets", 0.5)),
        *(("sequence_len", []), ("gradient_accumulation_steps", " "), ("val_set_size", "x")),
    ],
)
def test_a_recipe_of_another_tool_with_odd_values_is_a_sentence(key, value, tmp_path):
    good = {"base_model": "a/b", "rl": "dpo", "adapter": "lora", "learning_rate": 1e-4}
    good |= {"datasets": [{"path": "c/d"}]}
    path = tmp_path / "odd.yaml"
    path.write_text(json.dumps(good))
    assert import_recipe(path).tool == "axolotl"
    path.write_text(json.dumps(good | {key: value}))
    with pytest.raises(InputError, match=rf"odd\.yaml: .*{key}"):
        import_recipe(path)


# Kills.


def test_replies_that_came_again_are_told_apart(faults):
    delivered = {
        "once": [(1.0, 1.1)],
        "in flight at the kill": [(4.9, 5.0), (7.0, 7.1)],
        "kept a second before it": [(3.0, 3.5), (7.0, 7.1)],
        "read by the server after it": [(5.2, 5.3), (7.0, 7.1)],
    }
    assert faults.paid_again(delivered, {5.0: ""}) == (2, [(1.5, 1, "")], 3)
    # At a stopped call the client's requests are the clock: one came after the reply, of four at a time.
    assert faults.paid_again(delivered, {5.0: "fsync"}) == (3, [(1.5, 1, "fsync")], 3)
    busy = delivered | {f"later {n}": [(4.0, 4.1)] for n in range(4)}
    assert faults.paid_again(busy, {5.0: "fsync"}) == (2, [(1.5, 5, "fsync")], 3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["judge", "generate", "batch", "run"])
def test_killed_workspaces_end_with_equal_files(name, faults):
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    (campaign,) = (one for one in faults.CAMPAIGNS if one.name == name)
    with faults.PaidServer() as server:
        counts = faults.run_campaign(campaign, server, 4, random.randrange(2**32), print)
    assert counts.kills >= 4
    assert (counts.lost, counts.paid_twice, counts.differing) == (0, 0, [])
    assert counts.equal == counts.workspaces
