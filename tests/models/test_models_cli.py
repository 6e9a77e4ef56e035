"""`alignboard models`: the list, an entry, and what a check finds in good and in broken tiny checkpoints."""

import json
import shutil
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

import byte_tokenizer
from alignboard.cli.models import models
from alignboard.demo import tiny
from alignboard.errors import InputError
from alignboard.models.checks.describe import markdown_table
from alignboard.models.checks.report import check_model
from alignboard.models.prompting import template_digest
from alignboard.models.registry import list_models, load_model
from alignboard.models.spec import ModelSpec, PromptFormat
from alignboard.models.templates import TEMPLATES
from alignboard.workspace import library


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A whole tiny checkpoint, weights included."""
    config = tiny.PretrainConfig(steps=1, n_documents=64)
    return tiny.build("phi", tmp_path_factory.mktemp("tiny") / "phi", config=config)


@pytest.fixture
def checkpoint(built, tmp_path):
    """A copy without weights, to be broken: a check must not need them."""
    folder = tmp_path / "phi"
    shutil.copytree(built, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    return folder


def edit(file, **changes):
    content = json.loads(file.read_text(encoding="utf-8"))
    for key, value in changes.items():
        if value is None:
            content.pop(key, None)
        else:
            content[key] = value
    file.write_text(json.dumps(content), encoding="utf-8")


def byte_checkpoint(folder, template, *, config=None, generation=None, **tokenizer):
    words = byte_tokenizer.build(template=template, **tokenizer)
    words.save_pretrained(folder)
    content = {"model_type": "phi", "vocab_size": len(words), "max_position_embeddings": 64}
    (folder / "config.json").write_text(json.dumps(content | (config or {})), "utf-8")
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation), "utf-8")
    return folder


def wrong(spec):
    return {finding.kind: finding.text for finding in check_model(spec).wrong}


def run(*arguments):
    return CliRunner().invoke(models, [str(argument) for argument in arguments])


# The commands.


def test_list_names_every_entry():
    shown = run("list")
    assert shown.exit_code == 0
    for spec in list_models():
        assert f"{spec.name} " in shown.output
        assert spec.base in shown.output
    assert "an empty system turn" in shown.output


def test_the_documents_hold_the_table_of_the_registry():
    # To write it anew: alignboard models list --markdown
    text = (library() / "docs" / "models.md").read_text(encoding="utf-8")
    assert markdown_table(list_models()) in text


def test_show_is_the_entry():
    shown = run("show", "huggingface/mistral-7b")
    assert shown.exit_code == 0
    assert "base: mistralai/Mistral-7B-v0.1" in shown.output
    unknown = run("show", "zephyr-7b-bta")
    assert isinstance(unknown.exception, InputError)


def test_show_can_be_read_back(tmp_path):
    for spec in list_models():
        path = tmp_path / f"{spec.name}.yaml"
        path.write_text(run("show", spec.name).output, encoding="utf-8")
        assert load_model(str(path)) == spec


def test_check_of_a_good_checkpoint(built, tmp_path):
    file = tmp_path / "out" / "check.json"
    shown = run("check", built, "--json", file)
    assert shown.exit_code == 0, shown.output
    assert "[BOS <bos> 1]" in shown.output
    assert "Nothing is wrong." in shown.output
    content = json.loads(file.read_text(encoding="utf-8"))
    assert content["prompt"].startswith("<bos>user: ")
    assert [token["role"] for token in content["tokens"]].count("BOS") == 1
    assert content["model"]["base"] == str(built)
    assert content["findings"] == []


def test_check_of_a_broken_checkpoint_exits_with_3(checkpoint):
    (checkpoint / "chat_template.jinja").write_text(
        "{{ bos_token }}" + tiny.CHAT_TEMPLATE, encoding="utf-8"
    )
    shown = run("check", checkpoint)
    assert shown.exit_code == 3
    assert "WRONG   the chat template writes BOS 2 times" in shown.output
    assert "[BOS <bos> 1] [control <bos> 1]" in shown.output


def test_check_of_an_instruction_shows_that_it_is_text(checkpoint):
    shown = run("check", checkpoint, "--instruction", "say <eos> now")
    assert shown.exit_code == 0
    assert "[end" not in shown.output


# What it finds.


def test_a_checkpoint_without_a_template(checkpoint):
    (checkpoint / "chat_template.jinja").unlink()
    found = wrong(load_model(str(checkpoint)))
    assert "no chat template of its own" in found["template"]
    spec = ModelSpec(name="it", base=str(checkpoint), prompt=PromptFormat(chat="human-bot"))
    assert wrong(spec) == {}


def test_a_template_that_raises(checkpoint):
    (checkpoint / "chat_template.jinja").write_text("{{ raise_exception('no') }}", "utf-8")
    assert "does not take the turns user: no" in wrong(load_model(str(checkpoint)))["template"]
    (checkpoint / "chat_template.jinja").write_text("{% for %}", "utf-8")
    assert "template" in wrong(load_model(str(checkpoint)))


def test_a_tokenizer_that_is_too_large(checkpoint):
    edit(checkpoint / "config.json", vocab_size=100)
    assert "but the model only 100" in wrong(load_model(str(checkpoint)))["vocabulary"]


def test_a_context_that_nobody_knows(checkpoint):
    spec = load_model(str(checkpoint))
    assert "says 256" in wrong(msgspec.structs.replace(spec, context=512))["context"]
    edit(checkpoint / "config.json", max_position_embeddings=None)
    assert "context" in wrong(spec)
    assert wrong(msgspec.structs.replace(spec, context=512)) == {}


def test_nothing_that_ends_a_reply(tmp_path):
    folder = byte_checkpoint(tmp_path, "{{ messages[0]['content'] }}", eos=None)
    assert "run to its limit" in wrong(load_model(str(folder)))["eos"]
    spec = ModelSpec(name="it", base=str(folder), stop=["\n\n"])
    assert "eos" not in wrong(spec)


def test_an_end_of_turn_that_ends_nothing(tmp_path):
    # Dolphin's quantisations: the template writes <|im_end|>, the configuration knows </s>.
    folder = byte_checkpoint(tmp_path, TEMPLATES["chatml"], **byte_tokenizer.DOLPHIN)
    assert "'<|im_end|>'" in wrong(load_model(str(folder)))["end-of-turn"]
    assert wrong(ModelSpec(name="it", base=str(folder), stop_tokens=["<|im_end|>"])) == {}
    end = byte_tokenizer.build(**byte_tokenizer.DOLPHIN).get_vocab()["<|im_end|>"]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [end]}), "utf-8")
    assert wrong(load_model(str(folder))) == {}


def test_stops_that_cannot_be_found(tmp_path):
    folder = byte_checkpoint(tmp_path, "{{ messages[0]['content'] }}", special=("<|end|>",))
    spec = ModelSpec(name="it", base=str(folder), stop=["<|end|>"], stop_tokens=["<|im_end|>"])
    found = wrong(spec)
    assert "give it under stop_tokens" in found["stop"]
    assert "reads as 10 tokens" in found["stop-token"]


def test_a_bos_that_is_missing(checkpoint):
    (checkpoint / "chat_template.jinja").write_text("{{ messages[0]['content'] }}", "utf-8")
    spec = msgspec.structs.replace(load_model(str(checkpoint)), bos="never")
    assert "say bos: once" in wrong(spec)["bos"]


@pytest.mark.parametrize(
    ("stated", "does", "template", "bos", "told"),
    [
        (True, False, "{{ messages[0]['content'] }}", "auto", "say bos: once"),
        (False, True, "{{ messages[0]['content'] }}", "auto", "say bos: never"),
        (True, True, "{{ messages[0]['content'] }}", "auto", None),
        (None, False, "{{ messages[0]['content'] }}", "auto", None),
        (True, False, "{{ messages[0]['content'] }}", "once", None),
        (True, False, "{{ bos_token + messages[0]['content'] }}", "auto", None),
        (True, False, "<s>{{ messages[0]['content'] }}", "auto", None),
    ],
)
def test_a_bos_that_the_two_files_of_a_tokenizer_state_otherwise(
    stated, does, template, bos, told, tmp_path
):
    folder = byte_checkpoint(tmp_path, template, adds_bos=does)
    edit(folder / "tokenizer_config.json", add_bos_token=stated)
    found = check_model(ModelSpec(name="it", base=str(folder), bos=bos)).findings
    texts = [one.text for one in found if one.kind == "bos-stated"]
    assert [told in text for text in texts] == ([] if told is None else [True])


USER = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ CONTENT }}<|im_end|>\n{% endfor %}"
BEGINS = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


@pytest.mark.parametrize(
    "template",
    [
        "",
        "<|im_start|>user\n<|im_end|>\n",
        *(
            USER.replace("CONTENT", content) + BEGINS
            for content in (
                *("m.text", "m.content|upper", "m.content[:9]", "m.content|e|replace('?', '')"),
                "m.content|map(attribute='text')|join",
            )
        ),
    ],
)
def test_a_template_that_does_not_write_the_instruction_is_refused(template, tmp_path):
    words = {"eos": "<|im_end|>", "special": ("<|im_start|>",), "adds_bos": False}
    folder = byte_checkpoint(tmp_path, template, **words)
    check = check_model(ModelSpec(name="it", base=str(folder), end_of_turn="allow"))
    assert [one.kind for one in check.wrong if "instruction" in one.text] == ["template"]
    with pytest.raises(InputError, match=r"does not write an instruction .* prompt: {template"):
        check.require_loadable()


@pytest.mark.parametrize(
    ("template", "told"),
    [
        (USER + BEGINS, False),
        (USER, True),
        ("{{ bos_token }}[INST] CONTENT [/INST]", False),
        ("{% for m in messages %}{{ m.role|upper }}: {{ CONTENT }}\n{% endfor %}", True),
        ("{% for m in messages %}{{ m.role }}: {{ CONTENT }}\n{% endfor %}assistant: ", False),
        ("{% for m in messages %}{{ CONTENT }}\n{% endfor %}", False),
    ],
)
def test_a_prompt_that_does_not_end_where_a_reply_begins_is_told(template, told, tmp_path):
    words = {"eos": "<|im_end|>", "special": ("<|im_start|>",), "adds_bos": False}
    content = "m.content" if "for m" in template else "{{ messages[0].content }}"
    folder = byte_checkpoint(tmp_path, template.replace("CONTENT", content), **words)
    found = check_model(load_model(str(folder))).findings
    assert ("generation-prompt" in {one.kind for one in found}) == told


def test_traps_are_told_and_are_not_wrong(tmp_path):
    folder = byte_checkpoint(tmp_path, TEMPLATES["instruct-output"], **byte_tokenizer.PHI)
    check = check_model(load_model(str(folder)))
    assert check.wrong == []
    assert {finding.kind for finding in check.findings} == {"pad", "bos-is-eos"}


def test_another_format_than_the_entry_says(checkpoint):
    spec = ModelSpec(name="it", base=str(checkpoint), format="phi-msft")
    assert "the files are 'transformers'" in wrong(spec)["format"]
    edit(checkpoint / "config.json", model_type="phi-msft")
    assert wrong(load_model(str(checkpoint))) == {}
    edit(checkpoint / "config.json", model_type="no-such-thing")
    assert "no-such-thing" in wrong(load_model(str(checkpoint)))["architecture"]


def test_what_is_unsupported_needs_no_files():
    assert "phi-2" not in wrong(load_model("phixtral-4x2_8-gptq"))["unsupported"]


# Adapters.


@pytest.fixture
def adapter(checkpoint, tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    config = {"base_model_name_or_path": str(checkpoint)}
    (folder / "adapter_config.json").write_text(json.dumps(config), "utf-8")
    (folder / "chat_template.jinja").write_text(tiny.CHAT_TEMPLATE, "utf-8")
    card = {"template_digest": template_digest(tiny.CHAT_TEMPLATE)}
    (folder / "training.json").write_text(json.dumps(card), "utf-8")
    return folder


def test_an_adapter_brings_its_template(adapter, checkpoint):
    (checkpoint / "chat_template.jinja").unlink()
    assert wrong(load_model(str(adapter))) == {}


def test_an_adapter_that_is_asked_otherwise_than_it_was_trained(adapter):
    spec = msgspec.structs.replace(load_model(str(adapter)), prompt=PromptFormat(chat="human-bot"))
    assert "template_mismatch: allow" in wrong(spec)["training-template"]
    allowed = msgspec.structs.replace(spec, template_mismatch="allow")
    check = check_model(allowed)
    assert check.wrong == []
    assert [finding.kind for finding in check.findings] == ["training-template"]


def test_an_adapter_of_another_base(adapter, checkpoint, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(checkpoint, other)
    spec = msgspec.structs.replace(load_model(str(adapter)), base=str(other))
    assert "adapter" not in wrong(spec)  # the same content elsewhere
    edit(other / "config.json", rope_theta=5.0)
    assert "was trained on" in wrong(spec)["adapter"]


# The hub.


def test_a_gated_repository_says_what_to_do(monkeypatch):
    import httpx
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError

    def refuse(*_, **__):
        request = httpx.Request("GET", "https://huggingface.co")
        response: Any = httpx.Response(403, request=request)
        raise GatedRepoError("403", response=response)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    shown = run("check", "google/gemma-2b-it")
    assert isinstance(shown.exception, InputError)
    text = str(shown.exception)
    assert "https://huggingface.co/google/gemma-2b-it" in text
    assert "HF_TOKEN" in text
    assert "\n" not in text


def test_only_small_files_are_downloaded(monkeypatch, checkpoint):
    import huggingface_hub

    asked = []

    def download(name, *, allow_patterns, revision=None):
        asked.append((name, revision, allow_patterns))
        return str(checkpoint)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert wrong(ModelSpec(name="it", base="some/model", revision="v1")) == {}
    assert wrong(ModelSpec(name="it", base="some/model", adapter=None)) == {}
    assert [(name, revision) for name, revision, _ in asked] == [
        ("some/model", "v1"),
        ("some/model", None),
    ]
    assert not any("safetensors" in one or "bin" in one for _, _, files in asked for one in files)


def test_a_gguf_without_a_tokenizer_is_one_sentence():
    spec = ModelSpec(name="it", base="some/model", format="gguf", gguf_file="a.gguf")
    with pytest.raises(InputError, match=r"tokenizer lies inside a\.gguf"):
        check_model(spec)
