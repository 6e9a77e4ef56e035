"""AlpacaEval's evaluator configurations, read as they are: from the installed package, or from a folder like it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Final

from alignboard.errors import InputError, nearest
from alignboard.fetch.package_file import package_file
from alignboard.judges.alpaca_eval.entries import ROOM, AnnotatorEntry, mapping
from alignboard.judges.pairs import Judged
from alignboard.judges.spec import JudgeSpec, Part, PromptedSpec
from alignboard.suites import read_yaml

_FILES: Final = ("configs.yaml", "config.yaml")


class Pool(JudgeSpec, frozen=True, tag="pool"):
    """One evaluator: a judge, or several of which one is drawn for every instruction."""

    order_fixed: ClassVar[str | None] = "a pool"

    members: tuple[PromptedSpec, ...]

    @property
    def order_name(self) -> str:
        """See `JudgeSpec`."""
        return "coin"

    @property
    def unsupported(self) -> str | None:
        """Why not all of it can be asked here."""
        return next((one.unsupported for one in self.members if one.unsupported), None)

    @property
    def retired(self) -> str | None:
        """Why not all of it is answered by its own endpoint."""
        return next((one.retired for one in self.members if one.retired), None)

    def choose(self, instruction: str) -> PromptedSpec:
        """The judge of an instruction, drawn as upstream does (``annotators/base.py``, seed 0)."""
        seed = f"annotator{instruction}0".encode("utf-8", "surrogatepass")
        return random.Random(seed).choices(self.members, k=1)[0]

    def parts(
        self,
        instructions: Sequence[str],
        load: Callable[[str], JudgeSpec],  # noqa: ARG002 - its members are declared in it
    ) -> list[Part]:
        """Every member with the instructions for which it is drawn."""
        drawn = [self.choose(instruction).name for instruction in instructions]
        return [
            (one, [index for index, name in enumerate(drawn) if name == one.name])
            for one in self.members
        ]

    def combine(self, parts: Sequence[Part], judged: Sequence[Sequence[Judged]]) -> list[Judged]:
        """Every pair's verdict is its member's."""
        found: dict[int, Judged] = {}
        for (_, indices), rows in zip(parts, judged, strict=True):
            found |= zip(indices, rows, strict=True)
        return [found[index] for index in sorted(found)]


def evaluator_names(folder: Path | None = None) -> list[str]:
    """The evaluators of the installed ``alpaca-eval``, or of a folder like its ``evaluators_configs``."""
    root = _root(folder)
    return sorted(path.name for path in root.iterdir() if _file(path) is not None)


def read_evaluator(name: str, folder: Path | None = None) -> Pool:
    """An evaluator of the installed ``alpaca-eval`` or of ``folder``; raises `InputError` with the nearest names."""
    root = _root(folder)
    path = _file(root / name) if name in evaluator_names(folder) else None
    if path is None:
        known = evaluator_names(folder)
        raise InputError(
            f"{root} has no evaluator {name!r}{nearest(name, known)} (known: {', '.join(known)})."
        )
    content = read_yaml(path)
    members = tuple(
        AnnotatorEntry(
            path, root, member, mapping(path, member, entry), packaged=folder is None
        ).spec()
        for member, entry in content.items()
    )
    if not members:
        raise InputError(f"{path}: the file declares no evaluator.")
    models = dict.fromkeys(one.model for one in members)
    return Pool(name, f"AlpacaEval's, {', '.join(models)}", members)


def _root(folder: Path | None) -> Path:
    if folder is None:
        return package_file(f"{ROOM}/README.md").parent
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder} of evaluator configurations.")
    return folder


def _file(folder: Path) -> Path | None:
    return next((folder / name for name in _FILES if (folder / name).is_file()), None)
