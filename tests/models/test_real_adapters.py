"""Adapters and checkpoints as people bring them: own tokenizers, rewritten bases, composite configurations."""

import json
from typing import Any

import msgspec
import pytest
import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
)

import byte_tokenizer
from alignboard.errors import InputError
from alignboard.models.adapters import default_template, rewrites_base
from alignboard.models.asked import base_of, load_spec
from alignboard.models.checks.report import check_model
from alignboard.models.ends import ends_of
from alignboard.models.formats import identify
from alignboard.models.loading import LoadedModel
from alignboard.models.prompting import prompt_ids
from alignboard.models.registry import load_model
from alignboard.models.spec import ModelSpec
from alignboard.models.spec import PromptFormat as PromptForm
from alignboard.models.tokenizers import open_tokenizer
from alignboard.models.turns import end_of_turn, taught_spellings

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MARKS = ("<|im_start|>", "<|im_end|>")
TARGETS = ["q_proj", "v_proj"]


def llama(tokenizer, size=264):
    torch.manual_seed(0)
    shape: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads: dict[str, Any] = {
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
    }
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=size, eos_token_id=tokenizer.eos_token_id, **shape, **heads)
    )


def save(folder, tokenizer, model):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def adapter(folder, base, tokenizer=None, *, resize=None, saved="modules_to_save", **settings):
    """A LoRA adapter of random weights on ``base``."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if resize is not None:
        model.resize_token_embeddings(resize)
        if saved == "modules_to_save":
            settings["modules_to_save"] = ["embed_tokens", "lm_head"]
    kind: dict[str, Any] = {"target_modules": TARGETS} | settings
    config = LoraConfig(r=4, task_type="CAUSAL_LM", **kind)
    model = get_peft_model(model, config)
    torch.manual_seed(1)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data += 0.1 * torch.randn_like(weight)
    model.save_pretrained(folder, save_embedding_layers=saved == "beside the adapter" or "auto")
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return folder


def logits(model, text="What is this?"):
    ids = torch.tensor([model.tokenizer.encode(text, add_special_tokens=False)])
    with torch.no_grad():
        return model.model(input_ids=ids).logits


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A base without ChatML's marks, whose embedding has room for two more tokens."""
    tokenizer = byte_tokenizer.build(template=CHATML)
    return save(tmp_path_factory.mktemp("plain"), tokenizer, llama(tokenizer))


@pytest.fixture(scope="module")
def chatml():
    return byte_tokenizer.build(eos="<|im_end|>", special=("<|im_start|>",), template=CHATML)


# Tokenizers that adapters bring.


def test_an_adapter_is_read_by_the_tokenizer_that_it_brought(plain, chatml, tmp_path):
    folder = adapter(tmp_path / "roomy", plain, chatml)
    model, name = load_spec(load_model(str(folder)))
    with model.using(name):
        ids = prompt_ids(model.tokenizer, model.chat_template, "Hi", source="roomy")
        marks = {model.tokenizer.get_vocab()[mark] for mark in MARKS}
        assert marks <= set(ids)
    assert "<|im_start|>" not in model.tokenizer.get_vocab()  # the base's is in use again
    shown = check_model(load_model(str(folder)))
    assert [token.text for token in shown.tokens].count("<|im_start|>") == 2


def test_an_adapter_with_its_bases_tokenizer_keeps_the_bases(plain, tmp_path):
    own = byte_tokenizer.build(template=CHATML)
    model = LoadedModel.load(plain)
    added = model.add_adapter("same", adapter(tmp_path / "same", plain, own))
    assert added.tokenizer is None


def test_the_tokenizer_is_part_of_what_an_adapter_is(plain, chatml, tmp_path):
    bare = adapter(tmp_path / "bare", plain)
    with_tokenizer = adapter(tmp_path / "own", plain, chatml)
    model = LoadedModel.load(plain)
    first = model.add_adapter("bare", bare)
    second = model.add_adapter("own", with_tokenizer)
    assert first.fingerprint != second.fingerprint


@pytest.mark.parametrize("size", [272, 300])
@pytest.mark.parametrize("saved", ["modules_to_save", "beside the adapter"])
def test_a_resized_embedding_is_loaded(plain, chatml, tmp_path, saved, size):
    folder = adapter(tmp_path / "resized", plain, chatml, resize=size, saved=saved)
    base = AutoModelForCausalLM.from_pretrained(plain, dtype=torch.float32)
    base.resize_token_embeddings(size, mean_resizing=False)
    wanted = PeftModel.from_pretrained(base, str(folder)).eval()
    model, name = load_spec(load_model(str(folder)))
    with model.using(name):
        assert "<|im_start|>" in model.tokenizer.get_vocab()
        ids = torch.tensor([[257, 39, 270]])  # the last is a row that the base does not have
        with torch.no_grad():
            assert torch.equal(model.model(input_ids=ids).logits, wanted(input_ids=ids).logits)
    with pytest.raises(InputError, match="rewrote the weights"), model.using(None):
        pass
    assert f"embedding {size}" in check_model(load_model(str(folder))).facts["vocabulary"]
    assert base_of(load_model(str(folder))) != base_of(load_model(str(plain)))


