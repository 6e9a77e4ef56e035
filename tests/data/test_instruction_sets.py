"""Instruction sets: what is read from where, in which order, and what is refused."""

from __future__ import annotations

import json

import pytest

from alignboard.data.instruction_sets import ROOM, Instruction, load_references, load_set
from alignboard.demo import world
from alignboard.errors import InputError
from alignboard.registry import register
from alignboard.workspace import library, names


def declare(folder, **content):
    path = folder / ROOM / "own.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"name": "own"} | content))
    return path


def write(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """The released files of every built-in set, as a mirror's cache would hold them, with made-up questions."""
    from hashlib import sha1

    cache = tmp_path / "cache"
    monkeypatch.setenv("ALIGNBOARD_CACHE", str(cache))
    monkeypatch.setenv("ALIGNBOARD_MIRROR", "http://127.0.0.1:9")  # nothing listens there

    def keep(repository, commit, file, content):
        root = cache / "released" / repository.replace("/", "-") / commit
        (root / file).parent.mkdir(parents=True)
        (root / file).write_bytes(content)
        blob = sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        entry = {"path": file, "type": "blob", "sha": blob, "size": len(content)}
        (root / "listing.json").write_text(json.dumps({"tree": [entry]}))

    return keep


def test_every_built_in_set_says_where_it_comes_from(tmp_path):
    found = names(ROOM, library())
    assert {"alpaca-eval", "mt-bench", "arena-hard-v0.1", "demo-world", "alpaca-eval-koala"} <= set(
        found
    )


def test_alpaca_eval_and_its_subsets_keep_the_order(mirror, tmp_path):
    counts = {"helpful_base": 129, "koala": 156, "oasst": 188, "selfinstruct": 252, "vicuna": 80}
    rows = [
        {"dataset": subset, "instruction": f"{subset} {n}?", "output": "x", "generator": "g"}
        for subset, count in counts.items()
        for n in range(count)
    ]
    mirror(
        "tatsu-lab/alpaca_eval",
        "cd543a149df89434d8a54582c0151c0b945c3d20",
        "results/gpt4_1106_preview/model_outputs.json",
        json.dumps(rows).encode(),
    )
    whole = load_set("alpaca-eval", tmp_path)
    assert [row.turns for row in whole.rows] == [(row["instruction"],) for row in rows]
    assert {row.subset for row in whole.rows} == set(counts)
    for subset, count in counts.items():
        part = load_set(f"alpaca-eval-{subset.replace('_', '-')}", tmp_path)
        assert len(part) == count
        assert set(part.rows) == {row for row in whole.rows if row.subset == subset}


def test_mt_bench_has_two_turns_and_arena_hard_one(mirror, tmp_path):
    questions = [
        {"question_id": n, "category": "math", "turns": [f"{n}?", "And?"]} for n in range(80)
    ]
    mirror(
        "lm-sys/FastChat",
        "589532dcfa83700f950b9aa3983416c543afabc0",
        "fastchat/llm_judge/data/mt_bench/question.jsonl",
        "\n".join(map(json.dumps, questions)).encode(),
    )
    expected = Instruction(("7?", "And?"), "math", 7, temperature=0.0)
    assert load_set("mt-bench", tmp_path).rows[7] == expected
    hard = [
        {"question_id": n, "cluster": "c", "turns": [{"content": f"{n}\u2028?"}]}
        for n in range(500)
    ]
    mirror(
        "lmarena/arena-hard-auto",
        "6c82720015d5da7b8795b809b91f63ef74abbf6a",
        "data/arena-hard-v0.1/question.jsonl",
        "\n".join(json.dumps(row, ensure_ascii=False) for row in hard).encode(),
    )
    assert load_set("arena-hard-v0.1", tmp_path).rows[3].turns == ("3\u2028?",)


def test_reference_answers_come_from_the_same_release(mirror, tmp_path):
    references = [
        {"question_id": n, "model_id": "gpt-4", "choices": [{"turns": [f"{n}!", n]}]}
        for n in (101, 102)
    ]
    mirror(
        "lm-sys/FastChat",
        "589532dcfa83700f950b9aa3983416c543afabc0",
        "fastchat/llm_judge/data/mt_bench/reference_answer/gpt-4.jsonl",
        "\n".join(map(json.dumps, references)).encode(),
    )
    assert load_references("mt-bench", tmp_path) == {101: ("101!", "101"), 102: ("102!", "102")}
    assert load_references("demo-world", tmp_path) == {}
    assert load_references("some.jsonl", tmp_path) == {}
    declare(tmp_path, path="own.jsonl", references="known.jsonl")
    write(tmp_path / "evaluate/sets/known.jsonl", references)
    assert set(load_references("own", tmp_path)) == {101, 102}


def test_fastchats_questions_need_no_declaration(tmp_path):
    rows = [{"question_id": 81, "category": "math", "turns": ["1?", "2?"]}]
    found = load_set(write(tmp_path / "question.jsonl", rows))
    assert found.rows == (Instruction(("1?", "2?"), "math", 81),)


def test_a_source_that_changed_is_refused(mirror, tmp_path):
    mirror(
        "lm-sys/FastChat",
        "589532dcfa83700f950b9aa3983416c543afabc0",
        "fastchat/llm_judge/data/mt_bench/question.jsonl",
        b'{"category": "math", "turns": ["one?", "two?"]}',
    )
    with pytest.raises(InputError, match="has 1 instructions, but n says 80"):
        load_set("mt-bench", tmp_path)


def test_any_file_with_a_column_of_instructions(tmp_path):
    rows = [{"instruction": "a?", "output": "b"}, {"instruction": "c, d?", "output": ""}]
    expected = [("a?",), ("c, d?",)]
    (tmp_path / "outputs.json").write_text(json.dumps(rows))
    write(tmp_path / "rows.jsonl", rows)
    (tmp_path / "rows.csv").write_text('instruction,output\na?,b\n"c, d?",\n')
    for name in ("outputs.json", "rows.jsonl", "rows.csv"):
        assert [row.turns for row in load_set(tmp_path / name).rows] == expected
    declare(tmp_path, path=str(tmp_path / "own.jsonl"), column="prompt", n=1)
    write(tmp_path / "own.jsonl", [{"prompt": "x?"}])
    assert load_set("own", tmp_path).rows == (Instruction(("x?",)),)


def test_the_demo_world_draws_its_own_questions(tmp_path):
    found = load_set("demo-world", tmp_path)
    assert [row.turns[0] for row in found.rows] == world.prompts("eval", 320, 0)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"instruction": "a?"}, {"instruction": "a?"}],
            "row 2: instruction is that of row 1 again",
        ),
        ([{"text": "a?"}], r"row 1 has no column .instruction. \(it has: text\)"),
        ([{"instruction": " "}], "row 1: instruction is empty"),
        ([{"instruction": 3}], "row 1: instruction is empty or no text"),
        ([], "holds no rows"),
    ],
)
def test_bad_rows_are_named(tmp_path, rows, message):
    with pytest.raises(InputError, match=message):
        load_set(write(tmp_path / "bad.jsonl", rows))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "exactly one of released, path and generated"),
        (
            {"path": "x.jsonl", "generated": {"by": "demo-world"}},
            "exactly one of released, path and generated",
        ),
        ({"generated": {"by": "demo-world"}}, "n is missing"),
        ({"n": 4, "generated": {"by": "demo-word"}}, "did you mean 'demo-world'"),
        ({"n": 4, "generated": {"by": "demo-world", "split": "test"}}, "has sft, preference, eval"),
        ({"path": "x.jsonl", "subset": "s"}, "subset needs subset_column"),
        ({"path": "x.jsonl", "colunm": "s"}, "colunm"),
        ({"path": "gone.jsonl"}, "cannot be read"),
    ],
)
def test_bad_declarations_are_named(tmp_path, content, message):
    declare(tmp_path, **content)
    with pytest.raises(InputError, match=message):
        load_set("own", tmp_path)
    with pytest.raises(InputError, match="own"):
        load_set("owm", tmp_path)


class Sums:
    """A generated set of a package: sums of two numbers."""

    splits = ("eval",)

    def prompts(self, split, n, seed):  # noqa: ARG002 - one split
        return [f"{one} + {seed} =" for one in range(n)]

    def check(self, instruction, output):
        one, _, other, _ = instruction.split()
        return output == str(int(one) + int(other))

    def demonstrations(self, n, seed):  # noqa: ARG002 - all rows are alike
        return [{"prompt": [], "completion": []}] * n


def test_a_package_adds_a_generated_set(tmp_path):
    register("generated set", "sums", Sums())
    declare(tmp_path, n=3, generated={"by": "sums", "seed": 2})
    found = load_set("own", tmp_path)
    assert [row.turns for row in found.rows] == [("0 + 2 =",), ("1 + 2 =",), ("2 + 2 =",)]
    assert found.answer_key == "sums"
