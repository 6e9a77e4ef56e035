"""The comparison of models from a results folder, from files of verdicts or ratings, or from lm-eval's samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from alignboard.errors import InputError
from alignboard.published.calibration import read_calibration
from alignboard.published.reproduce import reference_set
from alignboard.published.scores import CalibratedScores
from alignboard.reports.comparison import Correction, FamilyOfTests, PairedComparison, corrected
from alignboard.reports.comparison_sources import (
    rating_family,
    sample_families,
    verdict_families,
)
from alignboard.reports.samples import (
    PREFIX,
    RESULTS,
    TaskSamples,
    latest_samples,
    read_samples,
    samples_of,
)
from alignboard.results.folder import ResultsFolder, existing_folder
from alignboard.results.formats import read_annotations
from alignboard.results.ratings import RatedOutputs, is_ratings, rating_files, read_ratings
from alignboard.results.runs import repeated_verdicts, run_names
from alignboard.results.verdict_paths import one_column, verdict_files
from alignboard.suites import Suite, load_evaluation, load_suite
from alignboard.workspace import model_name

_LENGTH_CONTROLLED = "alpaca-eval-2"
_LM_EVAL = "lm_eval"


class PlanOfModels(Protocol):
    """A plan that was run in its workspace, such as `alignboard.load_plan` returns."""

    @property
    def workspace(self) -> Path:
        """The folder whose ``results`` its models have."""
        ...

    def compared(
        self, models: Sequence[str], judge: str | None, *, by_suite: bool
    ) -> tuple[tuple[str, ...], str | None]:
        """The models to compare (those named, or all) and the judge, None ``by_suite``."""
        ...


def compare(  # noqa: PLR0913 - what is compared, and how, in the words of the command's options
    *models: str | Path,
    results: str | Path | None = None,
    plan: PlanOfModels | None = None,
    judge: str | None = None,
    suite: str | None = None,
    set_name: str | None = None,
    baseline: str | None = None,
    assets: str | Path | None = None,
    cluster: str | None = None,
    correction: Correction = "holm",
    margin: float | None = None,
    all_pairs: bool = False,
    any_prompt: bool = False,
) -> PairedComparison:
    """Compare the first model with the others, or all pairs, on the prompts that two models have in common.

    Parameters
    ----------
    models
        Names of models in ``results``, of which repeated runs are averaged; without it annotations or ratings files of
        one judge, samples or results files of lm-eval, or its output folders.
    results
        A results folder, with a ``judge`` or a ``suite``.
    plan
        A plan that was run, as `alignboard.load_plan` returns it, in place of ``results``: models are its own (all of
        them where none is named), and so is the judge, where it has one.
    judge
        The judge whose verdicts, and ratings of single outputs, are compared.
    suite
        An evaluation suite, whose benchmarks are compared, or a published one, which stands for its judge.
    set_name, baseline
        The instruction set and the baseline, where there are several.
    assets
        The folder of AlpacaEval's calibration files: adds length-controlled win rates.
    cluster
        A column of the annotations, or a field of the task's documents: rows with the same value are dependent.
    correction
        How p-values are corrected over the pairs of one quantity: ``holm``, ``maxt``, ``bh`` or ``none``.
    margin
        The difference, a fraction, below which two models count as equivalent; None: equivalence is not tested.
    all_pairs
        Whether the other models are compared with each other, too; adds rank sets.
    any_prompt
        Whether lm-eval may have asked the models in different prompts, such as each in its own chat template.

    Returns
    -------
    PairedComparison
        A row for each pair and quantity; ``to_json`` gives plain data.

    Raises
    ------
    InputError
        For models that are not there, or whose scores cannot be compared.
    """
    names = [str(model) for model in models]
    results, assets = (None if one is None else Path(one) for one in (results, assets))
    if plan is not None:
        if results is not None:
            raise InputError("--plan has results of its own; leave out --from.")
        found, judge = plan.compared(names, judge, by_suite=suite is not None)
        names, results = list(found), plan.workspace / "results"
    _check(names, margin)
    if (results is None) != (judge is None and suite is None) or (judge and suite):
        raise InputError(
            "--from DIR goes with --judge NAME or --suite NAME; without them, MODELS are files."
        )
    if results is not None and plan is None:
        existing_folder(results)
    declared = None if suite is None else load_evaluation(suite)
    if isinstance(declared, Suite):
        judge = declared.annotator
    if results is None:
        families = _of_files(names, assets, cluster, all_pairs=all_pairs, any_prompt=any_prompt)
    elif judge is None:
        tasks = [] if declared is None else [one.task for one in declared.benchmarks]
        if not tasks:
            raise InputError(f"The suite {suite!r} has no benchmarks; name the judge with --judge.")
        samples = _samples_of(names, results, tasks, cluster)
        families = sample_families(samples, all_pairs=all_pairs, any_prompt=any_prompt)
    elif assets is None:
        column = (judge, set_name, baseline)
        families = _by_judge(names, results, column, cluster, all_pairs=all_pairs)
    else:
        families = _length_controlled(names, results, judge, assets, cluster, all_pairs=all_pairs)
    return corrected(families, correction, margin)


def _check(names: Sequence[str], margin: float | None) -> None:
    if not names:
        raise InputError("Name MODELS, or a plan that was run here with --plan PLAN.")
    if len(set(names)) < len(names):
        raise InputError("A model is named twice; name each of MODELS once.")
    if margin is not None and not 0 < margin < 1:
        raise InputError(
            f"The margin {margin:g} is no difference of rates; give a fraction between 0 and 1."
        )


def _samples_of(
    names: Sequence[str], results: Path, tasks: Sequence[str], cluster: str | None
) -> dict[str, list[TaskSamples]]:
    return {
        name: [
            one
            for path in latest_samples(results / model_name(name) / _LM_EVAL, tasks)
            for one in read_samples(path, cluster)
        ]
        for name in names
    }


def _by_judge(
    names: Sequence[str],
    results: Path,
    column: tuple[str, str | None, str | None],
    cluster: str | None,
    *,
    all_pairs: bool,
) -> list[FamilyOfTests]:
    """Verdicts of ``column`` (judge, set and baseline), ratings by its judge, or both."""
    judge, set_name, _ = column
    rated = {
        name: read_ratings(path)
        for name, path in rating_files(results, names, judge, set_name).items()
    }
    judged = not rated or all(
        any(one.judge == judge for one in verdict_files(results / model_name(name)))
        for name in names
    )
    verdicts = _averaged(names, results, column, cluster, all_pairs=all_pairs) if judged else []
    return [*verdicts, *_ratings(rated, cluster, all_pairs=all_pairs)]


def _ratings(
    rated: Mapping[str, RatedOutputs], cluster: str | None, *, all_pairs: bool
) -> list[FamilyOfTests]:
    """One judge's ratings by model, on the scale that the judge declares; none where there are none."""
    if not rated:
        return []
    first, *others = rated.values()
    for other in others:
        if other.judge != first.judge:
            raise InputError(
                f"{first.path} and {other.path} have two judges, {first.judge!r} and {other.judge!r}: their ratings "
                "cannot be compared."
            )
    from alignboard.judges.load import load_judge  # verdicts need no judge

    try:
        scale = load_judge(first.judge).scale
    except InputError as error:
        raise InputError(
            f"{first.path}: the judge declares the scale of its ratings. {error}"
        ) from error
    if scale is None:
        raise InputError(
            f"{first.path}: ratings by {first.judge!r} have no lowest and highest value, which their intervals need; "
            f"compare its verdicts instead (alignboard judge OUTPUTS --judge {first.judge})."
        )
    return [rating_family(rated, scale, cluster=cluster, all_pairs=all_pairs)]


