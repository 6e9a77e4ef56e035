"""Finished jobs of a graph: what is known of them, which are done again, and which other versions made."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignboard.errors import InputError
from alignboard.pipeline.graph import SCHEME, Graph, Job
from alignboard.pipeline.kinds import job_kind
from alignboard.pipeline.store import DONE, WorkspacePaths, done_jobs, made_by
from alignboard.results.journal import Journal


def known_reports(
    graph: Graph, workspace: Path, redo: Sequence[str] = ()
) -> dict[str, Mapping[str, Any]]:
    """By job of a command that is done, and of none of the kinds ``redo``: what it came to."""
    paths, again = WorkspacePaths(workspace), jobs_to_redo(graph, redo)
    with Journal(paths.journal, "run") as journal:
        records = done_jobs(list(graph), paths, journal)
    return {name: row.get("report", {}) for name, row in records.items() if name not in again}


def jobs_to_redo(graph: Graph, kinds: Sequence[str]) -> set[str]:
    """The jobs of ``kinds`` and all that depend on them; raises `InputError` for a kind that is not there."""
    here = {job.kind for job in graph}
    for kind in kinds:
        job_kind(kind)
        if kind not in here:
            raise InputError(
                f"--redo {kind}: no job here is of that kind; there is {', '.join(sorted(here))}."
            )
    return graph.dependents(job.name for job in graph if job.kind in kinds)


def other_versions(jobs: Sequence[Job], records: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """By kind: how many finished jobs were made by other versions of alignboard or of libraries than are installed.

    A kind whose versions agree is left out, and so are records that do not say.
    """
    found: dict[str, dict[str, set[str]]] = {}
    counts: dict[str, int] = defaultdict(int)
    for job in jobs:
        made = records.get(job.name, {}).get("versions")
        if made is None:
            continue
        differ = {name: at for name, at in made.items() if made_by(job).get(name) != at}
        counts[job.kind] += bool(differ)
        for name, at in differ.items():
            found.setdefault(job.kind, {}).setdefault(name, set()).add(str(at))
    return {
        kind: f"{counts[kind]} made by "
        + ", ".join(f"{name} {'/'.join(sorted(at))}" for name, at in sorted(names.items()))
        for kind, names in found.items()
    }


def of_older_schemes(journal: Journal) -> int:
    """How many finished jobs the journal has whose keys were made in an older way."""
    return sum(row.payload.get("scheme") != SCHEME for row in journal.rows(DONE))
