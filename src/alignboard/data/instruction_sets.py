"""Instruction sets: what models are asked.

A set is a declaration in ``evaluate/sets/<name>.yaml`` that says where the instructions lie (released at a pinned
commit, in a local file, or generated), or simply a file: json, jsonl or csv with a column of instructions, such as
the ``model_outputs.json`` of a results folder. Order is kept, duplicates are refused, and the number of instructions
that a declaration promises is checked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from alignboard.data.generated import generated_names, generated_set
from alignboard.data.question_columns import require_whole
from alignboard.data.set_texts import ROOM, known_texts
from alignboard.errors import InputError, nearest
from alignboard.fetch.download import DownloadProgress
from alignboard.fetch.packages import is_packaged, packaged_path
from alignboard.fetch.sources import released_file
from alignboard.records import text_id
from alignboard.results.conversations import read_conversations
from alignboard.results.files import SUFFIXES
from alignboard.results.outputs_paths import ALPACA_EVAL
from alignboard.results.raw_rows import MERGED, REFUSED, instruction_of, raw_rows
from alignboard.suites import convert, read_yaml
from alignboard.workspace import declaration

_COLUMNS = ("instruction", "turns", "prompt", "question", "messages")
"""what holds the instruction in a file without a declaration; the first that is there"""
"""the one set whose responses have no folder of their own below ``results/<model>/``"""


@dataclass(frozen=True)
class Instruction:
    """One thing that is asked."""

    turns: tuple[str, ...]
    """what the user says, turn by turn; one, except in MT-bench"""
    subset: str | None = None
    question_id: str | int | None = None
    """MT-bench's and Arena-Hard's own number or name"""
    temperature: float | None = None
    """at which the set asks for an answer; None leaves that to the model"""


@dataclass(frozen=True)
class InstructionSet:
    """Instructions in the order in which answers are written."""

    name: str
    title: str
    rows: tuple[Instruction, ...]
    answer_key: str | None = None
    """the generated set whose program knows the right responses (`alignboard.data.generated`)"""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def n_turns(self) -> int:
        """The most turns that a row has."""
        return max(len(row.turns) for row in self.rows)

    def first(self, n: int | None) -> InstructionSet:
        """The first ``n``, as a set of its own name; the whole set where it has no more."""
        if n is None or n >= len(self.rows):
            return self
        return replace(self, name=f"{self.name}-first-{n}", rows=self.rows[:n])

    @property
    def digest(self) -> str:
        """sha256 of what is asked: every turn, its subset, number and temperature."""
        content = [[row.turns, row.subset, row.question_id, row.temperature] for row in self.rows]
        text = json.dumps(content, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def at_one_temperature(self) -> InstructionSet:
        """The set without its own temperatures: another decoding was asked for."""
        rows = tuple(replace(row, temperature=None) for row in self.rows)
        return replace(self, rows=rows)


class ReleasedFile(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A file of a GitHub repository at a pinned commit."""

    repository: str
    commit: str
    file: str


