"""GGUF models under transformers' names: configuration of all, tensors of Llama, Phi-2 and Gemma 1, 2 and 3.

What this module promises
    `native_config` is what a file states about its model, in the words of a config.json. `read` renames and
    de-quantises the tensors of the architectures `OWN` in one pass; transformers, which reads others, parses a file
    twice and builds a table of names for each tensor.
What it refuses
    Tensors that do not belong to the architecture, and positions scaled in a way that the configuration cannot state.

References: ``convert_hf_to_gguf.py`` of llama.cpp, classes ``LlamaModel``, ``Phi2Model``, ``GemmaModel``,
``Gemma2Model`` and ``Gemma3Model``; ``gguf.constants``; ``llama-model.cpp`` for what a file does not state.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from alignboard.errors import InputError
from alignboard.models.gguf.file import GgufHeader, TensorEntry
from alignboard.models.gguf.parts import part_names

if TYPE_CHECKING:
    import torch

_SHARED: Final = {
    "token_embd": "model.embed_tokens",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
}
_GEMMA: Final = {
    **_SHARED,
    "output_norm": "model.norm",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_GEMMA_2: Final = {
    **_GEMMA,
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
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
    "gemma": _GEMMA,
    "gemma2": _GEMMA_2,
    "gemma3": {
        **_GEMMA_2,
        "attn_q_norm": "self_attn.q_norm",
        "attn_k_norm": "self_attn.k_norm",
    },
    "llama": {**_GEMMA, "output": "lm_head"},
}
OWN: Final = frozenset(_NAMES)
"""The architectures that are read here; transformers reads the others."""
_MODEL_TYPES: Final = {"phi2": "phi", "gemma3": "gemma3_text"}
_ROPE_FACTORS: Final = "rope_freqs.weight"
_LAYERS_OF_27B: Final = {"gemma2": 46, "gemma3": 62}
"""by which llama.cpp knows the sizes whose attention is scaled by the width of a share of the embedding"""
_AT_ONCE: Final = 2**15
"""numbers that are de-quantised at a time: they fit into a processor's cache"""
_NEEDED: Final = {
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "max_position_embeddings": "context_length",
}


@dataclass(frozen=True)
class GgufModel:
    """What a GGUF file holds, under native names."""

    model_type: str
    """of transformers: ``llama``, ``phi``, ``gemma``, ``gemma2`` or ``gemma3_text``"""
    config: dict[str, Any]
    tensors: dict[str, torch.Tensor]


def native_config(header: GgufHeader) -> dict[str, Any]:
    """What the file states, by the names of a config.json; what it does not state is left out.

    The type is that in which a GPU computes: the file's own are those of blocks.
    """
    shapes = {tensor.name: tensor.shape for tensor in header.tensors}
    words = shapes.get("token_embd.weight")
    tokens = header.of_tokenizer("tokens")
    kind = str(header.metadata.get("general.architecture"))
    ends = [header.of_tokenizer(f"{name}_token_id") for name in ("eos", "eot", "eom")]
    found = {
        "model_type": _MODEL_TYPES.get(kind, kind),
        "dtype": "bfloat16",
        "vocab_size": words[0] if words else (len(tokens) if tokens else None),
        **{name: header.of_model(key) for name, key in _NEEDED.items()},
        "num_key_value_heads": header.of_model("attention.head_count_kv"),
        "bos_token_id": header.of_tokenizer("bos_token_id"),
        "eos_token_id": list(dict.fromkeys(end for end in ends if end is not None)) or None,
        "pad_token_id": header.of_tokenizer("padding_token_id"),
    }
    return {name: value for name, value in found.items() if value is not None}


def require_package(file: Path) -> None:
    """Raise `InputError` where ``gguf``, which de-quantises, is not installed."""
    if find_spec("gguf") is None:
        raise InputError(f"{file} needs the package gguf: pip install 'alignboard[gguf]'.")


def read(header: GgufHeader, dtype: torch.dtype) -> GgufModel:
    """The model in a file of one of the architectures `OWN`, its tensors in ``dtype``."""
    config = _config(header)
    tensors = dict(_tensors(header, config, dtype))
    return GgufModel(str(config.pop("model_type")), config, tensors)


class _Joined:
    """The parts of a checkpoint as one reader: what transformers asks of ``gguf.GGUFReader``."""

    def __init__(self, readers: list[Any]) -> None:
        self.fields = readers[0].fields
        self.get_field = readers[0].get_field
        self.tensors = [tensor for reader in readers for tensor in reader.tensors]


