"""Files that people bring: Alpaca's, AlpacaFarm's, FastChat's and both Arena-Hards' layouts, odd encodings.

Every case is made here; ``test_every_case_of_the_collection`` reads those of ``ALIGNBOARD_REAL/bugs`` as well, and the
released files of AlpacaFarm and Arena-Hard.
"""

from __future__ import annotations

import base64
import csv
import json
import os
import random
from pathlib import Path

import msgspec
import numpy as np
import pytest

from alignboard.data.instruction_sets import known_texts, load_set
from alignboard.errors import InputError
from alignboard.pipeline.conversations import compare_conversations, load_questions
from alignboard.pipeline.judged_outputs import answers, pairs_of
from alignboard.published.calibration import Calibration
from alignboard.published.reproduce import reference_set, suite_texts
from alignboard.published.scores import lc_win_rates
from alignboard.records import Generation, Judgment, text_id
from alignboard.results.conversations import (
    is_conversations,
    read_conversations,
    write_conversations,
)
from alignboard.results.folder import ResultsFolder
from alignboard.results.formats import read_rows
from alignboard.results.outputs_paths import ALPACA_EVAL
from alignboard.suites import load_suite

REAL = Path(os.environ.get("ALIGNBOARD_REAL", "missing"))
needs_real = pytest.mark.skipif(not (REAL / "bugs").is_dir(), reason="ALIGNBOARD_REAL is not set")


def write(path: Path, rows: list[dict]) -> Path:
    """The rows as the suffix says."""
    match path.suffix:
        case ".jsonl":
            path.write_text("\n".join(json.dumps(row) for row in rows))
        case ".json":
            path.write_text(json.dumps(rows))
        case _:
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
    return path


# Companion columns.


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv"])
@pytest.mark.parametrize("column", ["input", "context"])
def test_what_stands_beside_an_instruction_is_part_of_it(tmp_path, suffix, column):
    rows = [
        {"instruction": "Shorten.", column: text, "output": "x"} for text in ("One.", "Two.", "")
    ]
    path = write(tmp_path / f"sft{suffix}", rows)
    whole = ["Shorten.\n\nOne.", "Shorten.\n\nTwo.", "Shorten."]
    assert [row.turns[0] for row in load_set(path).rows] == whole
    assert [row.instruction for row in read_rows(path, Generation)] == whole
    verdicts = [
        {
            "instruction": "Shorten.",
            column: text,
            "output_1": "a",
            "generator_1": "b",
            "output_2": "c",
            "generator_2": "m",
            "preference": 1.5,
        }
        for text in ("One.", "")
    ]
    path = write(tmp_path / f"annotations{suffix}", verdicts)
    assert [row.instruction for row in read_rows(path, Judgment)] == [whole[0], whole[2]]


@pytest.mark.parametrize(
    "column",
    [
        "system",
        "system_prompt",
        "persona",
        "history",
        "passage",
        "options",
        "option_a",
        "tools",
        "images",
        "constraints",
    ],
)
@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv"])
def test_what_an_instruction_cannot_hold_is_refused_by_name(tmp_path, column, suffix):
    row = {"instruction": "Say hi.", "output": "Hi", "generator": "m", column: "You are terse."}
    path = write(tmp_path / f"m{suffix}", [row])
    for read in (lambda: load_set(path), lambda: read_rows(path, Generation)):
        with pytest.raises(
            InputError, match=f"row 1: the column '{column}' is part of the question"
        ):
            read()
    write(path, [row | {column: ""}])
    assert len(read_rows(path, Generation)) == 1


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv"])
@pytest.mark.parametrize("second", ["question", "prompt"])
def test_two_questions_in_a_row_are_refused_unless_one_holds_the_other(tmp_path, suffix, second):
    row = {"instruction": "Classify it.", second: "It rained.", "output": "x", "generator": "m"}
    path = write(tmp_path / f"m{suffix}", [row])
    for read in (lambda: load_set(path), lambda: read_rows(path, Generation)):
        with pytest.raises(InputError, match=f"row 1: 'instruction' and '{second}' are two"):
            read()
    write(path, [row | {second: "### Instruction:\nClassify it.\n### Response:"}])
    assert load_set(path).rows[0].turns == ("Classify it.",)
    assert len(read_rows(path, Generation)) == 1


