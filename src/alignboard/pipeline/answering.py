"""Models answer an instruction set: what is known is read from the journal, the rest is asked and committed row by row.

The product is AlpacaEval's ``model_outputs.json``: of the set ``alpaca-eval`` in ``results/<model>/``, where boards
look for it, of every other set (or of a part of one) in a folder of that name below. Questions of several turns
(MT-bench) make FastChat's ``model_answer.jsonl``. The file is written when every row is there, but for those that an
endpoint refuses.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import msgspec

from alignboard.benchmarks.run import Subject
from alignboard.data.instruction_sets import InstructionSet
from alignboard.engines.rows import Answer, Decoding, Engine, Failure, Prompt, read_answer
from alignboard.models.own_decoding import OwnDecoding
from alignboard.models.prompting import History
from alignboard.models.spec import ModelSpec
from alignboard.records import Generation
from alignboard.results.claims import ask_once
from alignboard.results.commits import Commits
from alignboard.results.conversations import (
    CONVERSATIONS,
    Choice,
    Conversation,
    write_conversations,
)
from alignboard.results.files import write_atomically
from alignboard.results.formats import write_rows
from alignboard.results.journal import Journal, JournalRow
from alignboard.results.outputs_paths import RECORD, outputs_place, set_place

GENERATION = "generation"
OUTPUTS = "model_outputs.json"
_SHOW_SECONDS = 0.2


OnProgress = Callable[[int, int], None]
"""(responses that are there, of)"""


@dataclass(frozen=True)
class GenerationReport:
    """What one model's run came to."""

    model: str
    path: Path
    decoding: dict[str, Any]
    """what of it a user may set (`shown_decoding`)"""
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
    """instructions without a response; where any but refused ones are among them, no file was written"""
    n_empty: int
    """responses without a text, such as those that ended while the model was reasoning"""
    n_cut: int
    """responses that the limit of new tokens ended"""
    followed: dict[str, Any] = field(default_factory=dict)
    """what of the model's own generation configuration was followed"""
    not_followed: dict[str, Any] = field(default_factory=dict)
    """what of it would give other responses, and was not"""

    @property
    def is_written(self) -> bool:
        """Whether there is a file: nothing is left to ask again, and something was said."""
        refused = all(one.kind == "refused" for one in self.failures)
        return refused and (not self.failures or len(self.failures) < self.n_rows)

    def to_report(self, root: Path) -> dict[str, Any]:
        """As JSON, with the place of the file below ``root``."""
        inner = replace(self, path=self.path.relative_to(root))
        return msgspec.to_builtins(inner, enc_hook=str)


def read_report(report: Mapping[str, Any], workspace: Path, set_name: str) -> GenerationReport:
    """What `GenerationReport.to_report` wrote of a set, with the place of its file in the workspace."""
    found = msgspec.convert(report, GenerationReport, dec_hook=lambda kind, value: kind(value))
    place = outputs_place(workspace, found.model, set_name, found.decoding)
    return replace(found, path=workspace / place / found.path.name)


class ReadyModel(Protocol):
    """A model that is ready to answer."""

    @property
    def engine(self) -> Engine:
        """What is asked."""
        ...

    def prompts(
        self, instructions: Sequence[str], decoding: Decoding, histories: Sequence[History]
    ) -> list[Prompt]:
        """With the key of each answer; ``histories`` are the turns before each."""
        ...

    def fits(self, instruction: str, history: History) -> bool:
        """Whether a prompt leaves room for an answer."""
        ...

    @property
    def own_decoding(self) -> OwnDecoding:
        """What its files say of decoding, as far as that is followed or left out here."""
        ...

    def decoding(self, given: Decoding) -> Decoding:
        """``given``, with what ends this model's replies."""
        ...

    def subject(self) -> Subject:
        """What benchmarks are run on."""
        ...


def decoding_of(spec: ModelSpec, **given: float | None) -> Decoding:
    """How ``spec`` decodes: what is ``given`` by the user, else the entry's defaults, else `Decoding`'s."""
    declared = spec.decoding
    found = Decoding(stop=tuple(spec.stop))
    for name in ("max_new_tokens", "temperature", "top_p", "seed"):
        own = getattr(declared, name)
        value = given.get(name) if given.get(name) is not None else own.value if own else None
        if value is not None:
            found = replace(found, **{name: value})
    return found


