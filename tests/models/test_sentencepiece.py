"""Tokenizers are what their files say: SentencePiece files alone, and tokenizer.json under any class's name."""

import io
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from alignboard.errors import InputError
from alignboard.models import sentencepiece as under_test
from alignboard.models.adapters import own_tokenizer
from alignboard.models.formats import identify
from alignboard.models.identity import fingerprint
from alignboard.models.tokenizers import open_tokenizer, read_tokenizer
from alignboard.training.tokens import training_tokenizer
from byte_tokenizer import build

SENTENCES = (
    "What is the capital of France?",
    "Name two colours,  then three more.",
    "The quick brown fox jumps over 12 lazy dogs in 2024.",
    "def f(x):\treturn x + 1",
    "na\u00efve caf\u00e9 \u4f60\u597d",
)
TEXTS = (
    "What is the capital?",
    " one space before",
    "    four,  two  and  three   behind   ",
    "name\nlines\n\n  and 2024",
    "\u00bd \uff21\uff22 \ufb01x",
    "\U0001f999 is not in the vocabulary, and \u0416\u0416 neither",
    " ",
    "",
)


def sentencepiece(folder: Path, config: dict[str, Any] | None = None, **how: Any) -> Any:
    """A folder with a tokenizer.model of ``how`` and no tokenizer.json; returns SentencePiece's own reader of it."""
    trained = pytest.importorskip("sentencepiece")
    file = io.BytesIO()
    settings: dict[str, Any] = {
        "vocab_size": 360,
        "model_type": "bpe",
        "byte_fallback": True,
        "character_coverage": 1.0,
        "hard_vocab_limit": False,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
    }
    trained.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 20),
        model_writer=file,
        minloglevel=2,
        **{**settings, **how},
    )
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes(file.getvalue())
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 400}))
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return trained.SentencePieceProcessor(model_proto=file.getvalue())


WAYS: dict[str, dict[str, Any]] = {
    "llama": {},
    "gemma": {"add_dummy_prefix": False, "user_defined_symbols": ["<start_of_turn>"]},
    "spaces that are one symbol": {
        "add_dummy_prefix": False,
        "user_defined_symbols": ["\u2581" * 2],
    },
    "nfkc": {"normalization_rule_name": "nmt_nfkc", "remove_extra_whitespaces": True},
    "single spaces": {"remove_extra_whitespaces": True},
    "no bytes": {"byte_fallback": False},
    "digits one by one": {"split_digits": True},
    "symbols": {"user_defined_symbols": ["<|im_start|>", "<|im_end|>"], "control_symbols": ["<c>"]},
    "unigram": {"model_type": "unigram", "vocab_size": 330},
    "unigram, nfkc": {
        "model_type": "unigram",
        "vocab_size": 330,
        "normalization_rule_name": "nmt_nfkc",
        "remove_extra_whitespaces": True,
    },
    "unigram without bytes": {"model_type": "unigram", "vocab_size": 80, "byte_fallback": False},
    "words": {"model_type": "word", "vocab_size": 24, "byte_fallback": False},
    "spaces behind words": {"treat_whitespace_as_suffix": True},
}
REFUSED = {"symbols", "spaces behind words", "words"}


@pytest.mark.parametrize("way", WAYS)
def test_a_sentencepiece_file_alone_is_read_as_sentencepiece_reads_it_or_refused(way, tmp_path):
    reader = sentencepiece(tmp_path / "alone", {"tokenizer_class": "LlamaTokenizer"}, **WAYS[way])
    checkpoint = identify(tmp_path / "alone")
    if way in REFUSED:
        with pytest.raises(InputError, match="otherwise than the tokenizer that can be made of it"):
            open_tokenizer(checkpoint)
        return
    found = open_tokenizer(checkpoint)
    for text in TEXTS:
        assert found.encode(text, add_special_tokens=False) == reader.encode(text), text