def _averaged(
    names: Sequence[str],
    results: Path,
    column: tuple[str, str | None, str | None],
    cluster: str | None,
    *,
    all_pairs: bool,
) -> list[FamilyOfTests]:
    """Verdicts of ``column`` (judge, set and baseline), averaged over repeated runs."""
    runs = {name: run_names(results, name) for name in names}
    paths = one_column(results, [run for own in runs.values() for run in own], *column)
    drawn = {
        name: repeated_verdicts({run: read_annotations(paths[run]) for run in own})
        for name, own in runs.items()
    }
    return verdict_families(
        {name: one.table for name, one in drawn.items()},
        sampling={name: one.variance for name, one in drawn.items() if one.n_runs > 1},
        cluster=cluster,
        all_pairs=all_pairs,
    )


def _length_controlled(
    names: Sequence[str],
    results: Path,
    judge: str,
    assets: Path,
    cluster: str | None,
    *,
    all_pairs: bool,
) -> list[FamilyOfTests]:
    for name in names:
        if (runs := run_names(results, name)) != [name]:
            raise InputError(
                f"{results} has several runs of {name!r}, and --assets compares single ones: name one of "
                f"{', '.join(runs)}, or leave out --assets for the mean of all."
            )
    with ResultsFolder(results) as folder:
        tables = folder.tables(list(names), judge)
        reference = reference_set(folder, load_suite(_LENGTH_CONTROLLED), tables)
        scores = CalibratedScores(folder, reference, read_calibration(assets))
        controlled = scores.aligned(tables)
    return verdict_families(tables, controlled=controlled, cluster=cluster, all_pairs=all_pairs)


def _of_files(
    names: Sequence[str],
    assets: Path | None,
    cluster: str | None,
    *,
    all_pairs: bool,
    any_prompt: bool,
) -> list[FamilyOfTests]:
    """MODELS that are files: lm-eval's where the first is one, or is a folder; else ratings or annotations."""
    if assets is not None:
        raise InputError("--assets needs --from DIR, where the order of the instructions is known.")
    paths = [Path(name) for name in names]
    if paths[0].is_dir() or paths[0].name.startswith((PREFIX, RESULTS)):
        samples = [
            [one for file in samples_of(path) for one in read_samples(file, cluster)]
            for path in paths
        ]
        called = _unless_alike([_model_of(path) for path in paths], names)
        by_model = dict(zip(called, samples, strict=True))
        return sample_families(by_model, all_pairs=all_pairs, any_prompt=any_prompt)
    if is_ratings(paths[0]):
        ratings = [read_ratings(path) for path in paths]
        called = _unless_alike([one.generator for one in ratings], names)
        by_rated = dict(zip(called, ratings, strict=True))
        return _ratings(by_rated, cluster, all_pairs=all_pairs)
    tables = [read_annotations(path) for path in paths]
    called = _unless_alike([table.generator for table in tables], names)
    by_name = dict(zip(called, tables, strict=True))
    return verdict_families(by_name, cluster=cluster, all_pairs=all_pairs)


def _model_of(path: Path) -> str:
    """The model that an output folder of lm-eval, or a file in it, is named after."""
    folder = path.resolve() if path.is_dir() else path.resolve().parent
    return folder.parent.name if folder.name == _LM_EVAL else folder.name


def _unless_alike(called: Sequence[str], names: Sequence[str]) -> Sequence[str]:
    """Short names where they are all different."""
    return called if len(set(called)) == len(called) else names
