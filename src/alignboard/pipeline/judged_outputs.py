"""What is judged: a model's outputs beside a baseline's or by themselves, with what prompts may show beside them.

Outputs that others brought may hold reasoning; only the response is judged, and counted as length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from alignboard.errors import InputError, nearest
from alignboard.fetch.sources import DownloadProgress, released_file
from alignboard.judges.pairs import Pair, rated
from alignboard.judges.prompting.prompts import FIELDS
from alignboard.judges.rows import Question
from alignboard.models.reasoning import split
from alignboard.pipeline.answering import OUTPUTS
from alignboard.records import Generation
from alignboard.results.files import SUFFIXES
from alignboard.results.formats import read_rows
from alignboard.results.outputs_paths import without_decoding
from alignboard.results.raw_rows import raw_rows
from alignboard.results.verdict_paths import part_of
from alignboard.suites import load_suite
from alignboard.workspace import PUBLISHED

_SECOND = {"instruction_2", "first_2", "second_2"}
Fields = tuple[tuple[str, str], ...]
"""(name, text)"""


@dataclass(frozen=True)
class PairedOutputs:
    """One model's outputs beside the baseline's."""

    pairs: tuple[Pair, ...]
    datasets: dict[str, str | None]
    """by instruction"""
    place: Path
    """the folder that the judge's folder of verdicts goes to"""

    @property
    def baseline(self) -> str:
        """Whose outputs they are compared with."""
        return self.pairs[0].generator_1

    @property
    def model(self) -> str:
        """Whose outputs are judged."""
        return self.pairs[0].generator_2


@dataclass(frozen=True)
class Answers:
    """One model's outputs, which are rated by themselves; all of these are (n,)."""

    model: str
    questions: tuple[Question, ...]
    turns: tuple[int, ...]
    """from 1"""
    conversations: tuple[int, ...]
    """a number that the turns of one conversation share"""
    datasets: tuple[str | None, ...]
    place: Path
    """the folder that the judge's folder of ratings goes to"""


def set_folder(place: Path, model: str) -> str | None:
    """The folder of the set below the model's, where ``place`` is one; None for AlpacaEval's own place."""
    return place.name if place.parent.name == model else None


def load_baseline(
    name: str, workspace: Path, folder: str | None = None, progress: DownloadProgress | None = None
) -> list[Generation]:
    """The outputs of a baseline; see `baseline_file`."""
    return read_rows(baseline_file(name, workspace, folder, progress), Generation)


def baseline_file(
    name: str, workspace: Path, folder: str | None = None, progress: DownloadProgress | None = None
) -> Path:
    """Where a baseline's outputs are: a file, a model of the workspace, or a published suite's baseline (fetched).

    ``folder`` is that of the set (`set_folder`), of any decoding; a model's answers to AlpacaEval serve for a part of
    it, too.
    """
    path = Path(name)
    if path.suffix in SUFFIXES:
        return path
    results = workspace / "results"
    for below in dict.fromkeys((folder or "", without_decoding(folder or ""), "")):
        if (own := results / name / below / OUTPUTS).is_file():
            return own
    suites = {suite.baseline: suite for suite in map(load_suite, PUBLISHED)}
    if name not in suites:
        there = {path.relative_to(results).parts[0] for path in results.glob(f"**/{OUTPUTS}")}
        hint = nearest(name, [*sorted(there - {name}), *suites])
        raise InputError(
            f"There are no outputs of a baseline {name!r}: neither {results / name / OUTPUTS} nor a baseline of "
            f"{' or '.join(PUBLISHED)}{hint or '; give a file.'}"
        )
    released = suites[name].released
    file = f"{released.folder}/{name}/{OUTPUTS}"
    return released_file(released.repository, released.commit, file, progress)


def read_models(names: Sequence[str], workspace: Path) -> dict[str, list[Generation]]:
    """The responses of every model, a file or a name in ``results/``; raises `InputError` for two of one name."""
    outputs: dict[str, list[Generation]] = {}
    for name in names:
        rows = read_rows(baseline_file(name, workspace), Generation)
        model = rows[0].generator
        if model in outputs:
            raise InputError(f"Two of the models are {model!r}; name each once.")
        outputs[model] = rows
    return outputs


def shared_rows(
    outputs: Sequence[Generation], baseline: Sequence[Generation]
) -> tuple[list[Generation], list[Generation]]:
    """The rows of both whose instructions both have: too long for one, or refused to one, is left out of both."""
    shared = {row.instruction for row in outputs} & {row.instruction for row in baseline}
    given, against = (
        [row for row in rows if row.instruction in shared] for rows in (outputs, baseline)
    )
    return given, against