def test_what_sentencepiece_reads_otherwise_is_refused(tmp_path, monkeypatch):
    sentencepiece(tmp_path / "alone")
    monkeypatch.setattr(under_test, "_merges", lambda _pieces: [])
    with pytest.raises(InputError, match=r"reads 'Hello world' otherwise .* as tokenizer"):
        open_tokenizer(identify(tmp_path / "alone"))


@pytest.mark.parametrize(
    ("config", "begins"),
    [
        (None, True),
        ({}, True),
        ({"tokenizer_class": "LlamaTokenizer"}, True),
        ({"tokenizer_class": "LlamaTokenizer", "add_bos_token": True}, True),
        ({"tokenizer_class": "LlamaTokenizer", "add_bos_token": False}, False),
        ({"tokenizer_class": "PreTrainedTokenizerFast", "add_eos_token": True}, True),
    ],
)
def test_a_text_begins_with_bos_unless_the_folder_says_otherwise(config, begins, tmp_path):
    reader = sentencepiece(tmp_path / "alone", config)
    found = open_tokenizer(identify(tmp_path / "alone"))
    end = [reader.eos_id()] if (config or {}).get("add_eos_token") else []
    assert found.encode("a b") == [reader.bos_id()] * begins + reader.encode("a b") + end
    assert (found.bos_token, found.eos_token) == ("<s>", "</s>")


def test_an_older_protobuf_is_named(tmp_path, monkeypatch):
    sentencepiece(tmp_path / "alone")

    def older(_name: str) -> ModuleType:
        raise ImportError("made by a newer one")

    monkeypatch.setattr(under_test, "import_module", older)
    with pytest.raises(
        InputError, match=r"tokenizer.model cannot be read with protobuf .* -U protobuf"
    ):
        open_tokenizer(identify(tmp_path / "alone"))


# tokenizer.json under the names of classes that transformers builds anew.

WORDS = ["\u2581", *"abcdefghij0123456789 ", "\u2581a", "ab", "12", "123", "\u2581ab"]
MERGES = [("\u2581", "a"), ("a", "b"), ("1", "2"), ("12", "3"), ("\u2581a", "b")]
UNKNOWN: dict[str, Any] = {"unk_token": "<unk>"}
NAMED = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def spaces() -> Tokenizer:
    """Llama 2's: a space is put before the text, whatever it begins with."""
    names = {one: n for n, one in enumerate([*NAMED.values(), *WORDS])}
    backend = Tokenizer(models.BPE(names, MERGES, **UNKNOWN, fuse_unk=True))
    steps: list[Any] = [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    backend.normalizer = normalizers.Sequence(steps)
    backend.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.Fuse()])
    return backend


def digits() -> Tokenizer:
    """SmolLM2's and StarCoder's: every digit is a word."""
    backend = byte_level()
    steps: list[Any] = [pre_tokenizers.Digits(individual_digits=True), backend.pre_tokenizer]
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    return backend


