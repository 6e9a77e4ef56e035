"""What is wrong or suspicious in a folder of results and on the published boards, each with its evidence.

Findings are facts with their numbers; what to do about them is the reader's. Nothing is changed, no file is
written but the folder's cache. Modules: ``audit_boards`` (published boards alone), ``audit_results`` (verdicts),
``audit_answers`` (a model's texts), ``audit_judge`` (the judge), ``audit_column`` (what they read).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from alignboard.judges.prompting.attacks import AttackReport
from alignboard.parallel import fork_map
from alignboard.published.audit.answers import attack_report, audit_answers, audit_copies
from alignboard.published.audit.boards import audit_boards
from alignboard.published.audit.column import WORTH_A_FORK, AnnotatorResults, read_columns
from alignboard.published.audit.finding import Finding, Severity, at_least, in_order
from alignboard.published.audit.judge import audit_position, audit_unparsed
from alignboard.published.audit.results import (
    audit_coverage,
    audit_judged_baseline,
    audit_names,
    audit_outputs,
    audit_published,
    audit_reference,
    audit_rows,
)
from alignboard.published.calibration import Calibration
from alignboard.results.folder import ResultsFolder
from alignboard.suites import Suite

__all__ = ["Finding", "Severity", "at_least", "audit_boards", "audit_results"]


def audit_results(
    folder: ResultsFolder,
    suites: Sequence[Suite],
    calibration: Calibration | None,
    on_model: Callable[[str], None] | None = None,
) -> list[Finding]:
    """Everything that is wrong or suspicious in ``folder``, errors first.

    Annotators that no suite knows are audited too, without a published board. Without ``calibration`` the effect
    of misplaced rows on length control is told in rows only. ``on_model`` is called when a model's texts were read,
    which is what takes the time.
    """
    reports: list[AttackReport | None] = []
    for model, report in zip(folder.models, folder.look(attack_report), strict=True):
        reports.append(report)
        if on_model is not None:
            on_model(model)
    columns = read_columns(folder, suites, calibration)
    findings = [finding for column in columns for finding in _of_column(column)]
    for column in columns:
        _ = column.reference, column.judged_baseline  # once, and not in each process
    outputs = {
        model: table for model in folder.models if (table := folder.outputs(model)) is not None
    }

    def of_model(one: tuple[str, AttackReport | None]) -> list[Finding]:
        model, report = one
        own = [
            finding
            for column in columns
            if model in column.tables
            for check in (audit_rows, audit_outputs, audit_names, audit_published)
            for finding in check(column, model)
        ]
        return [*own, *audit_answers(folder, columns, model, report)]

    read = list(zip(folder.models, reports, strict=True))
    for own in fork_map(of_model, read, least=WORTH_A_FORK):
        findings += own
    findings += audit_copies(columns, outputs)
    return in_order(findings)


def _of_column(column: AnnotatorResults) -> Iterator[Finding]:
    yield from audit_reference(column)
    yield from audit_judged_baseline(column)
    yield from audit_position(column.annotator, column.tables)
    yield from audit_unparsed(column.annotator, column.tables)
    yield from audit_coverage(column)