@contextmanager
def joined(file: Path) -> Iterator[None]:
    """Inside the block transformers reads all parts of the checkpoint whose first part is ``file``.

    It looks ``gguf.GGUFReader`` up whenever it reads a file, and knows one file only: with the first part alone it
    would miss tensors, and take a model whose head lies in another part for one that has none.
    """
    import gguf

    names = part_names(file.name)
    if len(names) == 1:
        yield
        return
    plain = gguf.GGUFReader
    whole = _Joined([plain(file.with_name(name)) for name in names])

    def read_parts(path: Any, *rest: Any) -> Any:
        return whole if Path(path).resolve() == file.resolve() else plain(path, *rest)

    setattr(gguf, "GGUFReader", read_parts)  # noqa: B010 - its type is that of a class
    try:
        yield
    finally:
        setattr(gguf, "GGUFReader", plain)  # noqa: B010


def _config(header: GgufHeader) -> dict[str, Any]:
    """The native configuration; the vocabulary and the head are as large as the tensors say."""
    kind, shapes = header.architecture, {tensor.name: tensor.shape for tensor in header.tensors}
    if "token_embd.weight" not in shapes:
        raise InputError(f"{header.file} holds no token_embd.weight, so no vocabulary.")
    for key in _NEEDED.values():
        header.required(f"{kind}.{key}")
    config = native_config(header)
    config.pop("dtype")
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    rope = {"rope_type": "default", "rope_theta": header.of_model("rope.freq_base") or 10000.0}
    config |= {
        "num_key_value_heads": header.of_model("attention.head_count_kv") or heads,
        "tie_word_embeddings": "output.weight" not in shapes,
        "rope_parameters": rope,
    }
    if kind == "phi2":
        rotated = header.required("phi2.rope.dimension_count")
        rope["partial_rotary_factor"] = rotated / (hidden // heads)
        return config | {"layer_norm_eps": header.required("phi2.attention.layer_norm_epsilon")}
    width = shapes.get("blk.0.attn_q.weight", (hidden,))[0] // heads
    config |= {
        "head_dim": width,
        "rms_norm_eps": header.required(f"{kind}.attention.layer_norm_rms_epsilon"),
    }
    if kind == "llama":
        rope |= _scaled_positions(header, width)
        config["attention_bias"] = "blk.0.attn_q.bias" in shapes
    return config | _of_later_gemma(header, config) if kind in _LAYERS_OF_27B else config


def _of_later_gemma(header: GgufHeader, config: Mapping[str, Any]) -> dict[str, Any]:
    """What Gemma 2 and 3 have beside the first: windows, scaled attention, capped logits, two kinds of positions."""
    whole = config["num_hidden_layers"] == _LAYERS_OF_27B[header.architecture]
    share = config["hidden_size"] // config["num_attention_heads"]
    found: dict[str, Any] = {
        "sliding_window": header.required(f"{header.architecture}.attention.sliding_window"),
        "query_pre_attn_scalar": share if whole else config["head_dim"],
    }
    if header.architecture == "gemma2":
        return found | {
            "attn_logit_softcapping": header.of_model("attn_logit_softcapping"),
            "final_logit_softcapping": header.of_model("final_logit_softcapping"),
        }
    local = {
        "rope_type": "default",
        "rope_theta": header.of_model("rope.freq_base_swa") or 10000.0,
    }
    far = {**config["rope_parameters"], **_scaled_positions(header, config["head_dim"])}
    return found | {"rope_parameters": {"full_attention": far, "sliding_attention": local}}


def _scaled_positions(header: GgufHeader, width: int) -> dict[str, Any]:
    """How positions are scaled, as ``rope_parameters`` state it; raises `InputError` where they cannot."""
    scaling = header.of_model("rope.scaling.type") or "none"
    if scaling not in {"none", "linear"} or header.of_model("rope.dimension_count") not in {
        None,
        width,
    }:
        what = f"positions of the kind {scaling!r} over {header.of_model('rope.dimension_count')} of {width} numbers"
        raise InputError(f"{header.file} has {what}, which are not read; use the original weights.")
    factors = [tensor for tensor in header.tensors if tensor.name == _ROPE_FACTORS]
    if factors:
        return _llama3_positions(header, factors[0], width)
    factor = header.of_model("rope.scaling.factor") or 1.0
    return {} if scaling == "none" else {"rope_type": "linear", "factor": factor}


def _llama3_positions(header: GgufHeader, tensor: TensorEntry, width: int) -> dict[str, Any]:
    """The scaling of Llama 3.1 and later, of which the file holds only the resulting factors, one for a frequency.

    The formula (``LlamaModel.generate_extra_tensors`` of the converter) has Meta's constants in all released models
    but for the factor, which is the largest: it has to give the file's own numbers.
    """
    import torch

    base = header.of_model("rope.freq_base") or 10000.0
    found = _values(tensor).double()
    factor, low, high, trained = round(float(found.max()), 3), 1.0, 4.0, 8192
    lengths = 2 * math.pi * base ** (torch.arange(0, width, 2).double() / width)
    smooth = ((trained / lengths - low) / (high - low)).clamp(0, 1)
    expected = 1 / ((1 - smooth) / factor + smooth)
    if found.shape != expected.shape or not torch.allclose(found, expected, rtol=1e-3):
        raise InputError(
            f"{header.file}: its {_ROPE_FACTORS} are not those of Llama 3.1 and later; use the original weights."
        )
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": trained,
    }


