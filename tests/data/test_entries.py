"""LLaMA-Factory's `dataset_info.json`: each form of entry is read right, or refused in a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("datasets")

from alignboard.data.preferences.read import read_rows
from alignboard.data.preferences.sources import PreferenceSource, entry_of, local_files
from alignboard.errors import InputError
from alignboard.pipeline.plans.build import build_graph
from alignboard.pipeline.training import TrainingRequest, training_plan


def u(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def a(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


S = {"role": "system", "content": "Be brief."}
ALPACA = {"instruction": "q", "input": "more", "output": "good", "system": S["content"]}
SHAREGPT = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "good"}]}
OPENAI = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}  # fmt: skip


def entry(folder: Path, row: dict[str, Any], declared: dict[str, Any]) -> str:
    """The name of an entry for a file of this row; what is declared may name another file."""
    (folder / "d.json").write_text(json.dumps([row, {**row, "id": 2}]))
    info = {"other": {}, "mine": {"file_name": "d.json", **declared}}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return f"{folder}/dataset_info.json#mine"


@pytest.mark.parametrize(
    ("row", "declared", "expected"),
    [
        pytest.param(
            ALPACA, {}, {"prompt": [S, u("q\nmore")], "completion": [a("good")]}, id="alpaca"
        ),
        pytest.param(
            {"task": "q", "context": "more", "reply": "good", "role": S["content"], "past": [["1", "2"]]},
            {
                "columns": {
                    "prompt": "task",
                    "query": "context",
                    "response": "reply",
                    "system": "role",
                    "history": "past",
                }
            },
            {"prompt": [S, u("1"), a("2"), u("q\nmore")], "completion": [a("good")]},
            id="columns and history",
        ),
        pytest.param(
            {"instruction": "q", "input": "", "output": "good", "kept": False},
            {"columns": {"kto_tag": "kept"}},
            {"prompt": [u("q")], "completion": [a("good")], "label": False},
            id="alpaca with labels",
        ),
        pytest.param(
            {"task": "q", "reply": "good", "kept": True},
            {"columns": {"prompt": "task", "response": "reply", "kto_tag": "kept"}},
            {"prompt": [u("q")], "completion": [a("good")], "label": True},
            id="alpaca with labels and columns",
        ),
        pytest.param(
            {**SHAREGPT, "kept": True},
            {"formatting": "sharegpt", "columns": {"kto_tag": "kept"}},
            {"prompt": [u("q")], "completion": [a("good")], "label": True},
            id="sharegpt with labels",
        ),
        pytest.param(
            SHAREGPT, {"formatting": "sharegpt"}, {"messages": [u("q"), a("good")]}, id="sharegpt"
        ),
        pytest.param(
            {"talk": [{"who": "USER", "text": "q"}, {"who": "BOT", "text": "good"}]},
            {
                "formatting": "sharegpt",
                "columns": {"messages": "talk"},
                "tags": {"role_tag": "who", "content_tag": "text", "user_tag": "USER", "assistant_tag": "BOT"},
            },
            {"messages": [u("q"), a("good")]},
            id="tags",
        ),
        pytest.param(
            {"messages": [S, u("q"), a("good")]},
            {"formatting": "openai", "columns": {"messages": "messages"}},
            {"messages": [S, u("q"), a("good")]},
            id="openai",
        ),
        pytest.param(
            {"instruction": "q", "chosen": "good", "rejected": "bad"},
            {"ranking": True, "columns": {"chosen": "chosen", "rejected": "rejected"}},
            {"prompt": [u("q")], "chosen": [a("good")], "rejected": [a("bad")]},
            id="alpaca pairs",
        ),
        pytest.param(
            {"messages": [u("q")], "chosen": a("good"), "rejected": a("bad")},
            {
                "formatting": "sharegpt",
                "ranking": True,
                "columns": {"messages": "messages", "chosen": "chosen", "rejected": "rejected"},
                "tags": OPENAI,
            },
            {"prompt": [u("q")], "chosen": [a("good")], "rejected": [a("bad")]},
            id="messages with pairs",
        ),
        pytest.param(
            {
                "talk": [{"from": "human", "text": "q"}],
                "best": {"from": "gpt", "text": "good"},
                "worst": {"from": "gpt", "text": "bad"},
            },
            {
                "formatting": "sharegpt",
                "ranking": True,
                "columns": {"messages": "talk", "chosen": "best", "rejected": "worst"},
                "tags": {"content_tag": "text"},
            },
            {"prompt": [u("q")], "chosen": [a("good")], "rejected": [a("bad")]},
            id="sharegpt pairs with tags",
        ),
    ],
)  # fmt: skip
def test_an_entry_is_read(
    tmp_path: Path, row: dict[str, Any], declared: dict[str, Any], expected: dict[str, Any]
) -> None:
    rows, _ = read_rows(PreferenceSource(entry(tmp_path, row, declared)))
    assert rows[0] == expected


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"columns": {"promt": "task"}}, "no field 'columns.promt', did you mean 'prompt'"),
        ({"columns": ["task"]}, "Expected `object`, got `array` - at `$.columns`"),
        ({"formatting": "vicuna"}, "it takes alpaca, sharegpt, openai"),
        ({"formatting": "\ud83d"}, "it takes alpaca, sharegpt, openai"),
        ({"file_name": 7}, "$.file_name"),
        ({"file_name": f"{'a' * 300}.json"}, "cannot be read: File name too long"),
        ({"file_name": "a" * 300}, "a .json, .jsonl, .csv, .parquet file was expected"),
        ({"file_name": None, "script_url": "x"}, "has neither file_name nor hf_hub_url"),
        ({"file_name": "wiki.txt"}, "a .json, .jsonl, .csv, .parquet file was expected"),
        ({"columns": {"tools": "tools"}}, "has columns.tools, which no training here reads"),
        ({"columns": {"images": "images"}}, "has columns.images"),
        ({"ranking": True}, "pairs need columns.chosen and columns.rejected"),
        ({"num_samples": 5}, "has num_samples"),
        ({"fromatting": "sharegpt"}, "no field 'fromatting', did you mean 'formatting'"),
        ({"columns": {"query": "more"}}, "has no column 'more', which columns.input names"),
    ],
)
def test_what_an_entry_cannot_say_is_a_sentence(
    tmp_path: Path, declared: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as error:
        read_rows(PreferenceSource(entry(tmp_path, ALPACA, declared)))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("history", [[["q"]], ["q", "a"], [["q", "a", "b"]]])
def test_a_history_that_is_no_list_of_pairs_is_refused(tmp_path: Path, history: Any) -> None:
    with pytest.raises(InputError, match=r"row 1: the column history\[0\] is no list of"):
        read_rows(PreferenceSource(entry(tmp_path, {**ALPACA, "history": history}, {})))


def test_a_folder_of_files_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    (tmp_path / "many" / "a.json").write_text("[]")
    with pytest.raises(InputError, match="name one of its files"):
        read_rows(PreferenceSource(entry(tmp_path, ALPACA, {"file_name": "many"})))


def test_an_entry_of_the_hub_says_configuration_split_and_part(tmp_path: Path) -> None:
    """It comes before a file of the entry, as in LLaMA-Factory."""
    declared = {"hf_hub_url": "o/d", "subset": "en", "split": "train_sft", "folder": "python"}
    name = entry(tmp_path, ALPACA, declared)
    found = entry_of(PreferenceSource(name))
    assert (found.name, found.config, found.split, found.folder) == (
        "o/d",
        "en",
        "train_sft",
        "python",
    )
    assert local_files(name) == [], "a look at local rows before a run would fetch them"


def test_what_an_entry_says_is_part_of_a_trainings_key(tmp_path: Path) -> None:
    """Columns that change place train another model from the same file; other entries change nothing."""
    row = {"instruction": "q", "one": "good", "other": "bad"}

    def keys(**changes: Any) -> set[str]:
        columns = {"chosen": "one", "rejected": "other"} | changes
        name = entry(tmp_path, row, {"ranking": True, "columns": columns})
        settings = {"start_from": None, "pairs": None, "data": {"name": name}}
        plan = training_plan(TrainingRequest("demo/dpo", "tiny-phi", settings), tmp_path)
        return {job.key for job in build_graph(plan) if job.kind == "train"}

    first = keys()
    assert keys() == first
    swapped = keys(chosen="other", rejected="one")
    assert swapped != first
