"""AlpacaEval's files: what is written is read back, and what they say is what the columns hold."""

import json
import math
import os
import random
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignboard.errors import InputError
from alignboard.records import Generation, Judgment, is_switched, text_id
from alignboard.results.formats import (
    SUFFIXES,
    read_annotations,
    read_outputs,
    read_rows,
    write_atomically,
    write_rows,
)
from builders import generation, generations, judgment, judgments, write_json

# Any text but half surrogate pairs, which no UTF-8 file can hold as they are.
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
nasty = text | st.sampled_from(
    [
        '"',
        '""',
        "a,b",
        "line\nbreak",
        "\r\n",
        "\r",
        "\t",
        " padded ",
        "'",
        "\\",
        "\\n",
        "\u2028",
        "🙂",
        "[[",
        "\0",
        "",
    ]
)
preference = st.none() | st.floats(1, 2) | st.sampled_from(["1", "1.5", "2.0", 0.0])
unchanged_files = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def quick_writes(monkeypatch):
    """Without waiting for the disk, which these tests write to hundreds of times."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.mark.usefixtures("quick_writes")
@pytest.mark.parametrize("suffix", SUFFIXES)
@unchanged_files
@given(rows=st.lists(st.builds(Generation, nasty, nasty, nasty), min_size=1, max_size=5))
def test_generations_survive_a_round_trip(tmp_path, suffix, rows):
    path = tmp_path / f"rows{suffix}"
    write_rows(path, rows)
    found = read_rows(path, Generation)
    assert found == rows


@pytest.mark.usefixtures("quick_writes")
@pytest.mark.parametrize("suffix", SUFFIXES)
@unchanged_files
@given(
    rows=st.lists(
        st.builds(Judgment, nasty, nasty, nasty, nasty, nasty, preference), min_size=1, max_size=5
    )
)
def test_judgments_survive_a_round_trip(tmp_path, suffix, rows):
    path = tmp_path / f"rows{suffix}"
    write_rows(path, rows)
    found = read_rows(path, Judgment)
    for one, other in zip(found, rows, strict=True):
        for field in Judgment.__struct_fields__:
            ours, theirs = getattr(one, field), getattr(other, field)
            if field == "preference" and theirs is not None:
                assert float(ours) == float(theirs)  # csv has no numbers, only texts
            else:
                assert ours == theirs


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_gives_the_same_columns(tmp_path, suffix):
    path = tmp_path / f"annotations{suffix}"
    write_rows(path, [Judgment(**judgment(number)) for number in range(20)])
    table = read_annotations(path)
    assert table.preference == pytest.approx([1 + (number % 4) / 3 for number in range(20)])
    assert table.length_1.tolist() == [len(judgment(number)["output_1"]) for number in range(20)]
    assert table.length_2.tolist() == [len(judgment(number)["output_2"]) for number in range(20)]
    assert table.instruction.tolist() == [text_id(f"Question {number}?") for number in range(20)]
    assert table.switched.tolist() == [is_switched(f"Question {number}?") for number in range(20)]
    assert (table.generator, table.baseline, table.annotator) == ("model", "baseline", "judge")


def test_columns_of_outputs(tmp_path):
    rows = [*generations(3), generation(3, output=" \n"), generation(4, output="")]
    table = read_outputs(write_json(tmp_path / "model_outputs.json", rows))
    assert table.length.tolist() == [len(row["output"]) for row in rows]
    assert table.blank.tolist() == [False, False, False, True, True]
    assert table.generator == "model"
    assert len(table) == 5


def test_verdicts_in_every_spelling(tmp_path):
    spelled = [1, 2.0, "1", "1.25", 0, 0.0, "0", None, 1.5]
    rows = [judgment(number, preference=value) for number, value in enumerate(spelled)]
    table = read_annotations(write_json(tmp_path / "annotations.json", rows))
    expected = [1, 2, 1, 1.25, 1.5, 1.5, 1.5, math.nan, 1.5]
    np.testing.assert_array_equal(table.preference, expected)
    assert table.n_unparsed == 1


@pytest.mark.parametrize("written", ["nan", "inf", "", "first", 2.5, 0.5, -0.1, "0x1"])
def test_what_is_no_preference_is_an_error_of_its_row(tmp_path, written):
    values = [1.0, "2", None, written, 2.0]
    rows = [judgment(number, preference=value) for number, value in enumerate(values)]
    with pytest.raises(InputError, match=r"row 4, field 'preference': .* is no preference"):
        read_annotations(write_json(tmp_path / "annotations.json", rows))


def test_lengths_are_characters_not_bytes(tmp_path):
    rows = [judgment(0, output_1="é🙂日", output_2="ab")]
    table = read_annotations(write_json(tmp_path / "annotations.json", rows))
    assert table.length_1.tolist() == [3]


def test_half_a_surrogate_pair_is_read_as_text_that_files_can_hold(tmp_path):
    """JSON can escape one, as Python's writer does; every row around it is still read, with the length it has."""
    rows = [judgment(0), judgment(1, instruction="\ud83d?", output_2="\ud83d broken"), judgment(2)]
    table = read_annotations(write_json(tmp_path / "annotations.json", rows))
    assert table.length_2[1] == len("\ud83d broken")
    assert len(set(table.instruction.tolist())) == 3
    lines = tmp_path / "annotations.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    np.testing.assert_array_equal(read_annotations(lines).instruction, table.instruction)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    write_rows(path, [Generation(**generation(0))])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_outputs(path).generator == "model"


