"""Answers of two turns as pairs and as single outputs: each turn is judged by itself, with what was said before it.

So does FastChat's ``llm_judge`` (``gen_judgment.py``), whose files these are: a question, its answers by
``question_id``, and for some questions reference answers. What is said first is shown again with the second turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from alignboard.data.instruction_sets import (
    Instruction,
    InstructionSet,
    load_references,
    load_set,
)
from alignboard.errors import InputError, nearest
from alignboard.fetch.sources import DownloadProgress
from alignboard.judges.pairs import Pair, rated
from alignboard.models.reasoning import split
from alignboard.pipeline.judged_outputs import Answers, Fields, PairedOutputs
from alignboard.results.conversations import CONVERSATIONS, Conversation, read_conversations
from alignboard.results.verdict_paths import part_of

_MOST_TURNS = 2


@dataclass(frozen=True)
class Questions:
    """What was asked, and what is known to be right."""

    set_name: str
    """of the whole set"""
    asked: InstructionSet
    """the set, or its first questions; its name is the folder that verdicts go to"""
    references: Mapping[str | int, tuple[str, ...]]
    """by ``question_id``"""


def load_questions(
    name: str,
    workspace: Path,
    limit: int | None = None,
    fields: Path | None = None,
    progress: DownloadProgress | None = None,
) -> Questions:
    """The set ``name`` with its reference answers; raises `InputError` where it has more turns than prompts show.

    ``fields`` are those of outputs of one turn, and refused: nothing says which turn they are of.
    """
    if fields is not None:
        raise InputError(
            f"--fields {fields} is for outputs of one turn; answers of two turns take references from their set "
            "(references in evaluate/sets/NAME.yaml)."
        )
    asked = load_set(name, workspace, progress)
    if asked.n_turns > _MOST_TURNS:
        raise InputError(
            f"{asked.name} has questions of {asked.n_turns} turns; judges are shown {_MOST_TURNS} at most."
        )
    return Questions(asked.name, asked.first(limit), load_references(name, workspace, progress))


def load_baseline(name: str, questions: Questions, workspace: Path) -> list[Conversation]:
    """The answers of a baseline: a file, or a model of the workspace that has answered the set."""
    if Path(name).suffix == ".jsonl":
        return read_conversations(Path(name))
    # Where the first questions are asked for, answers to all of them serve as well.
    for folder in (questions.asked.name, questions.set_name):
        path = workspace / "results" / name / folder / CONVERSATIONS
        if path.is_file():
            return read_conversations(path)
    own = (workspace / "results").glob(f"*/{questions.set_name}/{CONVERSATIONS}")
    there = sorted(found.parents[1].name for found in own)
    raise InputError(
        f"There are no answers of a baseline {name!r} to {questions.set_name} in results"
        f"{nearest(name, there) or '; give a file, or a model that has answered it (`alignboard generate`).'}"
    )


def shared_conversations(
    questions: Questions, outputs: Sequence[Conversation], baseline: Sequence[Conversation]
) -> tuple[Questions, list[Conversation], list[Conversation]]:
    """The questions that both have answered whole, under their ids, and both's answers to them."""
    rows = [
        replace(row, question_id=_id(row, number))
        for number, row in enumerate(questions.asked.rows, start=1)
    ]
    shared = {row.question_id for row in outputs} & {row.question_id for row in baseline}
    asked = replace(questions.asked, rows=tuple(row for row in rows if row.question_id in shared))
    given, against = (
        [row for row in side if row.question_id in shared] for side in (outputs, baseline)
    )
    return replace(questions, asked=asked), given, against


def compare_conversations(
    questions: Questions,
    outputs: Sequence[Conversation],
    baseline: Sequence[Conversation],
    place: Path,
) -> PairedOutputs:
    """A pair for every turn: that turn's answers of the model and of the baseline.

    ``place`` is the folder for verdicts on the whole file (`verdict_paths.beside`).
    """
    pairs, datasets = [], {}
    both = zip(
        questions.asked.rows,
        _in_order(questions, baseline),
        _in_order(questions, outputs),
        strict=True,
    )
    for number, (row, first, second) in enumerate(both, start=1):
        for turn in range(len(row.turns)):
            fields = _fields(questions, row, number, turn)
            if turn:
                fields += (("first_2", first[turn]), ("second_2", second[turn]))
            pair = Pair(
                row.turns[0],
                first[0],
                baseline[0].model_id,
                second[0],
                outputs[0].model_id,
                fields,
            )
            pairs.append(pair)
            datasets[pair.asked] = row.subset
    return PairedOutputs(tuple(pairs), datasets, _place(questions, outputs, place))