def shown_decoding(decoding: Decoding, asked: InstructionSet) -> dict[str, Any]:
    """What of a decoding a user may set, where it has a meaning: what tells two files of one set apart."""
    found = {"max_new_tokens": decoding.max_new_tokens, "temperature": decoding.temperature}
    if decoding.temperature > 0 or any(row.temperature for row in asked.rows):
        found |= {"seed": decoding.seed, "top_p": decoding.top_p}
    return found


def outputs_path(workspace: Path, model: str, asked: InstructionSet, decoding: Decoding) -> Path:
    """Where the answers of ``model`` go."""
    shown = shown_decoding(decoding, asked)
    return workspace / outputs_place(workspace, model, asked.name, shown) / file_name(asked)


def file_name(asked: InstructionSet) -> str:
    """The name of a file of answers to a set."""
    return CONVERSATIONS if asked.n_turns > 1 else OUTPUTS


def answer_set(
    model: ReadyModel,
    spec: ModelSpec,
    asked: InstructionSet,
    decoding: Decoding,
    journal: Journal,
    workspace: Path,
    on_progress: OnProgress | None = None,
) -> GenerationReport:
    """Answer what is missing of the set, turn by turn, then write the file, with its decoding beside it.

    Both go to the set's own folder in ``workspace``. Interrupt it at any moment: rows that had finished are not asked
    for again.
    """
    started = time.monotonic()
    shown = shown_decoding(decoding, asked)
    decoding = model.decoding(decoding)
    total = sum(len(row.turns) for row in asked.rows)
    commit = _Commit(journal, total, on_progress)
    responses: list[list[Answer]] = [[] for _ in asked.rows]
    too_long: list[str] = []
    failures: list[Failure] = []
    for turn in range(asked.n_turns):
        places, histories = [], []
        for place, row in enumerate(asked.rows):
            if len(row.turns) <= turn or len(responses[place]) < turn:
                continue
            answers = [answer.output for answer in responses[place]]
            history = tuple(zip(row.turns[:turn], answers, strict=True))
            if spec.too_long == "skip" and not model.fits(row.turns[turn], history):
                too_long.append(row.turns[turn])
                continue
            places.append(place)
            histories.append(history)
        for own, chosen in by_temperature(asked, places, decoding):
            texts = [asked.rows[places[k]].turns[turn] for k in chosen]
            prompts = model.prompts(texts, own, [histories[k] for k in chosen])
            failures += _ask(model.engine, prompts, own, commit)
            rows = journal.get([bytes.fromhex(prompt.key) for prompt in prompts])
            for k, prompt in zip(chosen, prompts, strict=True):
                if (found := rows.get(bytes.fromhex(prompt.key))) is not None:
                    responses[places[k]].append(read_answer(found))
    path = workspace / set_place(spec.name, asked.name) / file_name(asked)
    found = GenerationReport(
        model=spec.name,
        path=path,
        decoding=shown,
        n_rows=total - len(too_long),
        n_known=commit.n_known,
        n_tokens=commit.n_tokens,
        price=commit.price,
        seconds=time.monotonic() - started,
        too_long=tuple(too_long),
        failures=tuple(failures),
        n_empty=_count(responses, lambda answer: not answer.output),
        n_cut=_count(responses, lambda answer: answer.finish == "length"),
        followed=model.own_decoding.followed(),
        not_followed=dict(model.own_decoding.otherwise),
    )
    if found.is_written:
        _write(path, spec.name, asked, responses)
        write_atomically(path.with_name(RECORD), msgspec.json.encode(shown) + b"\n")
    return found


def _count(responses: Sequence[Sequence[Answer]], counts: Callable[[Answer], bool]) -> int:
    return sum(counts(answer) for row in responses for answer in row)


