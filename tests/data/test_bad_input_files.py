"""Bad files: one sentence that names the file, the row and the field, and no traceback of ours."""

import json
import time

import numpy as np
import pytest

from alignboard.errors import InputError
from alignboard.records import text_id
from alignboard.results.formats import read_annotations, read_outputs
from builders import generation, generations, judgment, judgments, write_json


def refusal(read, path, **expected):
    """The message; it names the file, is one line and ends as a sentence does."""
    with pytest.raises(InputError) as caught:
        read(path, **expected)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert message.endswith(".")
    assert len(message) < len(str(path)) + 500
    return message


def test_truncated_json(tmp_path):
    path = write_json(tmp_path / "annotations.json", judgments(10))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * 0.55)])
    message = refusal(read_annotations, path)
    assert "row 6" in message
    assert "cut off" in message


def test_truncated_jsonl(tmp_path):
    path = tmp_path / "annotations.jsonl"
    lines = "\n".join(json.dumps(row) for row in judgments(4))
    path.write_text(lines[:-20], encoding="utf-8")
    assert "row 4" in refusal(read_annotations, path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("instruction", 7),
        ("output_1", None),
        ("output_2", ["text"]),
        ("generator_1", {"name": "x"}),
        ("preference", True),
        ("preference", [1.5]),
        ("preference", {"value": 1}),
    ],
)
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_wrong_types(tmp_path, field, value, suffix):
    rows = [judgment(0), judgment(1), judgment(2, **{field: value})]
    path = tmp_path / f"annotations{suffix}"
    text = (
        json.dumps(rows) if suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows)
    )
    path.write_text(text, encoding="utf-8")
    message = refusal(read_annotations, path)
    assert "row 3" in message
    assert repr(field) in message


@pytest.mark.parametrize(
    "value", [7.3, 0.5, -1, 2.0001, 1e300, "7.3", "nan", "inf", "yes", "", "true", "1,5"]
)
def test_preferences_that_are_none(tmp_path, value):
    path = write_json(tmp_path / "annotations.json", [judgment(0), judgment(1, preference=value)])
    message = refusal(read_annotations, path)
    assert "row 2, field 'preference'" in message
    assert repr(value) in message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_numbers_that_are_not_finite(tmp_path, value, suffix):
    rows = [judgment(0), judgment(1, preference=value), judgment(2)]
    path = tmp_path / f"annotations{suffix}"
    text = (
        json.dumps(rows) if suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows)
    )
    path.write_text(text, encoding="utf-8")
    message = refusal(read_annotations, path)
    assert "row 2, field 'preference'" in message
    assert "null" in message


def test_a_very_long_preference_is_cut_in_the_message(tmp_path):
    path = write_json(tmp_path / "annotations.json", [judgment(0, preference="x" * 10**6)])
    said = refusal(read_annotations, path)
    assert "preference" in said
    assert len(said) < 500


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv"])
@pytest.mark.parametrize("content", [b"", b" \n\t\n"])
def test_empty_files(tmp_path, suffix, content):
    path = tmp_path / f"annotations{suffix}"
    path.write_bytes(content)
    assert "is empty" in refusal(read_annotations, path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("[]", "no rows"),
        ("{}", "expected array, got object"),
        ("null", "expected array, got null"),
        ("[1]", "row 1: expected object, got int"),
        ('"text"', "expected array"),
        ("[[]]", "row 1"),
        ("[{}]", "row 1: object missing required field instruction"),
    ],
)
def test_json_of_another_shape(tmp_path, content, expected):
    path = tmp_path / "annotations.json"
    path.write_text(content, encoding="utf-8")
    assert expected in refusal(read_annotations, path)


def test_a_table_of_only_a_header(tmp_path):
    path = tmp_path / "model_outputs.csv"
    path.write_text("instruction,output,generator\n", encoding="utf-8")
    assert "no rows" in refusal(read_outputs, path)


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv"])
def test_bytes_that_are_not_utf8(tmp_path, suffix):
    path = tmp_path / f"annotations{suffix}"
    path.write_bytes(json.dumps(judgments(3)).encode().replace(b"Answer 1.", b"Answ\xe9r 1."))
    message = refusal(read_annotations, path)
    assert "UTF-8" in message
    assert "row 2" in message


def test_a_duplicate_instruction(tmp_path):
    rows = [*judgments(5), judgment(9, instruction=judgment(2)["instruction"])]
    message = refusal(read_annotations, write_json(tmp_path / "annotations.json", rows))
    assert "row 6, field 'instruction'" in message
    assert "row 3" in message
    assert "Question 2?" in message
    rows = [generation(0), generation(0)]
    assert "row 2" in refusal(read_outputs, write_json(tmp_path / "model_outputs.json", rows))


