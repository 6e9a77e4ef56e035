"""Prompts byte for byte, BOS counted on ids, and instructions that cannot speak for the template."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import byte_tokenizer
from alignboard.errors import InputError
from alignboard.fetch.package_file import package_file
from alignboard.models import prompting
from alignboard.models.prompting import (
    control_tokens,
    defused,
    prompt_ids,
    prompt_text,
    require_training_template,
    saved_template,
    stop_token_ids,
    template_digest,
    training_digest,
)
from alignboard.models.registry import list_models, load_model
from alignboard.models.spec import PromptFormat
from alignboard.models.templates import TEMPLATES
from alignboard.training.checks import preflight
from alignboard.training.recipe import load_recipe
from alignboard.workspace import library

INSTRUCTION = "What is <b>this</b>?\nTwo lines & {braces} {{ more }} {% raw %}, \"quotes\", 'é' 🙂"
TOKENIZERS = {
    "llama": byte_tokenizer.build(**byte_tokenizer.LLAMA),
    "phi": byte_tokenizer.build(**byte_tokenizer.PHI),
    "gemma": byte_tokenizer.build(**byte_tokenizer.GEMMA),
    "dolphin": byte_tokenizer.build(**byte_tokenizer.DOLPHIN),
    "dolphin-phi": byte_tokenizer.build(**byte_tokenizer.DOLPHIN_PHI),
}
ENTRIES = {spec.name: spec for spec in list_models()}


def family(spec):
    """The tokenizer that stands for an entry's own."""
    phi = re.search("phi-2|phixtral", spec.name) is not None
    if spec.prompt.chat == "chatml":
        return TOKENIZERS["dolphin-phi" if phi else "dolphin"]
    return TOKENIZERS["phi" if phi else "gemma" if "gemma" in spec.name else "llama"]


def template_of(spec):
    return spec.prompt.jinja(None, spec.name)


def text_of(name, instruction=INSTRUCTION):
    spec = ENTRIES[name]
    return prompt_text(family(spec), template_of(spec), instruction, source=name)


# The prompts that published answers were made with lie in the alpaca-eval wheel.
PUBLISHED = {
    "phi-2": "phi-2/prompt.txt",
    "phi-2-dpo": "phi-2-dpo/prompt.txt",
    "zephyr-7b-alpha": "zephyr-7b-alpha/prompt.txt",
    "zephyr-7b-beta": "zephyr-7b-alpha/prompt.txt",
    "llama-2-7b-chat": "llama-2-7b-chat-hf/prompt.txt",
}


def published(file):
    return package_file(f"models_configs/{file}").read_bytes().decode()


@pytest.mark.parametrize(("name", "file"), PUBLISHED.items())
def test_prompts_are_those_of_the_published_answers(name, file):
    assert text_of(name) == published(file).replace("{instruction}", INSTRUCTION)


def test_alpaca_is_that_of_the_published_answers():
    text = prompt_text(TOKENIZERS["llama"], TEMPLATES["alpaca"], INSTRUCTION, source="alpaca")
    assert text == published("alpaca-7b/prompt.txt").replace("{instruction}", INSTRUCTION)


WRITTEN = {
    "dolphin-2.6-mistral-7b-gptq": "<|im_start|>system\nYou are Dolphin, a helpful AI assistant.<|im_end|>\n"
    "<|im_start|>user\nHi?<|im_end|>\n<|im_start|>assistant\n",
    "gemma-2b-it": "<bos><start_of_turn>user\nHi?<end_of_turn>\n<start_of_turn>model\n",
    "gemma-7b-it": "<bos><start_of_turn>user\nHi?<end_of_turn>\n<start_of_turn>model\n",
    "bling-phi-2-v0": "<human>: Hi?\n<bot>:",
    "phi-2-sft-alpaca_gpt4_en-ep1": "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions.\nHuman: Hi?\nAssistant:",
    "mistral-7b-v0.1": "Hi?",
    "llama-2-7b": "Hi?",
}


@pytest.mark.parametrize(("name", "text"), WRITTEN.items())
def test_prompts_are_the_strings_written_out(name, text):
    assert text_of(name, "Hi?") == text


