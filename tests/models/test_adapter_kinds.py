"""Every kind of adapter that PEFT knows: it gives PEFT's own logits and leaves its base as it is, or is refused.

The table is docs/adapters.md; ``ALIGNBOARD_GOLDENS=write`` writes it anew.
"""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any, Final

import peft
import pytest
import torch
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import byte_tokenizer
from alignboard.errors import InputError
from alignboard.models.adapters import needs_own_load
from alignboard.models.loading import LoadedModel

PAGE: Final = Path(__file__).parents[2] / "docs" / "adapters.md"
pytestmark = pytest.mark.slow
TEXT: Final = "What is this?"
TARGETS: Final = ["q_proj", "v_proj"]
LORA: Final[dict[str, dict[str, Any]]] = {
    "LORA": {},
    "LORA, DoRA": {"use_dora": True},
    "LORA, rsLoRA": {"use_rslora": True},
    "LORA, rank and alpha patterns": {
        "rank_pattern": {"q_proj": 8},
        "alpha_pattern": {"v_proj": 32},
    },
    "LORA, lora_bias": {"lora_bias": True},
    "LORA, bias: all": {"bias": "all"},
    "LORA, modules_to_save": {"modules_to_save": ["lm_head"]},
    "LORA, all-linear": {"target_modules": "all-linear"},
    "LORA, embedding and head": {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
    "LORA, trainable_token_indices": {"trainable_token_indices": {"embed_tokens": [9]}},
    "LORA, PiSSA": {"init_lora_weights": "pissa"},
    "LORA, PiSSA by drawn numbers": {"init_lora_weights": "pissa_niter_4"},
    "LORA, OLoRA": {"init_lora_weights": "olora"},
    "LORA, KaSA": {"kasa_config": peft.KasaConfig()},
    "LORA, parameters in place of layers": {"target_parameters": ["mlp.gate_proj.weight"]},
    "LORA, tied embedding": {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    "LORA, activated": {"alora_invocation_tokens": [84, 104]},
    "LORA, repeated layers": {"layer_replication": [[0, 2], [1, 2]]},
}
NEEDED: Final[dict[str, dict[str, Any]]] = {
    "ADALORA": {"total_step": 10},
    "IA3": {"target_modules": ["k_proj", "down_proj"], "feedforward_modules": ["down_proj"]},
    "TRAINABLE_TOKENS": {"target_modules": ["embed_tokens"], "token_indices": [9]},
    "LN_TUNING": {"target_modules": ["input_layernorm"]},
    "FOURIERFT": {"n_frequency": 16},
    "C3A": {"block_size": 8},
    "OFT": {"r": 0, "oft_block_size": 8},
    "BOFT": {"boft_block_size": 8},
    "VBLORA": {"vector_length": 16, "num_vectors": 32},
    "ROAD": {"group_size": 8},
    "WAVEFT": {"n_frequency": 64},
    "ADAPTION_PROMPT": {"adapter_len": 4, "adapter_layers": 2, "target_modules": None},
}
"""what a kind asks for beside the layers"""
HEAD: Final = """# Kinds of adapters

Every kind that PEFT {version} knows, on a tiny Llama. *works*: the logits are those of PEFT's own model, and the base
gives the same logits, bit for bit, after the adapter is added. *works alone*: the same, in a load of its own, which
`generate`, `judge` and plans give it: it rewrites the base's weights, or PEFT cannot add another beside it. *refused*:
an error in a sentence before anything is generated. *not made*: PEFT makes no such adapter for this model.

An adapter's own tokenizer and chat template are used. An embedding of another size is loaded where the adapter holds it
and the head whole, else refused.
The page is written by `ALIGNBOARD_GOLDENS=write pytest tests/models/test_adapter_kinds.py`.

|kind|verdict|why|
|---|---|---|
"""


def kinds() -> dict[str, dict[str, Any]]:
    found = dict(LORA)
    for kind in peft.PeftType:
        if kind.value in PEFT_TYPE_TO_CONFIG_MAPPING and kind.value not in found:
            found[kind.value] = NEEDED.get(kind.value, {})
    return found


def config_of(name: str, settings: dict[str, Any]) -> Any:
    make = PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(name.partition(",")[0])]
    given: dict[str, Any] = {"task_type": "CAUSAL_LM"}
    known = inspect.signature(make).parameters
    usual = {"target_modules": TARGETS, "r": 4, "num_virtual_tokens": 4}
    given |= {key: value for key, value in usual.items() if key in known}
    return make(**given | settings)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    tokenizer = byte_tokenizer.build(template="{{ messages[0]['content'] }}")
    torch.manual_seed(0)
    shape: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 256}
    folder = tmp_path_factory.mktemp("kinds") / "base"
    LlamaForCausalLM(LlamaConfig(vocab_size=264, **shape)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def ids_of(model: LoadedModel) -> torch.Tensor:
    return torch.tensor([model.tokenizer.encode(TEXT, add_special_tokens=False)])


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids).logits


