"""The job that looks for instructions and benchmark documents in the rows of a training, and its flags on a board."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from alignboard.benchmarks.task_files import strings
from alignboard.boards.board import Board
from alignboard.data.preferences.contamination import NGRAM, Contamination
from alignboard.pipeline.executors.doing import JobTask
from alignboard.pipeline.plans.sets import read_set
from alignboard.results.raw_rows import raw_rows
from alignboard.suites import Instructions

FOUND: Final = "contamination.json"
_SAMPLES: Final = "samples_*.jsonl"
_WORDS: Final = 8
"""of a field of a document: what is shorter, such as a choice, tells nothing"""


def contamination(task: JobTask) -> dict[str, str]:
    """What the rows share with every instruction set and with every lm-eval task that the plan asks."""
    from alignboard.data.preferences.contamination import contamination as compare
    from alignboard.pipeline.jobs.training_data import TRAINED, splits_in

    rows = splits_in(task.inputs["data"])[TRAINED]
    found = [compare(rows, texts, name) for name, texts in _asked(task)]
    content = msgspec.json.encode(found, order="deterministic")
    (task.folder / FOUND).write_bytes(msgspec.json.format(content) + b"\n")
    return {}


def _asked(task: JobTask) -> Iterator[tuple[str, list[str]]]:
    """The names and the texts of what models are asked."""
    for one in task.job.hints["sets"]:
        declared = msgspec.convert(one["instructions"], Instructions)
        asked = read_set(one["set"], task.paths.workspace, declared)
        yield asked.name, [text for row in asked.rows for text in row.turns]
    for role, folder in task.inputs.items():
        if role != "data":
            for path in sorted(folder.rglob(_SAMPLES)):
                name = path.stem.removeprefix("samples_").rpartition("_")[0]
                yield name, _documents(path)


def _documents(path: Path) -> list[str]:
    """The text of every document of a task: its fields of some length, one after another."""
    found = {}
    for row in raw_rows(path):
        long = [text for text in strings(row["doc"]) if len(text.split()) >= _WORDS]
        found[row["doc_hash"]] = long
    return [text for long in found.values() for text in long]


def with_contamination(board: Board, inputs: Mapping[str, Path]) -> Board:
    """``board`` with a flag on every model whose training rows hold what it was asked, and the first example."""
    notes: dict[tuple[str, int, str], str] = {}
    flags: dict[str, list[str]] = defaultdict(list)
    for row in board.rows:
        for one in _of_model(row.model, inputs):
            if not one.examples:
                continue
            flags[row.model].append(
                f"trained on {one.shared} of {one.n_texts} texts of {one.name} ({one.exact} rows whole, "
                f"{one.overlapping} with {NGRAM} words in a row)"
            )
            number, text = one.examples[0]
            notes.setdefault(
                (one.name, number, text),
                f"Contamination: training row {number} of {row.model} shares {text[:80]!r} with {one.name}.",
            )
    return msgspec.structs.replace(board.with_flags(flags), notes=[*board.notes, *notes.values()])


def _of_model(model: str, inputs: Mapping[str, Path]) -> Iterator[Contamination]:
    number = 0
    while (role := f"contamination {number} {model}") in inputs:
        content = json.loads((inputs[role] / FOUND).read_text(encoding="utf-8"))
        yield from msgspec.convert(content, list[Contamination])
        number += 1