def runs() -> Tokenizer:
    """A rule of its own: two letters at a time."""
    backend = byte_level()
    split: Any = pre_tokenizers.Split(Regex("[a-z]{2}"), behavior="isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, backend.pre_tokenizer])
    return backend


def whole_words() -> Tokenizer:
    """Llama 3's: a word that is a token is that token, whatever the merges say."""
    names = byte_level().get_vocab()
    names["abc"] = len(names)
    backend = Tokenizer(models.BPE(names, MERGES[1:4], ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend


def byte_level() -> Tokenizer:
    names = [*NAMED.values(), *sorted(pre_tokenizers.ByteLevel.alphabet()), "ab", "12", "123"]
    backend = Tokenizer(models.BPE({one: n for n, one in enumerate(names)}, MERGES[1:4]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend


def folder_of(folder: Path, backend: Tokenizer, **config: Any) -> Path:
    folder.mkdir()
    backend.add_special_tokens([AddedToken(one, special=True) for one in NAMED.values()])
    backend.post_processor = TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)]
    )
    backend.save(str(folder / "tokenizer.json"))
    stated = {"model_type": config.pop("model_type", "llama"), "vocab_size": 300}
    (folder / "config.json").write_text(json.dumps(stated))
    (folder / "tokenizer_config.json").write_text(json.dumps({**NAMED, **config}))
    return folder


CLASSES = (
    *("LlamaTokenizer", "LlamaTokenizerFast", "CodeLlamaTokenizer", "GPT2Tokenizer"),
    *("Qwen2Tokenizer", "GemmaTokenizer", "CohereTokenizer", "GPTNeoXTokenizer"),
    *("CodeGenTokenizer", "BloomTokenizerFast", "PreTrainedTokenizerFast", "AClassOfNobody"),
)


@pytest.mark.parametrize("kind", [spaces, digits, runs, whole_words])
@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
@pytest.mark.parametrize("name", CLASSES)
def test_a_tokenizer_file_is_read_as_it_is_whatever_class_is_named(
    kind, name, model_type, tmp_path
):
    folder = folder_of(tmp_path / "f", kind(), tokenizer_class=name, model_type=model_type)
    stated = Tokenizer.from_file(str(folder / "tokenizer.json"))
    found = open_tokenizer(identify(folder))
    for text in ("abc", " ab", "  ab  a", "in 2123, 1 ab123", " ", "</s> ab</s>ab"):
        expected = stated.encode(text, add_special_tokens=False).ids
        assert found.encode(text, add_special_tokens=False) == expected, text
        assert found.encode(text) == [0, *expected]
        assert found.decode(expected) == stated.decode(expected, skip_special_tokens=False)
    assert found.special_tokens_map == NAMED


def test_a_tokenizer_file_that_changed_is_read_anew(tmp_path):
    folder = folder_of(tmp_path / "f", spaces(), tokenizer_class="LlamaTokenizer")
    file = folder / "tokenizer.json"
    made: Any = AutoTokenizer.from_pretrained(folder)
    made.backend_tokenizer.save(str(file))
    before = open_tokenizer(identify(folder))
    assert type(before) is type(made), "the file says what transformers makes of the class"
    stated = json.loads(file.read_text())
    stated["pre_tokenizer"] = {"type": "Digits", "individual_digits": True}
    file.write_text(json.dumps(stated))
    expected = Tokenizer.from_file(str(file)).encode("in 2123", add_special_tokens=False).ids
    after = open_tokenizer(identify(folder))
    assert after.encode("in 2123", add_special_tokens=False) == expected
    assert before.encode("in 2123", add_special_tokens=False) != expected


def test_a_template_and_added_tokens_survive_a_reading_by_the_file(tmp_path):
    mark = {"content": "<|end|>", "special": True, "lstrip": False, "rstrip": False}
    folder = folder_of(
        tmp_path / "f",
        spaces(),
        tokenizer_class="LlamaTokenizer",
        chat_template="{{ messages[0]['content'] }}",
        added_tokens_decoder={"290": {**mark, "normalized": False, "single_word": False}},
    )
    found = open_tokenizer(identify(folder))
    assert type(found).__name__ != "LlamaTokenizer"
    (number,) = found.encode("<|end|>", add_special_tokens=False)
    assert found.decode([number], skip_special_tokens=True) == ""
    assert found.chat_template == "{{ messages[0]['content'] }}"


def test_what_is_read_otherwise_than_before_has_another_fingerprint(tmp_path):
    same = {
        name: folder_of(tmp_path / name, spaces(), tokenizer_class=name)
        for name in ("TokenizersBackend", "LlamaTokenizer")
    }
    written = "tokenizer_config.json"
    digests = set()
    for name, folder in same.items():
        digests.add(fingerprint(folder))
        text = (folder / written).read_text().replace(name, "Xxx")
        (folder / written).write_text(text)
        digests.add(fingerprint(folder))
    assert len(digests) == 3  # the third is both folders' with the same name of a class


def test_an_adapter_that_prepares_texts_otherwise_is_read_by_its_own_tokenizer(tmp_path):
    base = read_tokenizer(folder_of(tmp_path / "base", spaces(), tokenizer_class="LlamaTokenizer"))
    other = spaces()
    other.normalizer = normalizers.Replace(" ", "\u2581")
    brought = own_tokenizer(folder_of(tmp_path / "adapter", other), base)
    assert brought is not None
    assert brought.encode("ab") != base.encode("ab")
    same = folder_of(tmp_path / "same", spaces(), tokenizer_class="LlamaTokenizerFast")
    assert own_tokenizer(same, base) is None
    plain = build()
    plain.save_pretrained(tmp_path / "bytes")
    assert own_tokenizer(tmp_path / "bytes", plain) is None


def a_byte_piece_without_its_byte(content: bytes) -> bytes:
    return content.replace(b"<0x41>", b"<8x41>")


def a_piece_that_is_no_text(content: bytes) -> bytes:
    return content.replace(b"<0x41>", b"<0x\xff1>")


def damaged_rules(content: bytes) -> bytes:
    """Of NFKC, whose table is the largest part of a small file."""
    middle = len(content) // 2
    return content[:middle] + bytes(64) + content[middle + 64 :]


@pytest.mark.parametrize(
    "damage", [a_byte_piece_without_its_byte, a_piece_that_is_no_text, damaged_rules]
)
def test_a_damaged_file_is_a_sentence(damage, tmp_path):
    folder = tmp_path / "alone"
    sentencepiece(folder, normalization_rule_name="nfkc")
    open_tokenizer(identify(folder))
    file = folder / "tokenizer.model"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(
        InputError, match=r"tokenizer\.model is damaged \(|its tokenizer cannot be loaded"
    ):
        open_tokenizer(identify(folder))


DAMAGE: dict[str, dict[str, Any]] = {
    "an unknown model": {"model": {"type": "Nope"}},
    "no model": {"model": None},
    "an unknown step": {"pre_tokenizer": {"type": "X"}},
    "rules that end in a panic": {
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    },
    "a token without a text": {"added_tokens": [{"id": 1}]},
    "a broken expression": {
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": "(("},
            "behavior": "Isolated",
            "invert": False,
        }
    },
}


@pytest.mark.parametrize("damage", [*DAMAGE, "a list"])
@pytest.mark.parametrize("named", ["LlamaTokenizer", "PreTrainedTokenizerFast"])
def test_a_damaged_tokenizer_file_is_a_sentence(named, damage, tmp_path):
    folder = folder_of(tmp_path / "folder", spaces(), tokenizer_class=named)
    file = folder / "tokenizer.json"
    whole = json.loads(file.read_text())
    file.write_text(json.dumps([] if damage == "a list" else whole | DAMAGE[damage]))
    with pytest.raises(InputError, match="its tokenizer cannot be loaded; give one as tokenizer"):
        open_tokenizer(identify(folder))
    with pytest.raises(InputError, match="the adapter's tokenizer cannot be loaded"):
        own_tokenizer(folder, None)
    with pytest.raises(InputError, match="the adapter's tokenizer cannot be loaded"):
        training_tokenizer(None, None, folder, "base")


@pytest.mark.parametrize("wrong", [{"model_max_length": "x"}, {"model_max_length": [1]}])
def test_a_configuration_that_fails_where_a_text_is_read_is_a_sentence(wrong, tmp_path):
    folder = folder_of(tmp_path / "folder", spaces(), tokenizer_class="PreTrainedTokenizerFast")
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | wrong))
    with pytest.raises(InputError, match="its tokenizer cannot be loaded; give one as tokenizer"):
        open_tokenizer(identify(folder))
