"""Calibration files of the length-controlled GLM: read exactly, or refused in one sentence."""

import csv
from pathlib import Path

import numpy as np
import pytest

from alignboard.errors import InputError
from alignboard.published.calibration import read_calibration

GAMED = """\
model,preference,index,std_delta_len,instruction_difficulty,not_gamed_baseline
verbose,0.75,0,-1.5,0.25,False
verbose,1.0,1,-2.5,-0.5,False
verbose,0.5,2,0.0,3e-05,False
concise,0.25,0,1.5,0.25,False
concise,0.0,1,2.5,-0.5,False
"""
DIFFICULTY = "index,instruction_difficulty\n0,0.25\n1,-0.5\n2,3e-05\n"


def write(folder: Path, gamed: str | bytes = GAMED, difficulty: str | None = DIFFICULTY) -> Path:
    content = gamed.encode() if isinstance(gamed, str) else gamed
    (folder / "df_gamed.csv").write_bytes(content)
    if difficulty is not None:
        (folder / "instruction_difficulty.csv").write_text(difficulty)
    return folder


def assert_is_the_sample(folder: Path):
    calibration = read_calibration(folder)
    assert calibration.difficulty.tolist() == [0.25, -0.5, 3e-05]
    assert calibration.gamed_preference.tolist() == [0.75, 1.0, 0.5, 0.25, 0.0]
    assert calibration.gamed_length.tolist() == [-1.5, -2.5, 0.0, 1.5, 2.5]
    assert calibration.gamed_difficulty.tolist() == [0.25, -0.5, 3e-05, 0.25, -0.5]
    assert calibration.gamed_index.tolist() == [0, 1, 2, 0, 1]
    assert calibration.gamed_index.dtype == np.int64


def test_both_files(tmp_path):
    assert_is_the_sample(write(tmp_path))


def test_difficulties_without_their_own_file_are_those_of_the_gamed_rows(tmp_path):
    assert_is_the_sample(write(tmp_path, difficulty=None))


def reordered(text: str) -> str:
    rows = [line.split(",") for line in text.splitlines()]
    return "".join(f"{i},{','.join(reversed(row))}\n" for i, row in enumerate(rows))


def quoted(text: str) -> str:
    return "".join(
        ",".join(f'"{cell}"' for cell in line.split(",")) + "\n" for line in text.splitlines()
    )


@pytest.mark.parametrize(
    ("gamed", "difficulty"),
    [
        pytest.param(GAMED, DIFFICULTY.replace("index", "", 1), id="unnamed index column"),
        pytest.param(GAMED, "index,instruction_difficulty\n2,3e-05\n0,.25\n1,-.5", id="any order"),
        pytest.param(reordered(GAMED), DIFFICULTY, id="other columns, in another order"),
        pytest.param(quoted(GAMED), quoted(DIFFICULTY), id="quoted"),
        pytest.param(GAMED.replace("\n", "\r\n"), DIFFICULTY, id="Windows line ends"),
        pytest.param("\ufeff" + GAMED, DIFFICULTY, id="byte order mark"),
    ],
)
def test_ways_of_writing_the_same(tmp_path, gamed, difficulty):
    assert_is_the_sample(write(tmp_path, gamed, difficulty))


def test_decimals_lost_in_one_file_are_no_disagreement(tmp_path):
    folder = write(tmp_path, difficulty=DIFFICULTY.replace("-0.5", "-0.5000000001"))
    assert read_calibration(folder).difficulty[1] == -0.5000000001


