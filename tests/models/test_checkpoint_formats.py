"""Every format of checkpoints opens through `LoadedModel.load`, with the logits of what it was made from.

The checkpoints are tiny, random and written by `checkpoint_formats`, the inverse of what is under test. Largest
differences measured, the largest logit being 2.0 to 4.6: safetensors, .bin, phi-msft and GGUF F32 0; phixtral 6e-7;
GGUF Q8_0 0.05; 8 bits 0.06; 4 bits 0.72; GPTQ 1.3e-3 to the weights that it rounds to.
"""

import json
import re
import shutil
import sys
from importlib.util import find_spec
from typing import Any

import httpx
import pytest
import torch
from safetensors.torch import load_file, save_file

import checkpoint_formats as written
from alignboard.errors import InputError
from alignboard.models import arithmetic, identity, loading
from alignboard.models.loading import LoadedModel
from alignboard.models.registry import load_model
from checkpoint_formats import logits

FAMILIES = ["phi", "mistral", "gemma", "llama"]

needs_gguf = pytest.mark.skipif(find_spec("gguf") is None, reason="the extra gguf is not installed")
needs_gptq = pytest.mark.skipif(
    find_spec("gptqmodel") is None or find_spec("optimum") is None,
    reason="gptqmodel and optimum are not installed (see the extra gptq in pyproject.toml)",
)


def largest_difference(a, b) -> float:
    return float((logits(a) - logits(b)).abs().max())


@pytest.fixture(scope="module")
def phi():
    return written.untrained("phi")


@pytest.fixture(scope="module")
def phi_folder(phi, tmp_path_factory):
    return written.save(phi, tmp_path_factory.mktemp("native") / "phi")


# transformers, adapters, bitsandbytes.


@pytest.mark.parametrize("family", FAMILIES)
def test_safetensors_and_bin_are_exact(family, tmp_path):
    original = written.untrained(family)
    folder = written.save(original, tmp_path / "model")
    loaded = LoadedModel.load(folder)
    assert (loaded.format, loaded.attention) == ("transformers", "sdpa")
    assert largest_difference(loaded, original) == 0
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    again = LoadedModel.load(folder)
    assert largest_difference(again, original) == 0
    assert again.fingerprint != loaded.fingerprint


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_adds_what_its_file_says(family, tmp_path):
    from peft import LoraConfig, get_peft_model

    folder = written.save(written.untrained(family), tmp_path / "base")
    original = written.untrained(family)
    config = LoraConfig(
        r=4,
        lora_alpha=12,
        target_modules=["q_proj", "v_proj"],
        init_lora_weights=False,
        task_type="CAUSAL_LM",
    )
    get_peft_model(written.untrained(family), config).save_pretrained(str(tmp_path / "adapter"))
    loaded = LoadedModel.load(folder)
    loaded.add_adapter("lora", tmp_path / "adapter")
    matrices = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    for name in [name for name in matrices if ".lora_A." in name]:
        layer = original.get_submodule(name.split("base_model.model.")[1].split(".lora_A")[0])
        change = 3 * matrices[name.replace("lora_A", "lora_B")] @ matrices[name]
        layer.weight.data += change
    with loaded.using("lora"):
        assert largest_difference(loaded, original) < 1e-5
    assert largest_difference(loaded, written.untrained(family)) == 0


@pytest.mark.parametrize(("bits", "share"), [("8bit", 0.04), ("4bit", 0.4)])
@pytest.mark.parametrize("family", FAMILIES)
def test_bitsandbytes_on_the_cpu(family, bits, share, tmp_path):
    original = written.untrained(family)
    loaded = LoadedModel.load(written.save(original, tmp_path / "model"), quantization=bits)
    assert getattr(loaded.model, f"is_loaded_in_{bits}")
    assert 0 < largest_difference(loaded, original) < share * float(logits(original).abs().max())


# phi-msft and phixtral.


def test_phi_msft_is_renamed_exactly_and_runs_no_code_of_its_own(phi, tmp_path):
    loaded = LoadedModel.load(written.save_phi_msft(phi, tmp_path / "old"))
    assert loaded.format == "phi-msft"
    assert type(loaded.model).__name__ == "PhiForCausalLM"
    assert largest_difference(loaded, phi) == 0
    native = loaded.model.state_dict()
    assert native.keys() == phi.state_dict().keys()
    assert all(torch.equal(native[name], tensor) for name, tensor in phi.state_dict().items())
    back = written.phi_msft_tensors(loaded.model)
    kept = load_file(tmp_path / "old" / "model.safetensors")
    assert all(torch.equal(back[name], kept[name]) for name in back)


