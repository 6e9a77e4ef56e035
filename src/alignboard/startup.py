"""What a process of alignboard sets before it imports anything heavy: libraries that are quiet, and quicker to import.

Packages on disk stay as they are, and so does what a notebook imports: only the command and the processes that it
starts call `prepare`.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Final


def prepare() -> None:
    """Set what is set once per process; call it first."""
    # Whenever PEFT imports bitsandbytes, it reports a faster kernel that it would like to download.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    if not any(isinstance(one, _Finder) for one in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds the modules of `_SPARED` and spares them work; all others are found by the finders that follow."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See `MetaPathFinder`."""
        if fullname not in _SPARED:
            return None
        found = PathFinder.find_spec(fullname, path, target)
        if found is not None and found.loader is not None:
            loader: Any = found.loader
            execute = loader.exec_module

            def exec_module(module: ModuleType) -> None:
                with _SPARED[fullname](module):
                    execute(module)

            loader.exec_module = exec_module
        return found


@contextmanager
def _listing(module: Any) -> Iterator[None]:
    """Let transformers read the files of its models once instead of two or three times, and do without scipy.

    It looks through 1,600 files for what they define, for ``transformers``, again for ``transformers.models``, and
    again for each model. scipy's optimisers, 250 modules, are imported by the losses of object detectors alone.
    """
    yield
    listed = getattr(module, "create_import_structure_from_path", None)
    if listed is not None:
        once = functools.cache(listed)
        module.create_import_structure_from_path = lambda place: once(_folder(place))
    names = getattr(module, "fetch__all__", None)
    if names is not None:
        module.fetch__all__ = lambda text: names(_from_names(text))
    module.is_scipy_available = lambda: False


def _folder(place: str | Path) -> str:
    """The folder that transformers looks through: its own, where it names a file."""
    path = Path(place)
    return str(path.parent if path.is_file() else path)


def _from_names(text: str) -> str:
    """A file from its last ``__all__`` at the start of a line: transformers compares each line before it in vain."""
    start = f"\n{text}".rfind("\n__all__")
    return "" if start < 0 else text[start:]


@contextmanager
def _one_detector(_module: Any) -> Iterator[None]:
    """Let requests take its own dependency for encodings instead of chardet, 79 modules, where both are installed."""
    both = "chardet" not in sys.modules and find_spec("charset_normalizer") is not None
    if both:
        sys.modules["chardet"] = None  # pyright: ignore[reportArgumentType] - what an import takes for absent
    try:
        yield
    finally:
        if both:
            del sys.modules["chardet"]


@contextmanager
def _patched(module: Any) -> Iterator[None]:
    """Let datasets import no scipy.io, 110 modules, in order to patch it in a module that cannot have it."""
    yield
    if not hasattr(module, "patch_submodule"):
        return
    patch = module.patch_submodule

    def patch_submodule(patched: Any, target: str, *new: Any, **attributes: Any) -> Any:
        if target.startswith("scipy.") and "scipy.io" not in sys.modules:
            return SimpleNamespace(start=lambda: None)
        return patch(patched, target, *new, **attributes)

    module.patch_submodule = patch_submodule


_SPARED: Final[dict[str, Callable[[ModuleType], AbstractContextManager[None]]]] = {
    "transformers.utils.import_utils": _listing,
    "requests": _one_detector,
    "datasets.streaming": _patched,
}
"""by module: what is done around its execution"""
