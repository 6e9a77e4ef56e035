"""The commands by name; the module of each is imported when the command is used, or listed with its help."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from importlib import import_module

import click

_ROOM = "alignboard.cli"


class Commands(MutableMapping[str, click.Command]):
    """Commands as `click.Group` takes them, from ``module:attribute`` inside `alignboard.cli`."""

    def __init__(self, **targets: str) -> None:
        self._targets: dict[str, str | click.Command] = dict(targets)

    def __getitem__(self, name: str) -> click.Command:
        found = self._targets[name]
        if isinstance(found, str):
            module, _, attribute = found.partition(":")
            found = getattr(import_module(f"{_ROOM}.{module}"), attribute)
            self._targets[name] = found
        return found

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._targets[name] = command

    def __delitem__(self, name: str) -> None:
        del self._targets[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._targets)

    def __len__(self) -> int:
        return len(self._targets)