def test_phi_msft_from_bin_files_quantises_and_takes_adapters(phi, tmp_path):
    folder = written.save_phi_msft(phi, tmp_path / "old")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert largest_difference(LoadedModel.load(folder), phi) == 0
    loaded = LoadedModel.load(folder, quantization="8bit")
    assert 0 < largest_difference(loaded, phi) < 0.1


@pytest.mark.parametrize(
    ("gone", "added", "message"),
    [
        ("transformer.h.1.mixer.out_proj.bias", {}, "1 missing keys, such as"),
        ("n_embd", {}, "no n_embd"),
        ("transformer.embd.wte.weight", {}, "hold no transformer.embd.wte"),
        (None, {"transformer.h.1.extra.weight": torch.ones(2)}, "transformer.h.1.extra belong to"),
        (None, {"lm_head.ln.bias": torch.ones(3)}, "1 mismatched keys"),
    ],
)
def test_phi_msft_is_strict(phi, tmp_path, gone, added, message):
    tensors = written.phi_msft_tensors(phi) | added
    config = written.phi_msft_config(phi.config)
    for content in (tensors, config):
        content.pop(gone, None)
    folder = written.save(phi, tmp_path / "old", config=config, tensors=tensors)
    with pytest.raises(InputError, match=re.escape(message)):
        LoadedModel.load(folder)


def reference_mixture(tensors, layer: int, per_token: int = 2):
    """Softmax over all gate scores, the largest kept and renormalised; every expert computes every token."""
    prefix = f"transformer.h.{layer}.moe"

    def forward(x):
        shares = (x @ tensors[f"{prefix}.gate.weight"].T).softmax(-1)
        kept = torch.zeros_like(shares).scatter(-1, shares.topk(per_token).indices, 1.0) * shares
        kept = kept / kept.sum(-1, keepdim=True)
        total = torch.zeros_like(x)
        for e in range(shares.shape[-1]):
            w1, b1, w2, b2 = (
                tensors[f"{prefix}.mlp.{e}.{name}"]
                for name in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")
            )
            inner = torch.nn.functional.gelu(x @ w1.T + b1, approximate="tanh")
            total = total + kept[..., e, None] * (inner @ w2.T + b2)
        return total

    return forward


def test_phixtral_is_its_equations_and_generates_with_a_cache(tmp_path):
    original = written.untrained("phi")
    folder = written.save_phixtral(original, 4, tmp_path / "phixtral")
    loaded = LoadedModel.load(folder)
    assert loaded.format == "phixtral"
    tensors = load_file(folder / "model.safetensors")
    for number, layer in enumerate(original.model.layers):
        layer.mlp.forward = reference_mixture(tensors, number)
    assert largest_difference(loaded, original) < 1e-5
    assert not torch.equal(logits(loaded), logits(written.untrained("phi")))

    ids = torch.tensor([loaded.tokenizer.encode(written.TEXT)])
    network: Any = loaded.model
    said = network.generate(ids, max_new_tokens=12, do_sample=False, eos_token_id=-1)
    assert said.shape[1] == ids.shape[1] + 12
    with torch.no_grad():  # without a cache, by the reference
        for position in range(ids.shape[1], said.shape[1]):
            scores = original(input_ids=said[:, :position], use_cache=False).logits[0, -1]
            assert int(scores.argmax()) == int(said[0, position])


def test_phixtral_keeps_its_gates_when_quantised(phi, tmp_path):
    folder = written.save_phixtral(phi, 4, tmp_path / "phixtral")
    whole, loaded = LoadedModel.load(folder), LoadedModel.load(folder, quantization="8bit")
    network: Any = loaded.model
    mixture = network.model.layers[0].mlp
    assert type(mixture.gate) is torch.nn.Linear
    assert type(mixture.experts[0].fc1).__name__ == "Linear8bitLt"
    assert 0 < largest_difference(loaded, whole) < 0.15


# GPTQ.


