"""The audit of one judge's verdicts in a results folder: rows, outputs that were judged, names, published figures."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from alignboard.published.audit.column import AnnotatorResults, among, lookup
from alignboard.published.audit.finding import Evidence, Finding, names_text, rows_text
from alignboard.records import Annotations
from alignboard.results.files import SUFFIXES
from alignboard.stats.win_rate import win_rate
from alignboard.text import count

# From this share of differing rows on, verdicts are about other answers rather than about a few edited ones.
_OTHER_OUTPUTS = 0.05
_LISTED_ROWS = 20


def audit_reference(column: AnnotatorResults) -> Iterator[Finding]:
    """A reference set of other questions or of another size than the suite's."""
    if column.suite is None:
        return
    yield from _other_questions(column, column.suite.name)
    if len(column.reference) == column.suite.n_instructions:
        return
    message = (
        f"The reference set of {column.annotator} has {len(column.reference)} instructions, the suite "
        f"{column.suite.name} has {column.suite.n_instructions}; rows that it lacks are not seen as missing."
    )
    evidence = {"n_reference": len(column.reference), "n_suite": column.suite.n_instructions}
    yield Finding("reference_set", "warning", None, column.baseline_place, message, evidence)


def _other_questions(column: AnnotatorResults, suite: str) -> Iterator[Finding]:
    """Questions that the suite does not ask: its difficulties and its published figures are not about them."""
    known, reference = column.suite_texts, column.reference
    if known is None:
        return
    other = (np.flatnonzero(~np.isin(reference, known)) + 1).tolist()
    if not other:
        return
    message = (
        f"{len(other)} of {len(reference)} instructions of {column.annotator} are other questions than those of the "
        f"suite {suite}: {rows_text(other)}; its length control and its published figures do not apply to them."
    )
    evidence = {"n_reference": len(reference), "n_other": len(other), "rows": other[:_LISTED_ROWS]}
    yield Finding("other_questions", "error", None, column.baseline_place, message, evidence)


def audit_rows(column: AnnotatorResults, model: str) -> Iterator[Finding]:
    """Rows missing, in another order or unknown, and what that does to a length control by position."""
    table, reference = column.tables[model], column.reference
    position, known = lookup(table.instruction, reference, np.arange(len(reference)))
    missing = (np.flatnonzero(~among(reference, table.instruction)) + 1).tolist()
    place = column.place(model)
    misplaced = int((known & (position != np.arange(len(table)))).sum())
    misplaced += int((~known).sum())
    effect, effect_text = _length_control(column, model, misplaced)
    if missing:
        evidence = {"n_rows": len(table), "n_reference": len(reference), "rows": missing, **effect}
        named = [
            _short(column.reference_texts[row - 1])
            for row in missing[:_LISTED_ROWS]
            if column.reference_texts
        ]
        if named:
            evidence["instructions"] = named
        are = "is" if len(missing) == 1 else "are"
        which = f"{rows_text(missing)} of the reference set"
        if named:
            which += f" ({named[0] if len(missing) == 1 else f'the first: {named[0]}'})"
        message = (
            f"{len(missing)} of {len(reference)} instructions {are} missing: {which}{effect_text}."
        )
        severity = "error" if misplaced else "warning"
        yield Finding("missing_rows", severity, model, place, message, evidence)
    descents = (np.flatnonzero(np.diff(position[known]) < 0) + 2).tolist()
    if descents:
        message = f"The rows are in another order than the reference set{effect_text}."
        evidence = {"n_rows": len(table), "rows": descents, **effect}
        yield Finding("reordered_rows", "error", model, place, message, evidence)
    unknown = (np.flatnonzero(~known) + 1).tolist()
    if unknown:
        message = (
            f"{count(len(unknown), 'row')} of {len(table)} are about instructions that the reference set has not: "
            f"{rows_text(unknown)}."
        )
        evidence = {"n_rows": len(table), "rows": unknown}
        yield Finding("unknown_instructions", "error", model, place, message, evidence)


