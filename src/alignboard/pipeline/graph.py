"""Jobs and what identifies them.

A job's key is a digest of everything that determines its result: its name, kind and parameters, the keys of the jobs
whose results it reads, and the version of its kind, which a person raises (`alignboard.pipeline.kinds`). Two runs
that would do the same share a key, so the work is done once; a changed recipe changes the keys of what depends on it,
and of nothing else. Sources and versions of libraries are no part of it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from alignboard.pipeline.kinds import job_kind

SCHEME: Final = "job-2"
"""Raise it when what a key means changes."""


@dataclass(frozen=True)
class Job:
    """One piece of work. Jobs of one group share a process, and what it has loaded."""

    name: str
    """unique in a run, and what a person reads: ``train tiny-phi-dpo``"""
    kind: str
    group: str
    key: str
    """hexadecimal"""
    parameters: Mapping[str, Any]
    """JSON"""
    needs: Mapping[str, str] = field(default_factory=dict)
    """role -> name of a job"""
    seconds: float | None = 1.0
    """an estimate for one core; None where nothing is known before it was done once"""
    hints: Mapping[str, Any] = field(default_factory=dict)
    """JSON that an implementation may use and that changes no result, such as how many rows fit into memory"""

    @property
    def is_kept(self) -> bool:
        """False where a job is done anew from known replies: a tournament, and replies that are read again."""
        return self.hints.get("kept", True)

    @property
    def folder(self) -> str:
        """The name of its folder in the store."""
        return f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', self.name)}-{self.key[:16]}"


class Graph:
    """Jobs in an order in which they can be done. Built by `add`, which computes the keys."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.remarks: list[str] = []
        """what the graph leaves out, in sentences"""

    def add(
        self,
        name: str,
        kind: str,
        group: str,
        parameters: Mapping[str, Any],
        needs: Mapping[str, str | None] | None = None,
        *,
        seconds: float | None = 1.0,
        hints: Mapping[str, Any] | None = None,
    ) -> str:
        """Add a job, once; returns its name. A need of None is left out."""
        wanted = {role: job for role, job in (needs or {}).items() if job is not None}
        key = digest(
            {
                "scheme": SCHEME,
                "name": name,
                "kind": kind,
                "parameters": parameters,
                "needs": {role: self.jobs[job].key for role, job in wanted.items()},
                "version": job_kind(kind).version,
            }
        )
        job = Job(name, kind, group, key, parameters, wanted, seconds, hints or {})
        known = self.jobs.setdefault(name, job)
        if known.key != key:
            raise ValueError(f"two different jobs are called {name!r}")
        return name

    def __iter__(self) -> Iterator[Job]:
        return iter(self.jobs.values())

    def __len__(self) -> int:
        return len(self.jobs)

    def dependents(self, names: Iterable[str]) -> set[str]:
        """``names`` and every job that reads their results, directly or not."""
        found = set(names)
        for job in self:
            if found & set(job.needs.values()):
                found.add(job.name)
        return found


def digest(content: Any) -> str:
    """A digest of anything that JSON can say, whatever the order of keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@lru_cache(maxsize=64)
def library_versions(libraries: tuple[str, ...]) -> dict[str, str | None]:
    """The installed versions of distributions; None for one that is not installed."""
    found: dict[str, str | None] = {}
    for name in libraries:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found
