"""Where the four rooms are, which file a name means, and a new workspace.

A workspace is a folder with ``train/``, ``evaluate/``, ``results/`` and ``leaderboards/``. A name such as the suite
``alpaca-eval-2`` is looked up in the workspace first and then in the built-in library that the wheel carries.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from alignboard.errors import InputError, nearest

PUBLISHED = ("alpaca-eval-2", "alpaca-eval-1")
"""the suites whose boards the alpaca-eval wheel carries"""
CARD = "training.json"
"""what a trained adapter's folder says of its training"""
STORE = ".store"
"""the folder in results/ of what jobs made, each in a folder named after its key"""
_OURS = frozenset({".", "..", ".journal", STORE, ".logs", ".alignboard"})
_LONGEST = 200
"""bytes of a model's name; file systems take 255, and temporary names are longer"""


def library() -> Path:
    """The built-in library: the folder that holds ``train/`` and ``evaluate/``.

    In a wheel that is ``alignboard/library``; in a checkout it is the repository itself.
    """
    packaged = Path(__file__).parent / "library"
    return packaged if packaged.is_dir() else Path(__file__).parents[2]


def declaration(room: str, name: str, workspace: Path | None = None) -> Path:
    """The YAML file that ``name`` means in ``room`` (such as ``evaluate/suites``); the workspace's own file wins.

    Raises `InputError` with the nearest names where there is none.
    """
    if Path(name).suffix in {".yaml", ".yml"} and Path(name).is_file():
        return Path(name)
    path = find(room, name, workspace)
    if path is not None:
        return path
    if Path(name).suffix in {".yaml", ".yml"}:
        raise InputError(f"There is no file {name}.")
    known = sorted({found for root in _roots(workspace) for found in names(room, root)})
    raise InputError(
        f"There is no {room}/{name}.yaml{nearest(name, known)} (known: {', '.join(known) or 'none'})."
    )


def find(room: str, name: str, workspace: Path | None = None) -> Path | None:
    """The file ``name`` of ``room``, in the workspace or else in the library; None where neither has it."""
    for root in _roots(workspace):
        folder = root / room
        path = folder / f"{name}.yaml"
        if is_there(path) and path.resolve().is_relative_to(folder.resolve()):
            return path
    return None


def is_there(path: Path) -> bool:
    """Whether there is such a file or folder; not where its name is longer than the file system takes."""
    try:
        return path.exists()
    except OSError:
        return False


def _roots(workspace: Path | None) -> tuple[Path, Path]:
    return workspace or Path.cwd(), library()


def names(room: str, root: Path) -> list[str]:
    """The names declared in ``room`` under ``root``, sub-folders with slashes."""
    folder = root / room
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))


def model_name(name: str) -> str:
    """``name`` itself, where it can be the name of a folder in ``results/``; raises `InputError` otherwise."""
    marks = any(mark in name for mark in ("/", "\\", "\0"))
    if not name or name in _OURS or marks or len(name.encode(errors="replace")) > _LONGEST:
        raise InputError(
            f"The model name {name[:80]!r} cannot be a folder of results: it must not be empty, '.' or '..', "
            f"hold a slash, be longer than {_LONGEST} bytes, or be a folder of alignboard's own."
        )
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"The model name {name!r} holds half a surrogate pair, which no file name can."
        ) from error
    return name


_DECLARED = ("train", "evaluate")
_PRODUCED = ("results", "leaderboards")


def init_workspace(folder: Path) -> list[Path]:
    """Make ``folder`` a workspace; returns the files that were copied. Raises `InputError` where it is not empty."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; a workspace is a folder.")
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty; a workspace is made in a new or an empty folder.")
    new = not folder.exists()
    try:
        return _fill(folder)
    except BaseException:  # half a workspace would be refused as a folder that is not empty
        for room in (*_DECLARED, *_PRODUCED):
            shutil.rmtree(folder / room, ignore_errors=True)
        if new:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _fill(folder: Path) -> list[Path]:
    source = library()
    copied = []
    for room in _DECLARED:
        for path in sorted((source / room).rglob("*.yaml")):
            target = folder / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            copied.append(target)
    for room in _PRODUCED:
        (folder / room).mkdir(parents=True, exist_ok=True)
    return copied