def test_unknown_fields_and_blank_lines_are_skipped(tmp_path):
    path = tmp_path / "annotations.jsonl"
    lines = [
        json.dumps(judgment(number, raw_completion={"logprobs": [1, 2]})) for number in range(3)
    ]
    path.write_text("\n\n".join(lines) + "\n\n", encoding="utf-8")
    assert len(read_annotations(path)) == 3


def test_columns_are_those_of_the_texts_however_a_file_writes_them(tmp_path):
    """Files of a folder share instructions and baseline outputs, which are decoded where they are written anew."""
    rows = [judgment(n, instruction=f"é🙂 {n}", output_1="日\n" * n) for n in range(5)]
    tables = []
    for name, extra, options in (
        ("plain", {}, {}),
        ("again", {}, {}),
        ("unescaped", {}, {"ensure_ascii": False, "indent": 1}),
        ("usual", {"raw_completion": {"a": [1]}, "price_per_example": 0.1}, {}),
        ("unknown", {"mine": "x"}, {}),
    ):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps([row | extra for row in rows], **options), encoding="utf-8")
        tables.append(read_annotations(path))
        assert tables[-1].length_1.tolist() == [0, 2, 4, 6, 8]
        for column in ("instruction", "output_1", "output_2", "preference", "switched"):
            np.testing.assert_array_equal(getattr(tables[-1], column), getattr(tables[0], column))
    tables[0].instruction[:] = 0
    tables[0].length_1[:] = 0
    np.testing.assert_array_equal(
        read_annotations(tmp_path / "again.json").instruction, tables[1].instruction
    )
    assert read_annotations(tmp_path / "again.json").length_1.tolist() == [0, 2, 4, 6, 8]
    rows[3] |= {"instruction": "é🙂 8", "output_1": "other"}
    changed = read_annotations(write_json(tmp_path / "changed.json", rows))
    assert changed.instruction[3] == text_id("é🙂 8")
    assert changed.length_1.tolist() == [0, 2, 4, 5, 8]
    assert (changed.instruction != tables[1].instruction).tolist() == [n == 3 for n in range(5)]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"instruction": None}, r"row 2, field 'instruction': expected str, got null"),
        ({"output_1": ["a"]}, r"row 2, field 'output_1': expected str, got array"),
        ({"instruction": "question 0"}, r"row 2, field 'instruction': the same instruction"),
    ],
)
def test_what_is_wrong_in_a_shared_column_is_said_where_the_first_file_was_read(
    tmp_path, row, said
):
    rows = [judgment(n, instruction=f"question {n}") for n in range(3)]
    read_annotations(write_json(tmp_path / "right.json", rows))
    rows[1] |= row
    with pytest.raises(InputError, match=said):
        read_annotations(write_json(tmp_path / "wrong.json", rows))


def test_a_second_part_of_an_instruction_is_seen_among_the_usual_columns(tmp_path):
    rows = [judgment(n, raw_completion="x") for n in range(3)]
    plain = read_annotations(write_json(tmp_path / "plain.json", rows))
    rows[1] |= {"input": "a second part"}
    other = read_annotations(write_json(tmp_path / "other.json", rows))
    assert (other.instruction != plain.instruction).tolist() == [False, True, False]


def test_the_digest_is_of_the_content(tmp_path):
    first = read_annotations(write_json(tmp_path / "a" / "annotations.json", judgments(3)))
    same = read_annotations(write_json(tmp_path / "b" / "annotations.json", judgments(3)))
    other = read_annotations(write_json(tmp_path / "c" / "annotations.json", judgments(4)))
    assert first.digest == same.digest != other.digest


