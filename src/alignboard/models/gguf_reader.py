"""GGUF files of the architectures that transformers cannot read: Phi-2 (``phi2``) and the first Gemma (``gemma``).

What this module promises
    `read` turns the file into a native configuration and native tensors: dequantised by the ``gguf`` package, renamed,
    and Gemma's norms with the 1 taken off again that llama.cpp adds to them. Neither architecture permutes the rows of
    query and key, as llama.cpp does for Llama only (which transformers reads, and undoes).
What it refuses
    A file that cannot be parsed, lacks one of its sizes, or holds a tensor that the architecture has no name for.

Nothing stays quantised: the tensors take as much memory as those of the original checkpoint.

Sources: ``convert_hf_to_gguf.py`` of llama.cpp, classes ``Phi2Model`` and ``GemmaModel``; ``gguf.constants``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from alignboard.errors import InputError

if TYPE_CHECKING:
    import torch

_SHARED: Final = {
    "token_embd": "model.embed_tokens",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
}
_NAMES: Final[Mapping[str, Mapping[str, str]]] = {
    "phi2": {
        **_SHARED,
        "output_norm": "model.final_layernorm",
        "output": "lm_head",
        "attn_output": "self_attn.dense",
        "ffn_up": "mlp.fc1",
        "ffn_down": "mlp.fc2",
    },
    "gemma": {
        **_SHARED,
        "output_norm": "model.norm",
        "attn_output": "self_attn.o_proj",
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    },
}
OWN: Final = frozenset(_NAMES)
"""The architectures that are read here; transformers reads the others."""


@dataclass(frozen=True)
class GgufModel:
    """What a GGUF file holds, under native names."""

    model_type: str
    """of transformers: ``phi`` or ``gemma``"""
    config: dict[str, Any]
    tensors: dict[str, torch.Tensor]


def architecture(file: Path) -> str:
    """llama.cpp's name of the architecture, such as ``llama`` (which Mistral is, too), ``phi2`` or ``gemma``."""
    return str(_metadata(_reader(file), file, "general.architecture"))


def read(file: Path, dtype: torch.dtype) -> GgufModel:
    """The model in a file of one of the architectures `OWN`, its tensors in ``dtype``."""
    reader = _reader(file)
    kind = str(_metadata(reader, file, "general.architecture"))
    shapes = {tensor.name: [int(n) for n in reversed(tensor.shape)] for tensor in reader.tensors}
    config = _config(reader, file, kind, shapes)
    tensors = dict(_tensors(reader, file, kind, dtype))
    return GgufModel({"phi2": "phi"}.get(kind, kind), config, tensors)


def _reader(file: Path) -> Any:
    if find_spec("gguf") is None:
        raise InputError(f"{file} needs the package gguf: pip install 'alignboard[gguf]'.")
    from gguf import GGUFReader

    try:
        return GGUFReader(file)
    except (ValueError, IndexError, KeyError, OSError) as error:
        raise InputError(
            f"{file} is no GGUF file that can be read ({error}); download it again."
        ) from error


def _metadata(reader: Any, file: Path, key: str) -> Any:
    field = reader.get_field(key)
    if field is None:
        raise InputError(
            f"{file} has no {key} in its metadata; convert it again with llama.cpp's converter."
        )
    return field.contents()


def _config(reader: Any, file: Path, kind: str, shapes: Mapping[str, list[int]]) -> dict[str, Any]:
    """The native configuration; the vocabulary and Gemma's head are as large as the tensors say."""

    def known(key: str) -> Any:
        return _metadata(reader, file, f"{kind}.{key}")

    def perhaps(key: str) -> Any:
        field = reader.get_field(key)
        return None if field is None else field.contents()

    if "token_embd.weight" not in shapes:
        raise InputError(f"{file} holds no token_embd.weight, so no vocabulary.")
    hidden, heads = known("embedding_length"), known("attention.head_count")
    rope = {
        "rope_type": "default",
        "rope_theta": perhaps(f"{kind}.rope.freq_base") or 10000.0,
    }
    ends = [perhaps(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot")]
    config = {
        "vocab_size": shapes["token_embd.weight"][0],
        "hidden_size": hidden,
        "intermediate_size": known("feed_forward_length"),
        "num_hidden_layers": known("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": perhaps(f"{kind}.attention.head_count_kv") or heads,
        "max_position_embeddings": known("context_length"),
        "bos_token_id": perhaps("tokenizer.ggml.bos_token_id"),
        "eos_token_id": list(dict.fromkeys(end for end in ends if end is not None)) or None,
        "pad_token_id": perhaps("tokenizer.ggml.padding_token_id"),
        "tie_word_embeddings": "output.weight" not in shapes,
        "rope_parameters": rope,
    }
    if kind == "phi2":
        rope["partial_rotary_factor"] = known("rope.dimension_count") / (hidden // heads)
        return config | {"layer_norm_eps": known("attention.layer_norm_epsilon")}
    return config | {
        "head_dim": shapes.get("blk.0.attn_q.weight", [hidden])[0] // heads,
        "rms_norm_eps": known("attention.layer_norm_rms_epsilon"),
    }


def _tensors(
    reader: Any, file: Path, kind: str, dtype: torch.dtype
) -> Iterator[tuple[str, torch.Tensor]]:
    """Native names and tensors. Converters of early 2024 wrote Phi's query, key and value as one ``attn_qkv``."""
    import torch
    from gguf import dequantize

    for tensor in reader.tensors:
        values = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        if kind == "gemma" and "norm" in tensor.name:
            values = values - 1
        stem, _, end = tensor.name.rpartition(".")
        if stem.endswith(".attn_qkv"):
            for part, rows in zip("qkv", values.chunk(3), strict=True):
                name = _native(stem.removesuffix("qkv") + part, file, kind)
                yield f"{name}.{end}", rows.to(dtype, copy=True)
        else:
            yield f"{_native(stem, file, kind)}.{end}", values.to(dtype)


def _native(stem: str, file: Path, kind: str) -> str:
    """The native name of a module: ``blk.3.attn_q`` is ``model.layers.3.self_attn.q_proj``."""
    found = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)", stem)
    name = _NAMES[kind].get(found[2]) if found else None
    if found is None or name is None:
        raise InputError(f"{file}: the architecture {kind} has no tensors {stem}.")
    return name if found[1] is None else f"model.layers.{found[1]}.{name}"
