"""Where results of jobs are kept: the store, and the record of what is done.

What this module promises
    A job's folder in ``results/.store/`` appears complete or not at all: it is filled under a temporary name, flushed
    to the disk, and renamed, with a note of its files and of what it exports. Then a record with the job's key is
    committed to the journal. A job counts as done where its folder is there with every file at its size; a folder of
    which a file was emptied or removed is made again, and a lost journal costs no job.
"""

from __future__ import annotations

import filecmp
import glob
import json
import os
import shutil
import stat
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from alignboard import __version__
from alignboard.fetch.sources import cache_folder
from alignboard.pipeline.graph import SCHEME, Job, library_versions
from alignboard.pipeline.kinds import job_kind
from alignboard.pipeline.replacing import require_no_less
from alignboard.results.files import flush
from alignboard.results.journal import Journal, JournalRow
from alignboard.results.outputs_paths import RECORD, outputs_place
from alignboard.workspace import STORE

DONE: Final = "done"
"""kind of the journal's rows that say which jobs are done"""
_NOTE: Final = ".complete.json"
"""in a job's folder: its files with their sizes, what it exports, what it cost"""


@dataclass(frozen=True)
class WorkspacePaths:
    """The folders of a workspace that a run writes to."""

    workspace: Path

    @property
    def results(self) -> Path:
        """One folder per model, in the ecosystem's formats."""
        return self.workspace / "results"

    @property
    def leaderboards(self) -> Path:
        """Boards."""
        return self.workspace / "leaderboards"

    @property
    def journal(self) -> Path:
        """Rows: answers, verdicts, and which jobs are done."""
        return self.results / ".journal"

    @property
    def store(self) -> Path:
        """Folders of jobs: checkpoints, adapters, pairs, tables."""
        return self.results / STORE

    @property
    def locks(self) -> Path:
        """Of what is being made (`alignboard.pipeline.locks`)."""
        return self.store / ".locks"

    @property
    def logs(self) -> Path:
        """What the libraries of the workers print."""
        return self.results / ".logs"

    def folder(self, job: Job) -> Path:
        """Where the results of ``job`` are."""
        return self.store / job.folder

    def work(self, job: Job) -> Path:
        """What ``job`` keeps on its way, to go on from after an interruption; it removes the folder when it ends."""
        return self.store / f"work-{job.folder}"


def commit_folder(
    temporary: Path,
    final: Path,
    exports: Mapping[str, str],
    costs: Mapping[str, float],
    versions: Mapping[str, str | None] | None = None,
    report: Mapping[str, Any] | None = None,
) -> None:
    """Flush everything under ``temporary`` and rename it to ``final``, which stays where it is whole already.

    ``versions`` are those that `made_by` gives, and ``report`` is what a command tells of the job: for the record
    where the journal is lost.
    """
    sizes = {
        path.relative_to(temporary).as_posix(): path.stat().st_size
        for path in temporary.rglob("*")
        if path.is_file()
    }
    note = {
        "files": sizes,
        "exports": dict(exports),
        "costs": dict(costs),
        "versions": None if versions is None else dict(versions),
        "report": dict(report or {}),
    }
    (temporary / _NOTE).write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
    for path in sorted(temporary.rglob("*"), reverse=True):
        if path.is_file() or path.is_dir():
            flush(path)
    flush(temporary)
    if final.exists():
        if note_of_whole(final) is not None:
            shutil.rmtree(temporary)
            return
        shutil.rmtree(final)
    temporary.rename(final)
    flush(final.parent)


def note_of_whole(folder: Path) -> dict[str, Any] | None:
    """The note of a folder whose files all have their sizes; None of any other."""
    try:
        note = json.loads((folder / _NOTE).read_text(encoding="utf-8"))
        whole = all((folder / name).stat().st_size == size for name, size in note["files"].items())
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None
    return note if whole else None


def done_row(
    job: Job,
    exports: Mapping[str, str],
    costs: Mapping[str, float],
    report: Mapping[str, Any] | None = None,
) -> JournalRow:
    """The record that ``job`` is done."""
    return JournalRow(
        bytes.fromhex(job.key),
        DONE,
        {
            "job": job.name,
            "kind": job.kind,
            "scheme": SCHEME,
            "exports": dict(exports),
            "versions": made_by(job),
            "typical": job.seconds is not None,
            "report": dict(report or {}),
            **costs,
        },
    )


def made_by(job: Job) -> dict[str, str | None]:
    """The versions of alignboard and of the libraries that may change the numbers of ``job``."""
    return {"alignboard": __version__, **library_versions(job_kind(job.kind).libraries)}


