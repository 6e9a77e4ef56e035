"""Preference data: every schema gives the rows of the messages written out, and bad input is one sentence."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("datasets")

import pyarrow as pa
from click.testing import CliRunner
from pyarrow import parquet

from alignboard.cli.data import data as data_command
from alignboard.data.preferences.read import read_rows
from alignboard.data.preferences.schemas import Kind
from alignboard.data.preferences.sources import PreferenceSource, local_files
from alignboard.errors import InputError


def u(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def a(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def written(folder: Path, rows: Sequence[Mapping[str, Any]], name: str = "d.jsonl") -> str:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


PAIR = {"prompt": [u("q")], "chosen": [a("good")], "rejected": [a("bad")]}
HH = "\n\nHuman: q\n\nAssistant: "
PAIRS: dict[str, dict[str, Any]] = {
    "messages": {**PAIR},
    "strings": {"prompt": "q", "chosen": "good", "rejected": "bad"},
    "string and messages": {"prompt": "q", "chosen": [a("good")], "rejected": [a("bad")]},
    "implicit": {"chosen": [u("q"), a("good")], "rejected": [u("q"), a("bad")]},
    "ultrafeedback binarised": {
        "prompt": "q",
        "prompt_id": "1",
        "chosen": [u("q"), a("good")],
        "rejected": [u("q"), a("bad")],
        "score_chosen": 8.0,
        "score_rejected": 5.0,
    },
    "hh": {"chosen": HH + "good", "rejected": HH + "bad"},
    "orca": {"system": "", "question": "q", "chosen": "good", "rejected": "bad"},
    "shp": {
        "history": "q",
        "human_ref_A": "bad",
        "human_ref_B": "good",
        "labels": 0,
        "score_ratio": 3.0,
        "post_id": "x",
    },
    "ultrafeedback": {
        "instruction": "q",
        "completions": [
            {"response": "bad", "overall_score": 2.0},
            {"response": "good", "overall_score": 9.0},
        ],
    },
    "sharegpt": {
        "conversations": [{"from": "human", "value": "q"}],
        "chosen": {"from": "gpt", "value": "good"},
        "rejected": {"from": "gpt", "value": "bad"},
    },
}


@pytest.mark.parametrize("form", PAIRS)
def test_every_form_of_pairs_gives_the_same_row(tmp_path: Path, form: str) -> None:
    rows, report = read_rows(PreferenceSource(written(tmp_path, [PAIRS[form]])), "pair")
    assert rows[0] == PAIR
    assert (report.rows, report.kept, report.kind) == (1, 1, "pair")


DEMONSTRATIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "messages": ({"messages": [u("q"), a("r")]}, {"messages": [u("q"), a("r")]}),
    "ultrachat": (
        {"prompt": "q", "prompt_id": "1", "messages": [u("q"), a("r")]},
        {"messages": [u("q"), a("r")]},
    ),
    "sharegpt": (
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "r"}]},
        {"messages": [u("q"), a("r")]},
    ),
    "alpaca": (
        {"instruction": "q", "input": "x", "output": "r"},
        {"prompt": [u("q\nx")], "completion": [a("r")]},
    ),
    "completion": (
        {"prompt": "q", "completion": "r"},
        {"prompt": [u("q")], "completion": [a("r")]},
    ),
}


@pytest.mark.parametrize("form", DEMONSTRATIONS)
def test_every_form_of_demonstrations(tmp_path: Path, form: str) -> None:
    raw, expected = DEMONSTRATIONS[form]
    rows, _ = read_rows(PreferenceSource(written(tmp_path, [raw])), "demonstration")
    assert rows[0] == expected


def test_rated_replies(tmp_path: Path) -> None:
    rows, report = read_rows(
        PreferenceSource(written(tmp_path, [{"prompt": "q", "completion": "r", "label": True}]))
    )
    assert rows[0] == {"prompt": [u("q")], "completion": [a("r")], "label": True}
    assert report.kind == "rated"


def test_a_transcript_is_split_at_its_last_assistant_turn(tmp_path: Path) -> None:
    start = "\n\nHuman: one\n\nAssistant: two\n\nHuman: three\n\nAssistant:"
    file = written(tmp_path, [{"chosen": f"{start} yes: it is", "rejected": f"{start} no"}])
    rows, _ = read_rows(PreferenceSource(file), "pair")
    assert rows[0]["prompt"] == [u("one"), a("two"), u("three")]
    assert rows[0]["chosen"] == [a("yes: it is")]


@pytest.mark.parametrize("ending", ["json", "csv", "parquet", "folder"])
def test_files_of_every_kind(tmp_path: Path, ending: str) -> None:
    import datasets

    rows = [PAIRS["strings"], {"prompt": "p", "chosen": "yes", "rejected": "no"}]
    found = datasets.Dataset.from_list(rows)
    path = tmp_path / ("d" if ending == "folder" else f"d.{ending}")
    if ending == "json":
        path.write_text(json.dumps(rows, indent=1))
    elif ending == "csv":
        found.to_csv(str(path))
    elif ending == "parquet":
        found.to_parquet(str(path))
    else:
        found.save_to_disk(str(path))
    read, _ = read_rows(PreferenceSource(str(path)), "pair")
    assert read[0] == PAIR
    assert len(read) == 2
    assert local_files(str(path))


def test_an_entry_of_dataset_info_says_file_and_columns(tmp_path: Path) -> None:
    written(tmp_path, [{"frage": "q", "gut": "good", "schlecht": "bad"}], "mine.jsonl")
    columns = {"prompt": "frage", "chosen": "gut", "rejected": "schlecht"}
    entry = {"file_name": "mine.jsonl", "ranking": True, "columns": columns}
    (tmp_path / "dataset_info.json").write_text(json.dumps({"mine": entry}))
    name = f"{tmp_path}/dataset_info.json#mine"
    rows, _ = read_rows(PreferenceSource(name), "pair")
    assert rows[0] == PAIR
    assert local_files(name) == [tmp_path / "mine.jsonl"]
    with pytest.raises(InputError, match="has no entry 'mime', did you mean 'mine'"):
        read_rows(PreferenceSource(f"{tmp_path}/dataset_info.json#mime"), "pair")


def test_columns_are_renamed_and_may_be_swapped(tmp_path: Path) -> None:
    file = written(tmp_path, [{"task": "q", "chosen": "bad", "rejected": "good"}])
    columns = {"prompt": "task", "chosen": "rejected", "rejected": "chosen"}
    rows, _ = read_rows(PreferenceSource(file, columns=columns), "pair")
    assert rows[0] == PAIR
    with pytest.raises(InputError, match=r"no column 'tsk', which columns.prompt names"):
        read_rows(PreferenceSource(file, columns={"prompt": "tsk"}), "pair")


def test_shp_takes_five_pairs_of_a_post_and_clear_ones(tmp_path: Path) -> None:
    rows = [{**PAIRS["shp"], "human_ref_A": f"bad {n}"} for n in range(6)]
    rows.append({**PAIRS["shp"], "post_id": "y", "score_ratio": 1.5})
    _, report = read_rows(PreferenceSource(written(tmp_path, rows)), "pair")
    assert report.kept == 5
    assert report.dropped == {
        "more than 5 pairs of one post": (1, 6),
        "score_ratio is below 2": (1, 7),
    }


def test_ultrafeedback_draws_the_rejected_reply_by_the_seed(tmp_path: Path) -> None:
    replies = [{"response": str(n), "overall_score": float(n)} for n in range(9)]
    file = written(tmp_path, [{"instruction": "q", "completions": replies}] * 1)
    drawn = {
        seed: read_rows(PreferenceSource(file), "pair", seed)[0][0]["rejected"][0]["content"]
        for seed in range(8)
    }
    assert "8" not in drawn.values()
    assert len(set(drawn.values())) > 1
    assert read_rows(PreferenceSource(file), "pair", 3)[0][0]["rejected"][0]["content"] == drawn[3]


GOOD: dict[str, Any] = PAIRS["strings"]
BAD: list[tuple[list[Any], Kind | None, str]] = [
    ([GOOD, {**GOOD, "chosen": None}], "pair", "d.jsonl, row 2: the column chosen is null"),
    ([{"a": 1, "b": 2}], "pair", "the columns a, b are no known schema; the nearest"),
    ([{**GOOD, "question": "q"}], "pair", "the schemas pairs and orca fit its columns; say which"),
    ([{"chosen": "x", "rejected": "y"}], "pair", "text without a prompt"),
    (
        [{"prompt": "q", "completion": "r", "label": False}],
        "demonstration",
        "the schemas completions and rated fit its columns; say which, schema: completions",
    ),
    (
        [{"prompt": "q", "completion": "r", "label": False}],
        "pair",
        "its columns are those of rated (rated replies), where pairs are trained on (alpaca-pairs or",
    ),
    (
        [{"messages": [u("q"), a("r"), u("s")]}],
        "demonstration",
        "row 1: the column messages ends with a message that is not the assistant's",
    ),
    ([{"messages": [{"role": "tool", "content": "x"}]}], "demonstration", "the role 'tool'"),
    ([{"chosen": [a("x")], "rejected": [a("y")]}], "pair", "a reply and no prompt"),
    ([{**GOOD, "rejected": "good"}], "pair", "1 of 1 rows cannot be used; in 1 of them chosen and"),
    ([{**GOOD, "rejected": " "}], "pair", "the rejected reply is empty"),
    ([GOOD] * 8, "pair", "7 of 8 rows repeat an earlier row"),
    (
        [{"chosen": [u("q"), a("x")], "rejected": [u("r"), a("y")]}],
        "pair",
        "chosen and rejected have different prompts",
    ),
    (
        [{**GOOD, "score_chosen": 1.0, "score_rejected": 2.0}],
        "pair",
        "chosen and rejected are swapped",
    ),
]


@pytest.mark.parametrize(("rows", "kind", "message"), BAD)
def test_bad_rows_are_one_sentence(
    tmp_path: Path, rows: list[Any], kind: Kind | None, message: str
) -> None:
    with pytest.raises(InputError) as error:
        read_rows(PreferenceSource(written(tmp_path, rows)), kind)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("d.jsonl", "", "d.jsonl is empty"),
        ("d.jsonl", '{"a": 1}\n{"a": \n', "d.jsonl, line 2: broken JSON"),
        ("d.json", '[{"a": 1},\n {"a" 2}]', "d.json, line 2: broken JSON"),
        ("d.json", "[" * 100_000, "d.json, line 1: broken JSON"),
        ("d.jsonl", '{"a": 1}\n' + "[" * 100_000, "d.jsonl, line 2: an object was expected"),
        ("d.jsonl", '{"a": ' + "[" * 100_000, "d.jsonl, line 1: broken JSON"),
        ("d.jsonl", '{"a": ' * 900 + "1" + "}" * 900, "d.jsonl cannot be read"),
        # Arrow ends the process on the next three.
        ("d.jsonl", 'null\n{"a": 1}\n', "d.jsonl, line 1: an object was expected"),
        ("d.json", "null", "d.json, line 1: an object was expected"),
        ("d.json", '[Infinity, {"a": 1}]', "d.json, row 1: an object was expected"),
        ("d.json", '[{"a": 1}, 5]', "d.json, row 2: an object was expected"),
        ("d.jsonl", '{"a": 1}\n[1]\n', "d.jsonl, line 2: an object was expected"),
        (
            "d.jsonl",
            '{"prompt": "a", "completion": "b", "label": [1]}\n',
            "row 1: the column label is",
        ),
        (
            "d.jsonl",
            '{"messages": [{"role": ["user"], "content": "x"}]}\n',
            "row 1: the column messages.0. has the role",
        ),
        (
            "d.jsonl",
            (
                '{"instruction": "a", "completions": [{"overall_score": {"a": 1}, "response": "x"}, '
                '{"overall_score": {"a": 2}, "response": "y"}]}\n'
            ),
            "row 1: a value is of another type than ultrafeedback",
        ),
        ("d.csv", "prompt,chosen,rejected\n", "holds no rows"),
    ],
)
def test_bad_files_are_one_sentence(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_rows(PreferenceSource(str(tmp_path / name)))
    with pytest.raises(InputError, match="There is no file"):
        read_rows(PreferenceSource(str(tmp_path / "none.jsonl")))


@pytest.mark.parametrize("name", ["d.jsonl", "d.json", "d.csv"])
def test_texts_that_are_not_utf8_are_one_sentence(tmp_path: Path, name: str) -> None:
    row = b'{"prompt": "a\x95", "chosen": "b", "rejected": "c"}'
    of = {
        "d.jsonl": row,
        "d.json": b"[" + row + b"]",
        "d.csv": b"prompt,chosen,rejected\na\x95,b,c\n",
    }
    (tmp_path / name).write_bytes(of[name])
    done = CliRunner().invoke(data_command, ["check", str(tmp_path / name)])
    assert isinstance(done.exception, InputError)
    assert re.search(r"not UTF-8|'utf-8' codec", str(done.exception))
    assert "Failed to" not in done.output  # as datasets reports it, too


def test_parquet_whose_texts_are_not_utf8_is_one_sentence(tmp_path: Path) -> None:
    row = {"prompt": "aMARKa", "chosen": "b", "rejected": "c"}
    file = tmp_path / "d.parquet"
    parquet.write_table(pa.Table.from_pylist([row]), file, compression="none", use_dictionary=False)
    file.write_bytes(file.read_bytes().replace(b"aMARKa", b"aMAR\x95a"))
    with pytest.raises(InputError, match=r"d\.parquet holds texts that are not UTF-8"):
        read_rows(PreferenceSource(str(file)))


def test_data_check_reports_what_is_conspicuous(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{n}", "chosen": "a long reply", "rejected": "short"} for n in range(9)]
    file = written(tmp_path, [*rows, {"prompt": "q", "chosen": "same", "rejected": "same"}])
    report = tmp_path / "report.json"
    done = CliRunner().invoke(
        data_command, ["check", file, "--recipe", "demo/dpo", "--json", str(report)]
    )
    assert done.exit_code == 0, done.output
    assert "9 of 10 rows, read as pairs (pair)" in done.output
    assert "chosen and rejected are the same (first: row 10)" in done.output
    assert "longer one in 100% of the pairs" in done.output
    assert json.loads(report.read_text())["kept"] == 9


REAL = os.environ.get("ALIGNBOARD_REAL")


@pytest.mark.skipif(REAL is None, reason="ALIGNBOARD_REAL names no folder of released data")
@pytest.mark.parametrize(
    ("name", "schema", "n"),
    [
        ("dpo_en_demo.json", "sharegpt-pairs", 300),
        ("dataset_info.json#dpo_en_demo", "sharegpt-pairs", 300),
        ("kto_en_demo.json", "rated-messages", 300),
        ("dataset_info.json#kto_en_demo", "rated-messages", 300),
        ("alpaca_en_demo.json", "alpaca", 999),
        ("dataset_info.json#alpaca_en_demo", "alpaca", 999),
        ("hhh_eval.json", "conversations", 221),
    ],
)
def test_released_data_are_read(name: str, schema: str, n: int) -> None:
    _, report = read_rows(PreferenceSource(f"{REAL}/preferences/{name}"))
    assert (report.schema, report.kept) == (schema, n)
