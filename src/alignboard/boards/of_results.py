"""The board of a results folder: verdicts by any judge on any set against any baseline, and lm-eval's results.

Verdicts are read from the places of `alignboard.results.verdict_paths`. One judge, one set and one baseline make a
column. lm-eval's files are ``results_*.json`` anywhere below ``<model>/``, or in the folder itself, where they say
whose they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from alignboard.benchmarks.scores import TaskScore, model_of, read_scores, unlike
from alignboard.boards.board import Board
from alignboard.boards.columns import RANKED, Column, Row, Score
from alignboard.boards.estimates import with_corrections
from alignboard.boards.judge_prompts import with_judges
from alignboard.boards.origins import with_origins
from alignboard.boards.registered import with_registered
from alignboard.boards.results_examples import model_folders, output_files
from alignboard.boards.scoring import (
    BASELINE,
    LENGTH,
    RESOLVED,
    benchmark_column,
    benchmark_score,
    by_value,
    judged_columns,
    judged_scores,
    length_column,
    mean_length,
    rank_column,
    rank_scores,
    record_columns,
    record_scores,
    support_notes,
    with_identical,
    with_unfinished,
)
from alignboard.boards.verdicts import Verdicts, find_verdicts
from alignboard.errors import InputError
from alignboard.records import Outputs
from alignboard.results.cache import TableCache
from alignboard.results.files import paths_under
from alignboard.results.outputs_paths import ALPACA_EVAL
from alignboard.text import count

PAIRED = (
    "Models answer the same prompts: whether two of them differ is decided by a paired test (ranks, `alignboard "
    f"compare`), not by the overlap of their intervals. {RESOLVED}"
)
_JUDGED = (
    "Win rates are percentages of preference over the column's baseline; their 95 % intervals cover the choice of "
    "prompts, with the models, the judge and the baseline's responses held fixed. Judges, sets and baselines "
    "are never averaged."
)
_JOINT = (
    "LC win rate (joint fit): length-controlled, with the difficulties of the prompts fitted jointly to the models of "
    "the column; it is another estimator than AlpacaEval's calibrated one."
)
_LM_EVAL = "Benchmarks are lm-eval's own numbers with its standard errors."


def results_board(
    root: str | Path,
    *,
    name: str = "results",
    title: str | None = None,
    judge: str | None = None,
    set_name: str | None = None,
    models: Sequence[str] | None = None,
    people: str | None = None,
) -> Board:
    """The board of everything that the results folder ``root`` holds.

    Parameters
    ----------
    judge, set_name, models
        Only this judge's verdicts, only this set, only these models.
    people
        The annotator whose labels correct the judges' win rates, in columns of their own.

    Raises
    ------
    InputError
        Where nothing is found, where a place and its rows name two judges, or where one column would hold verdicts
        on different prompts.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(
            f"There is no folder {root}; --from takes a folder of results, one folder per model."
        )
    loose = {model_of(path) for path in root.glob("results_*.json")}
    folders = model_folders(root, [m for m in models if m not in loose] if models else models)
    cache = TableCache(root)
    verdicts = [
        one
        for one in find_verdicts(folders, cache)
        if (judge is None or one.judge in {judge, people})
        and (set_name is None or one.set == set_name)
    ]
    benchmarks = {} if judge or set_name else _benchmarks(root, folders, models)
    if not verdicts and not benchmarks:
        raise InputError(_nothing(root, folders, cache, judge, set_name))
    sets = {one.set for one in verdicts} or {ALPACA_EVAL}
    files = output_files(folders, sets.pop()) if len(sets) == 1 else {}
    outputs = _outputs(files, cache)
    cache.save()
    made = _assemble(
        name,
        title or ("Results" if root.name == "results" else f"Results: {root.name}"),
        verdicts,
        benchmarks,
        outputs,
    )
    if people is not None:
        made = with_corrections(made, verdicts, people)
    made = with_judges(with_origins(made, root))
    counts = {m: (int(t.blank.sum()), int(t.cut.sum()), len(t)) for m, t in outputs.items()}
    return msgspec.structs.replace(
        with_registered(with_unfinished(made, counts), files),
        provenance={
            "source": f"annotations and lm-eval results of {root.name}",
            "command": " ".join(
                [
                    "alignboard board",
                    *([set_name] if set_name else []),
                    f"--from {root.name}",
                    *([f"--judge {judge}"] if judge else []),
                    *([f"--people {people}"] if people else []),
                ]
            ),
        },
    )


