"""The audit of a model's own answers: names, missing and empty ones, length as published, attacks, copies."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from alignboard.judges.prompting.attacks import AttackReport, detect
from alignboard.published.audit.column import AnnotatorResults, among
from alignboard.published.audit.finding import Evidence, Finding, names_text, rows_text
from alignboard.published.scores import lc_jump
from alignboard.records import Annotations, Generation, Outputs
from alignboard.results.folder import ResultsFolder
from alignboard.text import count

Item = TypeVar("Item")

# A run of empty answers this long, or this share of them, is a failed part of a run and not a model's choice.
_LONG_RUN = 5
_BLANK_SHARE = 0.05
# A constant answer that wins this often, in percent, fools the judge; one of a collapsed model loses.
_FOOLED = 25.0
# Verdicts that differ from the most frequent one, from which equal columns on unequal answers are no chance.
_SURE_ROWS = 10


def audit_answers(
    folder: ResultsFolder,
    columns: Sequence[AnnotatorResults],
    model: str,
    report: AttackReport | None,
) -> Iterator[Finding]:
    """Everything about the answers of one model, whose texts ``report`` is about."""
    mine = [column for column in columns if model in column.tables]
    outputs = folder.outputs(model)
    place = _place(folder, model)
    yield from _generator_name(model, outputs, mine, place)
    if outputs is None or report is None:
        empty = next((column.tables[model].length_2 == 0 for column in mine), None)
        if empty is not None:
            yield from _blank(model, mine[0].place(model), empty)
        return
    yield from _missing_outputs(model, place, outputs, mine or columns)
    yield from _blank(model, place, outputs.blank)
    yield from _average_length(model, place, outputs, mine)
    yield from _attack(model, place, report, mine)


def attack_report(rows: Sequence[Generation]) -> AttackReport:
    """What is to be seen in the texts of one model."""
    return detect([row.instruction for row in rows], [row.output for row in rows])


def _place(folder: ResultsFolder, model: str) -> str:
    path = folder.outputs_path(model)
    return model if path is None else path.relative_to(folder.root).as_posix()


def _generator_name(
    model: str, outputs: Outputs | None, columns: Sequence[AnnotatorResults], place: str
) -> Iterator[Finding]:
    """Rows that name another model than the folder does, in the outputs or in any annotations."""
    named = {} if outputs is None else {place: outputs.generator}
    named |= {column.place(model): column.tables[model].generator for column in columns}
    other = {where: generator for where, generator in named.items() if generator != model}
    if not other:
        return
    generators = sorted(set(other.values()))
    message = (
        f"The rows of {count(len(other), 'file')} name the generator {names_text([repr(g) for g in generators])}, the "
        f"folder is {model!r}; whoever joins by generator mixes or loses it."
    )
    evidence = {"generators": generators, "folder": model, "files": list(other)}
    yield Finding("generator_name", "warning", model, next(iter(other)), message, evidence)


def _missing_outputs(
    model: str, place: str, outputs: Outputs, columns: Sequence[AnnotatorResults]
) -> Iterator[Finding]:
    """Instructions of the reference set that the released outputs lack."""
    references = [column.reference for column in columns if len(column.reference)]
    if not references:
        return
    reference = max(references, key=lambda one: int(among(one, outputs.instruction).sum()))
    missing = np.flatnonzero(~among(reference, outputs.instruction))
    if not len(missing) or len(missing) == len(reference):
        return
    rows = (missing + 1).tolist()
    judged = [
        column.annotator
        for column in columns
        if model in column.tables
        and np.isin(reference[missing], column.tables[model].instruction).any()
    ]
    by = f"; {names_text(judged)} judged answers to them that are not here" if judged else ""
    where = f"{rows_text(rows)} of the reference set"
    message = f"The outputs lack {len(rows)} of {len(reference)} instructions: {where}{by}."
    evidence = {
        "n_rows": len(outputs),
        "n_reference": len(reference),
        "rows": rows,
        "judged_by": judged,
    }
    yield Finding("missing_outputs", "note", model, place, message, evidence)


def _blank(model: str, place: str, blank: NDArray[np.bool_]) -> Iterator[Finding]:
    """Empty answers: how many, and the longest run of them."""
    rows = np.flatnonzero(blank)
    if not len(rows):
        return
    runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
    longest = max(runs, key=len)
    share = len(rows) / len(blank)
    message = f"{len(rows)} of {len(blank)} answers are empty or white space ({share:.1%})"
    if len(longest) > 1:
        message += f", {len(longest)} of them in one block, rows {longest[0] + 1}-{longest[-1] + 1}"
    evidence = {
        "n_empty": len(rows),
        "n_rows": len(blank),
        "share": share,
        "longest_run": len(longest),
        "longest_run_first": int(longest[0]) + 1,
        "rows": (rows + 1).tolist(),
    }
    severity = "note"
    if len(longest) >= _LONG_RUN or share >= _BLANK_SHARE:
        severity = "error" if share > 0.5 else "warning"
    yield Finding("empty_outputs", severity, model, place, f"{message}.", evidence)


def _average_length(
    model: str, place: str, outputs: Outputs, columns: Sequence[AnnotatorResults]
) -> Iterator[Finding]:
    """A published ``avg_length`` (whole characters, rounded down) that the released outputs do not have."""
    rows = [column.board[model] for column in columns if model in column.board]
    published = sorted({row.avg_length for row in rows if row.avg_length is not None})
    own = int(outputs.length.mean())
    wrong = [length for length in published if length != own]
    if not wrong:
        return
    sizes = {column.suite.n_instructions for column in columns if column.suite is not None}
    as_empty = {int(outputs.length.sum()) // size for size in sizes if size > len(outputs)}
    explained = set(wrong) <= as_empty
    message = (
        f"The board says avg_length {' and '.join(map(str, wrong))}, the released outputs have {own}"
        + (": the mean counts missing answers as empty." if explained else ".")
    )
    evidence = {"published": wrong, "released": own, "missing_as_empty": explained}
    severity = "note" if explained else "warning"
    yield Finding("avg_length", severity, model, place, message, evidence)


def _attack(
    model: str, place: str, report: AttackReport, columns: Sequence[AnnotatorResults]
) -> Iterator[Finding]:
    """What `alignboard.judges.prompting.attacks` sees in the texts, with the scores that they earned."""
    if report.verdict == "clean":
        columns = [one for one in columns if model not in one.board and one.may_jump(model)]
    scores = _scores(model, columns)
    above = [text for _, raw, lc, text in scores if lc is not None and lc_jump(raw, lc) == "above"]
    if above and report.verdict == "clean":
        message = f"Length control puts it far above the raw win rate: {'; '.join(above)}."
        evidence = {"scores": [text for *_, text in scores]}
        yield Finding("lc_far_above", "warning", model, place, message, evidence)
    if report.n_control:
        message = (
            f"{report.n_control} of {report.n} answers hold control tokens of a chat template: stop tokens that leak, "
            "or an attack on the judge's own template."
        )
        evidence = {"n_control": report.n_control, "n_rows": report.n}
        yield Finding("control_tokens", "warning", model, place, message, evidence)
    if report.verdict != "clean":
        fooled = any(raw >= _FOOLED for _, raw, _, _ in scores) or bool(above)
        yield _verdict(model, place, report, [text for *_, text in scores], fooled=fooled)


def _scores(
    model: str, columns: Sequence[AnnotatorResults]
) -> list[tuple[str, float, float | None, str]]:
    """Annotator, raw and length-controlled win rate in percent (published where it is), and both as text."""
    found = []
    for column in columns:
        raw = column.win_rate_pct(model)
        row = column.board.get(model)
        lc = row.length_controlled_winrate if row is not None else None
        if lc is None and row is None:
            computed = column.lc_compat(model)
            lc = None if computed is None else computed * 100
        if np.isnan(raw):
            continue
        controlled = "" if lc is None else f", length-controlled {lc:.1f}"
        found.append((column.annotator, raw, lc, f"{column.annotator} {raw:.1f}{controlled}"))
    return found


def _verdict(
    model: str, place: str, report: AttackReport, scores: list[str], *, fooled: bool
) -> Finding:
    facts = [
        f"distinct answers {report.distinct_ratio:.3f} of all",
        f"overlap with the instruction beyond another's {round(report.relevance, 3) + 0.0:.3f}",
    ]
    if report.n_forged:
        kinds = names_text(list(report.forged))
        facts.insert(
            0, f"{report.n_forged} of {report.n} answers forge the judge's prompt ({kinds})"
        )
    evidence: Evidence = {
        "signals": list(report.signals),
        "distinct_ratio": report.distinct_ratio,
        "share_of_one": report.share_of_one,
        "relevance": report.relevance,
        "n_forged": report.n_forged,
        "forged": [f"{name}: {n}" for name, n in report.forged.items()],
        "n_rows": report.n,
        "scores": scores,
    }
    evidence = {key: value for key, value in evidence.items() if value == value}  # NaN is no JSON  # noqa: PLR0124
    earned = f" It scores {'; '.join(scores)}." if scores else ""
    listed = "; ".join(facts)
    if report.verdict == "adversarial" or (report.verdict == "constant" and fooled):
        message = f"Answers written for the judge: {listed}.{earned}"
        return Finding("adversarial", "error", model, place, message, evidence)
    if report.verdict == "constant":
        message = (
            f"One answer to everything, by a collapsed model or as an attack: {listed}.{earned}"
        )
        return Finding("constant_outputs", "error", model, place, message, evidence)
    severity = "warning" if report.n_forged else "note"
    message = f"Unusual answers: {listed}.{earned}"
    return Finding("unusual_outputs", severity, model, place, message, evidence)


def audit_copies(
    columns: Sequence[AnnotatorResults], outputs: Mapping[str, Outputs]
) -> Iterator[Finding]:
    """One annotation file, one set of verdicts or one set of answers under two names."""
    files = [(column, model) for column in columns for model in column.tables]
    same_files = _alike(files, lambda file: _table(file).digest)
    for same in same_files:
        yield _copies(
            "identical_files",
            same,
            "hold the same rows: the same instructions, outputs and preferences",
        )
    copied = {id(_table(file)) for same in same_files for file in same[1:]}
    informative = [
        file for file in files if _is_informative(_table(file)) and id(_table(file)) not in copied
    ]
    for same in _alike(informative, lambda file: _verdicts(_table(file))):
        yield _copies("identical_verdicts", same, "have the same verdict on every instruction")
    for models in _alike(list(outputs), lambda model: _answers(outputs[model])):
        message = f"{names_text(models)} have the same answer to every instruction."
        evidence: Evidence = {"models": models}
        yield Finding("identical_outputs", "warning", None, models[0], message, evidence)


def _alike(items: Sequence[Item], key: Callable[[Item], Hashable]) -> list[list[Item]]:
    """The groups of two or more items that have the same key."""
    groups: dict[Hashable, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return [group for group in groups.values() if len(group) > 1]


def _table(file: tuple[AnnotatorResults, str]) -> Annotations:
    column, model = file
    return column.tables[model]


def _copies(kind: str, same: Sequence[tuple[AnnotatorResults, str]], what: str) -> Finding:
    places = [column.place(model) for column, model in same]
    models = list(dict.fromkeys(model for _, model in same))
    tables = [_table(file) for file in same]
    answers = {_answers(table) for table in tables}
    also = "" if len(answers) > 1 else ", and the same answers"
    message = f"{' and '.join(places)} {what}{also if kind == 'identical_verdicts' else ''}."
    evidence: Evidence = {
        "models": models,
        "annotators": list(dict.fromkeys(column.annotator for column, _ in same)),
        "files": places,
        "n_rows": len(tables[0]),
        "same_outputs": len(answers) == 1,
    }
    return Finding(kind, "error", None, places[0], message, evidence)


def _is_informative(table: Annotations) -> bool:
    """Whether verdicts vary so much that two judges or two models would hardly agree on all of them."""
    _, votes = np.unique(table.preference[~np.isnan(table.preference)], return_counts=True)
    return len(votes) > 0 and int(votes.sum() - votes.max()) >= min(
        _SURE_ROWS, max(2, len(table) // 4)
    )


def _verdicts(table: Annotations) -> bytes:
    order = np.argsort(table.instruction)
    return _digest(table.instruction[order], table.preference[order])


def _answers(table: Annotations | Outputs) -> bytes:
    order = np.argsort(table.instruction)
    output = table.output if isinstance(table, Outputs) else table.output_2
    return _digest(table.instruction[order], output[order])


def _digest(*arrays: NDArray[np.generic]) -> bytes:
    return hashlib.blake2b(b"".join(array.tobytes() for array in arrays), digest_size=16).digest()