def made(base: Path, folder: Path, name: str, settings: dict[str, Any]) -> bool:
    """Whether PEFT made the adapter and can read it back, with weights that do something."""
    try:
        network: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        model = peft.get_peft_model(network, config_of(name, settings))
        torch.manual_seed(1)
        for weight in model.parameters():
            if weight.requires_grad and weight.is_floating_point():
                weight.data += 0.1 * torch.randn_like(weight)
        model.save_pretrained(folder)
        own(base, folder)
    except Exception:  # noqa: BLE001 - whatever PEFT raises, there is no such adapter
        return False
    return True


def own(base: Path, folder: Path) -> Any:
    """PEFT's own model, which draws some initial weights."""
    torch.manual_seed(0)
    network: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return peft.PeftModel.from_pretrained(network, str(folder)).eval()


def verdict(base: Path, folder: Path, name: str, settings: dict[str, Any]) -> tuple[str, str]:
    """One word of the table, and why; every difference is an assertion."""
    if not made(base, folder, name, settings):
        return "not made", ""
    model = LoadedModel.load(base)
    ids = ids_of(model)
    before = logits(model.model, ids)
    try:
        model.add_adapter("one", folder)
    except InputError as error:
        assert torch.equal(logits(model.model, ids), before)
        return "refused", str(error).removeprefix(f"{folder} is ").partition(";")[0]
    with model.using("one"):
        assert torch.equal(logits(model.model, ids), logits(own(base, folder), ids))
    other = folder.with_name("other")
    if needs_own_load(folder):
        with pytest.raises(InputError, match="needs a load of its own"):
            model.add_adapter("other", other)
        if model.sole is None:
            assert torch.equal(logits(model.model, ids), before)
        why = "rewrites its base" if model.sole is not None else "PEFT puts no other beside it"
        return "works alone", why
    assert model.sole is None
    assert torch.equal(logits(model.model, ids), before)
    model.add_adapter("other", other)
    for adapter, path in (("other", other), ("one", folder)):
        with model.using(adapter):
            assert torch.equal(logits(model.model, ids), logits(own(base, path), ids))
    assert torch.equal(logits(model.model, ids), before)
    return "works", ""


def test_every_kind_is_right_or_refused_and_the_page_says_which(base, tmp_path):
    assert made(base, tmp_path / "other", "LORA", {})
    verdicts = {
        name: verdict(base, tmp_path / f"adapter-{number}", name, settings)
        for number, (name, settings) in enumerate(kinds().items())
    }
    rows = "".join(f"|{name}|{word}|{why}|\n" for name, (word, why) in verdicts.items())
    text = HEAD.format(version=peft.__version__) + rows
    if os.environ.get("ALIGNBOARD_GOLDENS") == "write":
        PAGE.write_text(text, encoding="utf-8")
    refused = {name for name in LORA if verdicts[name][0] == "refused"}
    drawn = "LORA, PiSSA by drawn numbers"
    assert refused == {"LORA, activated", "LORA, repeated layers", drawn}
    assert "not made" not in {verdicts[name][0] for name in LORA}
    assert PAGE.read_text(encoding="utf-8") == text
