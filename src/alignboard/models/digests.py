"""Digests of large files, kept between processes: a dry run that is repeated reads no gigabytes again.

What this module promises
    A file is taken to be the one that was read before only where its place, inode, size, time of modification and time
    of change are all the same. The last is the kernel's own: a file changed in place, whose other time was put back,
    is read again.
What it never does
    Believe a workspace: digests lie in the user's cache folder (`alignboard.fetch.sources.cache_folder`), so that a
    folder of somebody else brings none, and a base in several workspaces is read once. The file can be deleted at any
    time.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing, suppress
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

from alignboard.fetch.sources import cache_folder
from alignboard.results.files import file_sha256

_NAME: Final = "digests.sqlite"
_LARGE: Final = 2**20
"""bytes from which on a file is worth a look at the disk"""
# A file changed within this time of being read may change again without a new time stamp (git's "racy" files).
_RACY_NS: Final = 100_000_000
_TABLE: Final = "CREATE TABLE IF NOT EXISTS digests (path TEXT PRIMARY KEY, stamp TEXT, sha256 TEXT) WITHOUT ROWID"


class FileStamp(NamedTuple):
    """What tells this version of a file from any other, as far as the file system says."""

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int

    @property
    def text(self) -> str:
        """All but the path."""
        return " ".join(map(str, self[1:]))


def file_stamp(path: Path) -> FileStamp:
    """The stamp of a file as it is now."""
    path = path.resolve()
    now = path.stat()
    times = (now.st_mtime_ns, now.st_ctime_ns)
    return FileStamp(str(path), now.st_size, *times, now.st_ino, now.st_dev)


@lru_cache(maxsize=1024)
def file_digest(stamp: FileStamp) -> str:
    """sha256 of the content of the file with ``stamp``, read only where it is not known."""
    if stamp.size < _LARGE:
        return file_sha256(Path(stamp.path))
    return _known(stamp) or _kept(stamp, file_sha256(Path(stamp.path)))


def _known(stamp: FileStamp) -> str | None:
    query = "SELECT sha256 FROM digests WHERE path = ? AND stamp = ?"
    with suppress(sqlite3.Error, OSError), closing(_opened()) as known:
        row = known.execute(query, (stamp.path, stamp.text)).fetchone()
        return None if row is None else row[0]
    return None


def _kept(stamp: FileStamp, digest: str) -> str:
    """``digest``, kept where that is safe and possible."""
    settled = time.time_ns() - stamp.ctime_ns > _RACY_NS
    if settled and file_stamp(Path(stamp.path)) == stamp:
        row = (stamp.path, stamp.text, digest)
        with suppress(sqlite3.Error, OSError), closing(_opened()) as known:
            known.execute("INSERT OR REPLACE INTO digests VALUES (?, ?, ?)", row)
    return digest


def _opened() -> sqlite3.Connection:
    path = cache_folder() / _NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=5.0, isolation_level=None)
    connection.execute(_TABLE)
    return connection
