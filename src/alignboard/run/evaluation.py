"""From outputs to judged outputs: who is the baseline, which judge, and where it all goes."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from alignboard.data.instruction_sets import Instruction, InstructionSet, records
from alignboard.errors import InputError, nearest
from alignboard.evaluate.judging.load import load_judge
from alignboard.evaluate.judging.pairs import Judged, Pair
from alignboard.evaluate.judging.pricing import Cost, Unopened, cost_of
from alignboard.evaluate.judging.prompts import FIELDS
from alignboard.evaluate.judging.runner import Judge, OnProgress
from alignboard.evaluate.judging.spec import JurySpec, Order, PromptedSpec, RewardSpec, order_of
from alignboard.evaluate.judging.upstream import Pool
from alignboard.leaderboards.reproduce import reference_set
from alignboard.leaderboards.scores import LcScore, lc_win_rates
from alignboard.records import Generation
from alignboard.results.calibration import Calibration
from alignboard.results.folder import ResultsFolder
from alignboard.results.formats import read_rows
from alignboard.results.journal import Journal
from alignboard.results.sources import Progress, released_file
from alignboard.run.answering import ALPACA_EVAL, OUTPUTS
from alignboard.run.judges import Declared, Judges
from alignboard.run.judging import JournalReplies, Summary, pairs_of, write_judged
from alignboard.suites import Suite, load_suite
from alignboard.workspace import PUBLISHED

Fields = tuple[tuple[str, str], ...]
"""(name, text)"""


@dataclass(frozen=True)
class Comparison:
    """One model's outputs beside the baseline's."""

    pairs: tuple[Pair, ...]
    datasets: dict[str, str | None]
    """by instruction"""
    part: str | None
    """of a part of a set: the folder that it goes to"""

    @property
    def model(self) -> str:
        """Whose outputs are judged."""
        return self.pairs[0].generator_2


def declared_judge(
    name: str, workspace: Path, order: Order | None = None, *, hardened: bool = False
) -> Declared:
    """The judge ``name``. One that is asked otherwise than it declares is another judge, with a name that says so."""
    declared = load_judge(name, workspace)
    if order is not None:
        if isinstance(declared, Pool | JurySpec | RewardSpec):
            kind = {Pool: "a pool", JurySpec: "a jury"}.get(type(declared), "a reward model")
            raise InputError(f"Judge {name} is {kind}, which has no order of its own to change.")
        if order != order_of(declared):
            declared = msgspec.structs.replace(
                declared, order=order, name=f"{declared.name}-{order}"
            )
    if hardened:
        if not isinstance(declared, PromptedSpec):
            raise InputError(f"Judge {name} has no prompt that could be hardened.")
        if not declared.hardened:
            if declared.prompt.batch > 1:
                raise InputError(
                    f"Judge {name} shows several pairs in a prompt, which cannot be hardened."
                )
            new = f"{declared.name}-hardened"
            declared = msgspec.structs.replace(declared, hardened=True, name=new)
    return declared


def load_baseline(name: str, workspace: Path, progress: Progress | None = None) -> list[Generation]:
    """The outputs of a baseline: a file, a model of the workspace, or the baseline of a published suite (fetched)."""
    path = Path(name)
    if path.suffix in {".json", ".jsonl", ".csv"}:
        return read_rows(path, Generation)
    own = workspace / "results" / name / OUTPUTS
    if own.is_file():
        return read_rows(own, Generation)
    suites = {suite.baseline: suite for suite in map(load_suite, PUBLISHED)}
    if name not in suites:
        there = sorted(found.parent.name for found in (workspace / "results").glob(f"*/{OUTPUTS}"))
        hint = nearest(name, [*there, *suites])
        raise InputError(
            f"There are no outputs of a baseline {name!r}: neither {own} nor a baseline of "
            f"{' or '.join(PUBLISHED)}{hint or '; give a file.'}"
        )
    released = suites[name].released
    file = f"{released.folder}/{name}/{OUTPUTS}"
    return read_rows(
        released_file(released.repository, released.commit, file, progress), Generation
    )


def compare(
    outputs: Sequence[Generation],
    baseline: Sequence[Generation],
    limit: int | None,
    fields: Mapping[str, Fields] | None = None,
) -> Comparison:
    """The model's and the baseline's answers, or those to the first ``limit`` instructions.

    ``fields`` are by instruction: what prompts may show beside it.
    """
    part = None
    if limit is not None and limit < len(baseline):
        baseline, part = baseline[:limit], f"first-{limit}"
        wanted = {row.instruction for row in baseline}
        outputs = [row for row in outputs if row.instruction in wanted]
    pairs = [
        msgspec.structs.replace(pair, fields=(fields or {}).get(pair.instruction, ()))
        for pair in pairs_of(outputs, baseline)
    ]
    return Comparison(tuple(pairs), {row.instruction: row.dataset for row in baseline}, part)


def read_fields(path: Path) -> dict[str, Fields]:
    """Reference answers, rubrics and second turns of a json, jsonl or csv file, by its column ``instruction``.

    The columns are those of `prompts.FIELDS`; ``first_2`` is the baseline's second answer and ``second_2`` the model's.
    """
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
    found: dict[str, Fields] = {}
    for number, row in enumerate(records(path, content), start=1):
        if not isinstance(row, Mapping) or not isinstance(row.get("instruction"), str):
            raise InputError(f"{path}, row {number}: instruction is missing.")
        unknown = next((name for name in row if name not in {"instruction", *FIELDS}), None)
        if unknown is not None:
            raise InputError(
                f"{path}, row {number}: prompts show no {unknown!r}{nearest(unknown, FIELDS) or '.'}"
            )
        texts = [(name, row[name]) for name in FIELDS if row.get(name) not in {None, ""}]
        wrong = next((name for name, text in texts if not isinstance(text, str)), None)
        if wrong is not None:
            raise InputError(f"{path}, row {number}: {wrong} is no text.")
        found[row["instruction"]] = tuple(texts)
    return found


class Evaluation:
    """Judging in one workspace: a judge, its replies in the journal, its files in ``results/``."""

    def __init__(self, judges: Judges, journal: Journal, workspace: Path) -> None:
        self._judges, self._workspace = judges, workspace
        self._replies = JournalReplies(journal)

    def judge(
        self,
        declared: Declared,
        compared: Comparison,
        on_progress: OnProgress | None = None,
        *,
        ask: bool = True,
    ) -> tuple[Summary, list[Judged]]:
        """Ask what is missing, write the model's files, and say what they come to."""
        judged = self._judges.judge(declared, compared.pairs, self._replies, on_progress, ask=ask)
        summary = write_judged(
            self._workspace, declared, judged, compared.datasets, _order(declared), compared.part
        )
        return summary, judged

    def costs(self, declared: Declared, compared: Comparison) -> list[Cost]:
        """What is missing, and what it costs, by judge; nobody is asked."""
        found = []
        for spec in self._judges.members(declared):
            own = compared.pairs
            if isinstance(declared, Pool):
                own = [pair for pair in own if declared.choose(pair.instruction).name == spec.name]
            if self._judges.needs_weights(spec):
                found.append(cost_of(Judge(spec, Unopened()), own, None, None))
                continue
            judge = Judge(spec, self._judges.open(spec), self._judges.secret)
            found.append(cost_of(judge, own, self._replies, self._judges.rate(spec)))
        return found


