"""Composite configurations: models that also see, whose text part is asked like any other model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

import byte_tokenizer
from alignboard.engines.local.engine import LocalEngine
from alignboard.engines.rows import Decoding, Prompt
from alignboard.errors import InputError
from alignboard.models.asked import load_spec
from alignboard.models.checks.report import check_model
from alignboard.models.prompting import render
from alignboard.models.registry import load_model

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEXT: dict[str, Any] = {
    "vocab_size": 264, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 512, "bos_token_id": None,
}  # fmt: skip
VISION: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28,
    "patch_size": 14,
}  # fmt: skip
ROPE = {"type": "mrope", "mrope_section": [1, 1, 2], "rope_type": "default"}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "Mistral3": ("mistral", {"vision_config": VISION | {"model_type": "pixtral"}}),
    "Llava": ("llama", {"vision_config": VISION | {"model_type": "clip_vision_model"}}),
    "Qwen2_5_VL": ("", {"vision_config": {"depth": 1, "hidden_size": 16, "out_hidden_size": 32}}),
    "SmolVLM": ("llama", {"vision_config": VISION}),
}
INSTRUCTIONS = ("Hi", "What is the capital of France?", "Count to ten, please.")


@pytest.mark.parametrize("name", KINDS)
def test_the_text_part_is_asked_as_transformers_asks_it(name, tmp_path):
    model_type, more = KINDS[name]
    tokenizer = byte_tokenizer.build(
        eos="<|im_end|>", special=("<|im_start|>",), template=CHATML, adds_bos=False
    )
    end = tokenizer.eos_token_id
    text = TEXT | {"eos_token_id": end, "pad_token_id": end}
    text |= {"model_type": model_type} if model_type else {"rope_scaling": ROPE}
    config = getattr(transformers, f"{name}Config")(text_config=text, **more)
    torch.manual_seed(0)
    network = getattr(transformers, f"{name}ForConditionalGeneration")(config).eval()
    network.save_pretrained(tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    spec = load_model(str(tmp_path / "m"))
    checked = check_model(spec)
    assert (checked.wrong, checked.facts["context"]) == ([], "512 tokens")
    model, _ = load_spec(spec)
    assert model.context == 512
    prompts = [Prompt(one, tuple(render(model, one)), one) for one in INSTRUCTIONS]
    found = {one.key: one for one in LocalEngine(model).answers(prompts, Decoding(12))}
    for prompt in prompts:
        ids = torch.tensor([prompt.ids])
        said = network.generate(
            input_ids=ids, max_new_tokens=12, do_sample=False, eos_token_id=end, pad_token_id=end
        )[0, ids.shape[1] :]
        assert found[prompt.key].output == tokenizer.decode(said, skip_special_tokens=True).strip()


def test_an_encoder_and_decoder_is_refused_by_check_and_load_alike(tmp_path):
    sizes: dict[str, Any] = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    config = transformers.T5Config(vocab_size=264, **sizes)
    transformers.T5ForConditionalGeneration(config).save_pretrained(tmp_path / "t5")
    byte_tokenizer.build(template=CHATML).save_pretrained(tmp_path / "t5")
    spec = load_model(str(tmp_path / "t5"))
    assert "architecture" in {one.kind for one in check_model(spec).wrong}
    with pytest.raises(
        InputError, match="is a T5ForConditionalGeneration, which is no causal language model"
    ):
        load_spec(spec)
