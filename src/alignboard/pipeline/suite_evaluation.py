"""A published suite in one workspace: its instructions, a model's pairs, and its length-controlled win rate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from alignboard.data.instruction_sets import Instruction, InstructionSet
from alignboard.errors import InputError
from alignboard.judges.pairs import Pair
from alignboard.pipeline.judged_outputs import PairedOutputs, compare
from alignboard.published.calibration import Calibration
from alignboard.published.reproduce import reference_set
from alignboard.published.scores import LcScore, lc_win_rates
from alignboard.records import Generation
from alignboard.results.folder import ResultsFolder
from alignboard.results.formats import read_rows
from alignboard.results.outputs_paths import ALPACA_EVAL
from alignboard.results.verdict_paths import beside
from alignboard.suites import Suite, load_suite
from alignboard.workspace import PUBLISHED


def suite_of(name: str) -> Suite:
    """A published suite; raises `InputError` for any other."""
    if name not in PUBLISHED:
        raise InputError(
            f"{name!r} is not a suite with a published board ({', '.join(PUBLISHED)}); benchmarks are run by a plan: "
            f"write `suites: [{name}]` into a plan's file, then `alignboard run PLAN`."
        )
    return load_suite(name)


def instructions_of(suite: Suite, baseline: Sequence[Generation]) -> InstructionSet:
    """The suite's instructions, from its baseline's outputs; raises `InputError` where it has another number."""
    if len(baseline) != suite.n_instructions:
        raise InputError(
            f"{suite.baseline} has {len(baseline)} outputs, but {suite.name} has {suite.n_instructions} instructions."
        )
    rows = tuple(Instruction((row.instruction,), row.dataset) for row in baseline)
    return InstructionSet(ALPACA_EVAL, suite.title, rows)


def expected(
    model: str, asked: InstructionSet, baseline: Sequence[Generation], path: Path
) -> PairedOutputs:
    """What a model is judged on: its responses at ``path``, or such as are as long as the baseline's."""
    rows = baseline[: len(asked.rows)]
    if path.is_file():
        given = read_rows(path, Generation)
        if {row.instruction for row in given} == {row.instruction for row in rows}:
            return compare(given, rows, beside(path, model))
    pairs = [
        Pair(row.instruction, row.output, row.generator, f"{row.output} ", model) for row in rows
    ]
    return PairedOutputs(tuple(pairs), {}, path.parent)


def length_controlled(
    workspace: Path, suite: Suite, model: str, calibration: Calibration
) -> LcScore:
    """The length-controlled win rate by the suite's own judge, each difficulty at its own instruction."""
    with ResultsFolder(workspace / "results") as folder:
        tables = folder.tables([model], suite.annotator)
        return lc_win_rates(
            tables[model], reference_set(folder, suite, tables), calibration
        ).aligned