@pytest.mark.parametrize("field", ["generator_1", "generator_2"])
def test_mixed_generators_of_verdicts(tmp_path, field):
    rows = [*judgments(3), judgment(3, **{field: "somebody else"})]
    message = refusal(read_annotations, write_json(tmp_path / "annotations.json", rows))
    assert f"row 4, field {field!r}: 'somebody else'" in message


def test_mixed_generators_of_outputs(tmp_path):
    rows = [*generations(2), generation(2, generator="somebody else")]
    message = refusal(read_outputs, write_json(tmp_path / "model_outputs.json", rows))
    assert "row 3, field 'generator': 'somebody else'" in message


@pytest.mark.parametrize(
    "field", ["instruction", "output_1", "generator_1", "output_2", "generator_2", "preference"]
)
def test_a_missing_field(tmp_path, field):
    rows = judgments(3)
    del rows[1][field]
    message = refusal(read_annotations, write_json(tmp_path / "annotations.json", rows))
    assert "row 2" in message
    assert field in message


def test_a_missing_column(tmp_path):
    path = tmp_path / "model_outputs.csv"
    path.write_text("instruction,generator\na,b\n", encoding="utf-8")
    message = refusal(read_outputs, path)
    assert "row 1" in message
    assert "output" in message


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("a,b,model,more", "row 2: more values"),
        ("a,b", "row 2, field 'generator'"),
        ('a,"b,model', "not valid CSV"),
    ],
)
def test_broken_rows_of_a_table(tmp_path, row, expected):
    path = tmp_path / "model_outputs.csv"
    path.write_text(f"instruction,output,generator\nq,r,model\n{row}\n", encoding="utf-8")
    assert expected in refusal(read_outputs, path)


def test_another_generator_than_expected(tmp_path):
    path = write_json(tmp_path / "annotations.json", judgments(2))
    assert "'model', but 'phi-2' was expected" in refusal(read_annotations, path, generator="phi-2")
    assert "'baseline', but 'gpt4' was expected" in refusal(read_annotations, path, baseline="gpt4")
    outputs = write_json(tmp_path / "model_outputs.json", generations(2))
    assert "field 'generator'" in refusal(read_outputs, outputs, generator="phi-2")


def test_missing_rows(tmp_path):
    wanted = np.array([text_id(f"Question {number}?") for number in range(10)], dtype=np.uint64)
    path = write_json(tmp_path / "annotations.json", judgments(7))
    message = refusal(read_annotations, path, instructions=wanted)
    assert "lacks 3 of 10 instructions" in message
    assert "number 8" in message
    outputs = write_json(tmp_path / "model_outputs.json", generations(9))
    assert "lacks 1 of 10" in refusal(read_outputs, outputs, instructions=wanted)


@pytest.mark.parametrize("content", ["[" * 200_000, '[{"a":' * 50_000, '{"a":' * 200_000])
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_deeply_nested_json(tmp_path, content, suffix):
    path = tmp_path / f"annotations{suffix}"
    path.write_text(content, encoding="utf-8")
    assert str(path) in refusal(read_annotations, path)


def test_deep_nesting_in_a_field_that_nobody_reads(tmp_path):
    path = tmp_path / "annotations.json"
    row = json.dumps(judgment(0))
    bomb = "[" * 100_000 + "]" * 100_000
    path.write_text(f'[{row[:-1]}, "raw_completion": {bomb}}}]', encoding="utf-8")
    assert "not valid JSON" in refusal(read_annotations, path)


def test_a_number_of_many_digits_in_a_damaged_file(tmp_path):
    path = tmp_path / "annotations.json"
    path.write_text(
        '[{"instruction": "a", "raw": ' + "1" * 10_000 + "}, nonsense", encoding="utf-8"
    )
    said = refusal(read_annotations, path)
    assert "row 1" in said


@pytest.mark.parametrize("name", ["annotations.parquet", "annotations", "annotations.JSON"])
def test_unknown_suffixes(tmp_path, name):
    path = tmp_path / name
    path.write_text(json.dumps(judgments(2)), encoding="utf-8")
    assert ".json, .jsonl, .csv" in refusal(read_annotations, path)


def test_a_folder_and_a_missing_file_cannot_be_read(tmp_path):
    folder = tmp_path / "annotations.json"
    folder.mkdir()
    assert "cannot be read" in refusal(read_annotations, folder)
    assert "No such file" in refusal(read_annotations, tmp_path / "none.json")


def test_the_last_of_many_rows_is_found_quickly(tmp_path):
    rows = judgments(100_000)
    rows[-1]["preference"] = 7.3
    path = write_json(tmp_path / "annotations.json", rows)
    began = time.process_time()
    assert "row 100000, field 'preference'" in refusal(read_annotations, path)
    assert time.process_time() - began < 10


def test_terminal_sequences_in_a_file_do_not_reach_the_terminal(tmp_path):
    path = write_json(
        tmp_path / "annotations.json",
        [judgment(0), judgment(1, generator_2="\x1b[2J\x1b]0;owned\x07")],
    )
    assert "\x1b" not in refusal(read_annotations, path)