def test_a_resized_embedding_that_is_not_whole_is_refused_in_a_sentence(plain, chatml, tmp_path):
    folder = adapter(tmp_path / "resized", plain, chatml, resize=272)
    file = folder / "adapter_model.safetensors"
    save_file({name: one for name, one in load_file(file).items() if "lm_head" not in name}, file)
    with pytest.raises(
        InputError, match="embedding of 272 tokens, its base has 264, and it does not hold both"
    ):
        LoadedModel.load(plain).add_adapter("resized", folder)


# Adapters that rewrite their base.

KINDS = {
    "plain": {},
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True},
    "patterns": {"rank_pattern": {"q_proj": 8}, "alpha_pattern": {"v_proj": 32}},
    "bias": {"lora_bias": True},
    "saved": {"modules_to_save": ["lm_head"]},
    "all-linear": {"target_modules": "all-linear"},
    "pissa": {"init_lora_weights": "pissa"},
    "olora": {"init_lora_weights": "olora"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_base_stays_what_its_fingerprint_says_or_is_not_asked(kind, plain, tmp_path):
    folder = adapter(tmp_path / kind, plain, **KINDS[kind])
    other = adapter(tmp_path / "other", plain)
    model = LoadedModel.load(plain)
    before = logits(model)
    model.add_adapter("one", folder)
    alone = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(plain, dtype=torch.float32), str(folder)
    ).eval()
    ids = torch.tensor([model.tokenizer.encode("What is this?", add_special_tokens=False)])
    with model.using("one"), torch.no_grad():
        assert torch.equal(logits(model), alone(input_ids=ids).logits)
    if rewrites_base(folder):
        with pytest.raises(InputError, match="rewrote the weights"), model.using(None):
            pass
        with pytest.raises(InputError, match="needs a load of its own"):
            model.add_adapter("other", other)
        return
    assert torch.equal(logits(model), before)
    model.add_adapter("other", other)
    assert torch.equal(logits(model), before)


def test_a_rewriting_adapter_is_not_put_beside_others(plain, tmp_path):
    pissa = adapter(tmp_path / "pissa", plain, init_lora_weights="pissa")
    model = LoadedModel.load(plain)
    before = logits(model)
    model.add_adapter("other", adapter(tmp_path / "other", plain))
    with pytest.raises(InputError, match="needs a load of its own"):
        model.add_adapter("pissa", pissa)
    assert torch.equal(logits(model), before)
    spec = load_model(str(pissa))
    assert base_of(spec) != base_of(load_model(str(tmp_path / "other")))


def test_a_kind_that_nobody_listed_is_seen_by_the_weights(plain, tmp_path, monkeypatch):
    pissa = adapter(tmp_path / "pissa", plain, init_lora_weights="pissa")
    monkeypatch.setattr("alignboard.models.loading.needs_own_load", lambda _path: False)
    model = LoadedModel.load(plain)
    model.add_adapter("pissa", pissa)
    assert model.sole == "pissa"


def test_an_adapter_of_token_rows_is_not_put_beside_others(plain, tmp_path):
    rows = adapter(tmp_path / "rows", plain, trainable_token_indices={"embed_tokens": [9]})
    other = adapter(tmp_path / "other", plain)
    for first, second in ((rows, other), (other, rows)):
        model = LoadedModel.load(plain)
        model.add_adapter("first", first)
        with pytest.raises(InputError, match="rows needs a load of its own"):
            model.add_adapter("second", second)
    assert base_of(load_model(str(rows))) != base_of(load_model(str(other)))


def test_an_adapter_of_virtual_tokens_is_refused_before_anything(plain, tmp_path):
    network = AutoModelForCausalLM.from_pretrained(plain, dtype=torch.float32)
    config = PromptTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM")
    get_peft_model(network, config).save_pretrained(tmp_path / "prompt")
    spec = load_model(str(tmp_path / "prompt"))
    for ask in (load_spec, check_model):
        with pytest.raises(InputError, match="of the kind PROMPT_TUNING; generation does not"):
            ask(spec)


# What ends a reply.


def test_a_template_whose_end_of_turn_ends_nothing_is_refused_before_anything(tmp_path):
    tokenizer = byte_tokenizer.build(special=MARKS, template=CHATML)
    folder = save(tmp_path / "qwen-like", tokenizer, llama(tokenizer))
    spec = load_model(str(folder))
    assert {one.kind for one in check_model(spec).wrong} == {"end-of-turn"}
    with pytest.raises(
        InputError, match=r"'<\|im_end\|>', which does not end a reply.*end_of_turn: allow"
    ):
        load_spec(spec)


