"""Four small lm-eval tasks of different kinds, and what their runs left."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from alignboard.benchmarks.request_rows import KIND
from alignboard.results.journal import Journal
from alignboard.suites import Benchmark

NOUNS = ("cat", "dog", "sun", "sea", "tree", "moon", "the cat and the dog", "the sea or the sun")
TASKS = {
    "long_choice": {
        "output_type": "multiple_choice",
        "doc_to_text": "question",
        "doc_to_choice": "choices",
        "doc_to_target": "label",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
        "num_fewshot": 2,
    },
    "letter": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}} {{choices[0]}} or {{choices[1]}} ?",
        "doc_to_choice": ["cat", "dog", "sun", "sea"],
        "doc_to_target": "label",
        "metric_list": [{"metric": "acc"}],
        "num_fewshot": 3,
        "fewshot_config": {"sampler": "first_n"},
    },
    "written": {
        "output_type": "generate_until",
        "doc_to_text": "question",
        "doc_to_target": "{{choices[label]}}",
        "generation_kwargs": {"until": ["."], "max_gen_toks": 12, "do_sample": False},
        "filter_list": [
            {"name": "first", "filter": [{"function": "take_first"}]},
            {
                "name": "noun",
                "filter": [
                    {"function": "regex", "regex_pattern": "(cat|dog|sun|sea)"},
                    {"function": "take_first"},
                ],
            },
        ],
        "metric_list": [{"metric": "exact_match"}],
        "num_fewshot": 1,
    },
    "perplexity": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "text",
        "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
    },
}
BENCHMARKS = [
    Benchmark("long_choice", "acc_norm,none", 2),
    Benchmark("letter", "acc,none", 3),
    Benchmark("written", "exact_match,noun", 1),
    Benchmark("perplexity", "word_perplexity,none"),
]


def write_tasks(folder: Path, n: int = 12) -> Path:
    """A multiple choice of several tokens, one of a token, a generation with filters, and a perplexity."""
    rng = random.Random(0)
    rows = [
        {
            "question": f"{i} what is a {rng.choice(NOUNS)} ?",
            "choices": rng.sample(NOUNS, 4),
            "label": i % 4,
            "text": " ".join(rng.choice(NOUNS) for _ in range(40 if i else 200)),
        }
        for i in range(40)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    for split, some in (("test", rows[:n]), ("train", rows[-10:])):
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, some)))
    files = {split: str(folder / f"{split}.jsonl") for split in ("test", "train")}
    for name, task in TASKS.items():
        declared = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": files},
            "training_split": "train",
            "test_split": "test",
            **task,
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(declared))
    return folder


def responses(out: Path) -> dict[tuple[str, int], Any]:
    """Every response of every sample, by task and document; log-probabilities as numbers."""
    found = {}
    for path in sorted(out.glob("*samples_*.jsonl")):
        task = next(name for name in TASKS if f"samples_{name}_" in path.name)
        for line in path.read_text().splitlines():
            row = json.loads(line)
            found[task, row["doc_id"]] = row["resps"]
    return found


def assert_alike(ours: Any, theirs: Any) -> None:
    """Numbers within 1e-4 of each other, everything else equal."""
    if isinstance(ours, list):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_alike(one, other)
        return
    try:
        assert float(ours) == pytest.approx(float(theirs), abs=1e-4, rel=1e-6)
    except ValueError:
        assert ours == theirs


def stamp(out: Path) -> dict[str, Any]:
    (file,) = out.glob("results_*.json")
    return json.loads(file.read_bytes())["alignboard"]


def asked_rows(journal: Journal) -> tuple[int, int]:
    """How many requests were computed, and how many of them twice."""
    check = journal.check()
    return check.n_computed.get(KIND, 0), check.computed_twice.get(KIND, 0)
