"""Generation of responses to a set: by a model of this process, or at an endpoint; commands and jobs share it.

A model that has responded to everything before is not loaded.
"""

from __future__ import annotations

from pathlib import Path

from alignboard.data.instruction_sets import InstructionSet
from alignboard.engines.rows import Decoding
from alignboard.models.spec import ModelSpec
from alignboard.pipeline.answerers import LocalModels, Served, ServedModel
from alignboard.pipeline.answering import Answered, OnProgress, answer_again, answer_set
from alignboard.pipeline.recall import FINISHED, Finished, recall, remember, run_key
from alignboard.results.journal import Journal


def is_finished(
    spec: ModelSpec, asked: InstructionSet, decoding: Decoding, journal: Journal
) -> bool:
    """Whether every response is there already; reads the checkpoint's files where anything was ever finished here."""
    if spec.unsupported is not None or next(journal.rows(FINISHED), None) is None:
        return False
    return recall(journal, run_key(spec, asked, decoding)) is not None


def generate_here(  # noqa: PLR0913 - what is asked of whom, and where it is kept
    models: LocalModels,
    spec: ModelSpec,
    asked: InstructionSet,
    decoding: Decoding,
    journal: Journal,
    root: Path,
    on_progress: OnProgress | None = None,
    *,
    replace: bool = False,
) -> Answered:
    """The responses of a model that is loaded here; its file is written below ``root``.

    ``replace`` allows a file with fewer rows to take the place of one with more.
    """
    # Reading a checkpoint's files for its fingerprint takes seconds, too.
    key = run_key(spec, asked, decoding) if spec.unsupported is None else b""
    known = recall(journal, key)
    if known is not None:
        return answer_again(spec, asked, *known, root, replace=replace)
    with models.open(spec) as model:
        found = answer_set(
            model, spec, asked, decoding, journal, root, on_progress, replace=replace
        )
    remember(journal, key, Finished([list(row) for row in found.keys], list(found.too_long)))
    return found


def generate_served(  # noqa: PLR0913 - as `generate_here`
    served: Served,
    spec: ModelSpec,
    asked: InstructionSet,
    decoding: Decoding,
    journal: Journal,
    root: Path,
    on_progress: OnProgress | None = None,
    *,
    replace: bool = False,
) -> Answered:
    """The responses of a model behind an endpoint; its file is written below ``root``.

    ``replace`` allows a file with fewer rows to take the place of one with more.
    """
    model = ServedModel(spec, served)
    return answer_set(model, spec, asked, decoding, journal, root, on_progress, replace=replace)
