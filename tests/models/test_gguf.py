"""GGUF files: header, configuration, positions, and tokenizers with the token ids of llama.cpp."""

import math
import os
import struct
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

import checkpoint_formats as written
from alignboard.errors import InputError
from alignboard.models.checks.report import check_model
from alignboard.models.formats import identify
from alignboard.models.gguf import file as gguf_file
from alignboard.models.gguf.file import GgufHeader, read_header
from alignboard.models.gguf.tokenizer import PRE_TOKENIZERS, build_tokenizer
from alignboard.models.loading import LoadedModel
from alignboard.models.registry import load_model

VOCABULARIES = Path(os.environ.get("ALIGNBOARD_REAL", "missing")) / "tokenizers"
needs_gguf = pytest.mark.skipif(find_spec("gguf") is None, reason="the extra gguf is not installed")
needs_vocabularies = pytest.mark.skipif(
    not VOCABULARIES.is_dir(), reason="ALIGNBOARD_REAL has no tokenizers"
)


def byte_level(*merges: str, **more: Any) -> GgufHeader:
    """A header with a byte-level BPE vocabulary of all bytes and ``merges``, such as ``1 2``."""
    tokens, _ = written.bpe_vocabulary()
    tokens = [*tokens[:256], *(merge.replace(" ", "") for merge in merges), "<end>", "<tool>"]
    return header(
        {
            "model": "gpt2",
            "pre": "gpt-2",
            "tokens": tokens,
            "token_type": [1] * (len(tokens) - 2) + [3, 4],
            "merges": list(merges),
            "bos_token_id": len(tokens) - 2,
            "eos_token_id": len(tokens) - 2,
            **more,
        }
    )


def sentencepiece(**more: Any) -> GgufHeader:
    tokens, types = written.sentencepiece_vocabulary("llama")
    return header(
        {
            "model": "llama",
            "tokens": tokens,
            "token_type": types,
            "scores": [-float(i) for i in range(len(tokens))],
            "bos_token_id": 1,
            "eos_token_id": 2,
            "unknown_token_id": 0,
            **more,
        }
    )


def header(tokenizer: dict[str, Any], architecture: str = "llama") -> GgufHeader:
    stated = {
        f"tokenizer.ggml.{key}": value for key, value in tokenizer.items() if value is not None
    }
    return GgufHeader(Path("own.gguf"), {"general.architecture": architecture, **stated}, ())


def pieces(stated: GgufHeader, text: str) -> list[str]:
    tokenizer = build_tokenizer(stated)
    return tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])  # pyright: ignore[reportReturnType]


# Tokenizers.


@needs_vocabularies
@pytest.mark.parametrize("name", ["gpt-2", "llama-bpe", "llama-spm", "phi-3", "qwen2"])
def test_the_token_ids_are_those_of_llama_cpp(name):
    file = VOCABULARIES / f"ggml-vocab-{name}.gguf"
    texts = file.with_name(f"{file.name}.inp").read_bytes().decode()
    expected = file.with_name(f"{file.name}.out").read_text("utf-8").split("\n")
    tokenizer = build_tokenizer(read_header(file))
    texts = texts.split("\n__ggml_vocab_test__\n")
    assert len(texts) == 47
    for text, ids in zip(texts, expected, strict=True):
        assert tokenizer.encode(text, add_special_tokens=False) == [int(i) for i in ids.split()]


@needs_vocabularies
def test_a_vocabulary_without_a_rule_is_refused():
    with pytest.raises(InputError, match=r"no tokenizer\.ggml\.pre, .* say tokenizer: in the"):
        build_tokenizer(read_header(VOCABULARIES / "ggml-vocab-gpt-neox.gguf"))


@pytest.mark.parametrize(
    ("pre", "expected"),
    [
        ("smollm", ["a", "\u0120", "1", "2", "3", "4"]),
        ("qwen2", ["a", "\u0120", "1", "2", "3", "4"]),
        ("gpt-2", ["a", "\u01201", "23", "4"]),
        ("llama-bpe", ["a", "\u0120", "1", "23", "4"]),
        ("deepseek-v3", ["a", "\u0120", "1", "23", "4"]),
        ("default", ["a", "\u0120", "1", "23", "4"]),
        ("falcon", ["a", "\u0120", "1", "23", "4"]),
    ],
)
def test_digits_are_split_as_the_file_says(pre, expected):
    stated = byte_level("2 3", "\u0120 1", pre=pre, add_bos_token=False)
    assert pieces(stated, "a 1234") == expected


