"""Models answer an instruction set: what is known is read from the journal, the rest is asked and committed row by row.

The product is AlpacaEval's ``model_outputs.json``: of the set ``alpaca-eval`` in ``results/<model>/``, where boards
look for it, of every other set (or of a part of one) in a folder of that name below. It is written when every row is
there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import msgspec

from alignboard.data.instruction_sets import InstructionSet
from alignboard.errors import InputError
from alignboard.evaluate.engines.rows import Answer, Decoding, Engine, Failure, Prompt
from alignboard.models.spec import ModelSpec
from alignboard.results.formats import write_rows
from alignboard.results.journal import Journal, Row
from alignboard.workspace import model_name

GENERATION = "generation"
OUTPUTS = "model_outputs.json"
ALPACA_EVAL = "alpaca-eval"
_COMMIT_SECONDS = 0.2


@dataclass(frozen=True)
class Progress:
    """How far one model is."""

    model: str
    done: int
    total: int
    n_tokens: int
    """generated in this run"""
    seconds: float


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class Answered:
    """What one model's run came to."""

    model: str
    path: Path
    n_rows: int
    n_known: int
    """answers that were there before"""
    n_tokens: int
    """generated now, where the engine says"""
    price: float
    """US dollars, where a price table was given"""
    seconds: float
    too_long: tuple[str, ...]
    """instructions left out, where the entry says ``too_long: skip``"""
    failures: tuple[Failure, ...]
    """where there are any, no file was written"""


class Asked(Protocol):
    """A model that is ready to answer."""

    @property
    def engine(self) -> Engine:
        """What is asked."""
        ...

    def prompts(self, instructions: Sequence[str], decoding: Decoding) -> list[Prompt]:
        """With the key of each answer."""
        ...

    def fits(self, instruction: str) -> bool:
        """Whether a prompt leaves room for an answer."""
        ...

    def decoding(self, given: Decoding) -> Decoding:
        """``given``, with what ends this model's replies."""
        ...


def decoding_of(spec: ModelSpec, **given: float | None) -> Decoding:
    """How ``spec`` decodes: what is ``given`` by the user, else the entry's defaults, else `Decoding`'s."""
    declared = spec.decoding
    found = Decoding(stop=tuple(spec.stop))
    for field in ("max_new_tokens", "temperature", "top_p", "seed"):
        own = getattr(declared, field)
        value = given.get(field) if given.get(field) is not None else own.value if own else None
        if value is not None:
            found = replace(found, **{field: value})
    return found


def outputs_path(workspace: Path, model: str, asked: InstructionSet) -> Path:
    """Where the answers of ``model`` are written."""
    folder = workspace / "results" / model_name(model)
    return (
        folder / OUTPUTS if asked.name == ALPACA_EVAL else folder / model_name(asked.name) / OUTPUTS
    )


def instructions_of(asked: InstructionSet) -> list[tuple[str, str | None]]:
    """(instruction, subset) of every row; raises `InputError` for questions of several turns."""
    for number, row in enumerate(asked.rows, start=1):
        if len(row.turns) > 1:
            raise InputError(
                f"{asked.name}, row {number} has {len(row.turns)} turns; model_outputs.json holds answers to one."
            )
    return [(row.turns[0], row.subset) for row in asked.rows]


def answer_set(
    model: Asked,
    spec: ModelSpec,
    asked: InstructionSet,
    decoding: Decoding,
    journal: Journal,
    workspace: Path,
    on_progress: OnProgress | None = None,
) -> Answered:
    """Answer what is missing of the set, then write the file.

    Interrupt it at any moment: rows that had finished are not asked for again.
    """
    started = time.monotonic()
    decoding = model.decoding(decoding)
    wanted = instructions_of(asked)
    too_long: list[str] = []
    if spec.too_long == "skip":
        too_long = [instruction for instruction, _ in wanted if not model.fits(instruction)]
        wanted = [row for row in wanted if row[0] not in set(too_long)]
    prompts = model.prompts([instruction for instruction, _ in wanted], decoding)
    keys = [bytes.fromhex(prompt.key) for prompt in prompts]
    known = journal.get(keys)
    missing = [prompt for prompt, key in zip(prompts, keys, strict=True) if key not in known]
    commit = _Commit(journal, spec.name, len(prompts), len(known), on_progress)
    failures = []
    with ExitStack() as stack:
        stack.callback(commit.flush)
        for found in model.engine.answers(missing, decoding) if missing else ():
            if isinstance(found, Failure):
                failures.append(found)
            else:
                commit.add(found)
    path = outputs_path(workspace, spec.name, asked)
    if not failures:
        rows = journal.get(keys)
        answers = [msgspec.convert(rows[key], Answer) for key in keys]
        write_rows(
            path,
            [one.row(spec.name, subset) for one, (_, subset) in zip(answers, wanted, strict=True)],
        )
    return Answered(
        model=spec.name,
        path=path,
        n_rows=len(prompts),
        n_known=len(known),
        n_tokens=commit.n_tokens,
        price=commit.price,
        seconds=time.monotonic() - started,
        too_long=tuple(too_long),
        failures=tuple(failures),
    )


class _Commit:
    """Commits answers as they come, a few at a time, and tells how far it is."""

    def __init__(
        self,
        journal: Journal,
        model: str,
        n_total: int,
        n_known: int,
        on_progress: OnProgress | None,
    ) -> None:
        self._journal, self._model, self._on_progress = journal, model, on_progress
        self._n_total, self._n_done = n_total, n_known
        self._waiting: list[Row] = []
        self._started = self._last = time.monotonic()
        self.n_tokens, self.price = 0, 0.0

    def add(self, answer: Answer) -> None:
        self._waiting.append(
            Row(bytes.fromhex(answer.key), GENERATION, msgspec.to_builtins(answer))
        )
        self.n_tokens += answer.n_tokens or 0
        self.price += answer.price or 0.0
        if time.monotonic() - self._last > _COMMIT_SECONDS:
            self.flush()

    def flush(self) -> None:
        self._journal.add(self._waiting)
        self._n_done += len(self._waiting)
        self._waiting = []
        self._last = time.monotonic()
        if self._on_progress is not None:
            self._on_progress(
                Progress(
                    self._model,
                    self._n_done,
                    self._n_total,
                    self.n_tokens,
                    self._last - self._started,
                )
            )
