"""What a process of alignboard sets before it imports anything heavy: libraries that are quiet, and quicker to import.

Packages on disk stay as they are, and so does what a notebook imports: only the command and the processes that it
starts call `prepare`.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, Final

_LISTS_MODELS: Final = "transformers.utils.import_utils"


def prepare() -> None:
    """Set what is set once per process; call it first."""
    # Whenever PEFT imports bitsandbytes, it reports a faster kernel that it would like to download.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    if _LISTS_MODELS not in sys.modules:
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds the one module that transformers imports before it lists its models, and spares it work."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See `MetaPathFinder`; every other module is found by the finders that follow."""
        if fullname != _LISTS_MODELS:
            return None
        sys.meta_path.remove(self)
        found = PathFinder.find_spec(fullname, path, target)
        if found is not None and found.loader is not None:
            loader: Any = found.loader
            execute = loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                _spare(module)

            loader.exec_module = exec_module
        return found


def _spare(module: Any) -> None:
    """Let transformers read the files of its models once instead of two or three times, and do without scipy.

    It looks through 1,600 files for what they define, for ``transformers``, again for ``transformers.models``, and
    again for each model. scipy's optimisers, 250 modules, are imported by the losses of object detectors alone.
    """
    listed = getattr(module, "create_import_structure_from_path", None)
    if listed is not None:
        once = functools.cache(listed)
        module.create_import_structure_from_path = lambda place: once(_folder(place))
    module.is_scipy_available = lambda: False


def _folder(place: str | Path) -> str:
    """The folder that transformers looks through: its own, where it names a file."""
    path = Path(place)
    return str(path.parent if path.is_file() else path)