@pytest.mark.parametrize("pre", sorted(PRE_TOKENIZERS))
def test_every_rule_loses_nothing(pre):
    tokenizer = build_tokenizer(byte_level("d o", pre=pre, add_bos_token=False))
    text = (
        " I'LL do 12345 x's,\n\n\t  \u4f60\u597d \u3042\U0001f600 e\u0301 $5+5^2 `a`  \r\n done  "
    )
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids) == text


def test_an_unknown_rule_is_refused_and_names_what_overrules():
    with pytest.raises(
        InputError, match=r"pre 'smollm9', .* did you mean 'smollm'; say tokenizer:"
    ):
        build_tokenizer(byte_level(pre="smollm9"))
    with pytest.raises(InputError, match=r"a vocabulary of the kind 'bert', .* say tokenizer:"):
        build_tokenizer(byte_level(model="bert"))


def test_the_rule_of_phi_2_is_known_without_a_name():
    stated = byte_level("2 3", pre=None).metadata
    old = GgufHeader(Path("old.gguf"), {**stated, "general.architecture": "phi2"}, ())
    assert pieces(old, "123") == ["1", "23"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dog", ["\u2581", "dog"]),
        ("  dog", ["\u2581", "\u2581", "\u2581", "dog"]),
        ("dog  cat", ["\u2581", "dog", "\u2581", "\u2581", "c", "a", "t"]),
        ("a\u00e9", ["\u2581", "a", "<0xC3>", "<0xA9>"]),
    ],
)
def test_sentencepiece_keeps_every_space(text, expected):
    stated = sentencepiece(add_bos_token=False)
    assert pieces(stated, text) == expected
    tokenizer = build_tokenizer(stated)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    bare = sentencepiece(add_bos_token=False, add_space_prefix=False)
    assert pieces(bare, text) == expected[1:]
    assert build_tokenizer(bare).decode(build_tokenizer(bare).encode(text)) == text


@pytest.mark.parametrize(
    ("make", "bos", "eos", "expected"),
    [
        (byte_level, None, None, "a"),
        (byte_level, True, None, "<end> a"),
        (byte_level, False, True, "a <end>"),
        (sentencepiece, None, None, "<s> a"),
        (sentencepiece, False, None, "a"),
        (sentencepiece, False, True, "a </s>"),
        (sentencepiece, True, True, "<s> a </s>"),
    ],
)
def test_a_text_begins_and_ends_as_the_file_says(make, bos, eos, expected):
    stated = make(add_bos_token=bos, add_eos_token=eos)
    assert [one for one in pieces(stated, "a") if one != "\u2581"] == expected.split()
    bare = build_tokenizer(stated).encode("a", add_special_tokens=False)
    assert len(bare) == len(expected.split()) - expected.count("<") + (make is sentencepiece)


@pytest.mark.parametrize(
    ("make", "stated", "said"),
    [
        (sentencepiece, {"bos_token_id": None}, "bos_token_id is None"),
        (sentencepiece, {"bos_token_id": -1}, "bos_token_id is -1"),
        (sentencepiece, {"bos_token_id": 2**32 - 1}, "bos_token_id is 4294967295"),
        (byte_level, {"add_bos_token": True, "bos_token_id": None}, "BOS to every text"),
        (byte_level, {"add_eos_token": True, "eos_token_id": 10**6}, "EOS to every text"),
        (sentencepiece, {"add_bos_token": "no"}, "add_bos_token 'no', neither"),
    ],
)
def test_an_end_that_is_no_token_is_refused_where_texts_get_it(make, stated, said):
    with pytest.raises(InputError, match=said):
        build_tokenizer(make(**stated))


def test_an_end_that_is_no_token_is_no_matter_where_texts_get_none():
    stated = sentencepiece(add_bos_token=False, bos_token_id=-1, padding_token_id=10**6)
    assert build_tokenizer(stated).bos_token_id is None


def test_llama_3_begins_with_bos_where_its_file_does_not_say():
    assert pieces(byte_level(pre="llama-bpe"), "a") == ["<end>", "a"]