def test_multiple_choice_questions_are_never_asked_without_their_choices(tmp_path):
    row = {"passage": None, "question": "Which?", "options": ["(A)one", "(B)two"], "label": "A"}
    with pytest.raises(InputError, match="'options' is part of the question"):
        load_set(write(tmp_path / "agieval.jsonl", [row]))
    row = {"question": "Which?", "choices": ["one", "two"], "answer": 0}
    with pytest.raises(InputError, match="'choices' is part of the question"):
        load_set(write(tmp_path / "mmlu.json", [row]))


@pytest.mark.parametrize("role", ["system", "assistant"])
def test_a_turn_that_is_not_the_users_is_refused_by_name(tmp_path, role):
    turns = [{"role": role, "content": "x"}, {"role": "user", "content": "Say hi."}]
    path = write(tmp_path / "q.jsonl", [{"messages": turns}])
    with pytest.raises(InputError, match=f"row 1: messages holds a turn of '{role}'"):
        load_set(path)
    write(path, [{"messages": turns[1:]}])
    assert load_set(path).rows[0].turns == ("Say hi.",)


def test_outputs_without_a_model_are_named_after_the_file(tmp_path):
    rows = [{"instruction": "Q", "output": "x"}]
    assert read_rows(write(tmp_path / "sft.json", rows), Generation)[0].generator == "sft"
    assert read_rows(write(tmp_path / "rlhf.csv", rows), Generation)[0].generator == "rlhf"
    (tmp_path / "dpo").mkdir()
    path = write(tmp_path / "dpo" / "model_outputs.json", rows)
    assert read_rows(path, Generation)[0].generator == "dpo"
    write(path, [*rows, {"instruction": "R", "output": "y", "generator": "m", "input": ""}])
    with pytest.raises(InputError, match=r"row 1.*generator"):
        read_rows(path, Generation)


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv"])
def test_an_unknown_layout_is_answered_with_those_that_are_read(tmp_path, suffix):
    path = write(tmp_path / f"x{suffix}", [{"question": "Q", "response": "x"}])
    with pytest.raises(InputError, match=r"question, response; read are AlpacaEval's .*messages\)"):
        read_rows(path, Generation)


# Answers by question.


def arena(layout: str, model: str) -> list[dict]:
    """Three answers in one of Arena-Hard's layouts."""
    found = []
    for n in range(3):
        text = f"{model} says {n}"
        if layout == "v0.1":
            turns = [{"content": text, "token_len": 5}]
            found.append(
                {
                    "question_id": f"q{n}",
                    "model_id": model,
                    "choices": [{"index": 0, "turns": turns}],
                }
            )
        else:
            said = {"answer": text} if layout == "2025" else text
            asked = {"role": "user", "content": f"Question {n}?"}
            messages = [asked, {"role": "assistant", "content": said}]
            found.append({"uid": f"q{n}", "ans_id": "x", "model": model, "messages": messages})
    return found


@pytest.mark.parametrize("layout", ["v0.1", "2025", "2025, text"])
@pytest.mark.parametrize("questions", ["v0.1", "2025"])
def test_answers_of_both_arena_hards_are_paired_by_question(tmp_path, layout, questions):
    asked = [
        {"question_id": f"q{n}", "category": "c", "turns": [{"content": f"Question {n}?"}]}
        if questions == "v0.1"
        else {"uid": f"q{n}", "category": "c", "prompt": f"Question {n}?"}
        for n in range(3)
    ]
    write(tmp_path / "asked.jsonl", asked)
    paths = [write(tmp_path / f"{name}.jsonl", arena(layout, name)) for name in ("x", "y")]
    assert all(map(is_conversations, paths))
    x, y = map(read_conversations, paths)
    known = load_questions(str(tmp_path / "asked.jsonl"), tmp_path)
    found = compare_conversations(known, y, x, tmp_path).pairs
    assert [(p.instruction, p.output_1, p.output_2) for p in found] == [
        (f"Question {n}?", f"x says {n}", f"y says {n}") for n in range(3)
    ]