def forget(jobs: Sequence[Job], paths: WorkspacePaths, journal: Journal) -> None:
    """Let ``jobs`` count as not done: their records and their folders go. Only under their locks."""
    journal.forget([bytes.fromhex(job.key) for job in jobs])
    for job in jobs:
        shutil.rmtree(paths.folder(job), ignore_errors=True)
        shutil.rmtree(paths.work(job), ignore_errors=True)


def done_jobs(
    jobs: Sequence[Job], paths: WorkspacePaths, journal: Journal
) -> dict[str, dict[str, Any]]:
    """Names of the jobs that are done, with their records: by the journal, or by the note in their folder."""
    records = journal.get([bytes.fromhex(job.key) for job in jobs])
    found: dict[str, dict[str, Any]] = {}
    for job in jobs:
        folder, record = paths.folder(job), records.get(bytes.fromhex(job.key))
        note = note_of_whole(folder)
        if note is not None:
            told = (note["exports"], note["costs"], note.get("report"))
            of_note = done_row(job, *told).payload
            found[job.name] = record or of_note | {"versions": note.get("versions")}
        elif record is not None and _is_older(folder, record):
            found[job.name] = record
    return found


def _is_older(folder: Path, record: Mapping[str, Any]) -> bool:
    """Whether a folder was made by a version that left no notes, and holds what it exports."""
    exported = all((folder / inner).exists() for inner in record["exports"].values())
    return folder.is_dir() and not (folder / _NOTE).exists() and exported


def export(
    job: Job,
    exports: Mapping[str, str],
    paths: WorkspacePaths,
    *,
    only_check: bool = False,
    replace: bool = False,
) -> list[str]:
    """Put what ``job`` exports where people look for it; returns what was not as it should be.

    ``exports``: path in the workspace -> path in the job's folder; responses whose place another decoding has go beside
    it. A file is copied, with its time, so that a later
    look needs not read it; a folder becomes a symbolic link. ``only_check`` changes nothing. Raises `InputError` where
    a file that the store does not hold would be replaced by one with fewer scored rows; with ``replace`` the old one is
    kept beside the new one.
    """
    changed = []
    for name, inner in _placed(job, exports, paths).items():
        target, source = paths.workspace / name, paths.folder(job) / inner
        if _same(source, target):
            continue
        changed.append(name)
        if not only_check:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
            temporary.unlink(missing_ok=True)
            if source.is_dir():
                temporary.symlink_to(_way(source, target))
            else:
                if not is_kept(target, inner, paths):
                    require_no_less(target, source, replace=replace)
                shutil.copy2(source, temporary)
                flush(temporary)
            temporary.replace(target)
    return changed


def _placed(job: Job, exports: Mapping[str, str], paths: WorkspacePaths) -> Mapping[str, str]:
    """``exports``, responses where their decoding has its place."""
    record = next((inner for inner in exports.values() if Path(inner).name == RECORD), None)
    if record is None:
        return exports
    decoding = json.loads((paths.folder(job) / record).read_bytes())
    model, asked = job.parameters["model"], job.parameters["set"]["name"]
    place = outputs_place(paths.workspace, model, asked, decoding)
    return {(place / Path(name).name).as_posix(): inner for name, inner in exports.items()}


def is_kept(target: Path, inner: str, paths: WorkspacePaths) -> bool:
    """Whether a file is a copy of what some job's folder still holds, so that nothing is lost with it."""
    return any(_same(one, target) for one in paths.store.glob(f"*/{glob.escape(inner)}"))


def _same(source: Path, target: Path) -> bool:
    if source.is_dir():
        return target.is_symlink() and str(target.readlink()) == _way(source, target)
    try:
        a, b = source.stat(), target.lstat()
    except OSError:
        return False
    if a.st_size != b.st_size or not stat.S_ISREG(b.st_mode):
        return False
    return a.st_mtime_ns == b.st_mtime_ns or filecmp.cmp(source, target, shallow=False)


def _way(source: Path, target: Path) -> str:
    """The relative path to ``source`` from where ``target`` really is: its folder may be a symbolic link."""
    return os.path.relpath(source.resolve(), target.parent.resolve())


def without_roots(files: Iterable[Path], workspace: Path) -> None:
    """Write paths in the JSON and Markdown ``files`` from the workspace, the cache or the environment on.

    What is kept then says the same on another machine, and names no folder of the one that wrote it.
    """
    roots = (workspace, workspace.resolve(), cache_folder(), Path(sysconfig.get_path("purelib")))
    for path in files:
        text = path.read_text(encoding="utf-8")
        for root in dict.fromkeys(roots):
            place = f"{root}/"  # also as JSON writes it, and as lm-eval makes a file's name of it
            for spelt in (place, json.dumps(place)[1:-1], place.replace("/", "__")):
                text = text.replace(spelt, "")
        path.write_text(text, encoding="utf-8")