@needs_gptq
@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("family", ["phi", "mistral"])
def test_gptq_is_the_weights_it_rounds_to(family, act_order, tmp_path):
    rounded = written.save_gptq(written.untrained(family), tmp_path / "gptq", act_order=act_order)
    loaded = LoadedModel.load(tmp_path / "gptq")
    assert loaded.format == "gptq"
    assert "Torch" in type(loaded.model.model.layers[0].self_attn.q_proj).__name__
    assert largest_difference(loaded, rounded) < 5e-3
    assert largest_difference(rounded, written.untrained(family)) > 0.1
    with pytest.raises(InputError, match="quantised already"):
        LoadedModel.load(tmp_path / "gptq", quantization="4bit")


def test_gptq_without_its_packages_says_how_to_install_them(tmp_path, monkeypatch):
    written.save_gptq(written.untrained("mistral"), tmp_path / "gptq")
    monkeypatch.setattr("alignboard.models.weights.find_spec", lambda _name: None)
    with pytest.raises(InputError, match="needs optimum and gptqmodel: pip install"):
        LoadedModel.load(tmp_path / "gptq")


def test_gptq_of_phixtral_is_refused(phi, tmp_path):
    folder = written.save_phixtral(phi, 2, tmp_path / "phixtral")
    (folder / "quantize_config.json").write_text('{"bits": 4}')
    with pytest.raises(InputError, match="no library has a loader"):
        LoadedModel.load(folder)


# GGUF.

GGUF = [
    *[("llama", "llama"), ("mistral", "llama"), ("phi", "phi2"), ("gemma", "gemma")],
    *[("gemma2", "gemma2"), ("gemma3", "gemma3")],
]
IDS = [3, 257, 40, 66, 64, 83, 13]


def as_gguf(family, kind, file, quantization="F32", **how):
    original = written.untrained(family, written.gguf_vocabulary_size(kind))
    written.save_gguf(original, file, kind, quantization, **how)
    return original


@needs_gguf
@pytest.mark.parametrize(("family", "kind"), GGUF)
def test_gguf_of_32_bits_is_exact(family, kind, tmp_path):
    original = as_gguf(family, kind, tmp_path / "model.gguf")
    loaded = LoadedModel.load(tmp_path / "model.gguf")
    assert (loaded.format, loaded.path) == ("gguf", tmp_path / "model.gguf")
    assert loading.loads[-1] == str(loaded.path)
    assert torch.equal(logits(loaded, IDS), logits(original, IDS))
    assert loaded.context == 256
    assert loaded.chat_template == "{{ bos_token }}{{ messages[0]['content'] }}"


@needs_gguf
@pytest.mark.parametrize(("family", "kind"), GGUF)
def test_gguf_of_8_bits_is_what_it_rounds_to(family, kind, tmp_path):
    import gguf

    original = as_gguf(family, kind, tmp_path / "q8" / "model.gguf", "Q8_0")
    loaded = LoadedModel.load(tmp_path / "q8")
    largest = float(logits(original, IDS).abs().max())
    difference = float((logits(loaded, IDS) - logits(original, IDS)).abs().max())
    assert 0 < difference < 0.03 * largest
    q8 = gguf.GGMLQuantizationType.Q8_0
    for parameter in original.parameters():
        if parameter.ndim == 2:
            blocks = gguf.quantize(parameter.detach().numpy(), q8)
            parameter.data = torch.from_numpy(gguf.dequantize(blocks, q8))
    assert torch.allclose(logits(loaded, IDS), logits(original, IDS), atol=1e-5)


@needs_gguf
def test_phi_gguf_with_query_key_and_value_in_one(tmp_path):
    original = as_gguf("phi", "phi2", tmp_path / "fused.gguf", fused=True)
    loaded = LoadedModel.load(tmp_path / "fused.gguf")
    assert torch.equal(logits(loaded, IDS), logits(original, IDS))


@needs_gguf
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("phi2", ["dog", "\u0120", "c", "a", "t", "."]),
        ("gemma", ["<bos>", "dog", "\u2581", "c", "a", "t", "."]),
        ("llama", ["<s>", "\u2581", "dog", "\u2581", "c", "a", "t", "."]),
    ],
)
def test_the_tokenizer_of_a_gguf_file(kind, expected, tmp_path):
    family = {"phi2": "phi"}.get(kind, kind)
    as_gguf(family, kind, tmp_path / "model.gguf")
    tokenizer = LoadedModel.load(tmp_path / "model.gguf").tokenizer
    ids = tokenizer.encode("dog cat.")
    assert tokenizer.convert_ids_to_tokens(ids) == expected
    assert str(tokenizer.decode(ids, skip_special_tokens=True)).strip() == "dog cat."
    assert tokenizer.eos_token == {"phi2": "<|endoftext|>", "gemma": "<eos>"}.get(kind, "</s>")


