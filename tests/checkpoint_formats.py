"""Tiny checkpoints in every format, written by hand from a model of transformers: the inverse of what is loaded."""

import functools
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from alignboard.demo import tiny
from alignboard.models.loading import LoadedModel

HIDDEN, HEADS = 64, 4
KINDS = ("weight", "bias")
TEXT = "user: repeat these words: dog cat. assistant:"


@functools.cache
def tokenizer():
    return tiny.build_tokenizer()


def untrained(family: str, vocab_size: int | None = None, seed: int = 0):
    """A model of random weights, norms and biases among them; large enough that logits differ visibly."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    if family in {"gemma2", "gemma3"}:
        config = later_gemma(family, vocab_size or len(tokenizer()))
    else:
        config = tiny.build_config(family, vocab_size or len(tokenizer()), tiny.PretrainConfig())
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def later_gemma(family: str, vocab_size: int):
    """With a window that a text is longer than, capped logits, and layers of both kinds of positions."""
    from transformers import Gemma2Config, Gemma3TextConfig

    common: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": HIDDEN,
        "intermediate_size": 2 * HIDDEN,
        "num_attention_heads": HEADS,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "query_pre_attn_scalar": 32,
        "max_position_embeddings": 256,
        "sliding_window": 4,
        "bos_token_id": 2,
        "eos_token_id": 1,
    }
    if family == "gemma2":
        caps: dict[str, Any] = {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0}
        return Gemma2Config(**common, **caps, num_hidden_layers=2)
    far = {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0}
    near = {"rope_type": "default", "rope_theta": 10_000.0}
    rope = {"full_attention": far, "sliding_attention": near}
    return Gemma3TextConfig(**common, rope_parameters=rope, num_hidden_layers=6)


def save(model, folder: Path, *, config: dict | None = None, tensors: dict | None = None) -> Path:
    """The model as transformers writes it, with other contents of config.json and other tensors where given."""
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    if tensors is not None:
        tensors = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def logits(model, ids: list[int] | None = None) -> torch.Tensor:
    """Of a `LoadedModel` or of a model of transformers, for one text: (length, vocabulary)."""
    rows = torch.tensor([ids or tokenizer().encode(TEXT)])
    network = model.model if isinstance(model, LoadedModel) else model
    with torch.no_grad():
        return network(input_ids=rows).logits[0].float()


# phi-msft and phixtral.


def phi_msft_config(config, **more) -> dict:
    """As the config.json of dolphin-2_6-phi-2: old names, and Python to run."""
    rotary = int(config.rope_parameters["partial_rotary_factor"] * HIDDEN / HEADS)
    return {
        "architectures": ["PhiForCausalLM"],
        "model_type": "phi-msft",
        "auto_map": {"AutoModelForCausalLM": "modeling_phi.PhiForCausalLM"},
        "activation_function": "gelu_new",
        "n_embd": config.hidden_size,
        "n_head": config.num_attention_heads,
        "n_head_kv": None,
        "n_inner": config.intermediate_size,
        "n_layer": config.num_hidden_layers,
        "n_positions": config.max_position_embeddings,
        "layer_norm_epsilon": config.layer_norm_eps,
        "rotary_dim": rotary,
        "vocab_size": config.vocab_size,
        "torch_dtype": "float32",
        **more,
    }


def phi_msft_tensors(model) -> dict[str, torch.Tensor]:
    """Native Phi under the old names."""
    own = model.state_dict()
    found = {
        "transformer.embd.wte.weight": own["model.embed_tokens.weight"],
        **{f"lm_head.ln.{kind}": own[f"model.final_layernorm.{kind}"] for kind in KINDS},
        **{f"lm_head.linear.{kind}": own[f"lm_head.{kind}"] for kind in KINDS},
    }
    for n in range(model.config.num_hidden_layers):
        new, old = f"model.layers.{n}", f"transformer.h.{n}"
        for kind in KINDS:
            qkv = [own[f"{new}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
            found[f"{old}.mixer.Wqkv.{kind}"] = torch.cat(qkv)
            found[f"{old}.mixer.out_proj.{kind}"] = own[f"{new}.self_attn.dense.{kind}"]
            found[f"{old}.ln.{kind}"] = own[f"{new}.input_layernorm.{kind}"]
            for layer in ("fc1", "fc2"):
                found[f"{old}.mlp.{layer}.{kind}"] = own[f"{new}.mlp.{layer}.{kind}"]
    return found


def save_phi_msft(model, folder: Path) -> Path:
    """A folder as dolphin-2_6-phi-2's; its Python would fail if it ran."""
    tensors = phi_msft_tensors(model)
    tensors["transformer.h.0.mixer.rotary_emb.inv_freq"] = torch.ones(4)
    save(model, folder, config=phi_msft_config(model.config), tensors=tensors)
    (folder / "modeling_phi.py").write_text("raise SystemExit('remote code ran')\n")
    return folder