@pytest.mark.parametrize("name", ["question_id", "uid"])
def test_two_questions_of_one_name_are_refused(tmp_path, name):
    rows = [{name: 1 + n // 2, "prompt": f"Question {n}?"} for n in range(3)]
    with pytest.raises(InputError, match="row 2: question_id 1 is that of row 1 again"):
        load_set(write(tmp_path / "q.jsonl", rows))


def test_a_failed_request_is_no_answer(tmp_path):
    rows = arena("v0.1", "x")
    rows[1]["choices"][0]["turns"] = ["$ERROR$"]
    with pytest.raises(
        InputError, match=r"line 2: the answer is '\$ERROR\$', which stands for a failed"
    ):
        read_conversations(write(tmp_path / "x.jsonl", rows))


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        (
            [{"role": "user", "content": "Another?"}],
            "x was asked 'Another\\?' as question q1 of asked",
        ),
        (
            [{"role": "user", "content": [{"type": "text", "text": "Another?"}]}],
            "was asked 'Another",
        ),
        (
            [{"role": "user", "content": "Question 1?"}, {"role": "user", "content": "More?"}],
            "was asked 2 turns as question q1",
        ),
    ],
)
def test_an_answer_to_another_question_of_that_name_is_refused(tmp_path, messages, said):
    write(
        tmp_path / "asked.jsonl", [{"uid": f"q{n}", "prompt": f"Question {n}?"} for n in range(3)]
    )
    rows = arena("2025", "x")
    rows[1]["messages"][:1] = messages
    paths = [write(tmp_path / "x.jsonl", rows), write(tmp_path / "y.jsonl", arena("2025", "y"))]
    x, y = map(read_conversations, paths)
    known = load_questions(str(tmp_path / "asked.jsonl"), tmp_path)
    with pytest.raises(InputError, match=said):
        compare_conversations(known, y, x, tmp_path)


def test_an_answer_in_parts_is_read(tmp_path):
    rows = arena("2025", "x")
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    rows[0]["messages"][1]["content"] = parts
    rows[0]["messages"].insert(0, {"role": "system", "content": "Be brief."})
    found = read_conversations(write(tmp_path / "x.jsonl", rows))[0]
    assert (found.answers, found.asked) == (("one two",), ("Question 0?",))
    write_conversations(tmp_path / "again.jsonl", [found])
    assert "asked" not in (tmp_path / "again.jsonl").read_text()


def test_answers_without_their_questions_say_what_is_missing(tmp_path):
    path = write(tmp_path / "x.json", arena("2025", "x"))
    with pytest.raises(InputError, match=r"answers by question .*give the set by --set"):
        read_rows(path, Generation)


# Outputs that hold reasoning.

CHANNELS = (
    "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Blue."
)
THINKS = ("<think>\nhm\n</think>\n\nBlue.", "hm\n</think>\n\nBlue.", CHANNELS)


@pytest.mark.parametrize("text", THINKS)
def test_only_the_response_of_a_brought_output_is_judged(tmp_path, text):
    mine, base = (
        [{"instruction": "Which colour?", "output": output, "generator": name}]
        for name, output in (("m", text), ("b", "Red."))
    )
    rows = [
        read_rows(write(tmp_path / f"{n}.json", rows), Generation)
        for n, rows in enumerate([mine, base])
    ]
    assert pairs_of(*rows)[0].output_2 == "Blue."
    assert answers(rows[0], tmp_path).questions[0].first == "Blue."
    cut = [msgspec.structs.replace(rows[0][0], output="<think>hm hm")]
    assert pairs_of(cut, rows[1])[0].output_2 == ""


