"""A registry entry in memory: asked through its template, with its BOS, and its adapter as it was trained."""

import json
import shutil

import msgspec
import pytest

from alignboard.demo import tiny
from alignboard.errors import InputError
from alignboard.models.asked import load_spec
from alignboard.models.prompting import render, template_digest
from alignboard.models.registry import load_model
from alignboard.models.spec import PromptFormat


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    config = tiny.PretrainConfig(steps=1, n_documents=64)
    return tiny.build("mistral", tmp_path_factory.mktemp("tiny") / "mistral", config=config)


@pytest.fixture(scope="module")
def adapter(checkpoint, tmp_path_factory):
    """As the trainer leaves it: weights, tokenizer and card."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("adapter") / "one"
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    get_peft_model(model, config).save_pretrained(str(folder))
    shutil.copyfile(checkpoint / "chat_template.jinja", folder / "chat_template.jinja")
    card = {"template_digest": template_digest(tiny.CHAT_TEMPLATE)}
    (folder / "training.json").write_text(json.dumps(card), encoding="utf-8")
    return folder


def entry(folder, **changes):
    return msgspec.structs.replace(load_model(str(folder)), **changes)


def words(model, ids):
    return model.tokenizer.convert_ids_to_tokens(ids)


def test_the_template_says_everything(checkpoint):
    prompt = PromptFormat(template="{instruction} : ")
    for bos, first in (("once", "<bos>"), ("auto", "<bos>")):
        model, adapter = load_spec(entry(checkpoint, prompt=prompt, bos=bos))
        assert adapter is None
        assert words(model, render(model, "dog")) == [first, "dog", ":"]
        assert ("bos_token" in model.chat_template) == (bos == "once")
    with pytest.raises(InputError, match="say bos: once"):
        load_spec(entry(checkpoint, prompt=prompt, bos="never"))


def test_a_system_turn_is_part_of_the_hash(checkpoint):
    plain, _ = load_spec(entry(checkpoint))
    empty, _ = load_spec(entry(checkpoint, prompt=PromptFormat(system="")))
    assert words(empty, render(empty, "dog"))[:3] == ["<bos>", "system", ":"]
    assert words(plain, render(plain, "dog"))[:3] == ["<bos>", "user", ":"]
    assert plain.template_hash != empty.template_hash


def test_an_adapter_is_asked_as_it_was_trained(adapter):
    model, name = load_spec(entry(adapter))
    with model.using(name):
        assert model.chat_template == tiny.CHAT_TEMPLATE
    other = entry(adapter, prompt=PromptFormat(chat="human-bot"))
    with pytest.raises(InputError, match="template_mismatch: allow"):
        load_spec(other)
    model, name = load_spec(msgspec.structs.replace(other, template_mismatch="allow"))
    with model.using(name):
        assert words(model, render(model, "dog"))[0] == "<bos>"
        assert "<human>" in model.chat_template


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"unsupported": "no"}, "cannot be loaded: no"),
        ({"trust_remote_code": True}, "agree to it by a flag"),
        ({"format": "gptq"}, "gptq"),
        ({"stop_tokens": ["<end>"]}, "stop_tokens"),
        ({"prompt": PromptFormat(chat_template="{{ bos_token }}{{ bos_token }}x")}, "BOS 2 times"),
    ],
)
def test_what_is_wrong_is_one_sentence(checkpoint, changes, said):
    with pytest.raises(InputError, match=said):
        load_spec(entry(checkpoint, **changes))