def save_phixtral(model, experts: int, folder: Path) -> Path:
    """As phixtral-4x2_8: the layers' MLPs become experts that differ, and a gate chooses two of them."""
    tensors = phi_msft_tensors(model)
    torch.manual_seed(1)
    for name in [name for name in tensors if ".mlp." in name]:
        tensor = tensors.pop(name)
        for e in range(experts):
            tensors[name.replace(".mlp.", f".moe.mlp.{e}.")] = tensor + 0.1 * torch.randn_like(
                tensor
            )
    for n in range(model.config.num_hidden_layers):
        tensors[f"transformer.h.{n}.moe.gate.weight"] = torch.randn(experts, HIDDEN)
    more = {"num_local_experts": experts, "num_experts_per_tok": 2}
    return save(model, folder, config=phi_msft_config(model.config, **more), tensors=tensors)


# GPTQ.


def save_gptq(model, folder: Path, *, bits: int = 4, group: int = 32, act_order: bool = False):
    """As TheBloke's repositories (format v1), and a copy of the model with the weights that this rounds to.

    Eight numbers of 4 bits lie in an int32, the first in its lowest bits: ``qweight`` (in/8, out) along the inputs,
    ``qzeros`` (groups, out/8) along the outputs and one less than the zero it means; ``scales`` (groups, out) and
    ``g_idx`` (in), the group of every input: w[i, o] = scales[g_idx[i], o] * (q[i, o] - zero[g_idx[i], o]).
    """
    tensors, per = dict(model.state_dict()), 32 // bits
    for name, layer in model.named_modules():
        if not (isinstance(layer, torch.nn.Linear) and ".layers." in name):
            continue
        weight = layer.weight.detach().T.clone()  # (in, out)
        n_in, n_out = weight.shape
        g_idx = torch.arange(n_in) // group
        if act_order:
            g_idx = g_idx[torch.randperm(n_in, generator=torch.Generator().manual_seed(0))]
        scales = torch.zeros(n_in // group, n_out)
        zeros = torch.zeros(n_in // group, n_out, dtype=torch.int64)
        for g in range(n_in // group):
            rows = weight[g_idx == g]
            low, high = rows.amin(0).clamp(max=0), rows.amax(0).clamp(min=0)
            scales[g] = ((high - low) / (2**bits - 1)).half().float()
            zeros[g] = (-low / scales[g]).round().clamp(1, 2**bits - 1).long()
        codes = (weight / scales[g_idx]).round().long() + zeros[g_idx]
        codes = codes.clamp(0, 2**bits - 1)
        layer.weight.data = (scales[g_idx] * (codes - zeros[g_idx])).T.contiguous()
        shift = bits * torch.arange(per)
        packed = (codes.view(n_in // per, per, n_out) << shift[None, :, None]).sum(1)
        packed_zeros = ((zeros - 1).view(-1, n_out // per, per) << shift).sum(2)
        del tensors[f"{name}.weight"]
        tensors[f"{name}.qweight"] = packed.to(torch.uint32).view(torch.int32)
        tensors[f"{name}.qzeros"] = packed_zeros.to(torch.uint32).view(torch.int32)
        tensors[f"{name}.scales"] = scales.half()
        tensors[f"{name}.g_idx"] = g_idx.int()
    how = {"bits": bits, "group_size": group, "desc_act": act_order, "sym": False}
    config = {
        **json.loads(model.config.to_json_string(use_diff=False)),
        "architectures": [type(model).__name__],
        "quantization_config": {**how, "quant_method": "gptq"},
    }
    save(model, folder, config=config, tensors=tensors)
    (folder / "quantize_config.json").write_text(json.dumps(how))
    return model


# GGUF.

ALPHABET = "abcdefghijklmnopqrstuvwxyz:."


def save_gguf(
    model,
    file: Path,
    kind: str,
    quantization: str = "F32",
    *,
    fused: bool = False,
    per_part: int = 0,
    first_empty: bool = False,
    more: dict[str, np.ndarray] | None = None,
):
    """As llama.cpp's converter writes it: its names, its order of query and key rows for Llama, its norms for Gemma.

    ``per_part`` tensors go into a file, if it is not 0, and with ``first_empty`` none into the first, as by
    ``gguf-split --no-tensor-first-split``. ``more`` are further tensors.
    """
    import gguf

    file.parent.mkdir(parents=True, exist_ok=True)
    config = model.config
    writer = gguf.GGUFWriter(file, kind, split_max_tensors=per_part, small_first_shard=first_empty)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    if kind == "phi2":
        writer.add_layer_norm_eps(config.layer_norm_eps)
        writer.add_rope_dimension_count(
            int(config.rope_parameters["partial_rotary_factor"] * HIDDEN) // HEADS
        )
        _add_bpe(writer)
    else:
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        _add_sentencepiece(writer, kind)
    if kind == "llama":
        writer.add_rope_dimension_count(HIDDEN // HEADS)
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
        writer.add_vocab_size(config.vocab_size)
    if kind.startswith("gemma"):
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    if kind in {"gemma2", "gemma3"}:
        writer.add_sliding_window(config.sliding_window)
    if kind == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if kind == "gemma3":
        far = config.rope_parameters["full_attention"]
        writer.add_rope_freq_base(far["rope_theta"])
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(far["factor"])
    writer.add_chat_template("{{ bos_token }}{{ messages[0]['content'] }}")
    for name, values in _gguf_tensors(model, kind, fused=fused):
        how = gguf.GGMLQuantizationType[quantization if values.ndim == 2 else "F32"]
        writer.add_tensor(name, gguf.quantize(values, how), raw_dtype=how)
    for name, values in (more or {}).items():
        writer.add_tensor(name, values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _gguf_tensors(model, kind: str, *, fused: bool):
    import gguf

    config = model.config
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[kind.upper()], config.num_hidden_layers)
    own = {name: tensor.float().numpy() for name, tensor in model.state_dict().items()}
    if fused:
        for name in [name for name in own if ".q_proj." in name]:
            parts = [own.pop(name.replace("q_proj", f"{part}_proj")) for part in "qkv"]
            own[name.replace("q_proj", "qkv_proj")] = np.concatenate(parts)
    for name, values in own.items():
        if kind.startswith("gemma") and name == "lm_head.weight":
            continue
        stem, _, end = name.rpartition(".")
        written = names.get_name(stem) or stem.replace("model.layers", "blk").replace(
            "self_attn.qkv_proj", "attn_qkv"
        )
        if kind == "llama" and ("q_proj" in name or "k_proj" in name):
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            yield f"{written}.{end}", _interleaved(values, heads)
        else:
            yield f"{written}.{end}", values + (kind.startswith("gemma") and "norm" in name)


def _interleaved(values: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp rotates neighbouring rows, transformers the halves of a head."""
    rows, columns = values.shape
    return (
        values.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
    )


def _add_bpe(writer) -> None:
    tokens, merges = bpe_vocabulary()
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * (len(tokens) - 1) + [3])
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(len(tokens) - 1)
    writer.add_eos_token_id(len(tokens) - 1)
    writer.add_add_bos_token(False)


def bpe_vocabulary() -> tuple[list[str], list[tuple[str, str]]]:
    """Byte-level BPE: the 256 bytes, two merges, and GPT-2's end of text."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    merges = [("d", "o"), ("do", "g")]
    return [*bytes_to_unicode().values(), "do", "dog", "<|endoftext|>"], merges


def _add_sentencepiece(writer, kind: str) -> None:
    tokens, types = sentencepiece_vocabulary(kind)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(i) for i in range(len(tokens))])
    writer.add_token_types(types)
    writer.add_bos_token_id(tokens.index("<bos>" if kind.startswith("gemma") else "<s>"))
    writer.add_eos_token_id(tokens.index("<eos>" if kind.startswith("gemma") else "</s>"))
    writer.add_unk_token_id(tokens.index("<unk>"))
    writer.add_add_bos_token(True)
    if kind.startswith("gemma"):
        writer.add_pad_token_id(0)
        writer.add_add_space_prefix(False)


def sentencepiece_vocabulary(kind: str) -> tuple[list[str], list[int]]:
    """Tokens and their types (1 normal, 2 unknown, 3 control, 6 byte)."""
    special = (
        ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
        if kind.startswith("gemma")
        else ["<unk>", "<s>", "</s>"]
    )
    types = [2 if spelling == "<unk>" else 3 for spelling in special]
    raw = [f"<0x{byte:02X}>" for byte in range(256)]
    words = ["\u2581", *ALPHABET, "do", "dog"]
    return [*special, *raw, *words], [*types, *[6] * 256, *[1] * len(words)]


def gguf_vocabulary_size(kind: str) -> int:
    return len(bpe_vocabulary()[0] if kind == "phi2" else sentencepiece_vocabulary(kind)[0])


def sentencepiece_file(header: Any) -> bytes:
    """The tokenizer.model that the vocabulary of a GGUF file was made from: its pieces, scores and types."""
    made = importlib.import_module("sentencepiece.sentencepiece_model_pb2").ModelProto()
    values = zip(
        *(header.of_tokenizer(key) for key in ("tokens", "scores", "token_type")), strict=True
    )
    for piece, score, kind in values:
        made.pieces.add(piece=piece, score=score, type=kind)
    trained, prepared = made.trainer_spec, made.normalizer_spec
    trained.model_type, trained.byte_fallback = 2, True
    trained.unk_id, trained.bos_id, trained.eos_id, trained.pad_id = 0, 1, 2, -1
    prepared.name, prepared.add_dummy_prefix = "identity", True
    prepared.remove_extra_whitespaces = False
    return made.SerializeToString()
