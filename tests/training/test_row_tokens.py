"""A file of every schema gives the tokens of the messages written out, in every template form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("datasets")

from click.testing import CliRunner
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

import byte_tokenizer
from alignboard.cli.app import cli
from alignboard.data.preferences.read import read_rows
from alignboard.data.preferences.schemas import SCHEMAS, Kind
from alignboard.data.preferences.sources import PreferenceSource
from alignboard.errors import InputError
from alignboard.models.templates import TEMPLATES
from alignboard.training.encoding import _marks, _token_ids, encoded
from alignboard.training.tokens import tokenized, training_tokenizer
from test_train import QuickBase, base

__all__ = ["base"]  # the fixture

TOKENIZER = {"chatml": byte_tokenizer.DOLPHIN, "gemma": byte_tokenizer.GEMMA}
"""by form; the others' control tokens are those of Llama"""


def u(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def a(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


Q, GOOD, BAD = "What is 2 + 2?\nSay it.", "It is 4.", " 5"
HH = f"\n\nHuman: {Q}\n\nAssistant: "
PAIR = {"prompt": [u(Q)], "chosen": [a(GOOD)], "rejected": [a(BAD)]}
ONE = {"prompt": [u(Q)], "completion": [a(GOOD)]}
CHAT = {"messages": [u(Q), a(GOOD), u("And 3?"), a("6")]}
FILES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "pairs": ({"prompt": Q, "chosen": GOOD, "rejected": BAD}, PAIR),
    "conversations": ({"chosen": [u(Q), a(GOOD)], "rejected": [u(Q), a(BAD)]}, PAIR),
    "orca": ({"question": Q, "chosen": GOOD, "rejected": BAD, "system": None}, PAIR),
    "alpaca-pairs": ({"instruction": Q, "input": "", "chosen": GOOD, "rejected": BAD}, PAIR),
    "sharegpt-pairs": (
        {
            "conversations": [{"from": "human", "value": Q}],
            "chosen": {"from": "gpt", "value": GOOD},
            "rejected": {"from": "gpt", "value": BAD},
        },
        PAIR,
    ),
    "shp": ({"history": Q, "human_ref_A": GOOD, "human_ref_B": BAD, "labels": 1}, PAIR),
    "ultrafeedback": (
        {
            "instruction": Q,
            "completions": [
                {"response": BAD, "overall_score": 2.0},
                {"response": GOOD, "overall_score": 9.0},
            ],
        },
        PAIR,
    ),
    "messages": (CHAT, CHAT),
    "completions": ({"prompt": Q, "completion": GOOD}, ONE),
    "alpaca": ({"instruction": Q, "input": "", "output": GOOD}, ONE),
    "sharegpt": (
        {
            "conversations": [
                {"from": "human" if one["role"] == "user" else "gpt", "value": one["content"]}
                for one in CHAT["messages"]
            ]
        },
        CHAT,
    ),
    "rated": ({"prompt": Q, "completion": GOOD, "label": True}, {**ONE, "label": True}),
    "rated-messages": ({"messages": [u(Q), a(GOOD)], "label": True}, {**ONE, "label": True}),
    "hh": ({"chosen": HH + GOOD, "rejected": HH + BAD.strip()}, PAIR | {"rejected": [a("5")]}),
}


def test_every_schema_has_a_file() -> None:
    assert set(FILES) - {"hh"} == set(SCHEMAS)


def tokenizer_of(form: str) -> Any:
    tokenizer = byte_tokenizer.build(**TOKENIZER.get(form, byte_tokenizer.LLAMA))
    return training_tokenizer(tokenizer, TEMPLATES[form], None, "x")


def written_out(tokenizer: Any, row: dict[str, Any]) -> list[list[tuple[int, bool]]]:
    """(token, whether it is trained) of each sequence of a row, by rendering its messages once more."""

    def ids(messages: Any, *, prompt: bool = False) -> list[int]:
        found = tokenizer.apply_chat_template(messages, add_generation_prompt=prompt)
        return list(found["input_ids"])

    if "messages" in row:
        whole, found = ids(row["messages"]), list[bool]()
        for n, message in enumerate(row["messages"]):
            if message["role"] == "assistant":
                given, through = (
                    ids(row["messages"][:n], prompt=True),
                    ids(row["messages"][: n + 1]),
                )
                found += [False] * (len(given) - len(found))
                found += [True] * (len(through) - len(found))
        assert len(found) == len(whole)
        return [list(zip(whole, found, strict=True))]
    prompt = len(ids(row["prompt"], prompt=True))
    sides = [side for side in ("chosen", "rejected", "completion") if side in row]
    return [
        [(one, n >= prompt) for n, one in enumerate(ids(row["prompt"] + row[side]))]
        for side in sides
    ]


@pytest.mark.parametrize("form", sorted(TEMPLATES))
@pytest.mark.parametrize("schema", FILES)
def test_rows_are_those_of_the_messages_written_out(tmp_path: Path, schema: str, form: str) -> None:
    raw, row = FILES[schema]
    file = tmp_path / "mine.jsonl"
    file.write_text(json.dumps(raw) + "\n")
    found_rows, report = read_rows(PreferenceSource(str(file)))
    rows: Any = found_rows
    assert report.schema == ("conversations" if schema == "hh" else schema)
    assert rows[0] == row
    tokenizer = tokenizer_of(form)
    (found,) = encoded(tokenizer, [rows[0]])
    expected = written_out(tokenizer, row)
    assert [list(zip(one.ids, one.trained, strict=True)) for one in found] == expected
    for one in found:
        trained = [i for i, t in zip(one.ids, one.trained, strict=True) if t]
        end = tokenizer.convert_tokens_to_ids(
            {"chatml": "<|im_end|>", "gemma": "<end_of_turn>"}.get(form, "</s>")
        )
        assert end in trained
    if report.kind == "rated":
        return  # TRL prepares them
    given: Any = tokenized(rows, tokenizer)[0]
    if report.kind == "pair":
        sides = [given["prompt_ids"] + given[f"{side}_ids"] for side in ("chosen", "rejected")]
        assert sides == [[i for i, _ in one] for one in expected]
        assert len(given["prompt_ids"]) == [t for _, t in expected[0]].index(True)
    else:
        assert given["input_ids"] == [i for i, _ in expected[0]]
        assert given["labels"] == [i if t else -100 for i, t in expected[0]]


KINDS: dict[Kind, tuple[str, str]] = {
    "pair": ("demo/dpo", "pairs"),
    "demonstration": ("demo/sft", "completions"),
    "rated": ("demo/dpo", "rated"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_shows_the_same_rows_for_every_schema_of_a_kind(
    base: QuickBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe, first = KINDS[kind]
    shown = {}
    for schema in [name for name, one in SCHEMAS.items() if one.kind == kind]:
        raw, row = FILES[schema]
        if row != FILES[first][1]:
            continue
        # One row eight times is refused: the prompts get a number each.
        lines = [json.dumps(raw).replace("2 + 2", f"2 + {n}") + "\n" for n in range(8)]
        Path("mine.jsonl").write_text("".join(lines))
        command = ["train", recipe, "--model", str(base("llama")), "--data", "mine.jsonl"]
        command += ["--set", "start_from=null", "--set", "batch.global=8"]
        command += ["--set", "method=kto"] if kind == "rated" else []
        done = CliRunner().invoke(cli, [*command, "--dry-run", "--json", f"{schema}.json"])
        assert done.exit_code == 0, done.output
        shown[schema] = json.loads(Path(f"{schema}.json").read_text())["preview"]
    assert len(shown) > 1
    assert all(one["samples"] == shown[first]["samples"] for one in shown.values())
    assert all("[" in text for text in shown[first]["samples"])


# The beginning that the texts of a row share is tokenised once.

PARTS = [
    "<s>",
    "</s>",
    "<|im_start|>",
    "<|im_end|>",
    "<|",
    "|>",
    "[x]",
    " ",
    "\n",
    "ab",
    "abc",
    "é",
]
TEXT = st.lists(st.sampled_from(PARTS), max_size=6).map("".join)

UNKNOWN, ENDS = "<unk>", ("<s>", "</s>")


def merging(kind: str) -> Any:
    """A tokenizer that merges letters, with control tokens of several sorts."""
    core = Tokenizer(models.BPE(unk_token=UNKNOWN, byte_fallback=kind == "metaspace"))
    if kind == "byte-level":
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    elif kind == "metaspace":
        core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    else:
        core.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=[UNKNOWN, *ENDS], show_progress=False
    )
    core.train_from_iterator([" ab abc ab\n abc é user assistant"] * 20, trainer)
    core.add_tokens(
        [
            AddedToken("<|im_start|>", normalized=False),
            AddedToken("<|im_end|>", normalized=False, rstrip=True),
            AddedToken("[x]", normalized=False, lstrip=True),
        ]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token=ENDS[0], eos_token=ENDS[1])
    tokenizer.chat_template = TEMPLATES["chatml"].replace("}}", "}}{# [x] #}", 1)
    return tokenizer


MERGING = {kind: merging(kind) for kind in ("byte-level", "metaspace", "normalizer")}


@pytest.mark.parametrize("kind", MERGING)
@settings(deadline=None, max_examples=60)
@given(prompt=TEXT, replies=st.lists(TEXT, min_size=2, max_size=2))
def test_a_divided_text_has_the_tokens_of_the_whole(
    kind: str, prompt: str, replies: list[str]
) -> None:
    tokenizer = MERGING[kind]
    assert "<|im_start|>" in _marks(tokenizer)
    assert "[x]" not in _marks(tokenizer)
    row = {"prompt": [u(prompt)], "chosen": [a(replies[0])], "rejected": [a(replies[1])]}
    (found,) = _token_ids(tokenizer, [row], ["chosen", "rejected"])
    assert found == [
        tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True)["input_ids"],
        *(
            tokenizer.apply_chat_template(row["prompt"] + row[side])["input_ids"]
            for side in ("chosen", "rejected")
        ),
    ]


def test_a_token_whose_beginning_another_one_holds_divides_nothing() -> None:
    tokenizer = byte_tokenizer.build(ordinary=("<|im_start|>", "<|im_end|>", "<<"))
    tokenizer.chat_template = TEMPLATES["chatml"]
    assert _marks(tokenizer) == []


# What a template does not take, or writes in two ways, is one sentence.


def test_a_template_that_takes_no_system_turn_is_one_sentence() -> None:
    rows = Dataset.from_list(
        [PAIR | {"prompt": [{"role": "system", "content": "Be brief."}, u(Q)]}]
    )
    with pytest.raises(
        InputError, match=r"begins 'Be brief\.'.* system, user: it has no system turn"
    ):
        tokenized(rows, tokenizer_of("gemma"))


def test_replies_that_a_template_writes_in_two_ways_are_refused() -> None:
    tokenizer = tokenizer_of("chatml")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] + (': ' if loop.last else ' said: ') + m['content'] + eos_token }}"
        "{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    with pytest.raises(InputError, match=r"first 2 messages in another way.*generation"):
        encoded(tokenizer, [CHAT])
    assert all(encoded(tokenizer, [CHAT], whole=True)[0][0].trained)
