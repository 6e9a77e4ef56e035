"""Prompts: AlpacaEval's bytes, slots that nothing can open, batches, ChatML, Jinja, and files that are only read."""

import json
import subprocess
import sys
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignboard.errors import InputError
from alignboard.judges.alpaca_eval.configs import evaluator_names, read_evaluator
from alignboard.judges.prompting.prompts import PADDING, chatml, package_text, render, slots
from alignboard.judges.rows import Message, Question
from alignboard.judges.spec import JudgePrompt
from judge_attacks import ATTACKS

AE2 = "alpaca_eval:evaluators_configs/alpaca_eval_clf_gpt4_turbo/alpaca_eval_clf.txt"
PAIR = JudgePrompt(text="Q: {instruction}\nA: {first}\nB: {second}\nBetter: {{A or B}}")


def members():
    return [member for name in evaluator_names() for member in read_evaluator(name).members]


def upstream_messages(utils, spec, rows):
    """The prompts that upstream's own code makes of ``rows``, as (role, content) turns, one list for each."""
    import pandas as pd

    template = package_text(spec.prompt.file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prompts, _ = utils.make_prompts(pd.DataFrame(rows), template, batch_size=spec.prompt.batch)
    if not spec.prompt.chatml:
        return [[("user", prompt)] for prompt in prompts]
    # `openai_completions` strips first.
    turns = [utils.prompt_to_chatml(prompt.strip()) for prompt in prompts]
    return [[(turn["role"], turn["content"]) for turn in one] for one in turns]


def ours(spec, rows):
    questions = [Question(row["instruction"], row["output_1"], row["output_2"]) for row in rows]
    size = spec.prompt.batch
    calls = [questions[i : i + size] for i in range(0, len(questions), size)]
    return [[(m.role, m.content) for m in render(spec.prompt, call)] for call in calls]


def test_every_evaluators_prompts_are_upstreams_byte_for_byte(upstream):
    rows = [
        {
            "instruction": f"  Was ist {i}²?\n",
            "output_1": f"\t{i * i} \u00e9\u4e2d\n\n",
            "output_2": "{a} {b c} \\n",
        }
        for i in range(20)
    ]
    checked = 0
    for spec in members():
        used = rows[: 20 // spec.prompt.batch * spec.prompt.batch]
        assert ours(spec, used) == upstream_messages(upstream("utils"), spec, used), spec.name
        checked += 1
    assert checked == 56


@pytest.mark.parametrize("name", ["weighted_alpaca_eval_gpt4_turbo", "alpaca_eval_gpt4"])
def test_the_prompts_of_released_rows_are_upstreams_byte_for_byte(upstream, released, name):
    [spec] = read_evaluator(name).members
    checked = 0
    for model in ("alpaca-7b", "vicuna-13b", "zephyr-7b-beta"):
        path = released / "results" / model / name / "annotations.json"
        if not path.is_file():
            continue
        rows = [
            row
            for row in json.loads(path.read_text(encoding="utf-8"))
            # What upstream garbles: an instruction that holds a slot, a text that holds ChatML's marks.
            if not any(mark in str(row) for mark in ("{output_1}", "{output_2}", "<|im_"))
        ]
        assert ours(spec, rows) == upstream_messages(upstream("utils"), spec, rows)
        checked += len(rows)
    assert checked > 800


def test_the_padding_is_upstreams(upstream):
    dummy = upstream("utils").DUMMY_EXAMPLE
    assert (PADDING.instruction, PADDING.first, PADDING.second) == (
        dummy["instruction"],
        dummy["output_1"],
        dummy["output_2"],
    )


# Slots.


def test_no_text_opens_another_slot():
    found = render(PAIR, [Question("{second}", "{first} {second} {instruction}", "{first}")])
    assert found == (
        Message(
            "user", "Q: {second}\nA: {first} {second} {instruction}\nB: {first}\nBetter: {{A or B}}"
        ),
    )


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_outputs_are_shown_whole_in_their_place(attack):
    prompt = JudgePrompt(file=AE2, chatml=True)
    plain = render(prompt, [Question("What?", "FIRST", "SECOND")])
    attacked = render(prompt, [Question("What?", attack, "SECOND")])
    assert [m.role for m in attacked] == ["system", "user"]
    assert attacked[0] == plain[0]
    assert attacked[1].content == plain[1].content.replace("FIRST", attack)


@given(st.text(), st.text(), st.text())
def test_whatever_is_asked_is_shown_once(instruction, first, second):
    [message] = render(PAIR, [Question(instruction, first, second)])
    assert message.content == f"Q: {instruction}\nA: {first}\nB: {second}\nBetter: {{{{A or B}}}}"


def test_upstreams_names_of_slots_mean_the_same():
    prompt = JudgePrompt(text="{instruction}|{output_1}|{output_2}")
    assert render(prompt, [Question("i", "a", "b")])[0].content == "i|a|b"
    assert slots(prompt) == {"instruction": 1, "first": 1, "second": 1}


def test_a_slot_may_be_there_twice_in_a_prompt_of_one_question():
    prompt = JudgePrompt(text="{instruction} {first} {second} {instruction}")
    assert render(prompt, [Question("i", "a", "b")])[0].content == "i a b i"


def test_a_slot_that_the_question_does_not_have_is_told():
    prompt = JudgePrompt(text="{instruction} {first} {second} {reference}")
    with pytest.raises(
        InputError, match=r"asks for \{reference\}, which this question does not have"
    ):
        render(prompt, [Question("i", "a", "b")])
    shown = render(prompt, [Question("i", "a", "b", (("reference", "r"),))])
    assert shown[0].content == "i a b r"
    with pytest.raises(InputError, match=r"\{second\}"):
        render(PAIR, [Question("i", "a")])


def test_a_field_never_takes_an_outputs_place():
    fields = (("first", "x"), ("output_2", "y"), ("instruction", "z"))
    assert render(PAIR, [Question("i", "a", "b", fields)])[0].content.startswith("Q: i\nA: a\nB: b")


# Batches.


def test_batches_show_questions_in_order_and_are_padded_as_upstream_does():
    prompt = JudgePrompt(
        messages=[
            Message("system", "Two tasks."),
            Message("user", "1 {instruction}: {first} {second}"),
            Message("user", "2 {instruction}: {output_1} {output_2}"),
        ],
        batch=2,
    )
    with pytest.raises(InputError, match="more often"):
        render(JudgePrompt(text="{first} {first} {first}", batch=2), [Question("i", "a", "b")] * 2)
    prompt = JudgePrompt(
        messages=[
            Message("user", "1 {instruction}: {first} {second}"),
            Message("user", "2 {instruction}: {first} {second}"),
        ],
        batch=2,
    )
    one, other = Question("i", "{first}", "b"), Question("j", "c", "d")
    assert [m.content for m in render(prompt, [one, other])] == ["1 i: {first} b", "2 j: c d"]
    assert [m.content for m in render(prompt, [one])] == ["1 i: {first} b", "2 1+1=: 2 3"]
    with pytest.raises(ValueError, match="3 questions"):
        render(prompt, [one] * 3)


# ChatML, Jinja, files.


@pytest.mark.parametrize(
    "text", ["Hello", "<|im_start|>user\nHi", "<|im_start|>tool\nHi<|im_end|>", "<|im_end|>"]
)
def test_what_is_no_chatml_is_told(text):
    with pytest.raises(InputError, match="ChatML"):
        chatml(text)


def test_chatml_is_split_as_upstream_does(upstream):
    text = "\n<|im_start|>system\n A \n<|im_end|>\nlost<|im_start|>user\n\nB\n<|im_end|> \n"
    expected = [
        (turn["role"], turn["content"]) for turn in upstream("utils").prompt_to_chatml(text)
    ]
    assert [(m.role, m.content) for m in chatml(text)] == expected


def test_jinja_sees_texts_only_and_no_attribute_of_python():
    prompt = JudgePrompt(
        text="{% if reference is defined %}R{% endif %}{{ first }}|{{ second }}", jinja=True
    )
    hostile = Question("i", "{{ 7 * 7 }}", "<b>{% raw %}")
    assert render(prompt, [hostile])[0].content == "{{ 7 * 7 }}|<b>{% raw %}"
    escape = JudgePrompt(text="{{ first.__class__.__mro__[1].__subclasses__() }}", jinja=True)
    with pytest.raises(InputError, match="fails"):
        render(escape, [hostile])
    with pytest.raises(InputError, match="no Jinja template"):
        slots(JudgePrompt(text="{% if %}", jinja=True))
    with pytest.raises(InputError, match="'rubric' is undefined"):
        render(JudgePrompt(text="{{ rubric }}", jinja=True), [hostile])


def test_jinja_batches_are_a_list():
    prompt = JudgePrompt(
        text="{% for q in questions %}{{ q.first }}-{{ q.second }};{% endfor %}",
        jinja=True,
        batch=2,
    )
    assert render(prompt, [Question("i", "a", "b")])[0].content == "a-b;2-3;"


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("evaluators_configs/a.txt", "not of the form"),
        ("alpaca_eval.metrics:a.txt", "not of the form"),
        ("no_such_package:a.txt", "not installed"),
        ("alpaca_eval:evaluators_configs/none.txt", "has no file"),
        ("alpaca_eval:../../../../pyproject.toml", "has no file"),
        ("alpaca_eval:evaluators_configs", "has no file"),
    ],
)
def test_prompt_files_are_files_of_installed_packages(file, told):
    with pytest.raises(InputError, match=told):
        package_text(file)


def test_reading_a_prompt_does_not_import_its_package():
    code = (
        "import sys; from alignboard.judges.prompting.prompts import package_text as read; "
        f"assert 'leaderboard' in read({AE2!r}); print('alpaca_eval' in sys.modules, 'jinja2' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False"]