def test_what_training_taught_as_the_end_travels_with_the_adapter(tmp_path):
    tokenizer = byte_tokenizer.build(special=MARKS, template=CHATML)
    base = save(tmp_path / "qwen-like", tokenizer, llama(tokenizer))
    folder = adapter(tmp_path / "trained", base)
    (folder / "training.json").write_text(json.dumps({"end_tokens": ["<|im_end|>"]}))
    model, name = load_spec(load_model(str(folder)))
    with model.using(name):
        assert tokenizer.convert_tokens_to_ids("<|im_end|>") in model.end_tokens
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") not in model.end_tokens


def test_training_records_the_end_of_turn_that_it_taught():
    chatml = byte_tokenizer.build(special=MARKS, template=CHATML)
    assert taught_spellings(chatml) == ("<|im_end|>",)
    chatml.eos_token = "<|im_end|>"  # noqa: S105
    assert taught_spellings(chatml) == ()


def test_every_source_of_an_end_is_named():
    chatml = byte_tokenizer.build(special=MARKS, template=CHATML)
    start, end = chatml.convert_tokens_to_ids(list(MARKS))
    found = ends_of(chatml, [start], stop_tokens=["<|im_end|>", "<gone>"], taught=["<|im_start|>"])
    assert found == {start: "training", chatml.eos_token_id: "tokenizer", end: "stop_tokens"}
    assert end_of_turn(chatml, CHATML) == end
    assert end_of_turn(chatml, "{{ messages[-1]['content'] }}") is None
    for no_id in (10**30, 2**31, -1, True, "2", [1]):  # what a damaged configuration says
        assert ends_of(chatml, [no_id, start]) == ends_of(chatml, start)


# BOS, named templates, composite configurations.


def test_a_bos_that_marks_every_turn_is_right():
    """SmolLM2: its BOS token is ``<|im_start|>``, which its template writes at every turn."""
    tokenizer = byte_tokenizer.build(
        bos="<|im_start|>", eos="<|im_end|>", adds_bos=False, template=CHATML
    )
    ids = prompt_ids(tokenizer, CHATML, "Hi", source="smol")
    assert ids.count(tokenizer.bos_token_id) == 2
    with pytest.raises(InputError, match="writes BOS 2 times"):
        prompt_ids(tokenizer, "<|im_start|>" + CHATML, "Hi", source="doubled")
    with pytest.raises(InputError, match="writes BOS 2 times"):
        prompt_ids(tokenizer, "<|im_start|>x<|im_start|>", "Hi", source="inside")


def test_of_named_templates_the_default_is_used_everywhere(plain, tmp_path):
    named = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": CHATML}]
    assert default_template(named) == default_template({"default": CHATML}) == CHATML
    tokenizer = byte_tokenizer.build(eos="<|im_end|>", special=("<|im_start|>",), template=CHATML)
    folder = save(tmp_path / "named", tokenizer, llama(tokenizer))
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": named}))
    spec = load_model(str(folder))
    assert "<|im_start|>user" in (check_model(spec).prompt or "")
    assert load_spec(spec)[0].chat_template == CHATML


def test_a_composite_configuration_is_read_where_its_text_is(tmp_path):
    tokenizer = byte_tokenizer.build(eos="<|im_end|>", special=("<|im_start|>",), template=CHATML)
    text = {"vocab_size": 264, "hidden_size": 32, "intermediate_size": 64, "head_dim": 8}
    text |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    text |= {"max_position_embeddings": 512, "sliding_window": 64}
    text |= {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.eos_token_id}
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    folder = save(tmp_path / "composite", tokenizer, Gemma3ForConditionalGeneration(config))
    spec = load_model(str(folder))
    checked = check_model(spec)
    assert checked.wrong == []
    assert checked.facts["context"] == "512 tokens"
    assert load_spec(spec)[0].context == 512


# What a message advises can be done.


def test_a_base_of_another_machine_is_named_with_the_way_out(plain, tmp_path):
    folder = adapter(tmp_path / "moved", plain)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "/home/somebody/base"
    (folder / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="names the base '/home/somebody/base', which is not here"):
        load_model(str(folder))
    entry = ModelSpec(name="mine", base=str(plain), adapter=str(folder), end_of_turn="allow")
    model, name = load_spec(entry)
    assert name in model.adapters


