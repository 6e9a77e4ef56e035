"""Where an lm-eval task is declared, and what it is made of: names to files, without importing lm-eval.

A task or a group is looked up by its name: ``evaluate/tasks/<name>.yaml`` in the workspace, then in the built-in
library, then lm-eval's own. What is declared here is known by content, so that a changed document is another job;
what lm-eval declares is known by lm-eval's version. lm-eval's 14,000 files are not parsed (15 seconds): a name is
looked for in the folders that its beginning names, which takes milliseconds, and everywhere only if it is not there.
"""

from __future__ import annotations

import ast
import glob
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import msgspec

from alignboard.errors import InputError, nearest
from alignboard.guarded_yaml import SAFE_LOADER
from alignboard.results.files import file_sha256, paths_under
from alignboard.suites import read_yaml
from alignboard.workspace import find, is_there, library

ROOM: Final = "evaluate/tasks"
# At the top level of lm-eval's declarations: ``task: arc_easy``, ``"group": mmlu``, and tags, one or a list.
_NAME: Final = re.compile(
    rb"""^["']?(?:task|group|tag)["']?[ \t]*:[ \t]*["']?([^\s"'#\[\]]+)""", re.MULTILINE
)
_MOST_FILES: Final = 10_000
"""of one pattern"""
_INTERNALS: Final = re.compile(r"__|\|\s*attr\b")
"""how a template reaches what Python keeps for itself"""
_TAGS: Final = re.compile(rb"""^["']?tag["']?[ \t]*:((?:\s*\n[ \t]*-[ \t].*)+)""", re.MULTILINE)


class _Function(str):
    """A function that a task names: ``!function utils.process_docs``."""

    __slots__ = ()


class _Loader(SAFE_LOADER):
    """Reads lm-eval's declarations without importing what they name."""


_Loader.add_constructor("!function", lambda _, node: _Function(node.value))


def rooms(workspace: Path) -> list[Path]:
    """The folders with declarations of tasks. Of two that declare one name the last wins: the workspace's."""
    return [folder for root in (library(), workspace) if (folder := root / ROOM).is_dir()]


def digests(names: Iterable[str], workspace: Path, *, trusted: bool = False) -> dict[str, str]:
    """sha256 of every file that the tasks ``names`` are made of here; nothing for what lm-eval declares.

    Files: the declarations, those that they include, the members of groups, the Python files of their functions, and
    the data that they name. Raises `InputError` for a task that nobody declares, for data that are not there, and,
    unless they are ``trusted``, for declarations of the workspace that would run code.
    """
    found = _Files(workspace, trusted=trusted)
    for name in names:
        found.add_task(name)
    return {label: file_sha256(path) for label, path in sorted(found.files.items())}


def generated_contents(name: str, workspace: Path, *, trusted: bool) -> dict[str, Any]:
    """What declares the task ``name``, whose data are written later: by file its content, of Python files its sha256.

    Raises `InputError`, unless they are ``trusted``, for declarations of the workspace that would run code.
    """
    found = _Files(workspace, trusted=trusted, with_data=False)
    found.add_task(name)
    return {
        label: file_sha256(path) if path.suffix == ".py" else read_declaration(path)
        for label, path in sorted(found.files.items())
    }


def read_declaration(path: Path) -> dict[str, Any]:
    """What a task's file declares; a function is its name, and nothing is imported."""
    return read_yaml(path, _Loader, ("!function",))


def lm_eval_folder(name: str) -> Path | None:
    """The folder of lm-eval's that declares the task, group or tag ``name``; None where none does."""
    folders = sorted(
        _lm_eval_folders(),
        key=lambda folder: (not name.startswith(folder.name), -len(folder.name), folder.name),
    )
    return next((folder for folder in folders if name in _declared(folder)), None)


def unknown_task(name: str) -> InputError:
    """What to say of a task that nobody declares."""
    hint = nearest(name, {one for folder in _lm_eval_folders() for one in _declared(folder)}) or "."
    return InputError(
        f"the task {name!r} is neither declared in {ROOM}/{name}.yaml nor by lm-eval{hint}"
    )


class _Shape(msgspec.Struct):
    """What is read here of a declaration, or of a member of a group."""

    group: str | None = None
    task: str | list[str | dict[str, Any]] | None = None
    include: str | list[str] = []
    dataset_path: str | None = None
    dataset_kwargs: dict[str, Any] | None = None
    metric_list: list[str | dict[str, Any]] | None = None