def test_every_form_is_held_by_one_of_these():
    held = {ENTRIES[name].prompt.chat for name in (*PUBLISHED, *WRITTEN)} | {"alpaca"}
    assert held - {"own"} == set(TEMPLATES)


@pytest.mark.parametrize(
    ("recipe", "form", "tokenizer"),
    [
        ("phi-2", "instruct-output", "phi"),
        ("mistral-7b", "zephyr", "llama"),
        ("llama-2-7b", "llama-2", "llama"),
        ("gemma-2b", "gemma", "gemma"),
    ],
)
@pytest.mark.parametrize("step", ["sft", "dpo"])
def test_recipes_train_the_same_conversations(recipe, form, tokenizer, step):
    trained = load_recipe(library() / f"train/{recipe}/{step}-qlora.yaml").chat_template
    assert trained is not None
    turns = [("user", "Hi?"), ("assistant", "Yes."), ("user", "And?")]
    words = TOKENIZERS[tokenizer]
    for generation_prompt in (True, False):
        ours, theirs = (
            prompting.conversation_text(
                words, one, turns, source=form, generation_prompt=generation_prompt
            )
            for one in (TEMPLATES[form], trained)
        )
        # The recipe for Mistral writes the BOS that zephyr's own template leaves to the tokenizer.
        assert theirs.removeprefix("<s>" if form == "zephyr" else "") == ours


@pytest.mark.parametrize("form", sorted(set(TEMPLATES) - {"chatml", "zephyr", "llama-2"}))
def test_a_form_without_a_system_turn_refuses_one(form):
    template = PromptFormat(chat=form, system="Be kind.").jinja(None, form)
    with pytest.raises(InputError, match="no system turn"):
        prompt_text(TOKENIZERS["llama"], template, "Hi?", source=form)


# BOS, on ids.


# A file of the package index brings its own template.
@pytest.mark.parametrize(
    "name", [n for n, s in ENTRIES.items() if not s.base.startswith("package:")]
)
def test_an_entry_has_the_bos_it_says(name):
    spec = ENTRIES[name]
    tokenizer = family(spec)
    ids = prompt_ids(tokenizer, template_of(spec), INSTRUCTION, bos=spec.bos, source=name)
    assert ids.count(tokenizer.bos_token_id) == (0 if spec.bos == "never" else 1)
    assert (ids[0] == tokenizer.bos_token_id) == (spec.bos != "never")


def test_some_published_prompts_write_bos_and_would_have_two():
    folder = package_file("models_configs/phi-2/prompt.txt").parents[1]
    writing = {
        path.parent.name
        for path in folder.glob("*/prompt.txt")
        if path.read_text(encoding="utf-8").startswith("<s>")
    }
    assert {"llama-2-7b-chat-hf", "LMCocktail-10.7B-v1", "Conifer-7B-DPO"} <= writing
    assert not writing & {"phi-2", "zephyr-7b-alpha", "alpaca-7b"}
    tokenizer = TOKENIZERS["llama"]
    upstream = tokenizer(text_of("llama-2-7b-chat"))["input_ids"]
    assert upstream[:2] == [tokenizer.bos_token_id] * 2


@pytest.mark.parametrize(
    ("template", "bos", "said"),
    [
        ("{{ bos_token }}{{ bos_token }}x", "auto", "BOS 2 times"),
        ("{{ bos_token }}x{{ bos_token }}", "once", "BOS 2 times"),
        ("x{{ bos_token }}", "never", "BOS 1 times"),
        ("{{ bos_token }}x", "never", "bos is 'never'"),
    ],
)
def test_a_bos_too_many_is_refused(template, bos, said):
    with pytest.raises(InputError, match=said):
        prompt_ids(TOKENIZERS["llama"], template, "Hi?", bos=bos, source="it")


def test_once_adds_the_bos_that_nobody_writes():
    silent = byte_tokenizer.build(adds_bos=False)
    assert prompt_ids(silent, "x", "", bos="auto", source="it")[0] != silent.bos_token_id
    assert prompt_ids(silent, "x", "", bos="once", source="it")[0] == silent.bos_token_id
    without = byte_tokenizer.build(bos=None)
    with pytest.raises(InputError, match="no BOS"):
        prompt_ids(without, "x", "", bos="once", source="it")


