"""Files as such: which suffixes are tables of rows, and how a file is written so that nobody sees half of it."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from alignboard.errors import InputError
from alignboard.strict_json import parse_json

SUFFIXES = (".json", ".jsonl", ".csv")
UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""what msgspec raises where bytes are no JSON of the wanted type"""
_ROOM: Final = 100 * 2**20
"""bytes that have to be free before a run, for rows and boards"""


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def paths_under(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """Everything below ``folder``, as ``rglob("*")`` has it, and what is in folders that are links.

    A link that leads back to a folder ``above`` is not entered.
    """
    here = folder.resolve()
    if here in above:
        return
    for path in sorted(folder.iterdir()):
        yield path
        if path.is_dir():
            yield from paths_under(path, above | {here})


def write_atomically(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Write and flush a file beside ``path``, then rename it; parents are made where they are missing.

    ``mode`` are the permissions, less the process's umask.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno is not None:
            # Not the temporary file's, or none where the disk is full.
            error.filename = os.fspath(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as a JSON file that people can read, atomically."""
    write_atomically(path, msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")


def read_file(path: Path) -> bytes:
    """The content of a file that a user named; raises `InputError` where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error


def flush(path: Path) -> None:
    """Have the disk hold what was written to a file, or what is in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def place_once(temporary: Path, path: Path) -> None:
    """Give a finished file its name where nothing has it: of two processes the first does; the other's file goes."""
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        if not path.exists():
            temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file that others wrote; raises `InputError` that names the file."""
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no JSON object, which a configuration is.")
    return content


def require_writable(folder: Path) -> None:
    """Raise `InputError` where ``folder`` cannot be written or made, or where its disk is full."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise InputError(f"{folder} cannot be made: {there} is a file.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{folder} cannot be written: {there} is not writable for this user.")
    free = shutil.disk_usage(there).free
    if free < _ROOM:
        raise InputError(
            f"The disk of {folder} has {free / 2**20:.0f} MiB left; {_ROOM >> 20} MiB are needed at least."
        )