@needs_gguf
def test_another_tokenizer_is_part_of_the_fingerprint(phi_folder, tmp_path):
    as_gguf("phi", "phi2", tmp_path / "model.gguf")
    own = LoadedModel.load(tmp_path / "model.gguf")
    other = LoadedModel.load(tmp_path / "model.gguf", tokenizer=phi_folder)
    assert len(other.tokenizer) == len(written.tokenizer()) != len(own.tokenizer)
    assert other.fingerprint != own.fingerprint
    with pytest.raises(InputError, match=r"is no tokenizer: it holds no tokenizer\.json"):
        LoadedModel.load(tmp_path / "model.gguf", tokenizer=tmp_path)


@needs_gguf
def test_a_gguf_file_is_identified_by_its_own_content(tmp_path):
    as_gguf("phi", "phi2", tmp_path / "a" / "one.gguf")
    as_gguf("phi", "phi2", tmp_path / "a" / "two.gguf", "Q8_0")
    with pytest.raises(InputError, match=r"several GGUF files; .*: one\.gguf, two\.gguf"):
        LoadedModel.load(tmp_path / "a")
    with pytest.raises(InputError, match=r"no GGUF file 'on\.gguf', did you mean 'one\.gguf'"):
        LoadedModel.load(tmp_path / "a", gguf_file="on.gguf")
    one = LoadedModel.load(tmp_path / "a", gguf_file="one.gguf")
    two = LoadedModel.load(tmp_path / "a", gguf_file="two.gguf")
    assert one.fingerprint != two.fingerprint
    (tmp_path / "b").mkdir()
    shutil.copy(tmp_path / "a" / "one.gguf", tmp_path / "b")
    assert LoadedModel.load(tmp_path / "b" / "one.gguf").fingerprint == one.fingerprint
    with pytest.raises(InputError, match="quantised already"):
        LoadedModel.load(tmp_path / "b", quantization="8bit")


@needs_gguf
def test_a_broken_gguf_file_is_one_sentence(phi, tmp_path):
    (tmp_path / "page.gguf").write_text("<html>not found</html>")
    with pytest.raises(InputError, match="is no GGUF file"):
        LoadedModel.load(tmp_path / "page.gguf")
    small = written.untrained("phi", written.gguf_vocabulary_size("phi2"))
    small.config.num_hidden_layers = 3  # and tensors of two
    written.save_gguf(small, tmp_path / "short.gguf", "phi2")
    with pytest.raises(InputError, match=r"14 missing keys, such as model\.layers\.2"):
        LoadedModel.load(tmp_path / "short.gguf")


# GGUF in parts.


def split_gguf(family, kind, folder, **how):
    """A checkpoint in parts, and the model it was made from; the same as one file lies in ``folder / "whole"``."""
    original = as_gguf(family, kind, folder / "whole" / "model.gguf")
    written.save_gguf(original, folder / "parts" / "model.gguf", kind, **{"per_part": 5, **how})
    return original, sorted((folder / "parts").iterdir())


@needs_gguf
@pytest.mark.parametrize("first_empty", [False, True])
@pytest.mark.parametrize(("family", "kind"), GGUF)
def test_the_parts_of_a_gguf_checkpoint_are_one_model(family, kind, first_empty, tmp_path):
    import gguf

    plain = gguf.GGUFReader
    original, parts = split_gguf(family, kind, tmp_path, first_empty=first_empty)
    assert len(parts) >= 4
    assert parts[0].name == f"model-00001-of-{len(parts):05}.gguf"
    loaded = LoadedModel.load(parts[0])
    assert (loaded.format, loaded.path) == ("gguf", parts[0])
    assert torch.equal(logits(loaded, IDS), logits(original, IDS))
    whole = LoadedModel.load(tmp_path / "whole" / "model.gguf")
    config, expected = loaded.model.config.to_dict(), whole.model.config.to_dict()
    names_of_files = ("_name_or_path", "quantization_config")
    assert {**config, **dict.fromkeys(names_of_files)} == {
        **expected,
        **dict.fromkeys(names_of_files),
    }
    assert loaded.tokenizer.get_vocab() == whole.tokenizer.get_vocab()
    assert loaded.chat_template == whole.chat_template
    assert gguf.GGUFReader is plain