def _nothing(
    root: Path, folders: dict[str, Path], cache: TableCache, judge: str | None, set_name: str | None
) -> str:
    every = find_verdicts(folders, cache)
    wanted = " ".join(
        filter(None, (judge and f"by {judge}", set_name and f"on the set {set_name}"))
    )
    if every:
        there = sorted({f"{v.judge} on {v.set}" for v in every})
        return f"{root} holds no annotations {wanted}; there are annotations by {', '.join(there)}."
    return (
        f"{root} holds neither annotations (<model>/[<set>/]<judge>/annotations.json) nor lm-eval results "
        "([<model>/]results_*.json)."
    )


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _outputs(files: dict[str, Path], cache: TableCache) -> dict[str, Outputs]:
    """The responses beside the verdicts, for the models that were not judged, such as the baseline."""
    tables = {model: cache.read(path.resolve(), Outputs) for model, path in files.items()}
    return {model: table for model, table in tables.items() if isinstance(table, Outputs)}


def _benchmarks(
    root: Path, folders: dict[str, Path], models: Sequence[str] | None
) -> dict[str, list[TaskScore]]:
    """The numbers of every model's lm-eval files; of the same number in several files the newest."""
    files = {
        m: [p for p in paths_under(folder) if p.match("results_*.json") and not _hidden(p, folder)]
        for m, folder in folders.items()
    }
    for path in root.glob("results_*.json"):
        model = model_of(path)
        if models is None or model in models:
            files.setdefault(model, []).append(path)
    found: dict[str, list[TaskScore]] = {}
    for model, paths in files.items():
        newest = {
            (score.task, score.metric, score.filter, score.n_shot): score
            for path in sorted(paths, key=lambda p: p.name)
            for score in read_scores(path)
        }
        if newest:
            found[model] = list(newest.values())
    return found


def _assemble(
    name: str,
    title: str,
    verdicts: Sequence[Verdicts],
    benchmarks: dict[str, list[TaskScore]],
    outputs: dict[str, Outputs],
) -> Board:
    columns: list[Column] = []
    scores: dict[str, dict[str, Score]] = {one.model: {} for one in verdicts}
    lengths, responses = _responses(verdicts, outputs)
    if any(lengths.values()):
        columns.append(length_column())
        for model, score in lengths.items():
            scores.setdefault(model, {})[LENGTH] = score
    for column in sorted({one.column for one in verdicts}):
        columns += _judged([one for one in verdicts if one.column == column], scores)
    for model, found in benchmarks.items():
        for score in found:
            metric = f"{score.metric},{score.filter}"
            column = benchmark_column(
                score.task, metric, n_shot=score.n_shot, better=score.higher_is_better
            )
            if column.key not in {c.key for c in columns}:
                columns.append(column)
            scores.setdefault(model, {})[column.key] = benchmark_score(
                column, score.value, score.standard_error, score.n_documents
            )
    made = Board(
        name=name,
        title=title,
        columns=columns,
        rows=[Row(model, scores[model]) for model in sorted(scores)],
    )
    described = _described(made)
    notes = [*described.notes, *unlike(benchmarks)]
    return with_identical(msgspec.structs.replace(described, notes=notes), responses)