def _length_control(column: AnnotatorResults, model: str, misplaced: int) -> tuple[Evidence, str]:
    """By position, a row of the annotations gets the difficulty of the reference set's row of the same number."""
    evidence: Evidence = {"n_misplaced": misplaced}
    if not misplaced:
        return evidence, ""
    text = (
        f"; a look-up by position gives {count(misplaced, 'row')} another instruction's difficulty"
    )
    compat, aligned = column.lc_compat(model), column.lc_aligned(model)
    if compat is None or aligned is None:
        return evidence, text
    compat, aligned = compat * 100, aligned * 100
    evidence |= {"lc_compat": compat, "lc_aligned": aligned}
    return (
        evidence,
        f"{text}, which makes the length-controlled win rate {compat:.2f} instead of {aligned:.2f}",
    )


def audit_outputs(column: AnnotatorResults, model: str) -> Iterator[Finding]:
    """Verdicts on other answers than the released ones, the model's and the baseline's."""
    table, place = column.tables[model], column.place(model)
    outputs = column.folder.outputs(model)
    if outputs is not None:
        released, known = lookup(table.instruction, outputs.instruction, outputs.output)
        lengths, _ = lookup(table.instruction, outputs.instruction, outputs.length)
        differ = known & (released != table.output_2)
        yield from _other_outputs("other_outputs", model, place, table.length_2, lengths, differ)
    instruction, usual = column.judged_baseline
    differ = lookup(table.instruction, instruction, usual)[0] != table.output_1
    if differ.any():
        lengths = _usual_lengths(column, table)
        yield from _other_outputs(
            "other_baseline_outputs", model, place, table.length_1, lengths, differ
        )


def _usual_lengths(column: AnnotatorResults, table: Annotations) -> NDArray[np.int32]:
    """(n,) characters of the baseline's output that most files hold, for the rows of ``table``."""
    instruction, usual = column.judged_baseline
    lengths = np.zeros(len(table), dtype=np.int32)
    wanted, _ = lookup(table.instruction, instruction, usual)
    for other in column.tables.values():
        output, _ = lookup(table.instruction, other.instruction, other.output_1)
        length, _ = lookup(table.instruction, other.instruction, other.length_1)
        lengths = np.where(output == wanted, length, lengths)
    return lengths


def _other_outputs(
    kind: str,
    model: str,
    place: str,
    judged: NDArray[np.int32],
    expected: NDArray[np.int32],
    differ: NDArray[np.bool_],
) -> Iterator[Finding]:
    rows = (np.flatnonzero(differ) + 1).tolist()
    if not rows:
        return
    which = f"{rows_text(rows)}; " if len(rows) <= _LISTED_ROWS else ""
    own, other = float(judged[differ].mean()), float(expected[differ].mean())
    whose, than, so = (
        ("the model", "the released ones", "its scores do not follow from the released outputs")
        if kind == "other_outputs"
        else (
            "the baseline",
            "those in the annotator's other files",
            "its scores are not comparable with theirs",
        )
    )
    message = (
        f"{len(rows)} of {len(differ)} verdicts are on other answers of {whose} than {than} ({which}mean "
        f"length {own:.0f} against {other:.0f} characters): {so}."
    )
    evidence = {
        "n_differ": len(rows),
        "n_rows": len(differ),
        "rows": rows,
        "mean_length_judged": own,
        "mean_length_expected": other,
    }
    severity = "error" if len(rows) > _OTHER_OUTPUTS * len(differ) else "warning"
    yield Finding(kind, severity, model, place, message, evidence)


def audit_judged_baseline(column: AnnotatorResults) -> Iterator[Finding]:
    """Released outputs of the baseline that are not those which most files were judged against."""
    released = column.baseline_outputs
    if released is None:
        return
    instruction, usual = column.judged_baseline
    output, known = lookup(instruction, released.instruction, released.output)
    differ = known & (output != usual)
    if not differ.any():
        return
    others = instruction[differ]
    models = [
        model
        for model, table in column.tables.items()
        if (lookup(others, table.instruction, table.output_1)[0] == usual[differ]).mean() > 0.5
    ]
    tables = [column.tables[model] for model in models]
    lengths = [table.length_1[np.isin(table.instruction, others)] for table in tables]
    judged = float(np.concatenate(lengths).mean())
    own = float(released.length[np.isin(released.instruction, others)].mean())
    message = (
        f"{int(differ.sum())} of {len(differ)} outputs of the baseline {column.baseline} are not those that "
        f"{count(len(models), 'model')} of {column.annotator} were judged against (mean length {own:.0f} against "
        f"{judged:.0f} characters): verdicts made with the released ones would not be comparable."
    )
    evidence = {
        "n_differ": int(differ.sum()),
        "n_rows": len(differ),
        "mean_length_released": own,
        "mean_length_judged": judged,
        "annotator": column.annotator,
        "models": models,
    }
    yield Finding(
        "judged_baseline_not_released", "warning", None, column.baseline_place, message, evidence
    )


