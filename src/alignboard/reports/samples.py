"""lm-eval's ``samples_*.jsonl``: the score of every document, ours or anybody's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignboard.errors import InputError
from alignboard.results.files import paths_under
from alignboard.results.raw_rows import raw_rows
from alignboard.strict_json import parse_json

PREFIX, RESULTS = "samples_", "results_"
SHARED = ("passage", "article", "context", "paragraph", "story", "subject", "category")
"""fields of documents that several questions have in common, in the order in which they are looked for"""
_FIELDS = ("doc_id", "doc", "doc_hash", "prompt_hash", "filter", "metrics")


@dataclass(frozen=True)
class TaskSamples:
    """One metric of one task, document by document."""

    path: Path
    task: str
    metric: str
    filter: str
    documents: Sequence[str]
    """the hash of each document; a second document of the same content has a number"""
    prompts: Sequence[str]
    """the hash of what the model was asked"""
    score: NDArray[np.float64]
    """(n,) in [0, 1]"""
    clusters: Sequence[str]
    """the document itself, or what it shares with others"""
    version: str | None = None
    """of the task, where the results file of the same run stands beside"""

    @property
    def key(self) -> tuple[str, str, str]:
        """Task, metric and filter: what two models have to have alike."""
        return self.task, self.metric, self.filter


def read_samples(path: Path, cluster: str | None = None) -> list[TaskSamples]:
    """Every metric of the file that is a number in [0, 1] for each document.

    ``cluster`` names a field of the task's documents: documents with the same value, such as questions on one passage,
    are dependent. None: the first of `SHARED` that several documents, and not all, have in common. Raises
    `InputError` where the file is not lm-eval's or holds no such metric.
    """
    rows = raw_rows(path)
    for number, row in enumerate(rows, start=1):
        missing = [name for name in _FIELDS if not isinstance(row, dict) or name not in row]
        if missing:
            raise InputError(
                f"{path}, row {number}, field {missing[0]!r}: missing; expected a samples file of lm-eval >= 0.4.5, "
                "as --log_samples writes it."
            )
        if not _is_list_of_texts(row["metrics"]):
            raise InputError(
                f"{path}, row {number}, field 'metrics': a list of names was expected, as lm-eval writes it."
            )
    version = _checked_version(path, rows)
    found = []
    for filter_name in dict.fromkeys(str(row["filter"]) for row in rows):
        own = [row for row in rows if str(row["filter"]) == filter_name]
        documents = _documents(own)
        field = _shared_field(own) if cluster is None else cluster
        clusters = documents if field is None else _clusters(path, own, field)
        prompts = [str(row["prompt_hash"]) for row in own]
        for metric in own[0]["metrics"]:
            values = [row.get(metric) for row in own]
            if all(_is_bounded(value) for value in values):
                score = np.array(values, dtype=np.float64)
                task = _task(path)
                found.append(
                    TaskSamples(
                        *(path, task, metric, filter_name, documents, prompts, score, clusters),
                        version,
                    )
                )
    if not found:
        raise InputError(
            f"{path} has no metric that is a number from 0 to 1 for every document; metrics such as acc or f1 are "
            "compared."
        )
    return found


def _checked_version(path: Path, rows: Sequence[dict[str, Any]]) -> str | None:
    """The task's version by the results file of the same run; None without one.

    Raises `InputError` where the samples are not the documents that the run counted.
    """
    task = _task(path)
    beside = path.with_name(f"{RESULTS}{path.stem.rpartition('_')[2]}.json")
    if not beside.is_file():
        return None
    try:
        content = parse_json(beside.read_bytes())
        counted = content.get("n-samples", {}).get(task, {}).get("effective")
        version = content.get("versions", {}).get(task)
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{beside} is not a results file of lm-eval: {error}.") from error
    found = len({row["doc_id"] for row in rows})
    if counted is not None and counted != found:
        raise InputError(
            f"{path} holds {found} documents of {task}, but {beside.name} counted {counted}; the file is not whole: "
            "copy it again, or repeat the run."
        )
    return None if version is None else str(version)


def samples_of(path: Path) -> list[Path]:
    """The samples files of an output folder of lm-eval, or of the run of a results file; or ``path``, which is one.

    Raises `InputError` where there is none.
    """
    if path.is_dir():
        return latest_samples(path)
    if not path.name.startswith(RESULTS):
        return [path]
    stamp = path.stem.removeprefix(RESULTS)
    found = sorted(path.parent.glob(f"{PREFIX}*_{stamp}.jsonl"))
    if not found:
        raise InputError(
            f"{path} has no {PREFIX}*_{stamp}.jsonl beside it; models are compared document by document: run the "
            "benchmarks with --log_samples."
        )
    return found


def latest_samples(folder: Path, tasks: Collection[str] = ()) -> list[Path]:
    """The latest samples file of every task in an output folder of lm-eval; all tasks, or those named and their parts.

    Raises `InputError` where there is none.
    """
    latest: dict[str, Path] = {}
    files = (path for path in paths_under(folder) if path.match(f"{PREFIX}*.jsonl"))
    for path in sorted(files, key=lambda path: path.stem):
        task = _task(path)
        if not tasks or any(task == one or task.startswith(f"{one}_") for one in tasks):
            latest[task] = path
    if not latest:
        wanted = f" of {', '.join(sorted(tasks))}" if tasks else ""
        raise InputError(
            f"{folder} holds no {PREFIX}*.jsonl{wanted}; run the benchmarks with --log_samples, or `alignboard run`."
        )
    return list(latest.values())


def _task(path: Path) -> str:
    """The task's name: the file's without lm-eval's stamp, which begins with the last underscore."""
    return path.stem.removeprefix(PREFIX).rpartition("_")[0] or path.stem.removeprefix(PREFIX)


def _documents(rows: Sequence[dict[str, Any]]) -> list[str]:
    seen: Counter[str] = Counter()
    names = []
    for row in rows:
        name = str(row["doc_hash"])
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return names


def _shared_field(rows: Sequence[dict[str, Any]]) -> str | None:
    """The field whose value several documents, and not all, have in common."""
    docs = [row["doc"] for row in rows]
    for field in SHARED:
        values = [doc.get(field) for doc in docs if isinstance(doc, dict)]
        texts = {value for value in values if isinstance(value, str)}
        if len(values) == len(docs) and None not in values and 1 < len(texts) < len(docs):
            return field
    return None


def _clusters(path: Path, rows: Sequence[dict[str, Any]], cluster: str) -> list[str]:
    for number, row in enumerate(rows, start=1):
        if not isinstance(row["doc"], dict) or cluster not in row["doc"]:
            there = ", ".join(sorted(row["doc"])) if isinstance(row["doc"], dict) else "none"
            raise InputError(
                f"{path}, row {number}, field 'doc': no {cluster!r} to cluster by; its fields: {there}."
            )
    return [str(row["doc"][cluster]) for row in rows]


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _is_bounded(value: Any) -> bool:
    return isinstance(value, bool | int | float) and 0 <= value <= 1