def _place(questions: Questions, outputs: Sequence[Conversation], place: Path) -> Path:
    """``place``, or where the first questions of the set go; answers to a part may be in the part's folder already."""
    if place.name == questions.asked.name:
        return place
    n = len(questions.asked)
    return part_of(
        place,
        outputs[0].model_id,
        None if questions.asked.name == questions.set_name else n,
        n + 1,
    )


def conversation_answers(
    questions: Questions, outputs: Sequence[Conversation], place: Path
) -> Answers:
    """Every turn's answer, to be rated by itself; ``place`` as in `compare_conversations`."""
    asked, turns, units, datasets = [], [], [], []
    both = zip(questions.asked.rows, _in_order(questions, outputs), strict=True)
    for number, (row, answer) in enumerate(both, start=1):
        for turn in range(len(row.turns)):
            fields = _fields(questions, row, number, turn)
            if turn:
                fields += (("first_2", answer[turn]),)
            asked.append(rated(row.turns[0], answer[0], fields))
            turns.append(turn + 1)
            units.append(number)
            datasets.append(row.subset)
    return Answers(
        outputs[0].model_id,
        tuple(asked),
        tuple(turns),
        tuple(units),
        tuple(datasets),
        _place(questions, outputs, place),
    )


def _fields(questions: Questions, row: Instruction, number: int, turn: int) -> Fields:
    """What a prompt may show of a turn beside the answers."""
    references = questions.references.get(_id(row, number), ())
    names = ("reference", "reference_2")[: turn + 1]
    found = tuple((name, text) for name, text in zip(names, references, strict=False) if text)
    return (("instruction_2", row.turns[turn]), *found) if turn else found


def _id(row: Instruction, number: int) -> str | int:
    """As `alignboard generate` writes it: the set's own name of a question, else its number."""
    return number if row.question_id is None else row.question_id


def _in_order(questions: Questions, given: Sequence[Conversation]) -> list[tuple[str, ...]]:
    """The responses to every question, without reasoning; `InputError` where one is missing, or is to another set."""
    model, held = given[0].model_id, {row.question_id: row.answers for row in given}
    heard = {row.question_id: row.asked for row in given}
    ids = [_id(row, number) for number, row in enumerate(questions.asked.rows, start=1)]
    missing = [one for one in ids if one not in held]
    whole = questions.asked.name == questions.set_name
    others = [one for one in held if one not in set(ids)] if whole else []
    if missing or others:
        what = (
            f"has no answer to question {missing[0]} of"
            if missing
            else f"answers {others[0]}, no question of"
        )
        raise InputError(
            f"{model} {what} {questions.asked.name} ({len(missing)} are missing, {len(others)} are others); "
            "name the set that was answered by --set, or give --limit N."
        )
    for one, row in zip(ids, questions.asked.rows, strict=True):
        if len(held[one]) < len(row.turns):
            raise InputError(
                f"{model} has {len(held[one])} of {len(row.turns)} turns of question {one} of {questions.asked.name}."
            )
        _require_same_question(questions, model, one, heard[one], row.turns)
    return [tuple(split(turn).response for turn in held[one]) for one in ids]


def _require_same_question(
    questions: Questions,
    model: str,
    known_as: str | int,
    heard: Sequence[str],
    turns: Sequence[str],
) -> None:
    """Raise `InputError` where the file says that the model was asked something else under the question's name."""
    if heard and [one.strip() for one in heard] != [one.strip() for one in turns]:
        other = next((a for a, b in zip(heard, turns, strict=False) if a.strip() != b.strip()), "")
        what = f"was asked {other[:60]!r}" if other else f"was asked {len(heard)} turns"
        raise InputError(
            f"{model} {what} as question {known_as} of {questions.asked.name}, which is {turns[0][:60]!r}"
            f"{f' ({len(turns)} turns)' if not other else ''}; name the set that was answered by --set."
        )
