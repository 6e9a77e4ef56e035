"""Where rows lie: a json, jsonl, csv or parquet file, a folder of `datasets`, a hub id, a LLaMA-Factory entry.

Rows stay in Arrow files on disk; memory does not grow with them. Errors name the file and the line.
"""

from __future__ import annotations

import csv
import glob
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from alignboard.data.preferences.entries import (
    MessageTags,
    column_names,
    data_entry,
    message_tags,
    retagged,
)
from alignboard.errors import InputError, nearest
from alignboard.fetch.packages import is_packaged, packaged_path
from alignboard.results.files import paths_under
from alignboard.strict_json import RepeatedKeyError, parse_json, require_columns

if TYPE_CHECKING:
    from datasets import Dataset

LOADERS: Final = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}


@dataclass(frozen=True)
class PreferenceSource:
    """A data set, and how its columns are called."""

    name: str
    """a file, a folder, a hub id, ``package:NAME/FILE``, or ``dataset_info.json#entry``"""
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    n: int | None = None
    """at most so many rows, from the top"""
    share: float = 1.0
    """of the usable rows, drawn by the seed"""
    schema: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    """the source's columns by their canonical names"""
    workspace: Path = Path()
    """what a file or folder is relative to"""
    folder: str | None = None
    """the part of a repository that is meant"""
    tags: MessageTags | None = None
    """the source's names of a message's fields and roles"""

    @property
    def path(self) -> Path:
        """The file or folder, if it is one."""
        return self.workspace / self.name


def is_local(name: str, workspace: Path = Path()) -> bool:
    """Whether a name means a file or folder rather than a data set on the hub."""
    file = name.partition("#")[0]
    return Path(file).suffix in LOADERS or _is_folder(workspace / file)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name longer than any file's
        return False


def local_files(name: str, workspace: Path = Path()) -> list[Path]:
    """The files whose content determines a local data set; none for one on the hub or of a package."""
    if is_packaged(name) or not is_local(name, workspace):
        return []
    source = entry_of(PreferenceSource(name, workspace=workspace))
    if not is_local(source.name, workspace):
        return []
    if not source.path.exists():
        raise InputError(f"data.name: there is no file {source.path}.")
    if source.path.is_dir():
        return sorted(path for path in paths_under(source.path) if path.is_file())
    return [source.path]


def entry_of(source: PreferenceSource) -> PreferenceSource:
    """The source that a LLaMA-Factory entry (``dataset_info.json#name``) means; others as they are."""
    file, _, name = source.name.partition("#")
    if not name:
        return source
    path = source.workspace / file
    entry = data_entry(path, name)
    found = replace(
        source,
        split=entry.split or source.split,
        config=entry.subset or source.config,
        columns={**column_names(entry), **source.columns},
        folder=entry.folder,
        tags=message_tags(entry),
    )
    if entry.hf_hub_url is not None:  # before file_name, as LLaMA-Factory has it
        return replace(found, name=entry.hf_hub_url)
    lies = Path(file).parent / (entry.file_name or "")
    if not is_local(str(lies), source.workspace):
        raise InputError(
            f"{path}: the entry {name!r} names {entry.file_name}; a {', '.join(LOADERS)} file was expected."
        )
    return replace(found, name=str(lies))


def open_source(source: PreferenceSource) -> Dataset:
    """The raw rows, with the columns renamed; `InputError` names the file and the line, or the hub's reason."""
    import datasets
    from datasets.exceptions import DatasetsError

    if is_packaged(source.name):
        source = replace(source, name=str(packaged_path(source.name, source.workspace)))
    source = entry_of(source)
    local = is_local(source.name, source.workspace)
    if local:
        _require_content(source.path)
    said = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # it names a file's fault, too
    try:
        found = _loaded(source, local=local)
    except (OSError, ValueError, ConnectionError, RecursionError, DatasetsError) as error:
        raise _unreadable(source, local, error) from error
    finally:
        datasets.logging.set_verbosity(said)
    if isinstance(found, datasets.DatasetDict):
        if source.split not in found:
            raise InputError(
                f"{source.path} has no split {source.split!r}; it has {', '.join(map(str, found))}."
            )
        found = found[source.split]
    if len(found) == 0:
        raise InputError(f"{source.name} holds no rows.")
    if source.n is not None:
        found = found.select(range(min(source.n, len(found))))
    found = _renamed(found, source)
    return found if source.tags is None else retagged(found, source.tags)