def test_tokens_of_the_user_are_read_whole_and_kept_and_control_tokens_are_not_decoded():
    tokenizer = build_tokenizer(byte_level(add_bos_token=False))
    ids = tokenizer.encode("a<tool>b<end>")
    assert tokenizer.convert_ids_to_tokens(ids) == ["a", "<tool>", "b", "<end>"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a<tool>b"


# Header and configuration.


def saved(file: Path, family: str = "llama", kind: str = "llama", **how: Any) -> Any:
    model = written.untrained(family, written.gguf_vocabulary_size(kind))
    written.save_gguf(model, file, kind, **how)
    return model


@needs_gguf
@pytest.mark.parametrize(("family", "kind"), [("llama", "llama"), ("phi", "phi2")])
def test_the_configuration_is_in_the_file(family, kind, tmp_path):
    model = saved(tmp_path / "model.gguf", family, kind)
    config = identify(tmp_path, "model.gguf").config
    names = ("model_type", "vocab_size", "hidden_size", "max_position_embeddings")
    assert {name: config[name] for name in names} == {
        name: getattr(model.config, name) for name in names
    }
    found = check_model(load_model(str(tmp_path / "model.gguf"), tmp_path))
    assert found.facts["context"] == "256 tokens"
    assert not [one for one in found.findings if one.kind in {"context", "vocabulary"}]


@needs_gguf
def test_a_file_is_parsed_once_and_not_by_transformers(tmp_path, monkeypatch):
    import gguf

    saved(tmp_path / "model.gguf")
    monkeypatch.setattr(gguf, "GGUFReader", None)
    gguf_file._cached.cache_clear()
    LoadedModel.load(tmp_path / "model.gguf")
    assert gguf_file._cached.cache_info().misses == 1


@needs_gguf
def test_a_file_that_ends_early_is_one_sentence(tmp_path):
    saved(tmp_path / "model.gguf")
    content = (tmp_path / "model.gguf").read_bytes()
    end = content.index(b"token_embd.weight")
    for length in [*range(60), *range(60, end, 97)]:
        (tmp_path / "cut.gguf").write_bytes(content[:length])
        with pytest.raises(InputError, match="is no GGUF file"):
            identify(tmp_path, "cut.gguf")


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<IQQ", 1, 0, 0),
        struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**63) + b"a",
        struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"a", 9, 4, 2**62),
        struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"a", 9, 9, 1),
        struct.pack("<IQQQ1sI", 3, 0, 1, 1, b"a", 77),
        struct.pack("<IQQQ1sI", 3, 1, 0, 1, b"a", 2**31),
        struct.pack("<IQQQ1s", 3, 0, 1, 1, b"\xff"),
    ],
)
def test_a_header_that_makes_no_sense_is_one_sentence(content, tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + content)
    with pytest.raises(InputError, match="is no GGUF file that can be read"):
        identify(tmp_path, "model.gguf")


@needs_gguf
def test_weights_that_end_early_are_one_sentence(tmp_path):
    saved(tmp_path / "model.gguf")
    content = (tmp_path / "model.gguf").read_bytes()
    (tmp_path / "model.gguf").write_bytes(content[:-5000])
    with pytest.raises(InputError, match="cannot be read"):
        LoadedModel.load(tmp_path / "model.gguf")


# Positions.


def llama3_factors(width: int, base: float, factor: float) -> torch.Tensor:
    """What a frequency is divided by: nothing for short waves, ``factor`` for long ones, a mean between."""
    found = []
    for i in range(0, width, 2):
        wave = 2 * math.pi * base ** (i / width)
        if wave < 8192 / 4:
            found.append(1.0)
        elif wave > 8192:
            found.append(factor)
        else:
            share = (8192 / wave - 1) / 3
            found.append(1 / ((1 - share) / factor + share))
    return torch.tensor(found)


@needs_gguf
@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_the_positions_of_llama_3_1_are_scaled(factor, tmp_path):
    base = written.untrained("llama").config.rope_parameters["rope_theta"]
    factors = llama3_factors(16, base, factor)
    assert 1 < len(factors.unique()) <= 8
    saved(tmp_path / "model.gguf", more={"rope_freqs.weight": factors.numpy()})
    network: Any = LoadedModel.load(tmp_path / "model.gguf").model
    plain = base ** (-torch.arange(0, 16, 2) / 16)
    assert torch.allclose(network.model.rotary_emb.inv_freq, plain / factors, rtol=1e-4)
    saved(tmp_path / "other.gguf", more={"rope_freqs.weight": 1.1 * factors.numpy()})
    with pytest.raises(InputError, match="not those of Llama 3"):
        LoadedModel.load(tmp_path / "other.gguf")
