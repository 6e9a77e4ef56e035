"""A results folder: ``<model>/model_outputs.json`` and ``<model>/<annotator>/annotations.json``, ours or anybody's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

from alignboard.errors import InputError, nearest
from alignboard.records import Annotations, Generation, Outputs
from alignboard.results.cache import Kind, TableCache
from alignboard.results.files import SUFFIXES
from alignboard.results.verdict_paths import VerdictFile, verdict_files
from alignboard.workspace import model_name

Result = TypeVar("Result")


@dataclass(frozen=True)
class AnnotationFile:
    """Where the annotations of one model by one annotator are."""

    model: str
    annotator: str
    path: Path
    doubled: bool
    """at ``<annotator>/<annotator>/annotations.json``, as two models of the full AlpacaEval release have it"""


def existing_folder(root: Path) -> Path:
    """``root``; raises `InputError` where there is no such folder."""
    if not root.is_dir():
        raise InputError(
            f"There is no folder {root}; --from takes a folder of results, one folder per model."
        )
    return root


class ResultsFolder:
    """Reads a results folder through its cache; as a context manager it saves the cache at the end."""

    def __init__(self, root: str | Path) -> None:
        """Raises `InputError` where ``root`` holds no model."""
        root = existing_folder(Path(root))
        self.root = root
        self._resolved = root.resolve()
        self._outputs: dict[Path, Outputs] = {}
        self._annotation_files: dict[str, list[AnnotationFile]] = {}
        self.models = [folder.name for folder in _folders(root) if not folder.name.startswith(".")]
        if not any(
            self._outputs_path(model) or self.annotation_files(model) or self.verdict_files(model)
            for model in self.models
        ):
            raise InputError(
                f"{root} holds no results: neither <model>/model_outputs.json nor "
                "<model>/<annotator>/annotations.json was found in it."
            )
        self.cache = TableCache(root)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cache.save()

    def annotation_files(self, model: str) -> list[AnnotationFile]:
        """Every annotation file of ``model``, one per annotator."""
        if model in self._annotation_files:
            return self._annotation_files[model]
        found = []
        for folder in _folders(self.root / model):
            plain = _file(folder, "annotations")
            doubled = _file(folder / folder.name, "annotations")
            path = plain or doubled
            if path is not None:
                found.append(AnnotationFile(model, folder.name, path, doubled=plain is None))
        self._annotation_files[model] = found
        return found

    def verdict_files(self, model: str) -> list[VerdictFile]:
        """Every annotation file of ``model``, those on other sets than AlpacaEval's included."""
        return verdict_files(self.root / model)

    def annotated_models(self, annotator: str) -> list[str]:
        """The models that ``annotator`` has judged, by name."""
        return [
            model for model in self.models if self._annotation_file(model, annotator) is not None
        ]

    def require(self, models: Sequence[str], annotator: str) -> None:
        """Raise `InputError` unless ``annotator`` has judged every one of ``models``; nothing is read."""
        for model in models:
            self._judged(model, annotator)

    def annotations(self, model: str, annotator: str) -> Annotations:
        """The verdicts of ``annotator`` on ``model``; raises `InputError` where there are none."""
        return self.table(self._judged(model, annotator))

    def tables(self, models: Sequence[str], annotator: str) -> dict[str, Annotations]:
        """The verdicts of ``annotator`` on each of ``models``; files that the cache does not know on all cores.

        The models' outputs are read along, so that `outputs` has them.
        """
        files = [self._judged(model, annotator) for model in models]
        return dict(zip(models, self.read(files), strict=True))

    def read(self, files: Sequence[AnnotationFile]) -> list[Annotations]:
        """As `tables`, of any files."""
        wanted: list[tuple[Path, Kind]] = [
            (self._absolute(file.path), Annotations) for file in files
        ]
        models = dict.fromkeys(file.model for file in files)
        found = map(self.outputs_path, models)
        answers = [path for path in found if path is not None and path not in self._outputs]
        read = self.cache.read_all(
            [*wanted, *((self._absolute(path), Outputs) for path in answers)]
        )
        judged = [table for table in read if isinstance(table, Annotations)]
        answered = [table for table in read if isinstance(table, Outputs)]
        self._outputs.update(zip(answers, answered, strict=True))
        return judged

    def look(self, look: Callable[[list[Generation]], Result]) -> Iterator[Result | None]:
        """What ``look`` finds in the answers of each of `models`, None where there are none; `outputs` has them then.

        As `tables`, on all cores.
        """
        paths = [self.outputs_path(model) for model in self.models]
        there = [path for path in paths if path is not None]
        read = self.cache.look([self._absolute(path) for path in there], look)
        for path in paths:
            if path is None:
                yield None
            else:
                self._outputs[path], found = next(read)
                yield found

    def table(self, file: AnnotationFile) -> Annotations:
        """The verdicts in ``file``."""
        return self.cache.read(self._absolute(file.path), Annotations)

    def outputs(self, model: str) -> Outputs | None:
        """The answers of ``model``, or None where they are not in the folder."""
        path = self.outputs_path(model)
        if path is None:
            return None
        if path not in self._outputs:
            self._outputs[path] = self.cache.read(self._absolute(path), Outputs)
        return self._outputs[path]

    def outputs_path(self, model: str) -> Path | None:
        """Where the answers of ``model`` are, or None."""
        return self._outputs_path(model) if model_name(model) in self.models else None

    def _outputs_path(self, model: str) -> Path | None:
        return _file(self.root / model, "model_outputs")

    def _annotation_file(self, model: str, annotator: str) -> AnnotationFile | None:
        return next(
            (file for file in self.annotation_files(model) if file.annotator == annotator), None
        )

    def _judged(self, model: str, annotator: str) -> AnnotationFile:
        found = self._annotation_file(self._known(model), annotator)
        if found is None:
            raise InputError(f"{self.root / model} holds no {annotator}/annotations.json.")
        return found

    def _known(self, model: str) -> str:
        if model_name(model) not in self.models:
            raise InputError(
                f"{self.root} has no model {model!r}{nearest(model, self.models) or '.'}"
            )
        return model

    def _absolute(self, path: Path) -> Path:
        return self._resolved / path.relative_to(self.root)


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError as error:
        raise InputError(f"{folder} cannot be listed: {error.strerror}.") from error


def _file(folder: Path, stem: str) -> Path | None:
    for suffix in SUFFIXES:
        path = folder / f"{stem}{suffix}"
        if path.is_file():
            return path
    return None