def _order(declared: Declared) -> str:
    if isinstance(declared, JurySpec):
        return declared.rule
    return "coin" if isinstance(declared, Pool) else order_of(declared)


def hardening_secret(journal: Path) -> str:
    """What hardened prompts of this workspace draw their marks from: made once, and never shown."""
    path = journal / "hardened-secret"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(hashlib.sha256(secrets.token_bytes(32)).hexdigest())
    return path.read_text().strip()


def suite_of(name: str) -> Suite:
    """A published suite; raises `InputError` for any other."""
    if name not in PUBLISHED:
        raise InputError(f"{name!r} is not a suite with a published board: {', '.join(PUBLISHED)}.")
    return load_suite(name)


def instructions_of(suite: Suite, baseline: Sequence[Generation]) -> InstructionSet:
    """The suite's instructions, from its baseline's outputs; raises `InputError` where it has another number."""
    if len(baseline) != suite.n_instructions:
        raise InputError(
            f"{suite.baseline} has {len(baseline)} outputs, but {suite.name} has {suite.n_instructions} instructions."
        )
    rows = tuple(Instruction((row.instruction,), row.dataset) for row in baseline)
    return InstructionSet(ALPACA_EVAL, suite.title, rows)


def expected(model: str, asked: InstructionSet, baseline: Sequence[Generation]) -> Comparison:
    """What a model that has not answered yet would be judged on, if its answers were as long as the baseline's."""
    rows = baseline[: len(asked.rows)]
    pairs = [
        Pair(row.instruction, row.output, row.generator, f"{row.output} ", model) for row in rows
    ]
    return Comparison(tuple(pairs), {}, None)


def length_controlled(
    workspace: Path, suite: Suite, model: str, calibration: Calibration
) -> LcScore:
    """The length-controlled win rate by the suite's own judge, each difficulty at its own instruction."""
    with ResultsFolder(workspace / "results") as folder:
        tables = folder.tables([model], suite.annotator)
        return lc_win_rates(
            tables[model], reference_set(folder, suite, tables), calibration
        ).aligned