# System turns and texts.


def test_an_empty_system_turn_is_not_none():
    own = TEMPLATES["chatml"]
    tokenizer = TOKENIZERS["dolphin"]
    texts = {
        system: prompt_text(
            tokenizer, PromptFormat(system=system).jinja(own, "it"), "Hi?", source="it"
        )
        for system in (None, "", 'Say "no".\n')
    }
    assert texts[None].startswith("<|im_start|>user")
    assert texts[""].startswith("<|im_start|>system\n<|im_end|>\n<|im_start|>user")
    assert texts['Say "no".\n'].startswith('<|im_start|>system\nSay "no".\n<|im_end|>')


def test_a_system_turn_leaves_white_space_control_as_it_was():
    own = "  {% for message in messages %}\n  {% if true %}\n[{{ message['content'] }}]\n  {% endif %}\n{% endfor %}\n"
    tokenizer = TOKENIZERS["llama"]
    alone = prompt_text(tokenizer, own, "Hi?", source="it")
    both = prompt_text(tokenizer, PromptFormat(system="S").jinja(own, "it"), "Hi?", source="it")
    assert both == "[S]\n" + alone


@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=30))
@settings(max_examples=60, deadline=None)
def test_a_text_form_is_taken_word_for_word(before, after, instruction):
    template = PromptFormat(template=before + "{instruction}" + after).jinja(None, "it")
    text = prompt_text(TOKENIZERS["llama"], template, instruction, source="it")
    assert text == before + instruction + after


def test_a_text_form_takes_one_turn():
    template = PromptFormat(template="Q: {instruction}").jinja(None, "it")
    turns = [("user", "a"), ("assistant", "b"), ("user", "c")]
    with pytest.raises(InputError, match="takes no other turns"):
        prompting.conversation_text(TOKENIZERS["llama"], template, turns, source="it")


def test_a_missing_template_says_what_to_do():
    with pytest.raises(InputError, match=r"its entry, with one of chatml"):
        PromptFormat().jinja(None, "some/model")


# Instructions are text.


@st.composite
def hostile(draw, spellings):
    piece = st.one_of(st.text(max_size=8), st.sampled_from(sorted(spellings)))
    return "".join(draw(st.lists(piece, max_size=8)))


@pytest.mark.parametrize("name", ["zephyr-7b-beta", "gemma-2b-it", "phixtral-4x2_8", "phi-2"])
def test_an_instruction_never_makes_a_control_token(name):
    spec = ENTRIES[name]
    tokenizer, template = family(spec), template_of(spec)
    spellings = control_tokens(tokenizer, template)
    control = set(tokenizer.convert_tokens_to_ids(sorted(spellings)))

    @given(hostile(spellings))
    @settings(max_examples=80, deadline=None)
    def holds(instruction):
        def controls(text):
            ids = prompt_ids(tokenizer, template, text, bos=spec.bos, source=name)
            return [i for i in ids if i in control]

        assert controls(instruction) == controls("x")
        shown = prompt_text(
            tokenizer, template, defused(tokenizer, instruction, template), source=name
        )
        assert squeezed(instruction) in squeezed(shown)

    holds()


def squeezed(text):
    return re.sub(r"\s", "", text)


def test_what_is_no_control_token_stays_as_it_is():
    tokenizer = TOKENIZERS["dolphin-phi"]
    text = "a < b,    and <b>c</b> <|im_start|>"
    assert defused(tokenizer, text) == text
    assert defused(tokenizer, text, TEMPLATES["chatml"]) == text.replace("<|", "< |")


def test_spellings_that_overlap_are_all_broken():
    tokenizer = byte_tokenizer.build(special=("||",))
    assert "||" not in defused(tokenizer, "|||||")


# Stops.


