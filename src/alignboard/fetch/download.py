"""Downloads of pinned files over a network that fails.

What this module promises: a file under its own name is complete and is the pinned content; what has arrived of
an unfinished one is kept as ``<name>.part`` and gone on with; whatever fails ends as a `SourceError` of one
sentence. Every address can be answered by a mirror: with ``ALIGNBOARD_MIRROR=http://127.0.0.1:8000`` the request for
``https://HOST/PATH?QUERY`` goes to ``http://127.0.0.1:8000/HOST/PATH?QUERY``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

from alignboard.errors import SourceError
from alignboard.fetch import ranges
from alignboard.fetch.http import FinalError, Http, TooLargeError, TransientError, pieces, retrying
from alignboard.fetch.pinned import PinnedFile, VerifiedFiles, digest, locked
from alignboard.fetch.ranges import (
    MIRROR,
    address_of,
    client,
    continues,
    require_success,
    stream,
    strong_etag,
)
from alignboard.text import without_secrets

_THREADS = 4
# The most bytes taken where no size is pinned.
_LARGEST = 1 << 28

Result = TypeVar("Result")


class DownloadProgress(Protocol):
    """Hears of a download, one call at a time, from several threads."""

    def total(self, files: int, n_bytes: int) -> None:
        """What is to be fetched; ``n_bytes`` is 0 where sizes are not known beforehand."""
        ...

    def advance(self, n_bytes: int) -> None:
        """So many more bytes are there; negative where a file has to be started again."""
        ...

    def done_file(self, name: str) -> None:
        """One file is complete and verified."""
        ...


def download(files: list[PinnedFile], root: Path, progress: DownloadProgress | None = None) -> None:
    """Make every file be there under ``root``; those that are and were verified cause no request.

    A file that was changed since it was verified (its size or time says so) is read again, and fetched again
    where it is not the pinned content any more. A second run on the same folder waits for the first.
    """
    with usable(root, files[0].option if files else "--from DIR"):
        verified = VerifiedFiles(root)
        if verified.missing(files):
            with locked(root):
                verified = VerifiedFiles(root)
                _fetch_all(verified.missing(files), root, verified, progress)
                verified.save()
        elif verified.changed:
            with locked(root):
                verified.save()


@contextmanager
def usable(folder: Path, option: str) -> Iterator[None]:
    """Say what to do where ``folder`` cannot be written."""
    try:
        yield
    except OSError as error:
        raise SourceError(
            f"{error.filename or folder} cannot be used ({error.strerror or error}): set ALIGNBOARD_CACHE to a "
            f"folder that can be written and has space, or give local files with {option}."
        ) from error


def fetch(url: str, option: str) -> bytes:
    """The content at ``url``, which no digest pins; retried as files are."""
    with client() as http:
        return _persist(lambda: _whole(http, url), (address_of(url), option), threading.Event())


def _whole(http: Http, url: str) -> bytes:
    try:
        response, content = http.read("GET", address_of(url), _LARGEST)
    except TooLargeError as error:
        raise FinalError(str(error)) from error
    require_success(response)
    return content


def _fetch_all(
    files: list[PinnedFile], root: Path, verified: VerifiedFiles, progress: DownloadProgress | None
) -> None:
    if not files:
        return
    report = _Report(progress)
    report.total(files)
    stop = threading.Event()
    with client() as http, ThreadPoolExecutor(_THREADS) as pool:
        transfers: dict[Future[None], PinnedFile] = {
            pool.submit(_Transfer(file, root, http, report, stop).run): file for file in files
        }
        try:
            for future in as_completed(transfers):
                future.result()
                verified.add(transfers[future])
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            verified.save()


class _StoppedError(Exception):
    """Another file failed, or the user interrupted: what has arrived is kept."""


class _Transfer:
    """One file on its way: ``<name>.part``, then verified, then ``<name>``."""

    def __init__(
        self, file: PinnedFile, root: Path, http: Http, report: _Report, stop: threading.Event
    ) -> None:
        self._file = file
        self._path = root / file.name
        self._part = self._path.with_name(f"{self._path.name}.part")
        self._http = http
        self._report = report
        self._stop = stop
        self._shown = 0
        self._etag: str | None = None

    def run(self) -> None:
        """Fetch the file; content that is not the pinned one is fetched once more, from its first byte."""
        file = self._file
        address = address_of(file.url)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        found = ""
        for _ in range(2):
            _persist(self._attempt, (address, file.option), self._stop, self._received)
            if digest(self._part, file.algorithm) == file.digest:
                self._publish()
                return
            found = f"{digest(self._part, file.algorithm)}{_of(self._received())}"
            self._discard()
        raise SourceError(
            f"{without_secrets(address)} is not the pinned content (expected {file.algorithm} "
            f"{file.digest}{_of(file.size)}, found {found}): fetch from an unaltered source by setting "
            f"ALIGNBOARD_MIRROR, or give local files with {file.option}."
        )

    def _attempt(self) -> None:
        if self._is_complete():
            return
        offset = self._received()
        with stream(self._http, self._file.url, offset, self._etag) as response:
            goes_on = continues(response, offset)
            if goes_on is None:
                self._discard()
                raise TransientError(f"the server does not go on at byte {offset}")
            self._etag = strong_etag(response)
            self._write(pieces(response), offset if goes_on else 0)

    def _write(self, chunks: Iterator[bytes], size: int) -> None:
        limit = _LARGEST if self._file.size is None else self._file.size
        with self._part.open("ab" if size else "wb") as out:
            self._show(size)
            for chunk in chunks:
                if self._stop.is_set():
                    raise _StoppedError
                out.write(chunk)
                size += len(chunk)
                self._show(size)
                if size > limit:
                    return  # not the pinned content, which the digest will say

    def _is_complete(self) -> bool:
        """Whether an earlier attempt or run left the whole file; a whole that is wrong is discarded."""
        size, pinned = self._received(), self._file.size
        if not size or (pinned is not None and size < pinned):
            return False
        if digest(self._part, self._file.algorithm) == self._file.digest:
            self._show(size)
            return True
        if pinned is not None:
            self._discard()
        return False

    def _received(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0

    def _publish(self) -> None:
        with self._part.open("rb+") as file:
            os.fsync(file.fileno())
        self._part.replace(self._path)
        self._report.done_file(self._file.name)

    def _discard(self) -> None:
        self._part.unlink(missing_ok=True)
        self._etag = None
        self._show(0)

    def _show(self, size: int) -> None:
        self._report.advance(size - self._shown)
        self._shown = size


def _persist(
    attempt: Callable[[], Result],
    asked: tuple[str, str],
    stop: threading.Event,
    received: Callable[[], int] = lambda: 0,
) -> Result:
    """What the first try returns that succeeds; ``asked`` is an address and the option that takes local files."""
    from tenacity import Retrying

    address, option = asked
    tries = retrying(ranges.PATIENCE, Retrying, lambda seconds: _sleep(stop, seconds), received)
    try:
        return tries(attempt)
    except (TransientError, FinalError) as error:
        n_tries = tries.statistics["attempt_number"]
        tried = f" ({n_tries} attempts)" if isinstance(error, TransientError) else ""
        raise SourceError(
            f"{without_secrets(address)} could not be downloaded, {error}{tried}: run again later (what has arrived "
            f"is kept), set {MIRROR} to a mirror, or give local files with {option}."
        ) from error


def _sleep(stop: threading.Event, seconds: float) -> None:
    if stop.wait(seconds):
        raise _StoppedError


class _Report:
    """Passes progress on, one thread at a time."""

    def __init__(self, progress: DownloadProgress | None) -> None:
        self._progress = progress
        self._lock = threading.Lock()

    def total(self, files: list[PinnedFile]) -> None:
        sizes = [file.size for file in files]
        known = [size for size in sizes if size is not None]
        if self._progress is not None:
            self._progress.total(len(files), sum(known) if known == sizes else 0)

    def advance(self, n_bytes: int) -> None:
        if self._progress is not None and n_bytes:
            with self._lock:
                self._progress.advance(n_bytes)

    def done_file(self, name: str) -> None:
        if self._progress is not None:
            with self._lock:
                self._progress.done_file(name)


def _of(size: int | None) -> str:
    return "" if size is None else f" of {size:,} bytes"
