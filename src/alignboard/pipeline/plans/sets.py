"""The instruction sets and the baselines of a plan, read and checked against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alignboard.data.instruction_sets import Instruction, InstructionSet, load_set
from alignboard.errors import InputError
from alignboard.fetch.sources import DownloadProgress
from alignboard.pipeline.answering import OUTPUTS
from alignboard.pipeline.judged_outputs import baseline_file
from alignboard.records import Generation
from alignboard.results.conversations import CONVERSATIONS, Conversation, read_conversations
from alignboard.results.formats import read_rows
from alignboard.suites import EvaluationSuite, Instructions
from alignboard.workspace import model_name


@dataclass(frozen=True)
class ReleasedResponses:
    """Released responses of one model to one set."""

    model: str
    path: Path


@dataclass(frozen=True)
class PlanSet:
    """A suite's instruction set, as the plan asks it."""

    suite: EvaluationSuite
    declared: Instructions
    """with the plan's own limit"""
    source: str | None
    """the name of the set, or the whole path of its file; None of one that a command made"""
    asked: InstructionSet
    reference: ReleasedResponses | None
    """the baseline of every model, where it is none of the plan's models"""

    @property
    def name(self) -> str:
        """What the folder of its responses is called."""
        return self.asked.name


def read_set(
    source: str, root: Path, declared: Instructions, progress: DownloadProgress | None = None
) -> InstructionSet:
    """The instructions that ``declared`` means, in this process or a worker's."""
    asked = load_set(source, root, progress).first(declared.limit)
    return asked if declared.temperature is None else asked.at_one_temperature()


def set_source(declared: Instructions, root: Path) -> str:
    """The set's name, or the whole path of a file of the workspace."""
    path = root / declared.set
    return str(path) if path.is_file() else declared.set


def outputs_file(given: str, root: Path, asked: InstructionSet) -> Path:
    """The file of responses to ``asked`` that ``given`` means: itself, or the one in this folder."""
    path = root / given
    if path.is_file():
        return path
    name = CONVERSATIONS if asked.n_turns > 1 else OUTPUTS
    whole = asked.name.rpartition("-first-")[0] or asked.name
    tried = [path / asked.name / name, path / whole / name, path / name]
    found = next((one for one in tried if one.is_file()), None)
    if found is None:
        raise InputError(
            f"There are no responses to {asked.name} in {path}: neither of {tried[0]} and {tried[-1]} is there."
        )
    return found


def named_baseline(name: str, root: Path, asked: InstructionSet) -> ReleasedResponses:
    """A baseline by its name: a file, a model of the workspace, or the baseline of a published suite (fetched)."""
    if asked.n_turns > 1:
        return released_baseline(f"results/{name}", root, asked)
    path = baseline_file(name, root, asked.name)
    return ReleasedResponses(require_responses(path, asked), path)


def released_baseline(given: str, root: Path, asked: InstructionSet) -> ReleasedResponses:
    """A baseline by its file or folder."""
    path = outputs_file(given, root, asked)
    return ReleasedResponses(require_responses(path, asked), path)


def require_responses(path: Path, asked: InstructionSet) -> str:
    """Whose responses the file holds; raises `InputError` where they do not cover the set."""
    if path.name == CONVERSATIONS:
        return responses(path, asked)[0].model_id
    return select(path, read_rows(path, Generation), asked)[0].generator


def select(path: Path, rows: Sequence[Generation], asked: InstructionSet) -> list[Generation]:
    """The rows of ``asked`` in its order."""
    makers = sorted({row.generator for row in rows})
    if len(makers) != 1:
        raise InputError(
            f"{path} holds outputs of {', '.join(makers)}; one generator was expected."
        )
    model_name(makers[0])
    held = {row.instruction: row for row in rows}
    missing = [row.turns[0] for row in asked.rows if row.turns[0] not in held]
    if missing:
        raise InputError(
            f"{path} has no response to {missing[0][:60]!r} of the set {asked.name} ({len(missing)} of "
            f"{len(asked.rows)} are missing); name the set that these responses answer."
        )
    return [held[row.turns[0]] for row in asked.rows]


def responses(path: Path, asked: InstructionSet) -> list[Conversation]:
    """Conversations on ``asked``, in its order."""
    held = {one.question_id: one for one in read_conversations(path)}
    ids = [_number(row, place) for place, row in enumerate(asked.rows, start=1)]
    missing = [one for one in ids if one not in held]
    if missing:
        raise InputError(
            f"{path} has no response to question {missing[0]} of the set {asked.name} ({len(missing)} are missing)."
        )
    return [held[one] for one in ids]


def _number(row: Instruction, place: int) -> str | int:
    return place if row.question_id is None else row.question_id
