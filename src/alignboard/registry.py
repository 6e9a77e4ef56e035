"""Named parts that other packages can add to: losses, judges, job kinds, plots, executors.

One line registers a part: ``register("loss", "mine", "my_package.losses:MINE")``. The target is looked up when somebody
asks for it, so registering costs no import; an object may be given in its place. A package that is installed beside
alignboard is found through the entry point group ``alignboard.plugins``: each entry is a module that registers on
import, or a function that is called without arguments.

The built-in parts of a kind are registered by the modules that `HOMES` names, on first use of the kind; the demo's by
`PLUGINS`, which are loaded as those of other packages are.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

from alignboard.errors import InputError, nearest

GROUP: Final = "alignboard.plugins"
HOMES: Final[dict[str, tuple[str, ...]]] = {
    "job": ("alignboard.pipeline.kinds",),
    "judge": ("alignboard.judges.spec", "alignboard.judges.jury"),
    "reply form": (
        "alignboard.judges.parsing.alpaca_eval_parsers",
        "alignboard.judges.parsing.marked_forms",
        "alignboard.judges.parsing.probability_forms",
        "alignboard.judges.parsing.spelled_forms",
    ),
    "loss": ("alignboard.training.methods",),
    "plot": ("alignboard.boards.plots.registry",),
    "executor": ("alignboard.pipeline.executors.machine",),
    "figure": ("alignboard.boards.plots.figures",),
    "tracker": ("alignboard.boards.tracking.writers",),
}
"""By kind, the modules whose import registers the built-in parts."""
PLUGINS: Final = ("alignboard.demo.plugin",)
"""Plug-ins of this package: modules that register on import, as those of an entry point do."""


class RegistryError(InputError):
    """A name that is not registered, is registered twice, or whose target cannot be imported."""


@dataclass
class _State:
    """What is registered in this process."""

    targets: dict[str, dict[str, Any]] = field(default_factory=dict)
    opened: set[str] = field(default_factory=set)
    """kinds whose homes have been imported"""
    plugins_loaded: bool = False


_STATE: Final = _State()


def register(kind: str, name: str, target: Any) -> None:
    """Register ``target`` as the ``kind`` called ``name``.

    Parameters
    ----------
    kind
        what it is: ``loss``, ``judge``, ``job``, ``plot``, ...
    name
        the name that declarations and commands use.
    target
        ``"module:attribute"``, imported on first use, or the object itself.

    Raises
    ------
    RegistryError
        where another target has the name already; the message shows both.

    Examples
    --------
    >>> register("example", "tau", "math:tau")
    >>> round(lookup("example", "tau"), 2)
    6.28
    """
    parts = _STATE.targets.setdefault(kind, {})
    if name in parts and parts[name] != target:
        raise RegistryError(
            f"The {kind} {name!r} is registered twice: as {parts[name]!r} and as {target!r}; rename one of them."
        )
    parts[name] = target


def lookup(kind: str, name: str) -> Any:
    """Return the part that is registered under ``name``, imported where its target is a string.

    Raises
    ------
    RegistryError
        for an unknown name, with the nearest known ones, and for a target that cannot be imported.
    """
    known = names(kind)
    if name not in known:
        hint = nearest(name, known) or f"; known are {', '.join(known) or 'none'}."
        raise RegistryError(f"There is no {kind} {name!r}{hint}")
    target = _STATE.targets[kind][name]
    return _imported(kind, name, target) if isinstance(target, str) else target


def names(kind: str) -> tuple[str, ...]:
    """Return the names of a kind, built-in and from plug-ins, in the order of the alphabet."""
    _open(kind)
    return tuple(sorted(_STATE.targets.get(kind, {})))


def _open(kind: str) -> None:
    if kind not in _STATE.opened:
        _STATE.opened.add(kind)
        for module in HOMES.get(kind, ()):
            importlib.import_module(module)
    if not _STATE.plugins_loaded:
        _STATE.plugins_loaded = True
        for module in PLUGINS:
            importlib.import_module(module)
        for plugin in entry_points(group=GROUP):
            _load(plugin)


def _load(plugin: EntryPoint) -> None:
    try:
        found = plugin.load()
    except (ImportError, AttributeError) as error:
        source = plugin.dist.name if plugin.dist else plugin.value
        raise RegistryError(
            f"The plug-in {plugin.name!r} of the package {source} cannot be imported ({error}); "
            "mend or uninstall it."
        ) from error
    if callable(found):
        found()


def _imported(kind: str, name: str, target: str) -> Any:
    module, _, attribute = target.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split(".") if attribute else ():
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise RegistryError(
            f"The {kind} {name!r} is registered as {target!r}, which cannot be imported: {error}."
        ) from error
    return found
