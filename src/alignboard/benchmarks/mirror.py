"""Data sets of the hub in a folder or a package: ``<id>/<configuration>/<split>``, read in place of the hub.

A split is a folder of `datasets.save_to_disk`, or files ``<split>.jsonl``, ``.json``, ``.parquet`` or ``.arrow``, also
in parts (``test-00000-of-00002.parquet``). A data set without configurations has its splits at once below its id, or
below ``default``. ``mirror.json``, which `alignboard fetch suite` writes, pins every file by its sha256.

lm-eval's tasks stay as they are: while `served` is in force, `datasets.load_dataset` reads from here what a task names.
"""

from __future__ import annotations

import contextlib
import glob
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from alignboard.benchmarks.declared import LOCAL, DeclaredTask
from alignboard.errors import InputError
from alignboard.fetch.packages import (
    is_packaged,
    packaged_aliases,
    packaged_files,
    packaged_path,
)
from alignboard.results.files import file_sha256, paths_under, write_atomically

MANIFEST: Final = "mirror.json"
LABEL: Final = "data "
"""how the names of data files begin among the files of a job"""
ALIAS: Final = "in place of "
"""how the names of data sets in whose place a package has another begin there"""
_READ: Final = (".arrow", ".parquet", ".jsonl", ".json")
_NO_DATA: Final = frozenset({MANIFEST, "dataset_dict.json", "dataset_info.json", "state.json"})
_PART: Final = re.compile(r"-\d+-of-\d+$")

Splits = Mapping[str, list[str]]
"""the files of each split, by names in the mirror"""


