"""Columns of a question: a part of it is merged or refused by name, what only describes it is no matter."""

import json

import pytest

from alignboard.data.instruction_sets import load_set
from alignboard.errors import InputError
from alignboard.results.raw_rows import raw_rows

ASKED = "Fix the error in the function."

PARTS = {
    "code": "def f(x): retrun x",
    "starter_code": "x = 1",
    "source_code": "x",
    "codeSnippet": "x = 1",
    "text": "short",
    "table": "a | b",
    "db_schema": ["CREATE TABLE t (id INT)"],
    "sentence1": "He left.",
    "sentence2": "He stayed.",
    "hypothesis": "He left.",
    "answer_choices": ["yes", "no"],
    "Options": {"A": "yes", "B": "no"},
    "hints": ["Look at line 2."],
    "email_body": "Dear all",
    "retrieved_documents": [{"title": "T", "content": "A text of several words is here."}],
    "conversation": [
        {"role": "user", "content": "Hello, who are you?"},
        {"role": "assistant", "content": "A bot."},
    ],
    "conversations": [
        {"from": "system", "value": "Speak French."},
        {"from": "human", "value": ASKED},
    ],
    "messages": [{"role": "system", "content": "Speak as a pirate does, at all times."}],
    "instances": [{"input": "3 + 4", "output": "7"}],
    "preamble": "You are a pirate and speak like one.",
    "description": "The function should return the number that it was given.",
    "source": "The quick brown fox jumps over the lazy dog, the article begins.",
    "title": "One line\nand another",
    "zusatz": "Der Text, auf den sich die Frage bezieht, steht hier.",
    "内容": "这是一篇关于人工智能的文章",
    "meta_prompt": "Be brief.",
    "extra": {"passage": "Rome is old."},
}

HARMLESS = {
    "id": 3,
    "uid": "a1b2",
    "prompt_id": "p-1",
    "conversation_hash": "0f0f" * 16,
    "text_id": "t1",
    "image_url": "https://example.org/a.png",
    "code_language": "python",
    "num_choices": "4",
    "context_length": "128",
    "input_tokens": 17,
    "source": "alpaca",
    "source_url": "https://example.org/a b c d e f g h",
    "category": "Coding & Debugging",
    "primary_tag": "Editing",
    "tags": ["code", "easy"],
    "license": "This work may be used for any purpose that the author has agreed to.",
    "citation": "@inproceedings{x,\n title={y}}",
    "difficulty": "hard",
    "intent": "The user wants to have a function mended.",
    "checklist": ["Does the response mend the error in the function?", "Is it short?"],
    "rubric": "The response has to name the error and to mend it.",
    "reference": ["def f(x): return x\n"],
    "ref_answer": "def f(x):\n return x",
    "output": "def f(x): return x, as it was meant to be.",
    "response": "def f(x): return x, as it was meant to be.",
    "completions": [{"model": "a", "response": "def f(x):\n return x"}],
    "correct_answers": ["It is mended by a return in the right place."],
    "canonical_solution": "def f(x):\n    return x\n",
    "test_setup_code": "import math",
    "tests": "assert f(1) == 1\nassert f(2) == 2",
    "kwargs": [{"num_words": 300, "prompt_to_repeat": "x"}],
    "instruction_id_list": ["length:words"],
    "metadata": {"annotator": "A person of the team wrote this on a Monday."},
    "notes": "A note that is for people who look at the file.",
    "motivation_app": "Grammarly",
    "turn": 1,
    "is_code": True,
    "language": "English",
    "prompt": ASKED,
    "text": f"Below is an instruction.\n\n### Instruction:\n{ASKED}\n\n### Response:\nreturn x",
    "messages": [
        {"role": "user", "content": ASKED},
        {"role": "assistant", "content": "A long answer of many words."},
    ],
    "conversation": [
        {"from": "human", "value": ASKED},
        {"from": "gpt", "value": "An answer of many more words."},
    ],
    "code": "",
    "options": [],
    "context": None,
}


def write(path, **more):
    path.write_text(json.dumps({"instruction": ASKED} | more) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("name", PARTS)
def test_a_part_of_the_question_is_refused_by_name(tmp_path, name):
    with pytest.raises(InputError, match=f"row 1: the column '{name}'"):
        load_set(write(tmp_path / "q.jsonl", **{name: PARTS[name]}))


@pytest.mark.parametrize("name", HARMLESS)
def test_what_describes_a_question_is_no_part_of_it(tmp_path, name):
    (row,) = load_set(write(tmp_path / "q.jsonl", **{name: HARMLESS[name]})).rows
    assert row.turns == (ASKED,)


def test_a_part_that_the_instruction_holds_is_not_missing(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps({"instruction": "Mend this: retrun x + 1", "code": "retrun x + 1"}))
    assert len(load_set(path)) == 1


def test_a_declared_set_may_leave_a_column_out(tmp_path):
    write(tmp_path / "q.jsonl", code="x = 1", preamble="You are a pirate and speak like one.")
    rooms = tmp_path / "evaluate" / "sets"
    rooms.mkdir(parents=True)
    declared = rooms / "mine.yaml"
    declared.write_text("name: mine\npath: ../../q.jsonl\nignore: [code, preamble]\n")
    assert load_set("mine", tmp_path).rows[0].turns == (ASKED,)
    declared.write_text("name: mine\npath: ../../q.jsonl\nignore: [code]\n")
    with pytest.raises(InputError, match=r"'preamble' .*ignore: \[preamble\]"):
        load_set("mine", tmp_path)
    assert "code" in raw_rows(tmp_path / "q.jsonl")[0]