@pytest.mark.parametrize("text", THINKS)
@pytest.mark.parametrize("layout", ["v0.1", "2025", "2025, text"])
def test_only_the_response_of_a_conversation_is_judged(tmp_path, text, layout):
    write(
        tmp_path / "asked.jsonl", [{"uid": f"q{n}", "prompt": f"Question {n}?"} for n in range(3)]
    )
    known = load_questions(str(tmp_path / "asked.jsonl"), tmp_path)
    x = write(tmp_path / "x.jsonl", arena(layout, text))
    y = write(tmp_path / "y.jsonl", arena(layout, "y"))
    found = compare_conversations(known, read_conversations(y), read_conversations(x), tmp_path)
    assert [pair.output_1 for pair in found.pairs] == [f"Blue. says {n}" for n in range(3)]


# Encodings.


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_half_a_surrogate_pair_is_made_readable_where_it_enters(tmp_path, suffix):
    path = write(tmp_path / f"q{suffix}", [{"instruction": "a \ud83d b", "output": "x"}])
    assert load_set(path).rows[0].turns == ("a \ufffd b",)
    assert read_rows(path, Generation)[0].instruction == "a \ufffd b"


@pytest.mark.parametrize("read", [load_set, lambda path: read_rows(path, Generation)])
def test_long_cells_and_rows_of_lines_are_read(tmp_path, read):
    csv.field_size_limit(1000)
    path = write(tmp_path / "q.csv", [{"instruction": "w " * 150_000, "output": "x"}])
    assert read(path) is not None
    path = write(tmp_path / "q.jsonl", [{"instruction": text, "output": "x"} for text in "ab"])
    lines = path.rename(tmp_path / "lines.json")
    assert len(getattr(read(lines), "rows", None) or read(lines)) == 2


@pytest.mark.parametrize(
    "row", [["a"], 3, None, {"instruction": ["a", 3]}, {"uid": [1], "prompt": "a"}]
)
def test_a_row_that_is_no_row_is_named(tmp_path, row):
    path = write(tmp_path / "q.json", [row])
    with pytest.raises(InputError, match=r"q\.json, row 1"):
        load_set(path)


# Length control belongs to a set of texts.


def folder_of(root: Path, instructions: list[str], model: str = "m") -> ResultsFolder:
    suite = load_suite("alpaca-eval-2")
    draw = random.Random(0)
    rows = [
        {
            "instruction": text,
            "output_1": "b " * draw.randint(5, 60),
            "generator_1": suite.baseline,
            "output_2": "m " * draw.randint(5, 60),
            "generator_2": model,
            "preference": 1 + draw.random() * 0.98 + 0.01,
            "annotator": suite.annotator,
        }
        for text in instructions
    ]
    place = root / model / suite.annotator
    place.mkdir(parents=True)
    write(place / "annotations.json", rows)
    return ResultsFolder(root)


def test_the_texts_of_alpaca_eval_are_known_without_its_files():
    for name in ("alpaca-eval-2", "alpaca-eval-1"):
        texts = suite_texts(load_suite(name))
        assert texts is not None
        assert len(set(texts.tolist())) == 805
    assert text_id(
        "What are the names of some famous actors that started their careers on Broadway?"
    ) == int(texts[0])


