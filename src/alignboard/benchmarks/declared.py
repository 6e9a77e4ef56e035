"""Tasks as their files declare them, read without lm-eval: data sets, splits, examples, and the modules of their code.

A group is followed to its tasks, an ``include`` is merged, and a tag stands for the tasks that carry it. What a task's
Python makes of its data is not known here.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from alignboard.benchmarks.task_files import (
    ROOM,
    declared_names,
    functions_of,
    lm_eval_folder,
    read_declaration,
    unknown_task,
)
from alignboard.errors import InputError
from alignboard.suites import Benchmark
from alignboard.workspace import find

LOCAL = frozenset({"json", "csv", "parquet", "arrow", "text", "pandas"})
"""loaders of files: such a task brings its data"""
_PACKAGES = {"antlr4": "antlr4-python3-runtime"}
"""packages that are called otherwise than what is imported"""


@dataclass(frozen=True)
class DeclaredTask:
    """One task, as its file and what includes it say."""

    name: str
    path: Path
    config: Mapping[str, Any]

    @property
    def dataset(self) -> tuple[str, str | None] | None:
        """The id on the hub and the configuration; None for a task that brings its data or makes them."""
        path = self.config.get("dataset_path")
        if not path or path in LOCAL or Path(str(path)).exists():
            return None
        return str(path), self.config.get("dataset_name")

    @property
    def own_splits(self) -> frozenset[str] | None:
        """The splits of the files that a task names; None where it names none."""
        files = (self.config.get("dataset_kwargs") or {}).get("data_files")
        if not files:
            return None
        return frozenset(files) if isinstance(files, Mapping) else frozenset({"train"})

    @property
    def asked_split(self) -> str | None:
        """The split whose documents are asked."""
        return self.config.get("test_split") or self.config.get("validation_split")

    def examples_split(self, n_shot: int | None) -> str | None:
        """The split that examples are taken from; None where there are none, or where they are written out."""
        shots = self.config.get("num_fewshot") if n_shot is None else n_shot
        settings = self.config.get("fewshot_config") or {}
        if not shots or settings.get("samples"):
            return None
        splits = ("training_split", "validation_split", "test_split")
        own = settings.get("split") or self.config.get("fewshot_split")
        return own or next((self.config[one] for one in splits if self.config.get(one)), None)


def declared_tasks(benchmark: Benchmark, workspace: Path) -> list[DeclaredTask]:
    """The task that a benchmark names, or all tasks of its group.

    Raises `InputError` for a task that nobody declares.
    """
    own = {} if benchmark.split is None else {"test_split": benchmark.split}
    return list(_tasks(benchmark.task, workspace, own, frozenset()))


def require_modules(tasks: Iterable[DeclaredTask]) -> None:
    """Raise `InputError` for the tasks whose Python imports what is not installed; nothing is run."""
    lacking: dict[str, set[str]] = {}
    for task in tasks:
        missing = {one for path in _code(task) for one in _missing(path)}
        if missing:
            lacking[task.name] = missing
    if lacking:
        first, *others = lacking
        missing = sorted(set().union(*lacking.values()))
        who = f"the task {first!r} needs" if not others else f"the tasks {first!r}, ... need"
        raise InputError(
            f"{who} {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed: pip install "
            f"{_extras(missing)}"
        )


def _tasks(
    name: str, workspace: Path, changes: Mapping[str, Any], above: frozenset[str]
) -> Iterator[DeclaredTask]:
    if name in above:
        return
    for path in _paths(name, workspace):
        config = {**_merged(path), **changes}
        members = config.get("task")
        if config.get("group") != name and not isinstance(members, list):
            yield DeclaredTask(str(members or name), path, config)
            continue
        inner = changes if config.get("group") == name else {}
        group = [members] if isinstance(members, str) else members or ()
        yield from _members(group, path, workspace, inner, above | {name})


def _members(
    members: Iterable[Any],
    path: Path,
    workspace: Path,
    changes: Mapping[str, Any],
    above: frozenset[str],
) -> Iterator[DeclaredTask]:
    """The tasks of a group's members: names, tasks with changes, tasks and groups that are written out."""
    for member in members:
        if isinstance(member, str):
            yield from _tasks(member, workspace, changes, above)
        elif isinstance(member.get("task"), list):
            yield from _members(member["task"], path, workspace, changes, above)
        elif isinstance(member.get("task"), str) and "dataset_path" not in member:
            yield from _tasks(member["task"], workspace, member | changes, above)
        elif isinstance(member.get("task"), str):
            yield DeclaredTask(member["task"], path, {**member, **changes})


def _paths(name: str, workspace: Path) -> list[Path]:
    """The file that declares a task or a group, or the files of the tasks that carry a tag."""
    own = find(ROOM, name, workspace)
    if own is not None:
        return [own]
    folder = lm_eval_folder(name)
    if folder is None:
        raise unknown_task(name)
    return [path for path, names in _index(folder).items() if name in names]


@lru_cache(maxsize=256)
def _index(folder: Path) -> Mapping[Path, frozenset[str]]:
    return {
        path: names
        for path in sorted(folder.rglob("*"))
        if path.suffix == ".yaml" and path.is_file() and (names := declared_names(path))
    }


@lru_cache(maxsize=4096)
def _merged(path: Path) -> Mapping[str, Any]:
    """A declaration with what it includes; its own keys win."""
    content = read_declaration(path)
    included = content.pop("include", [])
    found: dict[str, Any] = {}
    for other in [included] if isinstance(included, str) else included:
        found |= _merged(path.parent / other)
    return found | content


def _code(task: DeclaredTask) -> list[Path]:
    """The Python files that a task's functions are of, and those beside them that these import."""
    waiting = {
        task.path.parent / f"{function.rpartition('.')[0].replace('.', '/')}.py"
        for function in functions_of(task.config)
    }
    found: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path not in found and path.is_file():
            found.add(path)
            waiting |= {
                path.parent / f"{part}.py" for one in _imports(path) for part in one.split(".")
            }
    return sorted(found)


@lru_cache(maxsize=256)
def _imports(path: Path) -> frozenset[str]:
    """What a Python file imports when it is imported; not what functions or guarded blocks import."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        for inner in node.body if isinstance(node, ast.Try) else [node]:
            if isinstance(inner, ast.Import):
                found |= {one.name for one in inner.names}
            elif isinstance(inner, ast.ImportFrom) and inner.module:
                found |= {f"{inner.module}.{one.name}" for one in inner.names}
    return frozenset(found)


def _missing(path: Path) -> Iterator[str]:
    for name in _imports(path):
        top = name.partition(".")[0]
        if not (path.parent / f"{top}.py").is_file() and find_spec(top) is None:
            yield top


def _extras(missing: Iterable[str]) -> str:
    """What pip is to install: the extras of lm-eval that bring the modules, and the modules that none brings."""
    modules = {_PACKAGES.get(one, one): one for one in missing}
    extras: dict[str, str] = {}
    for line in metadata.requires("lm_eval") or ():
        match = re.match(r"([\w-]+)[^;]*;\s*extra == \"(\w+)\"", line)
        if match and match[1].replace("-", "_") in {one.replace("-", "_") for one in modules}:
            extras.setdefault(match[1].replace("-", "_"), match[2])
    named = sorted(set(extras.values()))
    rest = sorted(one for one in modules if one.replace("-", "_") not in extras)
    return " ".join([*([f"'lm_eval[{','.join(named)}]'"] if named else []), *rest])
