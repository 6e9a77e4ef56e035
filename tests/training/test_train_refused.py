"""What `alignboard train` refuses before rows are fetched or weights read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from commands import alignboard

COMMIT = "0" * 40


def test_a_start_that_is_nowhere_is_one_short_sentence(tmp_path: Path) -> None:
    start = ["--set", "start_from=./nowhere"]
    asked = alignboard(tmp_path, "train", "demo/dpo", "--model", "tiny-phi", "--dry-run", *start)
    assert asked.returncode == 2
    assert "start_from: ./nowhere is no recipe of train/, and neither a folder" in asked.stderr


@pytest.mark.slow
def test_a_base_without_tokenizer_is_noticed_before_rows_are_fetched(tmp_path: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    base = tmp_path / "base"
    base.mkdir()
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 8}
    (base / "config.json").write_text(json.dumps(config))
    save_file(
        {"model.embed_tokens.weight": np.zeros((8, 2), "float32")}, base / "model.safetensors"
    )
    rows = f"data={{name: owner/name, revision: '{COMMIT}'}}"
    command = ["train", "demo/sft", "--model", base, "--executor", "in-process", "--set", rows]
    asked = alignboard(tmp_path, *command)
    assert asked.returncode == 2
    assert "holds no files of a tokenizer" in asked.stderr
    assert "Not everything could be done" not in asked.stderr, "before the first job"
    assert "download" not in asked.stderr