@needs_gguf
def test_any_part_or_their_folder_names_the_checkpoint(tmp_path, monkeypatch):
    _, parts = split_gguf("llama", "llama", tmp_path)
    first = LoadedModel.load(parts[0])
    assert LoadedModel.load(parts[-1]).path == parts[0]
    assert LoadedModel.load(tmp_path / "parts").fingerprint == first.fingerprint
    monkeypatch.chdir(tmp_path)
    assert LoadedModel.load("parts").fingerprint == first.fingerprint
    spec = load_model(str(tmp_path / "parts"), tmp_path)
    assert (spec.name, spec.gguf_file) == ("model", parts[0].name)
    shutil.copy(tmp_path / "whole" / "model.gguf", tmp_path / "parts" / "other.gguf")
    with pytest.raises(InputError, match=rf"several GGUF files; .*: {parts[0].name}, other\.gguf"):
        LoadedModel.load(tmp_path / "parts")
    named = LoadedModel.load(tmp_path / "parts", gguf_file=parts[1].name)
    assert named.fingerprint == first.fingerprint


@needs_gguf
def test_every_part_is_in_the_fingerprint(tmp_path):
    _, parts = split_gguf("phi", "phi2", tmp_path)
    before = identity.fingerprint(parts[0].parent, gguf_file=parts[0].name)
    for part in parts:
        content = part.read_bytes()
        part.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert identity.fingerprint(parts[0].parent, gguf_file=parts[0].name) != before
        part.write_bytes(content)
    assert identity.fingerprint(parts[0].parent, gguf_file=parts[0].name) == before


@needs_gguf
@pytest.mark.parametrize(("family", "kind"), GGUF[1:3])
def test_a_part_that_is_missing_is_named(family, kind, tmp_path):
    _, parts = split_gguf(family, kind, tmp_path)
    for gone in (parts[0], parts[2]):
        content = gone.read_bytes()
        gone.unlink()
        for named in (parts[0], parts[1], tmp_path / "parts"):
            said = rf"lacks 1 of the {len(parts)} parts of a GGUF checkpoint: {gone.name}; put"
            with pytest.raises(InputError, match=said):
                LoadedModel.load(named)
        gone.write_bytes(content)
    assert LoadedModel.load(parts[0]).format == "gguf"


@needs_gguf
def test_parts_that_do_not_belong_together_are_refused(tmp_path):
    _, parts = split_gguf("phi", "phi2", tmp_path)
    count = len(parts)
    renamed = shutil.copy(parts[0], tmp_path / "renamed.gguf")
    with pytest.raises(
        InputError, match=rf"renamed\.gguf says that it is part 1 of {count}, not 1 of 1"
    ):
        LoadedModel.load(renamed)
    second = parts[1].read_bytes()
    shutil.copy(parts[2], parts[1])
    with pytest.raises(InputError, match=f"says that it is part 3 of {count}, not 2 of {count}"):
        LoadedModel.load(parts[0])
    parts[1].write_text("<html>not found</html>")
    with pytest.raises(InputError, match=f"{parts[1].name} is no GGUF file"):
        LoadedModel.load(parts[0])
    parts[1].write_bytes(second)
    fused = as_gguf("phi", "phi2", tmp_path / "fused.gguf")
    written.save_gguf(fused, tmp_path / "fused" / "model.gguf", "phi2", fused=True, per_part=4)
    others = sorted((tmp_path / "fused").iterdir())
    assert len(others) == count
    shutil.copy(others[-1], parts[-1])
    with pytest.raises(InputError, match=r"tensors, but its .* parts hold"):
        LoadedModel.load(parts[0])