def _judged(own: Sequence[Verdicts], scores: dict[str, dict[str, Score]]) -> list[Column]:
    """The columns of the verdicts ``own``, which share judge, set and baseline; their cells are put into ``scores``."""
    judge, set_name, baseline = own[0].column
    _require_shared_prompts(own)
    pair = judged_columns(judge, baseline, set_name)
    ranks = rank_column(pair[0])
    extra = record_columns(pair[0])
    records = {one.model: one.record for one in own if one.record is not None}
    failed = {model: record.n_failed for model, record in records.items()}
    for model, found in judged_scores({o.model: o.table for o in own}, pair, failed).items():
        scores[model] |= found
    for model, rank in rank_scores({o.model: o.table for o in own}).items():
        scores[model][ranks.key] = rank
    for model, record in records.items():
        scores[model] |= record_scores(extra, record)
    if baseline in scores:
        scores[baseline] = {column.key: BASELINE for column in pair} | scores[baseline]
    return [*pair, ranks, *extra]


def _responses(
    verdicts: Sequence[Verdicts], outputs: dict[str, Outputs]
) -> tuple[dict[str, Score], dict[str, dict[tuple[str, int], int]]]:
    """Mean lengths, and responses by set and prompt, of every model: those that were judged, else its file's."""
    lengths: dict[str, Score] = {}
    responses: dict[str, dict[tuple[str, int], int]] = {}
    sets = {one.set for one in verdicts}
    for one in verdicts:
        own = responses.setdefault(one.model, {})
        ids = zip(one.table.instruction.tolist(), one.table.output_2.tolist(), strict=True)
        own.update({(one.set, prompt): output for prompt, output in ids})
        if len(sets) == 1:
            lengths[one.model] = mean_length(one.table.length_2)
    only = next(iter(sets), ALPACA_EVAL)
    for model, table in outputs.items():
        if model in responses:
            continue
        ids = zip(table.instruction.tolist(), table.output.tolist(), strict=True)
        responses[model] = {(only, prompt): output for prompt, output in ids}
        lengths[model] = mean_length(table.length)
    return lengths, responses


def _require_shared_prompts(own: Iterable[Verdicts]) -> None:
    """One column holds one set: every two models share prompts."""
    first: Verdicts | None = None
    for one in own:
        if first is None:
            first = one
        elif not np.isin(one.table.instruction, first.table.instruction).any():
            raise InputError(
                f"{one.table.path} and {first.table.path} are verdicts on different prompts and would share a column; "
                "put each set into a folder of its own: <model>/<set>/<judge>/annotations.json."
            )


def _described(board: Board) -> Board:
    """``board`` with its summary, its notes and, where one judge's column holds every judged model, its ranking."""
    rates = board.of_kind("win rate")
    controlled = board.of_kind("LC win rate")
    benchmarks = board.of_kind("benchmark")
    parts = [count(len(board.rows), "model")]
    if rates:
        judges = sorted({column.judge or "" for column in rates})
        sets = sorted({column.set for column in rates if column.set})
        baselines = sorted({column.baseline or "" for column in rates})
        parts.append(f"judged by {' and by '.join(judges)}")
        parts += [f"on {' and '.join(sets)}"] if sets else []
        parts.append(f"against {' and '.join(baselines)}")
    if benchmarks:
        parts.append(count(len(benchmarks), "lm-eval score"))
    notes = [_JUDGED] if rates else []
    notes += [_JOINT] if controlled else []
    notes += support_notes(board.rows)
    notes += [_LM_EVAL] if benchmarks else []
    notes += [PAIRED] if len(board.rows) > 1 else []
    ranked, rows = None, board.rows
    if len(rates) == 1:
        ranked = rates[0].key
    elif not rates and len(benchmarks) == 1:
        ranked = benchmarks[0].key
    first = ranked or next((column.key for column in rates), None)
    if first is not None:
        rows = by_value(rows, first)
    if ranked is not None:
        notes.append(f"{RANKED} {board.label(board.column(ranked))}.")
    return msgspec.structs.replace(
        board,
        rows=rows,
        notes=notes,
        ranked_by=ranked,
        beside=controlled[0].key if ranked and controlled else None,
        summary=f"{', '.join(parts)}.",
    )
