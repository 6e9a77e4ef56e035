"""Where verdicts lie, for all that write them and all that read them.

``results/<model>/[<set>/]<judge>/`` against the judge's usual baseline, as AlpacaEval has it, and
``results/<model>/[<set>/]<judge>-vs-<baseline>/`` against any other. The usual baseline is that of the published board
the judge stands on, else AlpacaEval 2's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from alignboard.errors import InputError, nearest
from alignboard.results.files import SUFFIXES
from alignboard.suites import load_suite
from alignboard.workspace import PUBLISHED, library, model_name

AGAINST: Final = "-vs-"
_OUTPUTS: Final = ("model_outputs", "model_answer")


@dataclass(frozen=True)
class VerdictFile:
    """One ``annotations`` file of a results folder."""

    model: str
    set: str | None
    """None = AlpacaEval's own, which has no folder of its own"""
    judge: str
    baseline: str | None
    """None = the judge's usual one"""
    path: Path


@cache
def usual_baseline(judge: str) -> str:
    """The baseline that the folder of ``judge`` does not name."""
    suites = [load_suite(name, library()) for name in PUBLISHED]
    for suite in suites:
        if any(board.annotator == judge for board in suite.boards):
            return suite.baseline
    return suites[0].baseline


def judge_folder(judge: str, baseline: str | None) -> str:
    """The name of the folder for verdicts of ``judge`` against ``baseline``; None for ratings, which have none.

    >>> judge_folder("pairrm", "gpt4_1106_preview"), judge_folder("pairrm", "zephyr-7b-beta")
    ('pairrm', 'pairrm-vs-zephyr-7b-beta')
    """
    if AGAINST in judge:
        raise InputError(
            f"The judge name {judge!r} holds {AGAINST!r}, which separates a judge from its baseline in results/; "
            "give the judge another name."
        )
    if baseline is None or baseline == usual_baseline(judge):
        return model_name(judge)
    return model_name(f"{judge}{AGAINST}{baseline}")


def judge_and_baseline(folder: str) -> tuple[str, str | None]:
    """The reverse of `judge_folder`; the baseline is None where the folder does not name it.

    >>> judge_and_baseline("pairrm-vs-zephyr-7b-beta")
    ('pairrm', 'zephyr-7b-beta')
    """
    judge, _, baseline = folder.partition(AGAINST)
    return judge, baseline or None


def beside(outputs: Path, model: str, out: Path | None = None) -> Path:
    """The folder that holds the judges' folders of a file of outputs: its own, or ``out``/<model>.

    A file that is not called ``model_outputs`` or ``model_answer`` may have neighbours, so its verdicts go to a folder
    of its own name.
    """
    if out is not None:
        return out / model_name(model)
    return outputs.parent if outputs.stem in _OUTPUTS else outputs.with_suffix("")


def part_of(place: Path, model: str, limit: int | None, n: int) -> Path:
    """The folder for the first ``limit`` of ``n`` rows: of a set's folder a neighbour, of a model's one below it."""
    if limit is None or limit >= n:
        return place
    if place.parent.name == model:
        return place.with_name(f"{place.name}-first-{limit}")
    return place / f"first-{limit}"


def annotation_file(folder: Path) -> Path | None:
    """The ``annotations`` file in ``folder``, in any format that is read."""
    paths = (folder / f"annotations{suffix}" for suffix in SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


def verdict_files(model: Path) -> list[VerdictFile]:
    """Every annotations file below the folder of one model, AlpacaEval's own place and those of other sets."""
    found = []
    for folder in _folders(model):
        doubled = annotation_file(folder / folder.name)
        path = annotation_file(folder) or doubled
        if path is not None:
            found.append(VerdictFile(model.name, None, *judge_and_baseline(folder.name), path))
        for inner in _folders(folder):
            path = annotation_file(inner)
            if path is not None and inner.name != folder.name:
                names = judge_and_baseline(inner.name)
                found.append(VerdictFile(model.name, folder.name, *names, path))
    return found


def one_column(
    results: Path,
    models: Sequence[str],
    judge: str,
    set_name: str | None = None,
    baseline: str | None = None,
) -> dict[str, Path]:
    """The verdicts of ``judge`` on every model, on one set against one baseline; model -> file.

    ``judge`` may be the name of the folder, ``JUDGE-vs-BASELINE``. Raises `InputError` where a model has none, and
    where the models share several sets or baselines, so that it is open which are meant.
    """
    named, _, of_folder = judge.partition(AGAINST)
    against = baseline or of_folder or None
    by_model: dict[str, dict[tuple[str | None, str], Path]] = {}
    for model in models:
        if not (results / model_name(model)).is_dir():
            known = sorted(path.name for path in results.glob("*/") if path.is_dir())
            raise InputError(f"{results} has no model {model!r}{nearest(model, known) or '.'}")
        by_model[model] = {
            (one.set, one.baseline or usual_baseline(one.judge)): one.path
            for one in verdict_files(results / model_name(model))
            if one.judge == named
            and set_name in (None, one.set)
            and against in (None, one.baseline or usual_baseline(one.judge))
        }
        if not by_model[model]:
            there = sorted({one.judge for one in verdict_files(results / model)})
            hint = nearest(named, there) or f"; there: {', '.join(there) or 'none'}."
            raise InputError(f"{results / model} holds no such verdicts by {named!r}{hint}")
    shared = set.intersection(*(set(found) for found in by_model.values()))
    if len(shared) != 1:
        several = sorted(f"{asked or 'alpaca-eval'} against {base}" for asked, base in shared)
        raise InputError(
            f"The models share {'no set and baseline' if not shared else 'several sets or baselines'} by {named!r}"
            + (f" ({'; '.join(several)}): name one by --set and --baseline." if shared else ".")
        )
    (column,) = shared
    return {model: found[column] for model, found in by_model.items()}


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())