def _loaded(source: PreferenceSource, *, local: bool) -> Any:
    """What ``datasets`` makes of the source: rows, or splits of them."""
    import datasets

    if not local:
        return datasets.load_dataset(
            source.name,
            source.config,
            data_dir=source.folder,
            split=source.split,
            revision=source.revision,
        )
    if source.path.is_dir():
        _require_saved(source.path)
        return datasets.load_from_disk(str(source.path))
    # A file has one split; of the declared one only a slice such as [100:] counts.
    _, bracket, part = source.split.partition("[")
    return datasets.load_dataset(
        LOADERS[source.path.suffix],
        data_files=glob.escape(str(source.path.absolute())),  # which it takes for a pattern
        split=f"train{bracket}{part}",
    )


def _require_content(path: Path) -> None:
    try:
        there = path.exists()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    if not there:
        raise InputError(f"There is no file {path}.")
    if path.is_file() and path.stat().st_size < 1_000 and not path.read_bytes().strip():
        raise InputError(f"{path} is empty.")
    if path.suffix in {".json", ".jsonl"} and path.is_file():
        _require_objects(path)
    if path.suffix == ".csv" and path.is_file():
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            require_columns(path, next(csv.reader(file), None))


def _require_saved(folder: Path) -> None:
    """Raise `InputError` for a folder that is no data set of `datasets`."""
    if not any((folder / name).is_file() for name in ("state.json", "dataset_dict.json")):
        raise InputError(
            f"{folder} holds no data set that `datasets` saved; name one of its files, or several as data sets of the "
            "recipe."
        )


def _require_objects(path: Path) -> None:
    """Raise `InputError` for JSON whose rows are no objects, and for texts that are no UTF-8.

    Arrow ends this process where the first row is null, and reads bytes that are no text: those fail where they are
    used, far from the line that holds them.
    """
    with path.open("rb") as file:
        first = file.read(64).lstrip(b"\xef\xbb\xbf \r\n\t")[:1]
    if first == b"[":
        _require_list(path)
        return
    if first not in {b"{", b""}:
        raise InputError(f"{path}, line 1: an object was expected, or a list of objects.")
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.isascii():
                _require_text(path, number, line)
            if path.suffix == ".jsonl" and line[:1] != b"{" and line.strip()[:1] not in {b"{", b""}:
                raise InputError(
                    f"{path}, line {number}: an object was expected; every line holds one."
                )


def _require_list(path: Path) -> None:
    """The same for a file that is one list; here a key that is twice is found, too. In lines, Arrow refuses those."""
    try:
        rows = parse_json(path.read_bytes())
    except RepeatedKeyError as error:
        raise InputError(f"{path}, {error}.") from error
    except (ValueError, RecursionError) as error:
        line, what = getattr(error, "lineno", 1), getattr(error, "msg", error)
        raise InputError(f"{path}, line {line}: broken JSON: {what}.") from error
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise InputError(f"{path}, row {number}: an object was expected.")


def _require_text(path: Path, number: int, line: bytes) -> None:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}, line {number}: byte {error.start + 1} is not UTF-8 ({error.reason}); save the file as UTF-8."
        ) from error


def _unreadable(source: PreferenceSource, local: bool, error: Exception) -> InputError:  # noqa: FBT001 - one caller
    if local and source.path.is_file() and source.path.suffix in {".json", ".jsonl"}:
        fault = _json_fault(source.path)
        if fault is not None:
            return InputError(f"{source.path}, {fault}")
    if "corresponds to no data" in str(error):
        return InputError(f"{source.path if local else source.name} holds no rows.")
    reason = " ".join(str(error.__cause__ or error).split()).rstrip(".")
    where = "" if local else f" (configuration {source.config}, split {source.split})"
    return InputError(f"{source.path if local else source.name}{where} cannot be read: {reason}.")


def _json_fault(path: Path) -> str | None:
    """The first line that is no JSON, as a sentence; None where the file is in order, or a list, which was read."""
    with path.open(encoding="utf-8", errors="replace") as file:
        if file.read(64).lstrip().startswith("["):
            return None
        file.seek(0)
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    json.loads(line)
                except (ValueError, RecursionError) as error:
                    return f"line {number}: broken JSON: {getattr(error, 'msg', error)}."
    return None


def _renamed(found: Any, source: PreferenceSource) -> Any:
    """``found`` with its columns called by their canonical names."""
    for ours, theirs in source.columns.items():
        if theirs not in found.column_names:
            hint = nearest(theirs, found.column_names) or (
                f"; it has {', '.join(found.column_names)}."
            )
            raise InputError(
                f"{source.name} has no column {theirs!r}, which columns.{ours} names{hint}"
            )
    names = {theirs: ours for ours, theirs in source.columns.items() if ours != theirs}
    # A column that another one takes the name of goes, unless it gets another name itself.
    gone = [name for name in found.column_names if name in names.values() and name not in names]
    return found.remove_columns(gone).rename_columns(names)