def test_difficulties_belong_to_texts_not_to_positions(tmp_path, monkeypatch):
    """A shuffled file gets the same aligned figure, whatever else lies in the folder; other questions get none."""
    from alignboard.published import reproduce

    texts = [f"Question number {n}?" for n in range(805)]
    ids = np.array([text_id(text) for text in texts], dtype=np.uint64)
    monkeypatch.setattr(reproduce, "known_texts", lambda name: ids if name == ALPACA_EVAL else None)
    rng = np.random.default_rng(0)
    gamed = rng.uniform(0.2, 0.8, 805), rng.normal(size=805), rng.normal(size=805)
    calibration = Calibration(rng.normal(size=805), *gamed, np.arange(805))
    suite, figures = load_suite("alpaca-eval-2"), []
    rows = json.loads(
        (
            folder_of(tmp_path / "in order", texts).root
            / "m"
            / suite.annotator
            / "annotations.json"
        ).read_text()
    )
    for name in ("in order", "shuffled"):
        place = tmp_path / name
        if name == "shuffled":
            random.Random(1).shuffle(rows)
            (place / "m" / suite.annotator).mkdir(parents=True)
            write(place / "m" / suite.annotator / "annotations.json", rows)
        with ResultsFolder(place) as folder:
            tables = folder.tables(["m"], suite.annotator)
            reference = reference_set(folder, suite, tables)
            figures.append(lc_win_rates(tables["m"], reference, calibration))
    ordered, shuffled = figures
    assert shuffled.aligned.win_rate == pytest.approx(ordered.aligned.win_rate, abs=1e-6)
    assert shuffled.n_misplaced > 700
    with folder_of(tmp_path / "others", [f"Another {n}?" for n in range(805)]) as folder:
        tables = folder.tables(["m"], suite.annotator)
        with pytest.raises(InputError, match=r"row 1, .*not one of the 805 instructions"):
            lc_win_rates(tables["m"], reference_set(folder, suite, tables), calibration)


def test_digests_that_are_none_are_refused(tmp_path):
    path = tmp_path / "evaluate" / "sets" / "own.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"name": "own", "path": "x.json", "texts": "!"}))
    with pytest.raises(InputError, match="texts is no base64"):
        known_texts("own", tmp_path)
    path.write_text(
        json.dumps({"name": "own", "path": "x.json", "texts": base64.b64encode(bytes(8)).decode()})
    )
    assert known_texts("own", tmp_path) is not None


# The collection.


@needs_real
def test_every_case_of_the_collection():
    alpaca, arenas, sets = (
        REAL / "bugs" / name for name in ("01-input-column", "10-arena-answers", "22-set-files")
    )
    both = pairs_of(
        *(read_rows(alpaca / f"one_each_{name}.json", Generation) for name in ("sft", "base"))
    )
    assert "It rained for the whole of the day long." in both[0].instruction
    assert read_rows(alpaca / "no_generator.json", Generation)[0].generator == "no_generator"
    for layout in ("v0.1", "v2.0"):
        known = load_questions(str(arenas / f"question-{layout}.jsonl"), arenas)
        x, y = (read_conversations(arenas / f"{layout}-{name}.jsonl") for name in "xy")
        assert len(compare_conversations(known, y, x, arenas).pairs) == 3
    refused = {"messages.jsonl", "semicolon.csv", "utf16.csv", "README.md"}
    for path in sorted(sets.iterdir()):
        if path.name in refused:
            with pytest.raises(InputError):
                load_set(path)
        else:
            assert len(load_set(path)) >= 1, path


@needs_real
def test_released_files_of_alpaca_farm_and_arena_hard():
    farm, hard = REAL / "alpaca_farm", REAL / "arena_hard"
    outputs = {
        name: read_rows(farm / f"outputs_{name}.json", Generation) for name in ("sft", "baseline")
    }
    assert len(pairs_of(outputs["sft"], outputs["baseline"])) == 252
    assert len(read_rows(farm / "eval_gpt-3.5-turbo-0301.json", Generation)) == 805
    asked = load_set(hard / "question_v0.1.jsonl")
    ids = {row.question_id for row in asked.rows}
    for path in (hard / "answers").iterdir():
        assert {one.question_id for one in read_conversations(path)} <= ids
    assert len(load_set(REAL / "mt_bench" / "question.jsonl")) == 80