def by_temperature(
    asked: InstructionSet, places: Sequence[int], decoding: Decoding
) -> list[tuple[Decoding, list[int]]]:
    """Which of ``places`` (by their own places) are decoded how: a set may ask for temperatures of its own."""
    found: dict[float, list[int]] = {}
    for k, place in enumerate(places):
        own = asked.rows[place].temperature
        found.setdefault(decoding.temperature if own is None else own, []).append(k)
    return [(replace(decoding, temperature=own), chosen) for own, chosen in found.items()]


def _ask(
    engine: Engine, prompts: Sequence[Prompt], decoding: Decoding, commit: _Commit
) -> list[Failure]:
    """Ask what the journal does not know and commit it as it comes; returns what has no answer in the end."""
    failures: list[Failure] = []

    def ask(missing: list[Prompt]) -> None:
        try:
            for found in engine.answers(missing, decoding):
                if isinstance(found, Failure):
                    failures.append(found)
                else:
                    commit.add(found)
        finally:
            commit.flush()

    missing = {prompt.key: prompt for prompt in commit.missing(prompts)}
    ask_once(commit.journal, missing, commit.known, ask)
    commit.show()
    return failures


def _write(
    path: Path, model: str, asked: InstructionSet, responses: Sequence[Sequence[Answer]]
) -> None:
    """The answers of the rows that have all of theirs: AlpacaEval's file, or of several turns FastChat's."""
    whole = [
        (row, answers)
        for row, answers in zip(asked.rows, responses, strict=True)
        if len(answers) == len(row.turns)
    ]
    if asked.n_turns == 1:
        # Two instructions can be one prompt to a model (what its tokenizer does not know): one answer, two rows.
        rows = [_written(answers[0], row.turns[0], model, row.subset) for row, answers in whole]
        write_rows(path, rows)
        return
    conversations = [
        Conversation(
            question_id=number if row.question_id is None else row.question_id,
            answer_id=answers[-1].key,
            model_id=model,
            choices=[Choice(turns=[answer.output for answer in answers])],
        )
        for number, (row, answers) in enumerate(whole, start=1)
    ]
    write_conversations(path, conversations)


class AnswerRow(Generation, gc=False, omit_defaults=True):
    """A row of ``model_outputs.json``: AlpacaEval's columns, and after them ours, where they say something."""

    reasoning: str = ""
    """what was thought before the response; with an empty ``output``, what never came to one"""


def _written(answer: Answer, instruction: str, model: str, dataset: str | None) -> AnswerRow:
    return AnswerRow(instruction, answer.output, model, dataset, answer.finish, answer.reasoning)


class _Commit:
    """Commits answers as they come, and tells how far it is."""

    def __init__(self, journal: Journal, n_total: int, on_progress: OnProgress | None) -> None:
        self.journal = journal
        self._commits, self._on_progress = Commits(journal), on_progress
        self._n_total, self._n_done = n_total, 0
        self._shown = time.monotonic()
        self.n_known, self.n_tokens, self.price = 0, 0, 0.0

    def missing(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Those of ``prompts`` whose answers are not known; the others count as done."""
        known = self.known([prompt.key for prompt in prompts])
        return [prompt for prompt in prompts if prompt.key not in known]

    def known(self, keys: Sequence[str]) -> set[str]:
        """Those of ``keys`` that have an answer, which count as done."""
        known = {key.hex() for key in self.journal.get([bytes.fromhex(key) for key in keys])}
        self.n_known += len(known)
        self._n_done += len(known)
        return known

    def add(self, answer: Answer) -> None:
        """Take an answer."""
        self._commits.add(
            JournalRow(bytes.fromhex(answer.key), GENERATION, msgspec.to_builtins(answer))
        )
        self._n_done += 1
        self.n_tokens += answer.n_tokens or 0
        self.price += answer.price or 0.0
        if time.monotonic() - self._shown > _SHOW_SECONDS:
            self.show()

    def flush(self) -> None:
        """Return when every answer is committed."""
        self._commits.flush()

    def show(self) -> None:
        """Tell how far it is."""
        self._shown = time.monotonic()
        if self._on_progress is not None:
            self._on_progress(self._n_done, self._n_total)
