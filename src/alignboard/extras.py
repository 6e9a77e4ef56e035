"""Optional packages: which extra of alignboard brings a module, and a command that installs it.

The command names the packages themselves, as this installation declares them, and not the extra: alignboard is on no
index, and ``alignboard[train]`` would install neither from a checkout nor from a wheel.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Final

from alignboard.errors import InputError

_USED: Final = ("train", "lm-eval", "gguf", "gptq", "fast")
_REQUIREMENT: Final = re.compile(r"(?P<package>[A-Za-z0-9._-]+)[^;]*")


def require(*modules: str) -> None:
    """Raise `InputError` with an install command where one of ``modules`` is not installed."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise InputError(missing_text(missing))


def missing_text(modules: Sequence[str]) -> str:
    """One sentence: what is missing, and how it is installed."""
    wanted = list(dict.fromkeys(one for name in modules for one in _packages(name)))
    command = "pip install " + " ".join(f"'{one}'" for one in wanted)
    return f"This needs {', '.join(modules)}, which the base install leaves out; install it by: {command}"


def _packages(module: str) -> list[str]:
    """The requirements of the extra that has ``module``, less what is there; ``module`` itself where none has it."""
    for extra in _USED:
        found = _requirements(extra)
        if any(_import_name(one) == module for one in found):
            there = [one for one in found if find_spec(_import_name(one)) is None]
            return there or [module]
    return [module]


def _requirements(extra: str) -> list[str]:
    # 16 ms, and only who lacks a package needs it.
    from importlib.metadata import PackageNotFoundError, requires  # noqa: PLC0415

    try:
        declared = requires("alignboard") or []
    except PackageNotFoundError:  # run from a checkout that was never installed
        return []
    mark = re.compile(rf"extra\s*==\s*['\"]{re.escape(extra)}['\"]")
    found = [one for one in declared if mark.search(one)]
    return [one.partition(";")[0].strip() for one in found]


def _import_name(requirement: str) -> str:
    matched = _REQUIREMENT.match(requirement)
    package = matched["package"] if matched else requirement
    return package.split("[")[0].lower().replace("-", "_")
