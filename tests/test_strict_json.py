"""A key or a column that is there twice: every reader of what people bring refuses it, where Python takes the last."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alignboard.benchmarks.scores import read_scores
from alignboard.data.instruction_sets import load_set
from alignboard.data.preferences.sources import PreferenceSource, open_source
from alignboard.errors import InputError
from alignboard.judges.parsing.values import literal, values
from alignboard.published.bridge.people import read_ratings
from alignboard.records import Generation, Judgment
from alignboard.results.battle_files import batches
from alignboard.results.conversations import read_conversations
from alignboard.results.files import read_json_object
from alignboard.results.formats import read_rows
from alignboard.strict_json import RepeatedKeyError, parse_json

OUTPUT = '{"instruction": "a", "output": "x", "generator": "m"}'
TWICE = '{"instruction": "b", "output": "first", "generator": "m", "output": "last"}'
VERDICT = (
    '{"instruction": "b", "output_1": "x", "output_2": "y", "generator_1": "p", "generator_2": "m", '
    '"preference": 1, "preference": 2}'
)
PAIR = '{"prompt": "a", "chosen": "x", "rejected": "y"}'
PAIR_TWICE = '{"prompt": "b", "chosen": "x", "rejected": "y", "chosen": "z"}'
BATTLE = '{"model_a": "m", "model_b": "n", "winner": "model_a", "winner": "model_b"}'


def outputs(path: Path) -> Any:
    return read_rows(path, Generation)


def verdicts(path: Path) -> Any:
    return read_rows(path, Judgment)


def battles(path: Path) -> Any:
    return list(batches(path))


def pairs(path: Path) -> Any:
    return open_source(PreferenceSource(str(path)))


def ratings(path: Path) -> Any:
    return read_ratings(path, None)


READERS: list[tuple[str, str, Callable[[Path], Any], str]] = [
    ("o.json", f"[{OUTPUT}, {TWICE}]", outputs, "row 2: the key 'output'"),
    ("o.jsonl", f"{OUTPUT}\n{TWICE}\n", outputs, "row 2: the key 'output'"),
    ("unnamed.json", f"[{TWICE.replace('generator', 'g')}]", outputs, "row 1: the key 'output'"),
    ("v.json", f"[{VERDICT}]", verdicts, "row 1: the key 'preference'"),
    ("v.jsonl", VERDICT, verdicts, "the key 'preference'"),
    ("q.json", f"[{OUTPUT}, {TWICE}]", load_set, "row 2: the key 'output'"),
    ("q.jsonl", '{"turns": ["a"]}\n{"turns": ["b"], "turns": ["c"]}', load_set, "row 2: the key 'turns'"),
    (
        "a.jsonl",
        '{"question_id": 1, "model_id": "m", "choices": [{"turns": ["a"], "turns": ["b"]}]}',
        read_conversations,
        "line 1: the key 'turns'",
    ),
    ("b.jsonl", BATTLE, battles, "the key 'winner'"),
    ("b.json", f"[{BATTLE}]", battles, "row 1: the key 'winner'"),
    ("b-spaced.jsonl", BATTLE.replace('":', '" :'), battles, "the key 'winner'"),
    ("config.json", '{"eos_token_id": 1, "eos_token_id": 2}', read_json_object, "'eos_token_id'"),
    ("results_1.json", '{"results": {"t": {"acc,none": 0.1, "acc,none": 0.2}}}', read_scores, "'acc,none'"),
    ("p.json", f"[{PAIR}, {PAIR_TWICE}]", pairs, "row 2: the key 'chosen'"),
    ("p.jsonl", f"{PAIR}\n{PAIR_TWICE}\n", pairs, "chosen"),
    ("o.csv", "instruction,output,generator,output\na,b,m,c\n", outputs, "the column 'output' twice"),
    ("q.csv", "instruction,id,id\na,1,2\n", load_set, "the column 'id' twice"),
    ("b.csv", "model_a,model_b,winner,winner\nm,n,model_a,model_b\n", battles, "the column 'winner' twice"),
    ("p.csv", "prompt,chosen,rejected,chosen\na,b,c,d\n", pairs, "the column 'chosen' twice"),
    ("elo.csv", "Model,Elo,Elo\nm,1,2\n", ratings, "the column 'Elo' twice"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "read", "said"), READERS, ids=[one[0] for one in READERS]
)
def test_what_is_there_twice_is_refused(tmp_path, name, content, read, said):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=said) as raised:
        read(path)
    assert name in str(raised.value)


def test_a_row_of_csv_with_more_values_than_columns_loses_none(tmp_path):
    path = tmp_path / "q.csv"
    path.write_text("instruction,id\nHello, world,1\n", encoding="utf-8")
    with pytest.raises(InputError, match="row 1: more values than the header has columns"):
        load_set(path)


def test_a_name_inside_another_object_is_not_there_twice(tmp_path):
    nested = json.loads(OUTPUT) | {"raw": {"output": "x", "instruction": "y"}, "tag": "output"}
    path = tmp_path / "o.json"
    path.write_text(json.dumps([nested]), encoding="utf-8")
    assert read_rows(path, Generation)[0].output == "x"


@pytest.mark.parametrize(
    "reply",
    [
        '{"winner": "A", "winner": "B"}',
        "{'winner': 'A', 'winner': 'B'}",
        'Sure:\n```json\n{"winner": "A", "winner": "B"}\n```',
        'I say {"winner": "A", "reason": {"x": 1}, "winner": "B"} here',
        '[{"rank": 1, "rank": 2, "model": "m"}]',
    ],
)
def test_a_verdict_that_is_there_twice_is_none(reply):
    assert values(reply) == []


def test_the_row_is_named_wherever_it_holds_the_key():
    with pytest.raises(RepeatedKeyError, match="row 2: the key 'b'"):
        parse_json('[{"b": 1}, {"a": [{"b": 1, "b": 2}]}]')
    with pytest.raises(RepeatedKeyError, match="the key 'b' is there twice"):
        parse_json('{"a": {"b": 1, "b": 2}}')
    assert parse_json('[{"a": 1}, {"a": 1}]') == [{"a": 1}, {"a": 1}]
    assert literal("{'a': 1, 'b': {'a': 2}}") == {"a": 1, "b": {"a": 2}}