def _require_shape(path: Path, content: Mapping[str, Any], *, included: bool = False) -> None:
    """Raise `InputError` for an unknown field, a wrong type, or, of what no other file includes, a missing name."""
    try:
        shape = msgspec.convert(content, _Shape)
    except msgspec.ValidationError as error:
        raise InputError(f"{path}: {error}.") from error
    unknown = next((key for key in content if key not in _fields()), None)
    if unknown is not None and "class" not in content and not _is_ours(path):
        hint = nearest(str(unknown), _fields()) or "."
        raise InputError(f"{path}: a task has no field {unknown!r}{hint}")
    if shape.group is None and shape.task is None and not shape.include and not included:
        raise InputError(f"{path}: a task, or a member of a group, has no name (task:).")


class _Files:
    """The files of tasks, collected from declaration to declaration."""

    def __init__(self, workspace: Path, *, trusted: bool, with_data: bool = True) -> None:
        self._workspace, self._trusted, self._with_data = workspace, trusted, with_data
        self.files: dict[str, Path] = {}
        """by what they are called in a key: the path in the workspace or library, else the whole path"""

    def add_task(self, name: str) -> None:
        path = find(ROOM, name, self._workspace)
        if path is not None:
            self._add_declaration(path, name)
        elif lm_eval_folder(name) is None:
            raise unknown_task(name)

    def _add_declaration(self, path: Path, name: str | None = None) -> None:
        if not self._add(path):
            return
        content = read_declaration(path)
        _require_shape(path, content, included=name is None)
        declared = content.get("group") or content.get("task")
        if name is not None and name != declared:
            raise InputError(
                f"{path}: it declares {declared!r}; the file of a task is called after the task."
            )
        if not self._trusted and not _is_ours(path):
            require_no_code(path, content)
        included = content.get("include", [])
        for other in [included] if isinstance(included, str) else included:
            self._add_declaration(path.parent / other)
        for function in functions_of(content):
            module = path.parent / f"{function.rpartition('.')[0].replace('.', '/')}.py"
            if module.is_file():
                self._add(module)
        self._add_content(path, content)

    def _add_content(self, path: Path, content: Mapping[str, Any]) -> None:
        """What a task, or a member of a group that is written out in it, names."""
        if self._with_data:
            self._add_data(path, content)
        members = content.get("task")
        for member in members if isinstance(members, list) else []:
            if isinstance(member, str):
                self.add_task(member)
                continue
            _require_shape(path, member)
            self._add_content(path, member)
            name = member.get("group") or member["task"]
            written_out = "dataset_path" in member or isinstance(member.get("task"), list)
            if find(ROOM, name, self._workspace) is not None or not written_out:
                self.add_task(name)

    def _add_data(self, path: Path, content: Mapping[str, Any]) -> None:
        folder = self._workspace / str(content.get("dataset_path", ""))
        if "dataset_path" in content and is_there(folder) and folder.is_dir():
            inner = (one for one in paths_under(folder) if one.is_dir() or _has_data(one))
            self._add_all(path, str(folder), inner)
        for text in strings((content.get("dataset_kwargs") or {}).get("data_files")):
            if "://" in text:
                continue
            pattern = str(Path(glob.escape(str(self._workspace)), text))
            matches = glob.iglob(pattern, recursive=True)  # noqa: PTH207 - absolute patterns too
            if not self._add_all(path, text, map(Path, matches)):
                raise InputError(
                    f"{path}: dataset_kwargs.data_files names {text!r}, which is not there; paths are relative to the "
                    f"workspace {self._workspace}."
                )

    def _add_all(self, path: Path, pattern: str, matches: Iterable[Path]) -> int:
        """Add the files among ``matches``; returns how many. Raises `InputError` for what has no end."""
        files = 0
        for n, file in enumerate(matches):
            if n == _MOST_FILES:
                raise InputError(f"{path}: {pattern!r} names more than {_MOST_FILES} files.")
            if file.is_dir():
                continue
            if not _has_data(file):
                raise InputError(f"{path}: {pattern!r} names {file}, which is no file with data.")
            self._add(file)
            files += 1
        return files

    def _add(self, path: Path) -> bool:
        """Whether the file is new."""
        path = path.resolve()
        root = next((r for r in (self._workspace, library()) if path.is_relative_to(r)), None)
        label = (path.relative_to(root) if root else path).as_posix()
        new = label not in self.files
        self.files[label] = path
        return new