def test_several_annotators_are_all_named_and_none_is_the_folder(tmp_path):
    rows = [judgment(0, annotator="gpt"), judgment(1, annotator="claude")]
    assert read_annotations(write_json(tmp_path / "x.json", rows)).annotator == "claude + gpt"
    rows = [judgment(0, annotator=None)]
    assert read_annotations(write_json(tmp_path / "folder" / "x.json", rows)).annotator == "folder"


def test_a_hundred_thousand_rows_take_seconds(tmp_path):
    path = write_json(tmp_path / "annotations.json", judgments(100_000))
    began = time.process_time()
    table = read_annotations(path)
    assert len(table) == 100_000
    assert time.process_time() - began < 10


# Writing.


def test_a_failing_encode_leaves_the_old_file(tmp_path):
    path = tmp_path / "model_outputs.json"
    write_rows(path, [Generation(**generation(0))])
    before = path.read_bytes()
    with pytest.raises(UnicodeEncodeError):
        write_rows(path, [Generation("half a pair \ud83d", "", "")])
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["model_outputs.json"]


def test_a_failing_rename_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    write_atomically(path, b"old")

    def refuse(*_):
        raise OSError("disk full")

    monkeypatch.setattr(type(path), "replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.json"]


def test_parents_are_made(tmp_path):
    write_rows(tmp_path / "a" / "b" / "rows.csv", [Generation(**generation(0))])
    assert read_outputs(tmp_path / "a" / "b" / "rows.csv").generator == "model"


# The order that the judge was shown.


def test_the_order_is_upstreams_coin():
    # Made with upstream's own RandomSwitchTwoColumnsProcessor, seed 0.
    for instruction in ["", "a", "日本", "What are the names?"]:
        expected = random.Random(f"is_switched_outputs{instruction}0").choices([False, True], k=1)[
            0
        ]
        assert is_switched(instruction) is expected
    assert is_switched("half a pair \ud83d") in (True, False)


def test_the_order_against_the_judges_own_tokens(released):
    """The raw completion of the weighted judge names its tokens: m = the output shown first, M = the second."""
    folder = released / "results" / "NullModel" / "weighted_alpaca_eval_gpt4_turbo"
    rows = json.loads((folder / "annotations.json").read_text(encoding="utf-8"))
    agree = compared = 0
    for row in rows:
        logprobs = {
            entry["token"]: entry["logprob"]
            for entry in row["raw_completion"]["logprobs"]["content"][0]["top_logprobs"]
        }
        first, second = (
            math.exp(logprobs.get("m", -math.inf)),
            math.exp(logprobs.get("M", -math.inf)),
        )
        if row["preference"] is None or first + second == 0 or first == second:
            continue
        shown = second / (first + second) + 1  # 2 = the output shown second is preferred
        model_is_first = is_switched(row["instruction"])
        compared += 1
        agree += math.isclose(
            row["preference"], 3 - shown if model_is_first else shown, abs_tol=1e-6
        )
    assert compared == 805
    assert agree == 805


@pytest.mark.parametrize(
    "codes",
    [
        {"loss": 0, "win": 1},
        {"loss": "0", "win": "1"},
        {"loss": 0.0, "win": 1.0},
        {"loss": 0, "win": 2},
        {"loss": 0, "draw": 1, "win": 2},
        {"draw": 0, "win": 2},
    ],
)
def test_zeros_of_another_coding_are_no_draws(tmp_path, codes):
    """0 is a draw in old files of AlpacaEval; where it is the baseline's win, every loss would count a half."""
    names = ["loss", "win", "loss", "draw", "win", "loss", "draw"] * 4
    rows = [
        {
            "instruction": f"q{n}", "output_1": "a", "output_2": "b", "generator_1": "base",
            "generator_2": "m", "preference": codes[name], "annotator": "j",
        }
        for n, name in enumerate(names) if name in codes
    ]  # fmt: skip
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(InputError, match=r"write 1\.5 for a draw, 1 for the baseline's win"):
        read_annotations(path)


def test_a_few_zeros_beside_both_sides_are_the_draws_of_old_files(tmp_path):
    rows = [
        {
            "instruction": f"q{n}", "output_1": "a", "output_2": "b", "generator_1": "base",
            "generator_2": "m", "preference": 0 if n == 3 else 1 + n % 2, "annotator": "j",
        }
        for n in range(20)
    ]  # fmt: skip
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    assert read_annotations(path).preference[3] == 1.5
