"""Phi as Microsoft first released it (``model_type: phi-msft``), renamed to the Phi that transformers has.

What this module promises
    The old format is the same mathematics under other names: query, key and value in one matrix ``Wqkv``, the final
    norm inside the head. `translate_config` and `rename` turn its configuration and tensors into native ones, so that
    the Python which those repositories carry, written for the transformers of 2023, never runs. A mixture of Phi
    experts (phixtral) is the same format with ``moe`` in place of ``mlp``.
What it refuses
    A configuration without one of its sizes, and a tensor that it has no name for.

Sources: ``configuration_phi.py`` and ``modeling_phi.py`` of microsoft/phi-2 before transformers 4.37;
``convert_phi_weights_to_hf.py`` of transformers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from alignboard.errors import InputError

if TYPE_CHECKING:
    import torch

MODEL_TYPES: Final = ("phi-msft", "phixtral")

_OUTSIDE: Final = {
    "transformer.embd.wte": "model.embed_tokens",
    "lm_head.ln": "model.final_layernorm",
    "lm_head.linear": "lm_head",
}
_INSIDE: Final = {
    "ln": "input_layernorm",
    "mixer.out_proj": "self_attn.dense",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "moe.gate": "mlp.gate",
}
_LAYER: Final = re.compile(r"transformer\.h\.(\d+)\.(.+)")
_EXPERT: Final = re.compile(r"moe\.mlp\.(\d+)\.(fc[12])")
# Buffers that the old code saved with the weights; native Phi computes them.
_COMPUTED: Final = re.compile(r"rotary_emb|inner_attn|\.causal_mask$|\.mask$|\.mask_bias$")


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder, from its safetensors, else from its ``.bin`` files (read as data, never as code)."""
    import torch
    from safetensors.torch import load_file

    found: dict[str, torch.Tensor] = {}
    for file in sorted(path.glob("model*.safetensors")):
        found.update(load_file(file))
    if not found:
        for file in sorted(path.glob("pytorch_model*.bin")):
            found.update(torch.load(file, map_location="cpu", weights_only=True, mmap=True))
    if not found:
        raise InputError(
            f"{path} holds no weights: neither model*.safetensors nor pytorch_model*.bin."
        )
    return found


def translate_config(config: Mapping[str, Any], vocab_size: int, place: Path) -> dict[str, Any]:
    """The arguments of a native ``PhiConfig`` for an old configuration.

    ``vocab_size`` is that of the embedding: the old code rounded the configured number up to a multiple of 64. What
    the old configuration leaves out has the old default; special tokens are left to the caller, because the defaults
    of ``PhiConfig`` (1 and 2) are those of no Phi.
    """
    missing = [name for name in ("n_embd", "n_head", "n_layer") if name not in config]
    if missing:
        raise InputError(
            f"{place}: config.json is of the phi-msft format but has no {' and no '.join(missing)}."
        )
    head = config["n_embd"] // config["n_head"]
    rotary = min(config.get("rotary_dim") or 32, head)
    translated = {
        "vocab_size": vocab_size,
        "hidden_size": config["n_embd"],
        "intermediate_size": config.get("n_inner") or 4 * config["n_embd"],
        "num_hidden_layers": config["n_layer"],
        "num_attention_heads": config["n_head"],
        "num_key_value_heads": config.get("n_head_kv") or config["n_head"],
        "max_position_embeddings": config.get("n_positions", 2048),
        "hidden_act": config.get("activation_function") or "gelu_new",
        "layer_norm_eps": config.get("layer_norm_epsilon", 1e-5),
        "initializer_range": config.get("initializer_range", 0.02),
        "resid_pdrop": config.get("resid_pdrop", 0.0),
        "embd_pdrop": config.get("embd_pdrop", 0.0),
        "attention_dropout": config.get("attn_pdrop", 0.0),
        "tie_word_embeddings": config.get("tie_word_embeddings", False),
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": rotary / head,
        },
    }
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        translated[name] = config.get(name)
    if "num_local_experts" in config:
        translated["num_local_experts"] = config["num_local_experts"]
        translated["num_experts_per_tok"] = config.get("num_experts_per_tok", 2)
    return translated


def rename(
    tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any], place: Path
) -> dict[str, torch.Tensor]:
    """The tensors under native names; ``config`` is the native configuration that belongs to them.

    ``Wqkv`` holds the rows of all query heads, then those of all key heads, then those of all value heads.
    """
    head = config["hidden_size"] // config["num_attention_heads"]
    n_query, n_key = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    renamed: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if _COMPUTED.search(name):
            continue
        stem, _, kind = name.rpartition(".")
        if stem.endswith("mixer.Wqkv"):
            prefix = _native(stem.replace("Wqkv", "out_proj"), place).removesuffix(".dense")
            for part, rows in zip("qkv", tensor.split([n_query, n_key, n_key]), strict=True):
                renamed[f"{prefix}.{part}_proj.{kind}"] = rows.contiguous()
        else:
            renamed[f"{_native(stem, place)}.{kind}"] = tensor
    return renamed


def _native(stem: str, place: Path) -> str:
    """The native name of a module: ``transformer.h.3.mlp.fc1`` is ``model.layers.3.mlp.fc1``."""
    if stem in _OUTSIDE:
        return _OUTSIDE[stem]
    if found := _LAYER.fullmatch(stem):
        number, inside = found.groups()
        if expert := _EXPERT.fullmatch(inside):
            return f"model.layers.{number}.mlp.experts.{expert[1]}.{expert[2]}"
        if inside in _INSIDE:
            return f"model.layers.{number}.{_INSIDE[inside]}"
    raise InputError(f"{place}: the tensors of {stem} belong to no Phi of the phi-msft format.")