def _values(tensor: TensorEntry) -> torch.Tensor:
    """The numbers of a tensor, in 32 bits; those in blocks many at a time, where ``gguf`` itself reads 16 rows."""
    import numpy as np
    import torch
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize, quants

    kind = GGMLQuantizationType(tensor.kind)
    width, size = GGML_QUANT_SIZES[kind]
    n = math.prod(tensor.shape) // width
    blocks = np.memmap(tensor.file, np.uint8, "r", tensor.offset, (n, size)).view(np.ndarray)
    reader = getattr(quants, kind.name, None)
    if reader is None:
        found = np.array(dequantize(blocks, kind), np.float32)
    else:
        reader.init_grid()
        found, step = np.empty((n, width), np.float32), _AT_ONCE // width
        for start in range(0, n, step):
            found[start : start + step] = reader.dequantize_blocks(blocks[start : start + step])
    return torch.from_numpy(found.reshape(tensor.shape))


def _tensors(
    header: GgufHeader, config: Mapping[str, Any], dtype: torch.dtype
) -> Iterator[tuple[str, torch.Tensor]]:
    """Native names and tensors. Converters of early 2024 wrote Phi's query, key and value as one ``attn_qkv``."""
    file, kind = header.file, header.architecture
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for tensor in header.tensors:
        if tensor.name == _ROPE_FACTORS and kind == "llama":
            continue
        stem, _, end = tensor.name.rpartition(".")
        name = [] if stem.endswith(".attn_qkv") else _native(stem, file, kind)
        values = _read_values(file, tensor)
        if kind.startswith("gemma") and "norm" in tensor.name:
            values = values - 1
        if kind == "llama" and (part := stem.rpartition(".")[2]) in heads:
            values = _halves_of_heads(values, heads[part])
        if name:
            yield f"{name}.{end}", values.to(dtype)
            continue
        for part, rows in zip("qkv", values.chunk(3), strict=True):
            name = _native(stem.removesuffix("qkv") + part, file, kind)
            yield f"{name}.{end}", rows.to(dtype, copy=True)


def _read_values(file: Path, tensor: TensorEntry) -> torch.Tensor:
    try:
        return _values(tensor)
    except (ValueError, NotImplementedError, KeyError) as error:
        raise InputError(
            f"{file}: {tensor.name} cannot be read ({error}); download it again, or use another quantisation."
        ) from error


def _halves_of_heads(values: torch.Tensor, heads: int) -> torch.Tensor:
    """llama.cpp rotates neighbouring rows of a head, transformers those half a head apart."""
    split = values.reshape(heads, values.shape[0] // heads // 2, 2, *values.shape[1:])
    return split.transpose(1, 2).reshape(values.shape)


def _native(stem: str, file: Path, kind: str) -> str:
    """The native name of a module: ``blk.3.attn_q`` is ``model.layers.3.self_attn.q_proj``."""
    found = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)", stem)
    name = _NAMES[kind].get(found[2]) if found else None
    if found is None or name is None:
        raise InputError(f"{file}: the architecture {kind} has no tensors {stem}.")
    return name if found[1] is None else f"model.layers.{found[1]}.{name}"