def _has_data(path: Path) -> bool:
    """Whether it is a file that holds something; devices, pipes and the kernel's own files are none."""
    return path.is_file() and path.stat().st_size > 0


def _is_ours(path: Path) -> bool:
    """Whether a declaration is the library's or lm-eval's own."""
    return any(
        path.resolve().is_relative_to(folder.resolve())
        for folder in (library(), _lm_eval_folders()[0].parent)
    )


def require_no_code(path: Path, content: Mapping[str, Any]) -> None:
    """Raise `InputError` where a declaration runs code, when it is loaded or when its templates are rendered."""
    found = next(_code(content), None)
    if found is not None:
        raise InputError(
            f"{path}: {found} runs code on this machine; read the file, and what it names, then agree by --trust-tasks."
        )


def _code(content: Mapping[str, Any]) -> Iterator[str]:
    """What of a declaration runs code; metrics that lm-eval does not have are scripts of a folder or of the hub."""
    yield from (f"!function {function}" for function in functions_of(content))
    for text in strings(content):
        if ("{{" in text or "{%" in text) and _INTERNALS.search(text):
            yield f"the template {text[:60]!r}"
    for inner in _mappings(content):
        if inner.get("dataset_path") == "pandas":
            yield "dataset_path: pandas (pickles)"
        for metric in inner.get("metric_list") or ():
            name = metric.get("metric") if isinstance(metric, Mapping) else metric
            if isinstance(metric, Mapping) and metric.get("hf_evaluate"):
                yield f"the metric {name} of hf_evaluate"
            elif not isinstance(name, str) or name not in _metrics():
                yield f"the metric {name}, which is not lm-eval's,"


def _mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every mapping in ``value``, however deep."""
    if isinstance(value, Mapping):
        yield value
    if isinstance(value, Mapping | list):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _mappings(inner)


@lru_cache(maxsize=1)
def _fields() -> frozenset[str]:
    """The fields of tasks and groups, read from lm-eval's source."""
    found = {"include", "class"}
    for name in ("task", "group"):
        path = _lm_eval_folders()[0].parent.parent / "config" / f"{name}.py"
        classes = (
            one for one in ast.parse(path.read_text("utf-8")).body if isinstance(one, ast.ClassDef)
        )
        own = next(one for one in classes if one.name == f"{name.title()}Config")
        found.update(ast.unparse(one.target) for one in own.body if isinstance(one, ast.AnnAssign))
    return frozenset(found)


@lru_cache(maxsize=1)
def _metrics() -> frozenset[str]:
    """The metrics that lm-eval registers, read from its source."""
    source = (_lm_eval_folders()[0].parent.parent / "api" / "metrics.py").read_text("utf-8")
    return frozenset(re.findall(r"@register_metric\(\s*metric=\"([^\"]+)\"", source))


def functions_of(value: Any) -> Iterator[str]:
    """The functions that a declaration names: ``utils.process_docs``."""
    return (text for text in strings(value) if isinstance(text, _Function))


def strings(value: Any) -> Iterator[str]:
    """Every string in ``value``, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from strings(inner)


@lru_cache(maxsize=1)
def _lm_eval_folders() -> tuple[Path, ...]:
    spec = find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("Benchmarks need lm_eval: pip install 'alignboard[lm-eval]'.")
    tasks = Path(spec.submodule_search_locations[0]) / "tasks"
    return tuple(folder for folder in sorted(tasks.iterdir()) if folder.is_dir())


@lru_cache(maxsize=1024)
def _declared(folder: Path) -> frozenset[str]:
    """The names of the tasks, groups and tags that the files of ``folder`` declare."""
    paths = (path for path in folder.rglob("*") if path.suffix in {"", ".yaml"})
    return frozenset(name for path in paths if path.is_file() for name in declared_names(path))


def declared_names(path: Path) -> frozenset[str]:
    """The names of the task, the group and the tags that a file declares."""
    text = path.read_bytes()  # some templates have no suffix
    found = set(_NAME.findall(text))
    for tags in _TAGS.findall(text):
        found.update(tag.strip(b" \t\"'") for tag in re.findall(rb"-[ \t]+(.*)", tags))
    return frozenset(name.decode() for name in found)
