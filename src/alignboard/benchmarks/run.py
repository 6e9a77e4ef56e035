"""lm-eval's benchmarks on a model that is already loaded, with the adapter in use, or on a served one.

What this module promises
    The numbers are lm-eval's own: its tasks, its prompts, its metrics, its files. The model is handed over as it is in
    memory, so no base is loaded a second time, and what `lm_eval run` gives by hand on the same checkpoint, adapter and
    tasks is what stands on the board (a test compares them). Results are written in lm-eval's format, read back, and
    put in place only when they are complete, with digests of weights, adapter and task data beside them: lm-eval's own
    provenance has none for local models, and its tracker answers a failed save with a warning.
Differs from `lm_eval run`
    Each task has its own number of examples (`alignboard.benchmarks.tasks`). `fewshot_as_multiturn` is always
    passed, since its default differs between lm-eval's own functions. A batch that does not fit into memory is halved.
    Contexts are read once (`alignboard.benchmarks.lm`), and every result of a request is a row of the journal: a run
    that was killed, or is repeated with more documents, computes what is missing. What lm-eval finds out about the
    machine it finds out once per process. Embeddings are never resized: lm-eval does so where `peft=` is given and the
    tokenizer is smaller than the vocabulary (Phi-2's is), which makes a base and its adapter not like for like.

Importing this module loads neither torch nor lm-eval.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Protocol

from alignboard.benchmarks.harness import calm, sandboxed
from alignboard.benchmarks.request_rows import OnProgress, RequestRows, Sharing
from alignboard.benchmarks.scores import TaskScore, read_scores
from alignboard.benchmarks.tasks import chance, chosen_documents, load_tasks, reported_metrics
from alignboard.engines.generate import library_versions
from alignboard.results.journal import Journal
from alignboard.suites import Benchmark

_STAMP: Final = "alignboard"
"""the key under which our provenance stands in ``results_*.json``"""


class Subject(Protocol):
    """A model whose benchmarks are run."""

    @property
    def template_hash(self) -> str | None:
        """sha256 of the chat template in use; None where the server renders."""
        ...

    def lm(self, rows: RequestRows) -> Any:
        """lm-eval's model, whose results are ``rows``."""
        ...

    def identity(self) -> dict[str, Any]:
        """What determines the results of requests, but requests and template."""
        ...

    def arguments(self) -> dict[str, str]:
        """What `lm_eval run --model_args` would have been: recorded with the results."""
        ...

    def provenance(self) -> dict[str, Any]:
        """What lm-eval does not record of the model."""
        ...


def run_tasks(  # noqa: PLR0913 - one argument for each thing that differs between two runs
    model: Subject,
    benchmarks: Sequence[Benchmark],
    folders: Sequence[Path],
    out: Path,
    *,
    apply_chat_template: bool = True,
    task_files: Mapping[str, str] = MappingProxyType({}),
    trusted: bool = False,
    journal: Journal | None = None,
    on_progress: OnProgress = lambda _done, _total: None,
    sharing: Sharing | None = None,
) -> list[TaskScore]:
    """Run the tasks that ``benchmarks`` name on ``model``; ``out`` is ``results/<model>/lm_eval``.

    Tasks are declared in ``folders``, of which the last wins, or by lm-eval. Afterwards ``out`` holds one
    ``results_*.json``, with the members and the numbers of groups, and one ``samples_*.jsonl`` per task; what an
    earlier run of ours left there is removed. ``task_files`` (name -> sha256) are recorded with the results. Templates
    are rendered in a sandbox unless they are ``trusted``. By ``sharing``, other processes compute a part.

    Raises `InputError` for a task that cannot be had or does not report its metric, before the model is asked.
    """
    with calm(), contextlib.nullcontext() if trusted else sandboxed():
        from lm_eval import evaluator
        from lm_eval.loggers import EvaluationTracker

        manager, tasks = load_tasks(benchmarks, folders)
        wanted = {
            (one.task, metric)
            for one, task in zip(benchmarks, tasks, strict=True)
            for metric in ([one.metric] if one.metric else reported_metrics(task))
        }
        identity = request_identity(model, apply_chat_template=apply_chat_template)
        rows = RequestRows(identity, journal, on_progress, sharing)
        lm = model.lm(rows)
        out.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=out))
        try:
            # A file name makes the tracker write beside it instead of into a folder named after the model's path.
            tracker = EvaluationTracker(output_path=str(partial / "results.json"))
            found: Any = evaluator.simple_evaluate(
                model=lm,
                model_args={**model.arguments()},
                tasks=list({id(one): one for one in tasks}.values()),  # pyright: ignore[reportArgumentType] - groups too, which `TaskManager.load` passes on
                task_manager=manager,
                evaluation_tracker=tracker,
                apply_chat_template=apply_chat_template,
                fewshot_as_multiturn=apply_chat_template,
                log_samples=True,
                **chosen_documents(benchmarks, tasks),
            )
            results: dict[str, Any] = dict(found)
            results["config"]["batch_size"] = lm.batch_size
            samples = results.pop("samples")
            results[_STAMP] = {
                **model.provenance(),
                "chat_template_sha256": model.template_hash if apply_chat_template else None,
                "task_files_sha256": dict(task_files),
                "chance": chance(tasks, samples),
                **lm.stamp(),
                "cut_on_the_left": {
                    task: {"requests": rows.n_cut[task], "tokens": tokens}
                    for task, tokens in sorted(rows.cut.items())
                },
            }
            tracker.save_results_aggregated(results=results, samples=samples)
            for task in samples:
                tracker.save_results_samples(task_name=task, samples=samples[task])
            return _put_in_place(partial, out, wanted, list(samples))
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def request_identity(model: Subject, *, apply_chat_template: bool) -> dict[str, Any]:
    """What determines the results of requests, but the requests."""
    return {
        **model.identity(),
        "template": model.template_hash if apply_chat_template else None,
        "lm_eval": library_versions("lm_eval"),
    }


def generated_files(folder: Path) -> dict[str, str]:
    """sha256 of the generated tasks in ``folder``; the place of the data, which the declarations name, is left out."""
    return {
        path.name: hashlib.sha256(
            path.read_bytes().replace(str(folder.resolve()).encode(), b"")
        ).hexdigest()
        for path in sorted(folder.iterdir())
    }


def _put_in_place(
    partial: Path, out: Path, wanted: set[tuple[str, str]], tasks: Sequence[str]
) -> list[TaskScore]:
    """Check what the tracker wrote, then move it, the results last; raises where anything is missing."""
    results = list(partial.glob("results_*.json"))
    stamp = results[0].stem.removeprefix("results_") if results else ""
    files = [*(partial / f"samples_{task}_{stamp}.jsonl" for task in tasks), *results]
    if len(results) != 1 or not all(path.is_file() for path in files):
        raise RuntimeError(
            f"lm-eval did not save its results: {sorted(p.name for p in partial.iterdir())}"
        )
    scores = read_scores(results[0])
    absent = wanted - {(score.task, f"{score.metric},{score.filter}") for score in scores}
    if absent:
        raise RuntimeError(f"lm-eval gave no number for {sorted(absent)}")
    for path in out.glob("results_*.json"):
        if _STAMP in json.loads(path.read_bytes()):
            stale = path.stem.removeprefix("results_")
            for old in (*out.glob(f"samples_*_{stale}.jsonl"), path):
                old.unlink()
    for path in files:
        path.replace(out / path.name)
    return scores