@needs_gguf
def test_the_hub_gives_every_part(tmp_path, monkeypatch):
    import huggingface_hub

    _, parts = split_gguf("gemma", "gemma", tmp_path)
    asked = []

    def give(repository, *, revision, allow_patterns):
        asked.append(allow_patterns)
        return str(tmp_path / "parts")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", give)
    loaded = LoadedModel.load("some/model-GGUF", gguf_file=parts[0].name)
    assert asked == [[part.name for part in parts]]
    assert loaded.path == parts[0]
    parts[1].unlink()
    with pytest.raises(InputError, match=rf"^some/model-GGUF lacks 1 of .*: {parts[1].name}; put"):
        LoadedModel.load("some/model-GGUF", gguf_file=parts[0].name)
    with pytest.raises(InputError, match=r"^some/model-GGUF has no GGUF file 'other\.gguf'"):
        LoadedModel.load("some/model-GGUF", gguf_file="other.gguf")


# Which format, which numbers, whose code.


def test_the_format_that_is_asked_for_has_to_be_there(phi_folder):
    assert LoadedModel.load(phi_folder, format="transformers").format == "transformers"
    with pytest.raises(InputError, match="format 'transformers', not 'gptq' as was asked for"):
        LoadedModel.load(phi_folder, format="gptq")
    with pytest.raises(InputError, match="no format 'gguff', did you mean 'gguf'"):
        LoadedModel.load(phi_folder, format="gguff")  # pyright: ignore[reportArgumentType]


def test_a_weight_that_is_missing_is_not_drawn_at_random(phi_folder, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(phi_folder, folder)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.fc2.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"1 missing keys, such as model\.layers\.1\.mlp\.fc2"):
        LoadedModel.load(folder)


