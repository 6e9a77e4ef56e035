"""Checkpoints as people have them on their disks: half downloaded, of another kind, diverged; each is a sentence."""

import json
import shutil
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

import byte_tokenizer
from alignboard.benchmarks.scoring import Scorer
from alignboard.benchmarks.sharing import ScoredText
from alignboard.engines.generate import generate
from alignboard.engines.rows import Decoding
from alignboard.errors import InputError
from alignboard.models.checks.report import check_model
from alignboard.models.formats import not_generating
from alignboard.models.loading import LoadedModel
from alignboard.models.registry import load_model

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 100\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    tokenizer = byte_tokenizer.build(
        template="{% for m in messages %}{{ m['content'] }}{% endfor %}"
    )
    shape: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads: dict[str, Any] = {"num_attention_heads": 4, "max_position_embeddings": 64}
    config = LlamaConfig(vocab_size=264, eos_token_id=tokenizer.eos_token_id, **shape, **heads)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "brought")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_pointer_of_git_lfs_is_named(folder, name):
    (folder / name).write_text(POINTER)
    with pytest.raises(InputError, match=f"{name} is a pointer of Git LFS.*git lfs pull"):
        load_model(str(folder))


@pytest.mark.parametrize(
    "made_for",
    [
        *("LlamaForSequenceClassification", "BertForMaskedLM", "Qwen2ForRewardModel"),
        *("LlamaModel", "Gemma3TextModel"),
    ],
)
def test_what_was_made_for_something_else_than_text_is_refused(folder, made_for):
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": [made_for], "tie_word_embeddings": True}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=f"is a {made_for}, which is no causal language model"):
        LoadedModel.load(folder)
    assert any(made_for in str(one) for one in check_model(load_model(str(folder))).wrong)


@pytest.mark.parametrize(
    ("changes", "other"),
    [
        ({"is_encoder_decoder": True}, "BartForConditionalGeneration"),
        ({"is_encoder_decoder": True, "architectures": None}, "bart with an encoder"),
        ({"is_encoder_decoder": False}, None),
        ({"architectures": ["GPT2LMHeadModel"]}, None),
        ({"architectures": ["GPT2DoubleHeadsModel"]}, None),
        ({"architectures": ["ChatGLMModel"], "auto_map": {}}, None),
        ({"architectures": []}, None),
    ],
)
def test_the_decoder_of_another_model_and_a_body_alone_are_no_language_models(changes, other):
    stated = {"model_type": "bart", "architectures": ["BartForConditionalGeneration"]}
    assert not_generating({**stated, **changes}) == other


def test_weights_beside_an_adapter_are_not_left_out_in_silence(folder):
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "somebody/base"}')
    with pytest.raises(InputError, match="holds a whole model and an adapter; write an entry"):
        load_model(str(folder))


def test_a_folder_of_checkpoints_names_them(folder):
    with pytest.raises(InputError, match=r"did you mean .*brought\?"):
        load_model(str(folder.parent))


def test_logits_that_are_no_numbers_are_an_error(folder):
    file = folder / "model.safetensors"
    weights = load_file(file)
    weights["model.layers.0.mlp.down_proj.weight"].fill_(torch.nan)
    save_file(weights, file, metadata={"format": "pt"})
    model = LoadedModel.load(folder)
    for temperature in (0.0, 0.7):
        with pytest.raises(InputError, match="no finite numbers"):
            list(generate(model, ["Hi"], Decoding(max_new_tokens=2, temperature=temperature)))
    with pytest.raises(InputError, match="no numbers"):
        list(Scorer(model.model, 64).scores([ScoredText((1, 2, 3), (4,))]))