def test_a_base_of_the_hub_that_cannot_be_had_is_named_with_the_way_out(
    plain, tmp_path, monkeypatch
):
    folder = adapter(tmp_path / "mirrored", plain)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "mirrors/base"
    (folder / "adapter_config.json").write_text(json.dumps(config))

    def gone(base, _revision, _files):
        raise InputError(f"{base} is neither a folder nor a repository.")

    monkeypatch.setattr("alignboard.models.hub._download", gone)
    spec = load_model(str(folder))
    told = rf"{folder} is an adapter on the base 'mirrors/base'.*base: and adapter: {folder}"
    with pytest.raises(InputError, match=told):
        load_spec(spec)


def test_another_base_is_allowed_where_the_entry_says_so(plain, tmp_path):
    tokenizer = byte_tokenizer.build(template=CHATML)
    other = llama(tokenizer)
    other.lm_head.weight.data += 1
    mirror = save(tmp_path / "mirror", tokenizer, other)
    folder = adapter(tmp_path / "adapter", plain)
    entry = ModelSpec(name="mine", base=str(mirror), adapter=str(folder), end_of_turn="allow")
    with pytest.raises(InputError, match="any_base: true in the entry"):
        load_spec(entry)
    assert load_spec(msgspec.structs.replace(entry, any_base=True))[1] is not None


def test_a_sentencepiece_model_alone_names_the_packages(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (tmp_path / "tokenizer.model").write_bytes(b"\n\x0e")
    monkeypatch.setattr("alignboard.models.sentencepiece.find_spec", lambda _name: None)
    with pytest.raises(InputError, match="pip install sentencepiece protobuf"):
        open_tokenizer(identify(tmp_path))


# Variables of a template.

DATED = (
    "{% if date_string is not defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "Today: {{ date_string }}{% if enable_thinking is defined and not enable_thinking %} fast{% endif %}\n"
)


def test_variables_are_set_in_an_entry_and_part_of_the_template(tmp_path):
    tokenizer = byte_tokenizer.build(
        eos="<|im_end|>", special=("<|im_start|>",), template=DATED + CHATML
    )
    folder = save(tmp_path / "dated", tokenizer, llama(tokenizer))
    found = load_model(str(folder))
    clock = [one for one in check_model(found).findings if one.kind == "clock"]
    assert [one.level for one in clock] == ["beware"]
    hashes = set()
    for name, value in (("date_string", "26 Jul 2024"), ("strftime_now", "26 Jul 2024")):
        prompt = PromptForm(variables={name: value, "enable_thinking": False})
        spec = msgspec.structs.replace(found, prompt=prompt)
        checked = check_model(spec)
        assert (checked.prompt or "").startswith("Today: 26 Jul 2024 fast<|im_start|>user")
        assert not [one for one in checked.findings if one.kind == "clock"]
        hashes.add(load_spec(spec)[0].template_hash)
    assert len(hashes | {load_spec(found)[0].template_hash}) == 3


# A template and the vocabulary that it is written for.

GEMMA = "{% for m in messages %}{{ '<start_of_turn>' + m['role'] + m['content'] + '<end_of_turn>\\n' }}{% endfor %}"
LLAMA3 = (
    "{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>' + m['content'] + '<|eot_id|>' }}"
    "{% endfor %}"
)
LLAMA2 = (
    "{% for m in messages %}{{ '[INST] ' + m['content'] + ' [/INST]' if m['role'] == 'user' else m['content'] + '</s>'"
    " }}{% endfor %}"
)


@pytest.mark.parametrize(
    ("template", "level", "marks"),
    [
        (CHATML, "wrong", ["<|im_start|>", "<|im_end|>"]),
        (GEMMA, "wrong", ["<start_of_turn>", "<end_of_turn>"]),
        (LLAMA3, "wrong", ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]),
        (LLAMA2, "beware", ["[INST]", "[/INST]"]),  # as Llama 2 and Mistral were trained
        ("{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '</s>' }}{% endfor %}", None, []),
    ],
    ids=["chatml", "gemma", "llama-3", "llama-2", "plain"],
)  # fmt: skip
def test_marks_that_are_read_as_letters_are_told_or_refused(
    plain, tmp_path, template, level, marks
):
    """An adapter whose template came without the tokenizer that it is written for."""
    folder = adapter(tmp_path / "bare", plain)
    (folder / "chat_template.jinja").write_text(template)
    spec = load_model(str(folder))
    found = {one.kind: one for one in check_model(spec).findings}
    assert bool(marks) == ("marks" in found)
    if marks:
        assert all(repr(mark) in found["marks"].text for mark in marks)
    assert (found.get("end-of-turn") is not None) == (level == "wrong")
    if level == "wrong":
        with pytest.raises(InputError, match=r"reads as letters.*end_of_turn: allow"):
            load_spec(spec)
        stopped = msgspec.structs.replace(spec, stop=(marks[-1],))
        assert load_spec(stopped)[1] is not None
    else:
        assert load_spec(spec)[1] is not None