def compare(
    outputs: Sequence[Generation],
    baseline: Sequence[Generation],
    place: Path,
    limit: int | None = None,
    fields: Mapping[str, Fields] | None = None,
) -> PairedOutputs:
    """The model's and the baseline's answers, or those to the first ``limit`` instructions.

    ``place`` is the folder for verdicts on the whole file (`verdict_paths.beside`); ``fields``, by instruction, are
    what prompts may show beside it.
    """
    model = outputs[0].generator
    # What lies in a set's folder may be a part already; what does not is held against the whole set.
    whole = baseline if set_folder(place, model) is None else outputs
    place = part_of(place, model, limit, len(whole))
    if limit is not None:
        baseline = baseline[:limit]
        wanted = {row.instruction for row in baseline}
        outputs = [row for row in outputs if row.instruction in wanted]
    pairs = [
        msgspec.structs.replace(pair, fields=(fields or {}).get(pair.instruction, ()))
        for pair in pairs_of(outputs, baseline)
    ]
    datasets = {pair.asked: row.dataset for pair, row in zip(pairs, baseline, strict=True)}
    return PairedOutputs(tuple(pairs), datasets, place)


def answers(
    outputs: Sequence[Generation],
    place: Path,
    limit: int | None = None,
    fields: Mapping[str, Fields] | None = None,
) -> Answers:
    """The model's answers, or its first ``limit``, to be rated by themselves; the rest as in `compare`."""
    names = sorted({row.generator for row in outputs})
    if len(names) != 1:
        raise InputError(f"The outputs are by {', '.join(names)}; one generator was expected.")
    held = fields or {}
    rows = outputs[:limit]
    questions = tuple(
        rated(row.instruction, split(row.output).response, held.get(row.instruction, ()))
        for row in rows
    )
    n = len(rows)
    datasets = tuple(row.dataset for row in rows)
    place = part_of(place, names[0], limit, len(outputs))
    return Answers(names[0], questions, (1,) * n, tuple(range(n)), datasets, place)


def read_fields(path: Path) -> dict[str, Fields]:
    """Reference answers, rubrics and second turns of a json, jsonl or csv file, by its column ``instruction``.

    The columns are those of `prompts.FIELDS`; ``first_2`` is the baseline's second answer and ``second_2`` the model's.
    """
    found: dict[str, Fields] = {}
    for number, row in enumerate(raw_rows(path), start=1):
        if not isinstance(row, Mapping) or not isinstance(row.get("instruction"), str):
            raise InputError(f"{path}, row {number}: instruction is missing.")
        unknown = next((name for name in row if name not in {"instruction", *FIELDS}), None)
        if unknown is not None:
            raise InputError(
                f"{path}, row {number}: prompts show no {unknown!r}{nearest(unknown, FIELDS) or '.'}"
            )
        texts = [(name, row[name]) for name in FIELDS if row.get(name) not in (None, "")]
        wrong = next((name for name, text in texts if not isinstance(text, str)), None)
        if wrong is not None:
            raise InputError(f"{path}, row {number}: {wrong} is no text.")
        held = {name for name, _ in texts}
        if held & _SECOND and not {"instruction_2", "first_2"} <= held:
            raise InputError(
                f"{path}, row {number}: a second turn needs instruction_2 and first_2 (and second_2, of pairs)."
            )
        found[row["instruction"]] = tuple(texts)
    return found


def pairs_of(outputs: Sequence[Generation], baseline: Sequence[Generation]) -> list[Pair]:
    """The answers of a model and of its baseline to the same instructions, in the baseline's order.

    Raises `InputError` where one of them lacks an instruction of the other or has one twice.
    """
    models = {
        name: sorted({row.generator for row in rows})
        for name, rows in (("outputs", outputs), ("baseline", baseline))
    }
    for name, generators in models.items():
        if len(generators) != 1:
            raise InputError(
                f"The {name} are by {', '.join(generators)}; one generator was expected."
            )
    held: dict[str, Generation] = {}
    for number, row in enumerate(outputs, start=1):
        if row.instruction in held:
            raise InputError(
                f"Row {number} of the outputs of {row.generator} repeats the instruction {row.instruction[:60]!r}."
            )
        held[row.instruction] = row
    asked = {row.instruction for row in baseline}
    missing = [row for row in baseline if row.instruction not in held]
    if missing or len(held) > len(asked):
        extra = next((one for one in held if one not in asked), None)
        one = missing[0].instruction if missing else extra
        who = models["outputs"][0] if missing else models["baseline"][0]
        raise InputError(
            f"{who} has no answer to {str(one)[:60]!r} ({len(missing)} instructions of the baseline are missing, "
            f"{len(set(held) - asked)} are not the baseline's); judge outputs of one set, or give --limit N."
        )
    return [
        Pair(
            row.instruction,
            split(row.output).response,
            row.generator,
            split(held[row.instruction].output).response,
            held[row.instruction].generator,
        )
        for row in baseline
    ]
