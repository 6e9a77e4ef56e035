"""What a finished run answered, so that the same run costs nothing: its keys, found again without loading weights.

The key of an answer names all that determines it, and much of that is known only of a loaded model. A run that was
finished leaves a note of its keys, under a key that names the same things as far as files and settings say them.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import msgspec

from alignboard.data.instruction_sets import InstructionSet
from alignboard.engines.rows import Answer, Decoding, read_answer
from alignboard.models.spec import ModelSpec
from alignboard.results.journal import Journal, JournalRow

FINISHED = "finished-run"


class Finished(msgspec.Struct, frozen=True):
    """The keys of a run's answers, for each row those of its turns; fewer where a turn was left out."""

    keys: list[list[str]]
    too_long: list[str]


def run_key(spec: ModelSpec, asked: InstructionSet, decoding: Decoding) -> bytes:
    """The name of a run in this process; reads the checkpoint's files and no weights into memory."""
    from alignboard.engines.generate import library_versions
    from alignboard.models.arithmetic import choose_device, choose_dtype
    from alignboard.models.checks.opened import open_small
    from alignboard.models.hub import base_of_adapter, locate, locate_adapter, locate_tokenizer
    from alignboard.models.identity import (
        adapter_fingerprint,
        fingerprint,
        fingerprint_with_tokenizer,
    )

    remote = spec.trust_remote_code
    with base_of_adapter(spec.base, spec.adapter):
        path, gguf_file = locate(
            spec.base, revision=spec.revision, gguf_file=spec.gguf_file, remote_code=remote
        )
    other: Path | None = None if spec.tokenizer is None else locate_tokenizer(spec.tokenizer)
    opened = open_small(spec)
    device = choose_device("auto")
    declared = msgspec.to_builtins(spec)
    for name in ("name", "base", "adapter", "notes", "licence", "aliases"):
        declared.pop(name)
    content = {
        "scheme": "finished-1",
        "declared": declared,
        "weights": fingerprint(path, gguf_file=gguf_file, tokenizer=other, remote_code=remote),
        "adapter": None
        if spec.adapter is None
        else fingerprint_with_tokenizer(
            adapter_fingerprint(locate_adapter(spec.adapter)), locate_adapter(spec.adapter)
        ),
        "template": opened.own_template,
        "generation": opened.generation,
        "arithmetic": [device, choose_dtype(spec.dtype, device, opened.checkpoint.config)],
        "turns": [row.turns for row in asked.rows],
        "temperatures": [row.temperature for row in asked.rows],
        "decoding": decoding.identity(),
        "libraries": library_versions("torch", "transformers", "peft"),
    }
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def recall(journal: Journal, key: bytes) -> tuple[list[list[Answer]], list[str]] | None:
    """The answers of a finished run, turn by turn, and what was too long; None where anything is missing."""
    note = journal.get([key]).get(key)
    if note is None:
        return None
    finished = msgspec.convert(note, Finished)
    wanted = [bytes.fromhex(one) for row in finished.keys for one in row]
    rows = journal.get(wanted)
    if any(one not in rows for one in wanted):
        return None
    responses = [[read_answer(rows[bytes.fromhex(one)]) for one in row] for row in finished.keys]
    return responses, finished.too_long


def remember(journal: Journal, key: bytes, finished: Finished) -> None:
    """Leave the note of a finished run."""
    if key not in journal.get([key]):
        journal.add([JournalRow(key, FINISHED, msgspec.to_builtins(finished))])
