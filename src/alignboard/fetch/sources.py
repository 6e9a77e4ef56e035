"""Where published results come from: released files at a pinned commit, calibration files at a pinned revision.

Everything that is fetched is verified: released files by their git blob ids, calibration files by the SHA-256 that
the suite declares. The listing of the repository, which names the blob ids, is the one thing taken on trust.

Environment:

``ALIGNBOARD_CACHE``
    Where fetched files are kept; else ``$XDG_CACHE_HOME/alignboard``, else ``~/.cache/alignboard``. In it,
    ``released/<owner>-<repository>/<commit>/`` and ``calibration/<revision>/``; what is complete there is used
    without any request.
``ALIGNBOARD_MIRROR``
    A base address such as ``http://127.0.0.1:8000`` that is asked instead of the hosts themselves, in the layout
    that ``wget -x`` makes. It must serve

    - ``/api.github.com/repos/<owner>/<repository>/git/trees/<commit>?recursive=1`` (the answer of that address;
      the query may be ignored),
    - ``/raw.githubusercontent.com/<owner>/<repository>/<commit>/<path>``,
    - ``/huggingface.co/datasets/<owner>/<repository>/resolve/<revision>/<file>``.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from alignboard.errors import InputError, SourceError, nearest
from alignboard.fetch.download import DownloadProgress, download, fetch, usable
from alignboard.fetch.pinned import PinnedFile, locked
from alignboard.results.files import UNREADABLE, write_atomically
from alignboard.suites import ReleasedResults, Suite
from alignboard.text import without_secrets
from alignboard.workspace import model_name

if TYPE_CHECKING:
    import rich.progress

__all__ = [
    "DownloadProgress",
    "cache_folder",
    "calibration_folder",
    "released_file",
    "released_results",
    "rich_progress",
]

_LISTING = "listing.json"
_SET_OPTION = "generate --set FILE or judge --baseline FILE"
_SYMLINK = "120000"


class _Entry(msgspec.Struct):
    """One entry of a git tree, as the API lists it."""

    path: str
    type: str
    sha: str
    mode: str = "100644"
    size: int | None = None


class _Listing(msgspec.Struct):
    tree: list[_Entry]
    truncated: bool = False


def cache_folder() -> Path:
    """Where fetched files are kept; see the module."""
    if own := os.environ.get("ALIGNBOARD_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "alignboard"


def released_results(
    suite: Suite,
    *,
    annotators: Sequence[str],
    models: Sequence[str] | None = None,
    progress: DownloadProgress | None = None,
) -> Path:
    """A local results folder with the released files of every model that one of ``annotators`` judged.

    The folder holds the models' outputs, their annotations by ``annotators`` (also at the doubled path
    ``<annotator>/<annotator>/``) and the outputs of the suite's baseline; it may hold more, fetched earlier for
    another annotator or suite of the same commit. ``models`` restricts what is fetched.

    Raises `SourceError` where something cannot be fetched, `InputError` where a name is not in the release.
    """
    released = suite.released
    _require_pinned(released.repository, released.commit, released.folder)
    commit = cache_folder() / "released" / released.repository.replace("/", "-") / released.commit
    files = _wanted(suite, _listing(commit, released), annotators, models)
    download(files, commit, progress)
    return commit / released.folder


def released_file(
    repository: str, commit: str, file: str, progress: DownloadProgress | None = None
) -> Path:
    """The local copy of one file of a GitHub repository at a pinned commit, fetched and verified as above.

    Raises `SourceError` where it cannot be fetched, `InputError` where the commit does not have it.
    """
    folder = file.split("/", maxsplit=1)[0]
    _require_pinned(repository, commit, folder)
    released = ReleasedResults(repository=repository, commit=commit, folder=folder)
    root = cache_folder() / "released" / repository.replace("/", "-") / commit
    listing = _listing(root, released, _SET_OPTION)
    if file not in listing:
        hint = nearest(file, listing) or "."
        raise InputError(f"{repository} at {commit} has no file {file}{hint}")
    download([replace(_pinned(released, listing[file]), option=_SET_OPTION)], root, progress)
    return root / file


def calibration_folder(suite: Suite, *, progress: DownloadProgress | None = None) -> Path:
    """A local folder with the calibration files of the suite; raises `SourceError` where one cannot be fetched."""
    pinned = suite.calibration
    _require_pinned(pinned.repository, pinned.revision, *pinned.sha256)
    folder = cache_folder() / "calibration" / pinned.revision
    base = f"https://huggingface.co/datasets/{pinned.repository}/resolve/{pinned.revision}"
    download(
        [
            PinnedFile(
                name, f"{base}/{quote(name)}", "sha256", sha256.lower(), None, "--assets DIR"
            )
            for name, sha256 in pinned.sha256.items()
        ],
        folder,
        progress,
    )
    return folder


# The listing of a repository: data from outside.


def _listing(
    folder: Path, released: ReleasedResults, option: str = "--from DIR"
) -> dict[str, _Entry]:
    """Every file of the repository by its path; fetched once. ``option`` takes local files instead."""
    url = f"https://api.github.com/repos/{released.repository}/git/trees/{released.commit}?recursive=1"
    path = folder / _LISTING
    kept = _kept_listing(url, path)
    if kept is not None:
        return kept
    with usable(folder, option), locked(folder):
        kept = _kept_listing(url, path)  # another run may have fetched it meanwhile
        if kept is not None:
            return kept
        content = fetch(url, option)
        listing = _parse_listing(url, content)
        write_atomically(path, content)
    return listing


def _kept_listing(url: str, path: Path) -> dict[str, _Entry] | None:
    """The listing of an earlier run, or None where it is not there or damaged since."""
    try:
        return _parse_listing(url, path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, SourceError):
        return None


def _parse_listing(url: str, content: bytes) -> dict[str, _Entry]:
    try:
        listing = msgspec.json.decode(content, type=_Listing)
    except UNREADABLE as error:
        raise _bad_listing(url, f"is no listing of a git tree ({error})") from error
    if listing.truncated:
        raise _bad_listing(url, "lists only a part of the repository (truncated)")
    for entry in listing.tree:
        if not _is_safe(entry.path):
            raise _bad_listing(
                url, f"names the path {entry.path!r}, which could lead out of its folder"
            )
        if entry.type == "blob" and not re.fullmatch(r"[0-9a-f]{40}", entry.sha):
            raise _bad_listing(url, f"gives {entry.path!r} the blob id {entry.sha!r}")
    files = (entry for entry in listing.tree if entry.type == "blob" and entry.mode != _SYMLINK)
    return {entry.path: entry for entry in files}


def _is_safe(path: str) -> bool:
    unsafe = "\\" in path or "\0" in path
    return not unsafe and all(part not in {"", ".", ".."} for part in path.split("/"))


def _bad_listing(url: str, what: str) -> SourceError:
    return SourceError(
        f"{without_secrets(url)} {what}: set ALIGNBOARD_MIRROR to a mirror with the whole listing, or give local "
        "files with --from DIR."
    )


def _require_pinned(repository: str, *names: str) -> None:
    """Names that become paths and addresses: a suite may come from somebody else."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository) or not all(
        map(_is_safe, repository.split("/"))
    ):
        raise InputError(f"The suite's repository {repository!r} is not of the form owner/name.")
    for name in names:
        if not re.fullmatch(r"[\w.-]+", name) or not _is_safe(name):
            raise InputError(
                f"The suite pins {name!r}, which is not a plain name of letters, digits, '.', '_' and '-'."
            )