@dataclass(frozen=True)
class Mirror:
    """A mirror as it is declared: nothing of a package is downloaded before its data are loaded."""

    source: str
    """a folder, or ``package:NAME``"""
    workspace: Path

    @cached_property
    def names(self) -> list[str]:
        """Every file with data, relative to the mirror."""
        if is_packaged(self.source):
            found = list(self._packaged)
        else:
            folder = self.workspace / self.source
            if not folder.is_dir():
                raise InputError(f"--data-root {self.source}: there is no such folder.")
            found = sorted(
                path.relative_to(folder).as_posix()
                for path in paths_under(folder)
                if path.is_file()
            )
        return [
            one
            for one in found
            if Path(one).suffix in _READ and Path(one).name not in _NO_DATA and "/" in one
        ]

    def splits(self, dataset: str, config: str | None) -> Splits:
        """The splits of a data set; raises `InputError` where the mirror does not hold it."""
        dataset = self._aliases.get(dataset, dataset)
        inner = [one.removeprefix(f"{dataset}/") for one in self.names if _is_in(one, dataset)]
        named = config or "default"
        within = [one.removeprefix(f"{named}/") for one in inner if _is_in(one, named)]
        place = f"{dataset}/{named}" if within else dataset
        if not within and config is None:
            within = inner
        found: dict[str, list[str]] = {}
        for one in within:
            top = one.partition("/")[0]
            split = _PART.sub("", Path(top).stem) if top == one else top
            found.setdefault(split, []).append(f"{place}/{one}")
        if not found:
            # A folder of `datasets.save_to_disk` has its files one level deeper.
            known = sorted({one.rsplit("/", 2 if "/data-" in one else 1)[0] for one in self.names})
            raise InputError(
                f"the mirror {self.source} does not hold {called(dataset, config)} (it holds: "
                f"{', '.join(known) or 'nothing'}); where there is a network, `alignboard fetch suite` brings it."
            )
        return found

    def digests(self, tasks: Iterable[DeclaredTask]) -> dict[str, str]:
        """sha256 of every file that the tasks are made of, and what is read in place of an id.

        Raises `InputError` for a file that is missing or altered.
        """
        pinned = self._pins()
        found: dict[str, str] = {}
        for dataset, config in dict.fromkeys(one.dataset for one in tasks if one.dataset):
            splits = self.splits(dataset, config)
            if dataset in self._aliases:
                found[f"{ALIAS}{dataset}"] = f"{self._aliases[dataset]} of {self.source}"
            lost = [
                one
                for one in pinned
                if one not in self.names and one.startswith(f"{dataset}/{config or 'default'}/")
            ]
            if lost:
                raise InputError(
                    f"the mirror {self.source} has lost {lost[0]}, which its {MANIFEST} names; fetch the suite again."
                )
            for name in (one for files in splits.values() for one in files):
                found[f"{LABEL}{name}"] = digest = self._digest(name)
                if pinned.get(name, digest) != digest:
                    raise InputError(
                        f"the mirror {self.source}: {name} was altered (its {MANIFEST} says sha256 {pinned[name]}, "
                        f"found {digest}); fetch the suite again."
                    )
        return found

    def load(self, dataset: str, config: str | None) -> Any:
        """The data set as `datasets.load_dataset` gives it."""
        import datasets

        read: dict[str, Any] = {
            ".parquet": datasets.Dataset.from_parquet,
            ".jsonl": datasets.Dataset.from_json,
            ".json": datasets.Dataset.from_json,
        }
        found: dict[str, Any] = {}
        for split, names in self.splits(dataset, config).items():
            paths = [str(self._path(name)) for name in names]
            kind = Path(paths[0]).suffix
            if kind == ".arrow":
                parts = [datasets.Dataset.from_file(path) for path in paths]
                found[split] = datasets.concatenate_datasets(parts)
            else:
                found[split] = read[kind](list(map(glob.escape, paths)))
        return _Splits(found)

    def _path(self, name: str) -> Path:
        if is_packaged(self.source):
            return packaged_path(f"{self.source}/{name}", self.workspace)
        return self.workspace / self.source / name

    def _digest(self, name: str) -> str:
        if is_packaged(self.source):
            return self._packaged[name]
        return file_sha256(self._path(name))

    @cached_property
    def _packaged(self) -> Mapping[str, str]:
        return packaged_files(self.source, self.workspace)

    @cached_property
    def _aliases(self) -> Mapping[str, str]:
        return packaged_aliases(self.source, self.workspace) if is_packaged(self.source) else {}

    def _pins(self) -> dict[str, str]:
        path = self.workspace / self.source / MANIFEST
        if is_packaged(self.source) or not path.is_file():
            return {}
        try:
            return dict(json.loads(path.read_bytes())["sha256"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is no manifest of a mirror: {error!r}.") from error


class _Splits(dict[str, Any]):
    """Splits by name; one that is absent has no rows: whether a task needs it was checked before."""

    def __missing__(self, split: str) -> Any:
        return next(iter(self.values())).select([])


def require_splits(
    mirror: Mirror | None, tasks: Iterable[DeclaredTask], n_shot: int | None = None
) -> None:
    """Raise `InputError` for a task whose documents, or whose examples, are of a split that its data lack."""
    for task in tasks:
        if task.dataset is not None and mirror is not None:
            splits: Collection[str] | None = mirror.splits(*task.dataset)
            of, where = f" of {called(*task.dataset)}", f"the mirror {mirror.source}"
        else:
            splits, of, where = task.own_splits, "", "dataset_kwargs.data_files"
        needed = {"documents": task.asked_split, "examples": task.examples_split(n_shot)}
        for what, split in needed.items():
            if splits is not None and split is not None and split not in splits:
                hint = "" if what == "documents" else "; num_fewshot: 0 needs none"
                raise InputError(
                    f"the task {task.name!r} takes its {what} from the split {split!r}{of}, which {where} lacks (it "
                    f"has {', '.join(sorted(splits))}){hint}."
                )


@contextlib.contextmanager
def served(
    mirror: Mirror | None, revisions: Mapping[str, str] = MappingProxyType({})
) -> Iterator[None]:
    """`datasets.load_dataset` from ``mirror``, or from the hub at the pinned ``revisions``, while this is in force."""
    import datasets

    original: Any = datasets.load_dataset

    def load(path: str, name: str | None = None, *args: Any, **kwargs: Any) -> Any:
        is_id = path.count("/") == 1 and not Path(path).exists()
        if mirror is None or not is_id:
            if is_id and path in revisions:
                kwargs.setdefault("revision", revisions[path])
            if path in LOCAL and "data_files" in kwargs:
                kwargs["data_files"] = _anchored(kwargs["data_files"])
            try:
                return original(path, name, *args, **kwargs)
            except ConnectionError as error:
                raise _unreachable(path, name) from error
        return mirror.load(path, name)

    datasets.load_dataset = load  # lm-eval looks it up at each call
    try:
        yield
    finally:
        datasets.load_dataset = original


def _anchored(data_files: Any) -> Any:
    """Patterns that begin at the current folder, whose own name may hold what is special in a pattern."""
    if isinstance(data_files, Mapping):
        return {split: _anchored(files) for split, files in data_files.items()}
    if isinstance(data_files, list | tuple):
        return [_anchored(files) for files in data_files]
    if "://" in data_files or Path(data_files).is_absolute():
        return data_files
    return str(Path(glob.escape(str(Path.cwd())), data_files))


def fetch(
    tasks: Iterable[DeclaredTask], revisions: Mapping[str, str], folder: Path
) -> dict[tuple[str, str | None], int]:
    """Write the data sets of ``tasks`` to ``folder``, pinned by its manifest; returns the rows of each.

    Raises `InputError` where one cannot be had.
    """
    import datasets
    from datasets.exceptions import DatasetsError

    found: dict[tuple[str, str | None], int] = {}
    for dataset, config in dict.fromkeys(one.dataset for one in tasks if one.dataset):
        try:
            loaded: Any = datasets.load_dataset(dataset, config, revision=revisions.get(dataset))
        except ConnectionError as error:
            raise _unreachable(dataset, config) from error
        except (OSError, ValueError, DatasetsError) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise InputError(f"{called(dataset, config)} cannot be fetched: {reason}.") from error
        for split, rows in loaded.items():
            rows.save_to_disk(str(folder / dataset / (config or "default") / split))
        found[dataset, config] = sum(len(rows) for rows in loaded.values())
    mirror = Mirror(str(folder.resolve()), folder)
    pins = {name: file_sha256(folder / name) for name in mirror.names}
    manifest = {"revisions": dict(revisions), "sha256": pins}
    write_atomically(folder / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
    return found


def _unreachable(dataset: str, config: str | None) -> InputError:
    return InputError(
        f"the documents of {called(dataset, config)} are not on this machine, and the hub cannot be reached; where "
        "there is a network, `alignboard fetch suite NAME --to DIR` writes a mirror, which --data-root DIR reads "
        "anywhere."
    )


def _is_in(name: str, folder: str) -> bool:
    return name.startswith(f"{folder}/")


def called(dataset: str, config: str | None) -> str:
    """A data set's name for people."""
    return dataset if config is None else f"{dataset} ({config})"
