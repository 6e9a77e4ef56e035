"""GGUF as transformers does not read it: Phi-2 (``phi2``), the first Gemma (``gemma``), and checkpoints in parts.

What this module promises
    The parts of a checkpoint that llama.cpp's ``gguf-split`` has cut are read as one file: the metadata of the first,
    the tensors of all. Inside `joined` transformers reads them so, too.

    `read` turns the file into a native configuration and native tensors: dequantised by the ``gguf`` package, renamed,
    and Gemma's norms with the 1 taken off again that llama.cpp adds to them. Neither architecture permutes the rows of
    query and key, as llama.cpp does for Llama only (which transformers reads, and undoes).
What it refuses
    A file that cannot be parsed, lacks one of its sizes, or holds a tensor that the architecture has no name for;
    parts that are not those of one checkpoint.

Nothing stays quantised: the tensors take as much memory as those of the original checkpoint.

Sources: ``convert_hf_to_gguf.py`` of llama.cpp, classes ``Phi2Model`` and ``GemmaModel``; its ``gguf-split.cpp``;
``gguf.constants``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from alignboard.errors import InputError
from alignboard.models.gguf_parts import checkpoint_name, part_names

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


class _Joined:
    """The parts of a checkpoint as one reader: what transformers and this module ask of ``gguf.GGUFReader``."""

    def __init__(self, readers: list[Any]) -> None:
        self.fields = readers[0].fields
        self.get_field = readers[0].get_field
        self.tensors = [tensor for reader in readers for tensor in reader.tensors]


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


@contextmanager
def joined(file: Path) -> Iterator[None]:
    """Inside the block transformers reads all parts of the checkpoint whose first part is ``file``.

    It looks ``gguf.GGUFReader`` up whenever it reads a file, and knows one file only: with the first part alone it
    would miss tensors, and take a model whose head lies in another part for one that has none.
    """
    import gguf

    if len(part_names(file.name)) == 1:
        yield
        return
    whole, plain = _reader(file), gguf.GGUFReader

    def read_parts(path: Any, *rest: Any) -> Any:
        return whole if Path(path).resolve() == file.resolve() else plain(path, *rest)

    setattr(gguf, "GGUFReader", read_parts)  # noqa: B010 - its type is that of a class
    try:
        yield
    finally:
        setattr(gguf, "GGUFReader", plain)  # noqa: B010


def _reader(file: Path) -> Any:
    """A reader of the checkpoint whose only or first part is ``file``."""
    if find_spec("gguf") is None:
        raise InputError(f"{file} needs the package gguf: pip install 'alignboard[gguf]'.")
    parts = [file.with_name(name) for name in part_names(file.name)]
    readers = [_part(part) for part in parts]
    for number, (part, reader) in enumerate(zip(parts, readers, strict=True)):
        _require_place(part, reader, number, len(parts))
    if len(parts) == 1:
        return readers[0]
    whole = _Joined(readers)
    total = _metadata(readers[0], file, "split.tensors.count")
    if len(whole.tensors) != total:
        raise InputError(
            f"{file} is of a checkpoint of {total} tensors, but its {len(parts)} parts hold {len(whole.tensors)}; "
            "download them again."
        )
    return whole


def _part(file: Path) -> Any:
    from gguf import GGUFReader

    try:
        return GGUFReader(file)
    except (ValueError, IndexError, KeyError, OSError) as error:
        raise InputError(
            f"{file} is no GGUF file that can be read ({error}); download it again."
        ) from error


def _require_place(file: Path, reader: Any, number: int, count: int) -> None:
    """A part says itself which of how many it is, counted from 0."""
    said = [reader.get_field(f"split.{key}") for key in ("no", "count")]
    own = (0, 1) if None in said else tuple(int(field.contents()) for field in said)
    if own != (number, count):
        raise InputError(
            f"{file} says that it is part {own[0] + 1} of {own[1]}, not {number + 1} of {count}; name the parts as "
            f"gguf-split does, such as {checkpoint_name(file.name)}-{own[0] + 1:05}-of-{own[1]:05}.gguf."
        )


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
