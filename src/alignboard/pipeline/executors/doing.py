"""One job done in this process: its libraries, its folder, its lock, and what it holds for the next job."""

from __future__ import annotations

import importlib
import os
import resource
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Protocol

from alignboard.errors import AlignboardError, InputError
from alignboard.extras import missing_text
from alignboard.pipeline.executors.work import Assignment, Done, Failed, IncompleteError
from alignboard.pipeline.graph import Job
from alignboard.pipeline.kinds import job_kind
from alignboard.pipeline.locks import making
from alignboard.pipeline.store import WorkspacePaths, commit_folder, made_by, note_of_whole
from alignboard.results.journal import Journal


class Progress(Protocol):
    """Told how far a job is."""

    def __call__(self, done: int, total: int, said: str = "") -> None:
        """``said`` is what the job tells of itself, such as the loss of the step."""
        ...


@dataclass
class JobTask:
    """What an implementation is given to do one job with."""

    job: Job
    paths: WorkspacePaths
    folder: Path
    """to be filled; becomes the job's folder in the store"""
    journal: Journal
    inputs: Mapping[str, Path]
    """role -> folder of the job that is needed"""
    held: dict[str, Any]
    """what this process keeps for the jobs of this group, such as a loaded base model; dropped with the group"""
    progress: Progress = field(default=lambda done, total, said="": None)  # noqa: ARG005 - names of the protocol
    """to be called now and then"""
    helpers: tuple[str, ...] = ()
    """the GPUs of processes that a job may start beside this one, one each; ``""``: one that sees what this one sees"""
    report: dict[str, Any] = field(default_factory=dict)
    """JSON, to be filled: what a command tells of the job"""


Implementation = Callable[[JobTask], dict[str, str]]
"""does a job; returns what it exports: path in the workspace -> path in its folder"""


class Doer:
    """Does jobs one after another, and keeps what they have loaded. Used from one thread."""

    def __init__(
        self,
        paths: WorkspacePaths,
        name: str,
        device: str | None = None,
        helpers: tuple[str, ...] = (),
    ) -> None:
        """``name`` is that of its part of the journal; ``device`` is the GPU that it was given."""
        self._paths = paths
        self._device, self._helpers = device, helpers
        self._journal = Journal(paths.journal, name)
        self._held: dict[str, dict[str, Any]] = {}

    def close(self) -> None:
        """Leave a journal of one file, without a log beside it."""
        self._held.clear()
        self._journal.close()

    def do(self, assigned: Assignment, progress: Progress) -> Done | Failed:
        """Do a job; whatever it raises but an interrupt is the reason why it failed."""
        for group in set(self._held) - set(assigned.open_groups):
            del self._held[group]
        try:
            with making(self._paths, assigned.job.folder, list(assigned.inputs.values())):
                # Another run may have done it since it was assigned.
                note = note_of_whole(self._paths.folder(assigned.job))
                if note is None:
                    return self._do(assigned, progress)
                return Done(
                    note["exports"],
                    note["costs"],
                    _peak_mib(),
                    done_here=False,
                    report=note.get("report", {}),
                )
        except IncompleteError as error:
            return Failed(str(error), report=error.report)
        except AlignboardError as error:
            return Failed(str(error))
        except ModuleNotFoundError as error:
            name = (error.name or "").partition(".")[0]
            if name in {"", "alignboard"}:
                return _defect(error)
            return Failed(missing_text([name]))
        except Exception as error:  # noqa: BLE001 (the boundary: whatever a job raises is reported by the run)
            return _defect(error)

    def _do(self, assigned: Assignment, progress: Progress) -> Done:
        job = assigned.job
        temporary = self._paths.store / f".tmp-{job.folder}-{os.getpid()}"
        started, cpu = time.monotonic(), time.process_time()
        temporary.mkdir(parents=True)
        try:
            kind = job_kind(job.kind)
            for library in kind.imported(assigned.inputs, job.hints):
                importlib.import_module(library)
            run: Implementation = resolve_name(kind.run)
            self._require_device()
            imported = time.monotonic()
            inputs = {role: self._paths.store / name for role, name in assigned.inputs.items()}
            held = self._held.setdefault(job.group, {})
            task = JobTask(
                *(job, self._paths, temporary, self._journal, inputs, held, progress, self._helpers)
            )
            exports = run(task)
            costs = {
                "seconds": time.monotonic() - started,
                "cpu_seconds": time.process_time() - cpu,
                "import_seconds": imported - started,
            }
            if job.is_kept:
                folder = self._paths.folder(job)
                commit_folder(temporary, folder, exports, costs, made_by(job), task.report)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return Done(exports, costs, _peak_mib(), report=task.report)

    def _require_device(self) -> None:
        """A GPU that was asked for is there: work that falls back to the CPU takes days and says nothing."""
        torch = sys.modules.get("torch")
        if self._device is not None and torch is not None and not torch.cuda.is_available():
            raise InputError(
                f"--gpus names GPU {self._device}, and torch {torch.__version__} finds no such GPU; `nvidia-smi -L` "
                "lists those of this machine."
            )


def _defect(error: Exception) -> Failed:
    print(traceback.format_exc(), file=sys.stderr, flush=True)  # noqa: T201 (the log)
    return Failed(f"{type(error).__name__}: {error}", is_defect=True)


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