class Generated(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Instructions that a program writes (`alignboard.data.generated`)."""

    by: str
    split: str = "eval"
    seed: int = 0


class SetSpec(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """``evaluate/sets/<name>.yaml``; exactly one of ``released``, ``path`` and ``generated``."""

    name: str
    title: str = ""
    n: int | None = None
    """how many there are; checked (of a generated set: how many are drawn)"""
    released: ReleasedFile | None = None
    path: str | None = None
    """a local file, relative to the declaration, or ``package:NAME/FILE``"""
    rows: int | None = None
    """only the first so many rows of the file are read; null: all"""
    generated: Generated | None = None
    ignore: list[str] = []
    """columns that are no part of the question, though they look like one"""
    column: str = "instruction"
    """text, or a list of turns that are texts or have a ``content``"""
    subset_column: str | None = None
    subset: str | None = None
    """only the rows whose ``subset_column`` is this"""
    temperatures: dict[str, float] = {}
    """by subset; others are left to the model"""
    references: str | None = None
    """reference answers in FastChat's format, by ``question_id``: a file of the same release, or relative to the
    declaration"""
    texts: str | None = None
    """the XXH3 digests (64 bits, little-endian, base64) of the instructions in their order, by which they are known
    wherever they stand; calibrations belong to them"""


def load_set(
    name: str | Path, workspace: Path | None = None, progress: DownloadProgress | None = None
) -> InstructionSet:
    """The set called ``name``, or the instructions of the file ``name``.

    Raises `InputError` that names the file, the row and the field; `SourceError` where a released file cannot be
    fetched.
    """
    path = Path(name)
    if path.suffix in SUFFIXES:
        contents = raw_rows(path)
        rows = tuple(_read(path, contents, _file_spec(path, contents)))
        return InstructionSet(_file_name(path, rows), path.stem, rows)
    if path.suffix and path.is_file() and path.suffix not in {".yaml", ".yml"}:
        raise InputError(f"{path} has none of the formats that are read: {', '.join(SUFFIXES)}.")
    declared = declaration(ROOM, str(name), workspace)
    spec = convert(declared, read_yaml(declared), SetSpec, "an instruction set")
    rows = _rows(declared, spec, progress, workspace)
    if spec.n is not None and len(rows) != spec.n:
        raise InputError(
            f"{declared}: {spec.name} has {len(rows)} instructions, but n says {spec.n}; its source has changed."
        )
    key = None if spec.generated is None else spec.generated.by
    return InstructionSet(spec.name, spec.title or spec.name, tuple(rows), answer_key=key)


def set_url(name: str, workspace: Path | None = None) -> str | None:
    """Where the texts of the set called ``name`` are released; None for a set of one's own, and for a file."""
    if Path(name).suffix in SUFFIXES:
        return None
    declared = declaration(ROOM, name, workspace)
    spec = convert(declared, read_yaml(declared), SetSpec, "an instruction set")
    if spec.released is None:
        return None
    released = spec.released
    return f"https://github.com/{released.repository}/blob/{released.commit}/{released.file}"


def load_references(
    name: str | Path, workspace: Path | None = None, progress: DownloadProgress | None = None
) -> dict[str | int, tuple[str, ...]]:
    """The reference answers of the set called ``name``, turn by turn, by ``question_id``; none where it names none."""
    if Path(name).suffix in SUFFIXES:
        return {}
    declared = declaration(ROOM, str(name), workspace)
    spec = convert(declared, read_yaml(declared), SetSpec, "an instruction set")
    if spec.references is None:
        return {}
    path = _source(declared, spec, spec.references, progress)
    return {row.question_id: row.answers for row in read_conversations(path)}


def read_references(path: Path) -> dict[str, str]:
    """The reference response of every instruction of a file with ``instruction`` and ``output``."""
    found = {}
    for number, row in enumerate(raw_rows(path), start=1):
        instruction, *more = _turns(path, number, row, "instruction")
        if more:
            raise InputError(
                f"{path}, row {number}: instruction has several turns; one was expected."
            )
        output = row.get("output")
        if not isinstance(output, str) or not output.strip():
            raise InputError(f"{path}, row {number}: output is empty or no text.")
        found[instruction] = output
    return found


def _rows(
    declared: Path, spec: SetSpec, progress: DownloadProgress | None, workspace: Path | None
) -> list[Instruction]:
    if sum(source is not None for source in (spec.released, spec.path, spec.generated)) != 1:
        raise InputError(f"{declared}: give exactly one of released, path and generated.")
    if spec.subset is not None and spec.subset_column is None:
        raise InputError(f"{declared}: subset needs subset_column, the column that says it.")
    if spec.generated is not None:
        return [Instruction((text,)) for text in _generated(declared, spec.n, spec.generated)]
    released = spec.released
    given = str(spec.path) if released is None else released.file
    path = (
        packaged_path(given, workspace)
        if is_packaged(given)
        else _source(declared, spec, given, progress)
    )
    rows = _read(path, raw_rows(path)[: spec.rows], spec)
    if spec.subset is not None:
        rows = [row for row in rows if row.subset == spec.subset]
    return rows


def _generated(declared: Path, n: int | None, asked: Generated) -> list[str]:
    known = generated_names()
    if asked.by not in known:
        hint = nearest(asked.by, known) or f"; known are {', '.join(known)}."
        raise InputError(f"{declared}: generated.by is {asked.by!r}, which generates no set{hint}")
    program = generated_set(asked.by)
    if asked.split not in program.splits:
        raise InputError(
            f"{declared}: generated.split is {asked.split!r}; {asked.by} has {', '.join(program.splits)}."
        )
    if n is None:
        raise InputError(f"{declared}: n is missing: how many instructions of {asked.by} to draw.")
    return program.prompts(asked.split, n, asked.seed)


def _source(declared: Path, spec: SetSpec, name: str, progress: DownloadProgress | None) -> Path:
    """The file ``name`` of the release; where nothing is released, the one beside the declaration."""
    if spec.released is None:
        return declared.parent / name
    return released_file(spec.released.repository, spec.released.commit, name, progress)


def _file_name(path: Path, rows: Sequence[Instruction]) -> str:
    """AlpacaEval's own name for its 805 instructions, whatever the file is called; else the file's."""
    known = known_texts(ALPACA_EVAL)
    if known is not None and sorted(known.tolist()) == _ids(rows):
        return ALPACA_EVAL
    if path.stem == ALPACA_EVAL:
        raise InputError(
            f"{path} is called {ALPACA_EVAL}, and its {len(rows)} rows are not AlpacaEval's 805 instructions; rename "
            "the file, whose name is the folder of the responses."
        )
    return path.stem


def _ids(rows: Sequence[Instruction]) -> list[int]:
    """The identities of the turns, sorted."""
    return sorted(text_id(turn) for row in rows for turn in row.turns)


def _file_spec(path: Path, contents: Sequence[Mapping[str, Any]]) -> SetSpec:
    """Of a file without a declaration: questions of FastChat, of both Arena-Hards, or rows with one known column."""
    first = contents[0] if contents and isinstance(contents[0], Mapping) else {}
    column = next((name for name in _COLUMNS if name in first), "instruction")
    subsets = "category" if "category" in first and column != "instruction" else None
    return SetSpec(name=path.stem, column=column, subset_column=subsets)


def _read(path: Path, contents: Sequence[Mapping[str, Any]], spec: SetSpec) -> list[Instruction]:
    rows, seen, names = [], {}, {}
    for number, row in enumerate(contents, start=1):
        turns = _turns(path, number, row, spec.column, spec.ignore)
        known = {spec.column, spec.subset_column, *MERGED, *REFUSED, *spec.ignore}
        require_whole(path, number, row, "\n".join(turns), known)
        subset = _subset(row, spec.subset_column)
        known_as = row.get("question_id", row.get("uid"))
        if not isinstance(known_as, str | int | None):
            raise InputError(f"{path}, row {number}: question_id is neither a text nor a number.")
        one = Instruction(turns, subset, known_as, spec.temperatures.get(subset or ""))
        first = seen.setdefault(one.turns, number)
        if first != number:
            raise InputError(f"{path}, row {number}: {spec.column} is that of row {first} again.")
        if known_as is not None and names.setdefault(known_as, number) != number:
            raise InputError(
                f"{path}, row {number}: question_id {known_as!r} is that of row {names[known_as]} again; answers are "
                "found by it, so each question needs its own."
            )
        rows.append(one)
    if not rows:
        raise InputError(f"{path} holds no rows.")
    return rows


def _turns(
    path: Path, number: int, row: Any, column: str, ignored: Sequence[str] = ()
) -> tuple[str, ...]:
    if not isinstance(row, Mapping) or row.get(column) is None:
        there = f" (it has: {', '.join(map(str, row))})" if isinstance(row, Mapping) else ""
        raise InputError(
            f"{path}, row {number} has no column {column!r}{there}; rename the column, or set `column:` in "
            "evaluate/sets/NAME.yaml."
        )
    found = row[column]
    listed = found if isinstance(found, list) else [found]
    _require_user(path, number, column, listed)
    turns = [turn.get("content") if isinstance(turn, Mapping) else turn for turn in listed]
    texts = [turn for turn in turns if isinstance(turn, str) and turn.strip()]
    if not texts or len(texts) < len(turns):
        raise InputError(f"{path}, row {number}: {column} is empty or no text.")
    read = {name: value for name, value in row.items() if name not in ignored}
    return (instruction_of(path, number, read, column, texts[0]), *texts[1:])


def _require_user(path: Path, number: int, column: str, turns: Sequence[Any]) -> None:
    """Raise `InputError` for a turn that is not the user's: leaving it out would ask another question."""
    for turn in turns:
        role = turn.get("role", "user") if isinstance(turn, Mapping) else "user"
        if role != "user":
            raise InputError(
                f"{path}, row {number}: {column} holds a turn of {str(role)[:40]!r}, and a set holds what the user "
                "says; remove it, and set a system text in the model's entry (prompt: {system: ...})."
            )


def _subset(row: Mapping[str, Any], column: str | None) -> str | None:
    found = row.get(column) if column else None
    return None if found is None else str(found)