def audit_names(column: AnnotatorResults, model: str) -> Iterator[Finding]:
    """Rows that name another judge or baseline than the folders do, and a path that is doubled."""
    table, place = column.tables[model], column.place(model)
    if table.annotator != column.annotator:
        message = (
            f"The rows are of annotator {table.annotator!r}, the folder is {column.annotator!r}."
        )
        evidence = {"annotator": table.annotator, "folder": column.annotator}
        yield Finding("annotator_name", "warning", model, place, message, evidence)
    if table.baseline != column.baseline:
        message = f"The rows compare with {table.baseline!r}, the other files of this judge with {column.baseline!r}."
        evidence = {"baseline": table.baseline, "expected": column.baseline}
        yield Finding("other_baseline", "error", model, place, message, evidence)
    yield from _doubled_path(column, model)


def _doubled_path(column: AnnotatorResults, model: str) -> Iterator[Finding]:
    """Annotations at ``<annotator>/<annotator>/``, alone or beside a file in the usual place (upstream has two)."""
    place = column.place(model)
    inner = column.folder.root / model / column.annotator / column.annotator
    beside = next((path for s in SUFFIXES if (path := inner / f"annotations{s}").is_file()), None)
    if beside is None:
        return
    where = beside.relative_to(column.folder.root).as_posix()
    alone = column.files[model].doubled
    what = (
        "tools that look one folder up do not find it"
        if alone
        else f"{place} is the one that is read"
    )
    message = f"There are annotations at the doubled path {where}; {what}."
    yield Finding("doubled_path", "note", model, where, message, {"alone": int(alone)})


def audit_published(column: AnnotatorResults, model: str) -> Iterator[Finding]:
    """Figures of the published board that do not follow from the verdicts."""
    row = column.board.get(model)
    if row is None or column.suite is None:
        return
    rate = win_rate(column.tables[model].preference)
    own = {
        "win_rate": rate.win_rate * 100,
        "standard_error": rate.standard_error * 100,
        "discrete_win_rate": rate.discrete_win_rate * 100,
    }
    counts = {name: getattr(rate, name) for name in ("n_wins", "n_wins_base", "n_draws", "n_total")}
    differing = [
        name
        for name, value in {**own, **counts}.items()
        if (published := getattr(row, name)) is not None
        and abs(published - value) > (column.suite.tolerance if name in own else 0)
    ]
    if not differing:
        return
    parts = [
        f"{name} {getattr(row, name):.6g} published, {(own | counts)[name]:.6g} here"
        for name in differing
    ]
    evidence: Evidence = {"figures": differing}
    evidence |= {f"published_{name}": getattr(row, name) for name in differing}
    evidence |= {name: (own | counts)[name] for name in differing}
    message = f"The published board does not follow from these verdicts: {'; '.join(parts)}."
    severity = "error" if "win_rate" in differing else "warning"
    yield Finding("board_differs", severity, model, column.place(model), message, evidence)


def audit_coverage(column: AnnotatorResults) -> Iterator[Finding]:
    """Models that are on no published board, and models of the board that have no verdicts here."""
    if not column.board:
        return
    unlisted = [model for model in column.tables if model not in column.board]
    absent = [model for model in column.board if model not in column.tables]
    parts = []
    if unlisted:
        names = names_text(unlisted, at_most=8)
        parts.append(
            f"{count(len(unlisted), 'model')} with verdicts not on the published board: {names}"
        )
    if absent:
        parts.append(
            f"{len(absent)} of the {len(column.board)} models on the published board have no verdicts here"
        )
    if parts:
        evidence = {"models": unlisted, "on_board_only": absent, "n_board": len(column.board)}
        message = f"{'; '.join(parts)}."
        yield Finding("coverage", "note", None, f"*/{column.annotator}", message, evidence)


def _short(text: str, width: int = 60) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= width else line[: width - 3] + "...")
