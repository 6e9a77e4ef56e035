"""Readers of `fuzz.py` that need a folder: a tiny Llama's, in which one file is mutated; a cache of preferences."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import fuzz_seeds as seeds
from fuzz_seeds import Reader, Rows

_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] | trim }}"
    "{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_NAMED = {"bos_token": "<s>", "eos_token": "</s>"}
_SMALL = (
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"),
    "chat_template.jinja",
)


def folder_readers() -> dict[str, Reader]:
    """Of every file of a checkpoint: the small ones as `alignboard models check` reads them, weights as they load."""
    from alignboard.models.adapters import taught_ends
    from alignboard.models.arithmetic import Arithmetic
    from alignboard.models.checks.report import check_model
    from alignboard.models.formats import identify
    from alignboard.models.identity import fingerprint, prompt_fingerprint
    from alignboard.models.prompting import training_digest
    from alignboard.models.registry import load_model
    from alignboard.models.weights import open_model

    whole = _checkpoint()

    def reader(name: str, read: Callable[[Path], object]) -> Reader:
        def in_folder(path: Path) -> object:
            folder = path.parent / "adapter"
            if not folder.exists():
                folder.mkdir()
                for file, content in whole.items():
                    (folder / file).write_bytes(content)
            (folder / name).write_bytes(path.read_bytes())
            return read(folder)

        return Reader(Path(name).suffix, (whole[name],), in_folder)

    def check(folder: Path) -> object:
        prompt_fingerprint(folder)
        fingerprint(folder)
        return check_model(load_model(str(folder)))

    def weights(folder: Path) -> object:
        return open_model(identify(folder), Arithmetic("float32", "cpu"))

    def card(folder: Path) -> object:
        return training_digest(folder), taught_ends(folder)

    return {name: reader(name, check) for name in _SMALL} | {
        "weights": reader("model.safetensors", weights),
        "training card": reader("training.json", card),
    }


def preference_readers() -> dict[str, Reader]:
    """Of pairs, rated replies, conversations and LLaMA-Factory's entries, as trainings and `data check` read them."""
    import datasets
    import datasets.config

    from alignboard.data.preferences.read import read_rows
    from alignboard.data.preferences.sources import PreferenceSource

    pairs: Rows = [
        {"prompt": f"Q{n}", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(3)
    ]
    rated: Rows = [{"prompt": f"Q{n}", "completion": "x", "label": n == 1} for n in range(3)]
    turns: Rows = [
        {"prompt": [{"role": "user", "content": f"Q{n}"}]}
        | {side: [{"role": "assistant", "content": side}] for side in ("chosen", "rejected")}
        for n in range(3)
    ]
    said: Rows = [
        {"conversations": [{"from": "human", "value": f"Q{n}"}, {"from": "gpt", "value": "x"}]}
        for n in range(3)
    ]

    def read(path: Path, entry: str = "") -> object:
        cache = path.parent / "adapter"
        datasets.config.HF_DATASETS_CACHE = str(cache)
        datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # as the command line has it
        return read_rows(PreferenceSource(path.name + entry, workspace=path.parent))

    asked: Rows = [
        {"q": f"Q{n}", "a": "x", "b": "y", "said": [{"who": "bot", "says": "x"}]} for n in range(3)
    ]
    entry = {"file_name": "adapter/rows.jsonl", "ranking": True}
    columns = {"prompt": "q", "chosen": "a", "rejected": "b"}
    tags = {"role_tag": "who", "content_tag": "says", "assistant_tag": "bot"}
    tagged = {"formatting": "sharegpt", "columns": columns | {"chosen": "said"}, "tags": tags}
    entries = [{"rows": entry | {"columns": columns}}, {"rows": entry | tagged}]

    def read_entry(path: Path) -> object:
        rows = path.parent / "adapter" / "rows.jsonl"
        if not rows.exists():
            rows.parent.mkdir(exist_ok=True)
            rows.write_bytes(seeds.lines(asked))
        return read(path, "#rows")

    datasets.disable_progress_bars()
    every = (pairs, rated, turns, said)
    return {
        "dataset_info.json": Reader(".json", tuple(map(_encoded, entries)), read_entry),
    } | {
        f"preferences{suffix}": Reader(suffix, tuple(map(written, rows)), read)
        for suffix, written, rows in (
            (".json", seeds.array, every),
            (".jsonl", seeds.lines, every),
            (".csv", seeds.table, (pairs, rated)),
            (".parquet", seeds.parquet, every),
        )
    }


def _encoded(content: object) -> bytes:
    return json.dumps(content).encode()


@functools.cache
def _checkpoint() -> dict[str, bytes]:
    """The files of a model with one layer of eight dimensions, and a byte-level vocabulary."""
    import torch
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={one: n for n, one in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(one) for one in _NAMED.values()])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, chat_template=_TEMPLATE, **_NAMED)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=1, bos_token_id=256, eos_token_id=257, max_position_embeddings=64,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        card = json.dumps({"template_digest": "0" * 16, "end_tokens": ["</s>"]}).encode()
        files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
        return files | {"training.json": card}
