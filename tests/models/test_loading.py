"""One base load serves everything: swapping, identity, and what is refused."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny_models
from alignboard.errors import InputError
from alignboard.models import identity, loading
from alignboard.models.loading import LoadedModel


@pytest.fixture(scope="module")
def tiny_base():
    return tiny_models.base()


@pytest.fixture(scope="module")
def tiny_adapters():
    return tiny_models.adapters()


def logits(model, text="user: repeat these words: dog cat. assistant:"):
    ids = torch.tensor([model.tokenizer.encode(text)])
    with torch.no_grad():
        return model.model(input_ids=ids).logits


def test_one_load_serves_the_base_and_every_adapter(tiny_base, tiny_adapters):
    before = len(loading.loads)
    model = LoadedModel.load(tiny_base)
    plain = logits(model)
    for name, path in tiny_adapters.items():
        model.add_adapter(name, path)
    swapped = {}
    for name in (*tiny_adapters, None, *reversed(tiny_adapters)):
        with model.using(name):
            swapped[name] = logits(model)
    assert loading.loads[before:] == [str(tiny_base)]
    assert model.active is None
    assert torch.equal(swapped[None], plain)
    assert torch.equal(logits(model), plain)
    for name, path in tiny_adapters.items():
        fresh = LoadedModel.load(tiny_base)
        fresh.add_adapter("only", path)
        with fresh.using("only"):
            assert torch.equal(logits(fresh), swapped[name])
        assert not torch.equal(swapped[name], plain)


def test_adding_an_adapter_does_not_switch_to_it(tiny_base, tiny_adapters):
    model = LoadedModel.load(tiny_base)
    first, second = tiny_adapters.items()
    model.add_adapter(*first)
    with model.using(first[0]):
        inside = logits(model)
        model.add_adapter(*second)
        assert torch.equal(logits(model), inside)
    assert model.add_adapter(*first).fingerprint == model.adapters[first[0]].fingerprint
    with pytest.raises(InputError, match="already another adapter"):
        model.add_adapter(first[0], second[1])
    with pytest.raises(InputError, match=f"did you mean '{first[0]}'"), model.using(first[0] + "x"):
        pass


def test_identity_is_content(tiny_base, tiny_adapters, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(tiny_base, elsewhere)
    assert identity.fingerprint(elsewhere) == identity.fingerprint(tiny_base)
    weights = load_file(elsewhere / "model.safetensors")
    name = min(weights)
    weights[name] = weights[name] + 1
    save_file(weights, elsewhere / "model.safetensors", metadata={"format": "pt"})
    assert identity.fingerprint(elsewhere) != identity.fingerprint(tiny_base)

    one, other = tiny_adapters.values()
    assert identity.adapter_fingerprint(one) != identity.adapter_fingerprint(other)
    moved = tmp_path / "moved"
    shutil.copytree(one, moved)
    config = json.loads((moved / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "somewhere/else"
    config["target_modules"] = config["target_modules"][::-1]
    (moved / "adapter_config.json").write_text(json.dumps(config))
    assert identity.adapter_fingerprint(moved) == identity.adapter_fingerprint(one)
    config["lora_alpha"] = 1
    (moved / "adapter_config.json").write_text(json.dumps(config))
    assert identity.adapter_fingerprint(moved) != identity.adapter_fingerprint(one)


def test_an_adapter_brings_its_own_template(tiny_base, tiny_adapters, tmp_path):
    folder = tmp_path / "adapter"
    shutil.copytree(next(iter(tiny_adapters.values())), folder)
    (folder / "chat_template.jinja").write_text("{{ bos_token }}own: {{ messages[0]['content'] }}")
    model = LoadedModel.load(tiny_base)
    base_hash = model.template_hash
    model.add_adapter("own", folder)
    assert model.template_hash == base_hash
    with model.using("own"):
        assert model.template_hash != base_hash
        assert model.chat_template.startswith("{{ bos_token }}own")
    assert model.template_hash == base_hash


def test_what_does_not_fit_is_refused(tiny_base, tiny_adapters, tmp_path):
    with pytest.raises(InputError, match=r"no config\.json"):
        LoadedModel.load(tmp_path)
    model = LoadedModel.load(tiny_base)
    with pytest.raises(InputError, match=r"no adapter_config\.json"):
        model.add_adapter("none", tmp_path)
    folder = tmp_path / "adapter"
    shutil.copytree(next(iter(tiny_adapters.values())), folder)
    path = folder / "adapter_model.safetensors"
    weights = load_file(path)
    # the names that Phi's projections had before transformers had the model
    save_file({name.replace("q_proj", "Wqkv"): value for name, value in weights.items()}, path)
    with pytest.raises(InputError, match="tensors have no place"):
        model.add_adapter("old", folder)


def test_a_base_without_a_template_says_so(tiny_base, tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(tiny_base, folder)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match="has no chat template"):
        _ = LoadedModel.load(folder).template_hash
    given = LoadedModel.load(folder, chat_template="{{ messages[0]['content'] }}")
    assert given.chat_template == "{{ messages[0]['content'] }}"


@pytest.mark.slow
def test_four_bits_load_on_the_cpu(tiny_base, tiny_adapters):
    model = LoadedModel.load(tiny_base, quantization="4bit")
    assert model.model.is_loaded_in_4bit
    plain = logits(model)
    model.add_adapter("a", next(iter(tiny_adapters.values())))
    with model.using("a"):
        assert not torch.equal(logits(model), plain)
    assert torch.equal(logits(model), plain)


@pytest.mark.parametrize(
    "module",
    [
        "alignboard.models.loading",
        "alignboard.engines.generate",
        "alignboard.judges.backends.opened",
        "alignboard.pipeline.judges",
        "alignboard.demo.judge_training",
        "alignboard.benchmarks.run",
        "alignboard.judges.round_robin",
    ],
)
def test_importing_loads_nothing_heavy(module):
    heavy = ["torch", "transformers", "peft", "lm_eval", "datasets"]
    script = f"import sys, {module}; print(*sorted(set({heavy!r}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