BAD_GAMED = {
    "no column": (GAMED.replace("std_delta_len", "delta"), ["no column 'std_delta_len'"]),
    "text": (GAMED.replace("-2.5", "long"), ["row 2", "'std_delta_len'", "'long'"]),
    "empty cell": (GAMED.replace("-2.5", ""), ["row 2", "'std_delta_len'", "''"]),
    "nan": (GAMED.replace("-2.5", "nan"), ["row 2", "'std_delta_len'", "'nan'", "finite"]),
    "inf": (GAMED.replace("-2.5", "-inf"), ["row 2", "'std_delta_len'", "'-inf'"]),
    "preference": (GAMED.replace("0.5,2", "1.5,2"), ["row 3", "'preference'", "'1.5'", "0 to 1"]),
    "below": (GAMED.replace("0.5,2", "-0.1,2"), ["row 3", "'preference'", "'-0.1'"]),
    "twice": (GAMED.replace("2.5,-0.5", "2.5,0.25").replace("0.0,1", "0.0,0"), ["row 5", "row 4"]),
    "fraction": (GAMED.replace("0.5,2,", "0.5,2.5,"), ["row 3", "'index'", "'2.5'"]),
    "negative": (GAMED.replace("0.5,2,", "0.5,-2,"), ["row 3", "'index'", "'-2'"]),
    "unknown index": (GAMED.replace("0.5,2,", "0.5,7,"), ["row 3", "'index'", "7", "at most 2"]),
    "two in a cell": (quoted(GAMED).replace('"2"', '"1,2"'), ["row 3", "'index'", "'1,2'"]),
    "disagrees": (GAMED.replace("3e-05", "4e-03"), ["row 3", "'instruction_difficulty'", "0.004"]),
    "not gamed": (GAMED.replace("-0.5,False", "-0.5,True", 1), ["row 2", "'True'"]),
    "short row": (GAMED.replace(",3e-05,False", ""), ["row 3", "4 values", "6 columns"]),
    "open quote": (GAMED.replace("concise", '"concise', 1), ["not a valid csv"]),
    "empty": ("", ["empty"]),
    "blank": ("\n\n", ["empty"]),
    "header only": (GAMED.splitlines()[0] + "\n", ["no rows"]),
    "two columns": (GAMED.replace("model", "index", 1), ["two columns 'index'"]),
    "not UTF-8": (GAMED.replace("concise", "conci\xdfe").encode("latin-1"), ["byte", "UTF-8"]),
}


@pytest.mark.parametrize("case", BAD_GAMED)
def test_a_bad_gamed_file_is_refused_by_place(tmp_path, case):
    content, words = BAD_GAMED[case]
    assert_refused(write(tmp_path, content), ["df_gamed.csv", *words])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["empty"]),
        ("index,difficulty\n0,1\n", ["no column 'instruction_difficulty'"]),
        (DIFFICULTY.replace("\n1,", "\n0,"), ["row 2", "'index'", "already in row 1"]),
        (DIFFICULTY.replace("1,-0.5\n", ""), ["'index'", "1 is missing"]),
        (DIFFICULTY.replace("-0.5", "hard"), ["row 2", "'instruction_difficulty'", "'hard'"]),
        (DIFFICULTY.replace("-0.5", "NaN"), ["row 2", "'instruction_difficulty'", "'NaN'"]),
        (DIFFICULTY + "99999999999999999999,1\n", ["row 4", "'index'"]),
    ],
)
def test_a_bad_difficulty_file_is_refused_by_place(tmp_path, content, words):
    assert_refused(write(tmp_path, difficulty=content), ["instruction_difficulty.csv", *words])


def test_a_gap_in_the_gamed_rows_is_refused_where_they_are_the_difficulties(tmp_path):
    folder = write(tmp_path, GAMED.replace("0.5,2,", "0.5,3,"), difficulty=None)
    assert_refused(folder, ["df_gamed.csv", "'index'", "2 is missing"])


def test_disagreeing_difficulties_within_the_gamed_rows_are_refused(tmp_path):
    folder = write(tmp_path, GAMED.replace(",2.5,-0.5", ",2.5,-0.6"), None)
    assert_refused(folder, ["df_gamed.csv", "'instruction_difficulty'", "index 1"])


def test_missing_files_are_named(tmp_path):
    assert_refused(tmp_path, ["--assets", "df_gamed.csv", "instruction_difficulty.csv"])


def assert_refused(folder: Path, words: list[str]):
    with pytest.raises(InputError) as caught:
        read_calibration(folder)
    message = str(caught.value)
    assert [word for word in words if word not in message] == []
    assert message.endswith(".")
    assert "\n" not in message


def test_released_files_are_read_as_their_text_says(released):
    folder = released / "length_control"
    calibration = read_calibration(folder)
    with (folder / "df_gamed.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1610
    assert calibration.gamed_preference.tolist() == [float(row["preference"]) for row in rows]
    assert calibration.gamed_length.tolist() == [float(row["std_delta_len"]) for row in rows]
    assert calibration.gamed_index.tolist() == [int(row["index"]) for row in rows]
    assert calibration.difficulty.shape == (805,)
    assert np.array_equal(
        calibration.difficulty[calibration.gamed_index], calibration.gamed_difficulty
    )
