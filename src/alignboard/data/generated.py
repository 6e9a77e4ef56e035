"""Generated instruction sets: instructions that a program writes, and whose right responses it knows.

A package adds one by ``register("generated set", "mine", "my_package:MINE")``; a declaration in ``evaluate/sets/`` then
draws from it (``generated: {by: mine}``), and a recipe trains on its demonstrations (``data: {name: mine}``).
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from alignboard.registry import lookup, names

_KIND: Final = "generated set"


class GeneratedSet(Protocol):
    """What a program that generates instructions offers."""

    splits: tuple[str, ...]
    """the names of the parts that share no content"""

    def prompts(self, split: str, n: int, seed: int) -> list[str]:
        """``n`` different instructions of a split; the same arguments give the same instructions."""
        ...

    def check(self, instruction: str, output: str) -> bool:
        """Whether ``output`` is a right response."""
        ...

    def score(self, instruction: str, output: str) -> float:
        """How good ``output`` is by the set's own rule, which makes preference pairs and judges; higher is better."""
        ...

    def demonstrations(self, n: int, seed: int) -> list[dict[str, Any]]:
        """``n`` rows to train on, as conversations (``prompt`` and ``completion``)."""
        ...


def generated_names() -> tuple[str, ...]:
    """The names of the generated sets."""
    return names(_KIND)


def generated_set(name: str) -> GeneratedSet:
    """The generated set called ``name``; raises `RegistryError` with the nearest known ones."""
    return lookup(_KIND, name)