def test_files_that_cannot_be_read_are_one_sentence(phi_folder, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(phi_folder, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match="its files cannot be read; copy or download them again"):
        LoadedModel.load(folder)
    weights.unlink()
    with pytest.raises(InputError, match="its files cannot be read"):
        LoadedModel.load(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json cannot be read as JSON"):
        LoadedModel.load(folder)


def test_code_of_a_repository_runs_only_when_asked_for(phi, tmp_path, monkeypatch):
    folder = written.save(phi, tmp_path / "their_own")
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "their-own",
        "auto_map": {
            "AutoConfig": "modeling_own.OwnConfig",
            "AutoModelForCausalLM": "modeling_own.OwnForCausalLM",
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modeling_own.py").write_text(
        "from transformers import PhiConfig, PhiForCausalLM\n\n\n"
        "class OwnConfig(PhiConfig):\n    model_type = 'their-own'\n\n\n"
        "class OwnForCausalLM(PhiForCausalLM):\n    config_class = OwnConfig\n"
    )
    with pytest.raises(InputError, match="brings Python of its own to run; read that, then ask"):
        LoadedModel.load(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    name = "transformers.dynamic_module_utils.HF_MODULES_CACHE"
    monkeypatch.setattr(name, str(tmp_path / "modules"))
    loaded = LoadedModel.load(folder, trust_remote_code=True)
    assert type(loaded.model).__name__ == "OwnForCausalLM"
    assert largest_difference(loaded, phi) == 0
    assert loaded.fingerprint != identity.fingerprint(folder)
    del config["auto_map"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="model_type 'their-own', which transformers does not"):
        LoadedModel.load(folder)


def test_auto_attention_is_flash_only_where_it_can_be_had(monkeypatch):
    from transformers import PhiForCausalLM

    def choose(
        asked: arithmetic.Attention = "auto",
        dtype="bfloat16",
        device="cuda",
        kind: type = PhiForCausalLM,
    ):
        how = arithmetic.Arithmetic(dtype, device, attention=asked)
        return arithmetic.choose_attention(how, kind)

    assert choose() is None
    with pytest.raises(InputError, match="no attention 'spda', did you mean 'sdpa'"):
        choose("spda")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="needs the package flash-attn"):
        choose("flash_attention_2")
    name = "transformers.utils.import_utils.is_flash_attn_2_available"
    monkeypatch.setattr(name, lambda: True)
    assert choose() == choose("flash_attention_2") == "flash_attention_2"
    assert choose(dtype="float32") is None
    assert choose(device="cpu") is None
    old = type("Old", (), {"_supports_flash_attn": False, "_supports_sdpa": False})
    assert choose(kind=old) is None
    with pytest.raises(InputError, match="Old has no attention 'flash_attention_2'"):
        choose("flash_attention_2", kind=old)
    with pytest.raises(InputError, match="Old has no attention 'sdpa'"):
        choose("sdpa", kind=old)


def test_the_attention_that_was_asked_for_is_used(phi, phi_folder):
    loaded = LoadedModel.load(phi_folder, attn_implementation="eager")
    assert loaded.attention == "eager"
    assert 0 <= largest_difference(loaded, phi) < 1e-5


def test_bfloat16_is_used_in_place_of_float16_on_a_gpu():
    assert arithmetic.choose_dtype("auto", "cpu", {"torch_dtype": "float16"}) == "float32"
    assert arithmetic.choose_dtype("auto", "cuda", {"torch_dtype": "float16"}) == "bfloat16"
    assert arithmetic.choose_dtype("auto", "cuda", {}) == "bfloat16"
    assert arithmetic.choose_dtype("float16", "cuda", {}) == "float16"


# The hub, and adapters of other bases.


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("GatedRepoError", "google/gemma-2b is gated: accept its licence at https://"),
        ("RevisionNotFoundError", "google/gemma-2b has no revision 'v9'"),
        ("RepositoryNotFoundError", "neither a folder nor a repository"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(error, message, monkeypatch):
    import huggingface_hub
    from huggingface_hub import errors

    def refuse(repository, *, revision, allow_patterns):
        response = httpx.Response(403, request=httpx.Request("GET", "https://huggingface.co"))
        raise getattr(errors, error)("403\nClient Error", response=response)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(InputError, match=message) as caught:
        LoadedModel.load("google/gemma-2b", revision="v9")
    assert "\n" not in str(caught.value)


def test_the_hub_gives_only_what_is_loaded_at_the_revision(phi_folder, monkeypatch):
    import huggingface_hub

    asked = []

    def give(repository, *, revision, allow_patterns):
        asked.append((repository, revision, "*.bin" in allow_patterns, "*.py" in allow_patterns))
        return str(phi_folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", give)
    loaded = LoadedModel.load("microsoft/phi-2", revision="abc")
    assert asked == [("microsoft/phi-2", "abc", False, False)]
    assert (loaded.source, loaded.path) == ("microsoft/phi-2", phi_folder)
    with pytest.raises(InputError, match="no repository of the hub, so it has no revision"):
        LoadedModel.load(phi_folder, revision="abc")


def adapter_of(model, folder, trained_on):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=2, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM"
    )
    get_peft_model(model, config).save_pretrained(str(folder))
    said = json.loads((folder / "adapter_config.json").read_text())
    said["base_model_name_or_path"] = str(trained_on)
    (folder / "adapter_config.json").write_text(json.dumps(said))
    return folder


def test_an_adapter_of_another_base_is_refused(phi_folder, tmp_path, monkeypatch):
    other = written.save(written.untrained("phi", seed=1), tmp_path / "other")
    of_other = adapter_of(written.untrained("phi"), tmp_path / "of_other", other)
    loaded = LoadedModel.load(phi_folder)
    plain = logits(loaded)
    with pytest.raises(InputError, match=r"was trained on .*other, not on .*; load that base"):
        loaded.add_adapter("a", of_other)
    loaded.add_adapter("a", of_other, any_base=True)
    of_hub = adapter_of(written.untrained("phi"), tmp_path / "of_hub", "microsoft/phi-1_5")
    loaded.add_adapter("b", of_hub)  # nothing is known against it
    loaded.source = "microsoft/phi-2"
    with pytest.raises(InputError, match=r"trained on microsoft/phi-1_5, not on microsoft/phi-2"):
        loaded.add_adapter("c", of_hub)
    assert torch.equal(logits(loaded), plain)


def test_an_adapter_of_another_shape_leaves_the_model_as_it_was(phi_folder, tmp_path):
    gemma = adapter_of(written.untrained("gemma"), tmp_path / "gemma", "elsewhere")
    loaded = LoadedModel.load(phi_folder)
    plain = logits(loaded)
    with pytest.raises(InputError, match=r"tensors have another shape, .*128 in place of 64"):
        loaded.add_adapter("gemma", gemma)
    assert not loaded.adapters
    assert torch.equal(logits(loaded), plain)
    fitting = adapter_of(written.untrained("phi"), tmp_path / "phi", "elsewhere")
    loaded.add_adapter("phi", fitting)
    with pytest.raises(InputError, match="another shape"):
        loaded.add_adapter("gemma", gemma)
    with loaded.using("phi"):
        assert not torch.equal(logits(loaded), plain)