# Which files a board needs.


def _wanted(
    suite: Suite,
    listing: dict[str, _Entry],
    annotators: Sequence[str],
    models: Sequence[str] | None,
) -> list[PinnedFile]:
    released = suite.released
    annotations = _annotations(listing, released.folder, annotators)
    place = f"{released.repository} at {released.commit}"
    if not annotations:
        raise InputError(f"The release {place} has no annotations by {_either(annotators)}.")
    for model in models or ():
        if model not in annotations:
            hint = nearest(model, annotations) or "."
            by = _either(annotators)
            raise InputError(f"The release {place} has no annotations of {model!r} by {by}{hint}")
    chosen = {model: annotations[model] for model in models or annotations}
    baseline = f"{released.folder}/{suite.baseline}/model_outputs.json"
    if baseline not in listing:
        raise InputError(
            f"The release {place} has no {baseline}, the outputs of the suite's baseline."
        )
    outputs = {f"{released.folder}/{model}/model_outputs.json" for model in chosen}
    paths = {
        baseline,
        *(outputs & listing.keys()),
        *(path for paths in chosen.values() for path in paths),
    }
    return [_pinned(released, listing[path]) for path in sorted(paths)]


def _annotations(
    listing: dict[str, _Entry], folder: str, annotators: Sequence[str]
) -> dict[str, list[str]]:
    """The annotation files of each model by ``annotators``; two models have theirs at a doubled path."""
    found: dict[str, list[str]] = {}
    for path in listing:
        match path.split("/"):
            case [root, model, annotator, *doubled, "annotations.json"] if (
                root == folder and annotator in annotators and doubled in ([], [annotator])
            ):
                found.setdefault(model_name(model), []).append(path)
    return found


def _pinned(released: ReleasedResults, entry: _Entry) -> PinnedFile:
    url = f"https://raw.githubusercontent.com/{released.repository}/{released.commit}/{quote(entry.path)}"
    return PinnedFile(entry.path, url, "git-blob", entry.sha, entry.size, "--from DIR")


def _either(names: Sequence[str]) -> str:
    return " or ".join(repr(name) for name in names)


# Progress on the terminal.


@contextmanager
def rich_progress() -> Iterator[DownloadProgress]:
    """Progress on stderr: a bar on a terminal, one line per download elsewhere, nothing where nothing is fetched."""
    if not sys.stderr.isatty():
        yield _LineProgress()
        return
    from rich import progress
    from rich.console import Console

    bars = progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.TextColumn("{task.fields[done]}/{task.fields[files]} files"),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    try:
        yield _BarProgress(bars)
    finally:
        bars.stop()


class _LineProgress:
    """For logs: says what is fetched when it begins."""

    def total(self, files: int, n_bytes: int) -> None:
        size = f" ({n_bytes / 1e6:,.1f} MB)" if n_bytes else ""
        sys.stderr.write(f"Downloading {files} file{'s' if files != 1 else ''}{size} ...\n")
        sys.stderr.flush()

    def advance(self, n_bytes: int) -> None:
        pass

    def done_file(self, name: str) -> None:
        pass


class _BarProgress:
    """One bar per download; file names, which come from outside, are not shown."""

    def __init__(self, bars: rich.progress.Progress) -> None:
        self._bars = bars
        self._task: rich.progress.TaskID | None = None
        self._done = 0

    def total(self, files: int, n_bytes: int) -> None:
        self._bars.start()
        self._done = 0
        self._task = self._bars.add_task("Downloading", total=n_bytes or None, files=files, done=0)

    def advance(self, n_bytes: int) -> None:
        if self._task is not None:
            self._bars.advance(self._task, n_bytes)

    def done_file(self, name: str) -> None:  # noqa: ARG002 - see the class
        self._done += 1
        if self._task is not None:
            self._bars.update(self._task, done=self._done)