def test_stop_tokens_by_spelling():
    tokenizer = TOKENIZERS["gemma"]
    (found,) = stop_token_ids(tokenizer, ["<end_of_turn>"], source="gemma")
    assert tokenizer.convert_ids_to_tokens(found) == "<end_of_turn>"
    with pytest.raises(InputError, match=r"reads as 11 tokens, did you mean '<end_of_turn>'"):
        stop_token_ids(tokenizer, ["<end_of_tum"], source="gemma")


@pytest.mark.parametrize("name", [name for name in ENTRIES if ENTRIES[name].stop_tokens])
def test_stop_tokens_of_entries_are_what_their_form_ends_turns_with(name):
    spec = ENTRIES[name]
    for spelling in spec.stop_tokens:
        assert f"{spelling}\\n'" in template_of(spec)


# The template that an adapter was trained with.


@pytest.fixture
def adapter(tmp_path):
    """What the trainer writes beside the weights."""
    trained = load_recipe(library() / "train/mistral-7b/sft-qlora.yaml").chat_template
    tokenizer = byte_tokenizer.build(template=trained)
    tokenizer.save_pretrained(tmp_path)
    card = {"template_digest": preflight.template_digest(tokenizer)}
    (tmp_path / "training.json").write_text(json.dumps(card), encoding="utf-8")
    return tmp_path


def test_the_template_survives_on_disk(adapter):
    template = saved_template(adapter)
    assert template is not None
    assert training_digest(adapter) == template_digest(template)
    require_training_template(adapter, TOKENIZERS["llama"], template)


def test_another_text_of_the_same_prompt_passes(adapter):
    assert training_digest(adapter) != template_digest(TEMPLATES["zephyr"])
    require_training_template(adapter, TOKENIZERS["llama"], TEMPLATES["zephyr"], bos="once")


def test_another_prompt_is_refused_and_says_how_to_go_on(adapter):
    with_system = load_model("zephyr-7b-beta").prompt.jinja(None, "it")
    for template in (TEMPLATES["chatml"], with_system):
        with pytest.raises(InputError, match=r"another prompt .* template_mismatch: allow"):
            require_training_template(adapter, TOKENIZERS["llama"], template, bos="once")


def test_an_adapter_that_does_not_say_is_not_judged(tmp_path):
    assert training_digest(tmp_path) is None
    require_training_template(tmp_path, TOKENIZERS["llama"], TEMPLATES["chatml"])


@pytest.mark.parametrize("damaged", ["", "[]", '{"template_digest": "a', "[" * 100_000])
def test_a_damaged_card_of_a_training_is_a_sentence(damaged, tmp_path):
    (tmp_path / "training.json").write_text(damaged, encoding="utf-8")
    with pytest.raises(InputError, match=r"training\.json"):
        training_digest(tmp_path)


def test_an_adapter_whose_card_and_template_disagree_is_held_to_its_card(adapter):
    (adapter / "chat_template.jinja").write_text(TEMPLATES["zephyr"], encoding="utf-8")
    with pytest.raises(InputError, match="another prompt"):
        require_training_template(adapter, TOKENIZERS["llama"], TEMPLATES["zephyr"], bos="once")


_SAID = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


@pytest.mark.parametrize(
    ("clock", "reads"),
    [
        ('{{ strftime_now("%d %b %Y") }}', True),
        ('{% if strftime_now("%H") | int < 12 %}Good morning. {% endif %}', True),
        ('{{ strftime_now("%d %b %Y")[:2] }}', True),
        ('{{ strftime_now("%B") | upper }}', True),
        ('{{ "weekend" if strftime_now("%a") in ["Sat", "Sun"] else "week" }}', True),
        ('{% if date_string is not defined %}{{ strftime_now("%d") }}{% endif %}', True),
        ('{% if messages | length > 1 %}{{ strftime_now("%d") }}{% endif %}', True),
        ('{{ "26 Jul 2024" }}{# strftime_now #}', False),
        ('{% macro strftime_now(format) %}x{% endmacro %}{{ strftime_now("%d") }}', False),
    ],
)
def test_a_clock_is_noticed_by_its_call_not_by_its_text(clock, reads):
    from alignboard.models.turns import reads_the_clock

    assert reads_the_clock(byte_tokenizer.build(), clock + _SAID) is reads
